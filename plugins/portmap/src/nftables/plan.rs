//! What a container's mappings come to in the table: a plain value, the same on every machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use attach::name_that_fits;
use cni::{Cidr, ContainerId, NetworkName};
use kernel::Family;
use kernel::nft::{Data, Element, Expr, TableFamily, Verdict, octets};

use super::conditions::Condition;
use super::guard::pod_element;
use super::table::{
    CONDITIONAL_PORTS, HOST_IP_PORTS, HOST_PORTS, INTERFACE_NAME, LOOPBACK_PODS, TABLE,
    destination, destination_port, mark, masquerade_set, protocol, show_address, words,
};
use crate::config::Settings;
use crate::mapping::{Mapping, protocol_name};
use crate::plan::comment;

/// What is to be in the tables of both families, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The comment on all of it.
    pub(super) owner: String,
    /// What the container's rules of the backend `iptables` are known by.
    pub(super) iptables_comment: String,
    /// What its rules of the reference plugins' backend of this name are known by.
    pub(super) container_id: ContainerId,
    pub(super) families: Vec<FamilyPlan>,
}

/// What is to be in the table of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FamilyPlan {
    pub(super) family: Family,
    /// The link that packets from 127.0.0.1 leave by to the pod.
    pub(super) link: Option<String>,
    /// The lengths of the networks that are masqueraded.
    pub(super) prefixes: Vec<u8>,
    /// Ports of the node, each at all addresses or at one.
    pub(super) claims: Vec<Claim>,
    /// Elements of sets and maps, with the sets' names.
    pub(super) elements: Vec<(String, Element)>,
    /// Rules of mappings with conditions.
    pub(super) rules: Vec<ConditionalRule>,
}

/// A port of the node that a mapping takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) protocol: u8,
    pub(crate) port: u16,
    /// None for all addresses.
    pub(crate) host_ip: Option<IpAddr>,
}

/// The rule of a mapping with conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConditionalRule {
    /// The chain of its port.
    pub(super) chain: String,
    /// The element that leads there, which mappings of others may share.
    pub(super) entry: Element,
    pub(super) expressions: Vec<Expr>,
    /// As `nft` would show it.
    pub(super) text: String,
}

/// Longer names are not spelled out in comments: more than 128 bytes is what `nft -f` would not take back.
const NETWORK_MAX: usize = 39;
const CONTAINER_ID_MAX: usize = 73;

impl Plan {
    /// The plan for a pod with these addresses, at most one of each family.
    pub(crate) fn new(
        network: &NetworkName,
        container_id: &ContainerId,
        settings: &Settings,
        pod: &[Cidr],
        link: Option<&str>,
    ) -> Self {
        let addresses = if settings.mappings.is_empty() { &[] } else { pod };
        let families = addresses.iter().map(|address| FamilyPlan::new(settings, *address, link));
        let owner = owner(network.as_str(), container_id.as_str());
        let mut plan = Self {
            owner,
            iptables_comment: comment(network.as_str(), container_id.as_str()),
            container_id: container_id.clone(),
            families: families.collect(),
        };
        for (_, element) in plan.families.iter_mut().flat_map(|family| &mut family.elements) {
            element.comment = Some(plan.owner.clone());
        }
        plan
    }

    /// The link that packets from 127.0.0.1 leave by to the pod.
    pub(crate) fn link(&self) -> Option<&str> {
        self.families.iter().find_map(|family| family.link.as_deref())
    }

    /// The families whose mappings take all packets to their ports.
    pub(super) fn unconditional(&self) -> impl Iterator<Item = &FamilyPlan> {
        self.families.iter().filter(|family| family.rules.is_empty())
    }
}

impl FamilyPlan {
    fn new(settings: &Settings, pod: Cidr, link: Option<&str>) -> Self {
        let family = Family::of(pod.ip());
        let link = link.filter(|_| family == Family::V4);
        let mut plan = Self {
            family,
            link: link.map(str::to_owned),
            prefixes: Vec::new(),
            claims: Vec::new(),
            elements: Vec::new(),
            rules: Vec::new(),
        };
        let conditions = settings.nft_conditions(family);
        for mapping in settings.mappings.iter().filter(|mapping| mapping.is_of(family)) {
            let host_ip = mapping.host_ip.filter(|_| !mapping.is_at_all_addresses());
            let Mapping { protocol, host_port: port, .. } = *mapping;
            let claim = Claim { protocol, port, host_ip };
            plan.claims.push(claim);
            if conditions.is_empty() {
                plan.elements.push(port_element(claim, pod.ip(), mapping.container_port));
            }
            for conditions in conditions {
                plan.rules.push(claim.rule(family, conditions, pod.ip(), mapping.container_port));
            }
        }
        if settings.masquerades() {
            for (source, prefix) in hidden_sources(settings, pod) {
                plan.prefixes.push(prefix);
                let key = [octets(source), octets(pod.ip())].concat();
                let element = Element { key, data: None, comment: None, expires: false };
                plan.elements.push((masquerade_set(prefix), element));
            }
            plan.prefixes.sort_unstable();
            plan.prefixes.dedup();
        }
        plan.elements.extend(link.map(|link| pod_element(link, pod.ip())));
        // The last one comes to be the first of its chain.
        plan.rules.sort_by_key(|rule| !rule.has_host_ip(family));
        plan.rules.reverse();
        plan
    }
}

impl Claim {
    fn key(&self) -> Vec<u8> {
        [&[self.protocol, 0, 0, 0], &padded(self.port)[..]].concat()
    }

    fn rule(
        self,
        family: Family,
        conditions: &[Condition],
        pod: IpAddr,
        container_port: u16,
    ) -> ConditionalRule {
        let equal = |value: Vec<u8>| Expr::Cmp { negated: false, value };
        let mut expressions = vec![
            protocol(),
            equal(vec![self.protocol]),
            destination_port(),
            equal(self.port.to_be_bytes().into()),
        ];
        let name = protocol_name(self.protocol);
        let mut text = vec![format!("{name} dport {}", self.port)];
        if let Some(host_ip) = self.host_ip {
            expressions.extend([destination(family), equal(octets(host_ip))]);
            text.push(format!("{} daddr {host_ip}", TableFamily::from(family).name()));
        }
        for condition in conditions {
            expressions.extend(condition.expressions.iter().cloned());
            text.push(condition.text.clone());
        }
        let (mark, mark_text) = mark();
        expressions.extend(mark);
        text.push(mark_text);
        let at_port = words(family).next_multiple_of(4);
        expressions.extend([
            Expr::Immediate(octets(pod)),
            Expr::At(at_port, Box::new(Expr::Immediate(container_port.to_be_bytes().into()))),
            Expr::Dnat { family, port: at_port },
        ]);
        text.push(format!("dnat to {}", SocketAddr::new(pod, container_port)));
        let chain = format!("{name}_{}", self.port);
        let data = Some(Data::Verdict(Verdict::Jump(chain.clone())));
        let entry = Element { key: self.key(), data, comment: None, expires: false };
        ConditionalRule { chain, entry, expressions, text: text.join(" ") }
    }
}

impl ConditionalRule {
    fn has_host_ip(&self, family: Family) -> bool {
        self.expressions.get(4) == Some(&destination(family))
    }
}

/// What a container's elements and rules are known by. Without quotes, which `nft list` would not escape: a
/// saved ruleset could not be loaded any more.
pub(super) fn owner(network: &str, container_id: &str) -> String {
    format!("{}{}", owner_prefix(network), name_that_fits(container_id, CONTAINER_ID_MAX))
}

/// What the owners of a network have in common.
pub(super) fn owner_prefix(network: &str) -> String {
    format!("dnat name: {} id: ", name_that_fits(network, NETWORK_MAX))
}

/// The networks whose packets to the pod need the node's address, because the answers would not find back
/// otherwise: the pod's own, where the others are its neighbours, and 127.0.0.1; or all of them.
fn hidden_sources(settings: &Settings, pod: Cidr) -> Vec<(IpAddr, u8)> {
    if settings.mark_all {
        let unspecified =
            if pod.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        return vec![(unspecified, 0)];
    }
    let own = pod.network();
    let mut all = vec![(own.ip(), own.prefix())];
    if pod.is_ipv4() {
        all.push((Ipv4Addr::LOCALHOST.into(), 32));
    }
    all
}

fn port_element(claim: Claim, pod: IpAddr, container_port: u16) -> (String, Element) {
    let (set, key) = match claim.host_ip {
        None => (HOST_PORTS, claim.key()),
        Some(host_ip) => (HOST_IP_PORTS, [octets(host_ip), claim.key()].concat()),
    };
    let data = Some(Data::Value([octets(pod), padded(container_port).into()].concat()));
    (set.to_owned(), Element { key, data, comment: None, expires: false })
}

fn padded(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// An element as `nft` would have it added.
pub(super) fn show(family: Family, set: &str, element: &Element) -> String {
    let address = usize::from(4 * words(family));
    let port = |bytes: &[u8]| match bytes {
        [high, low, ..] => u16::from_be_bytes([*high, *low]).to_string(),
        _ => String::new(),
    };
    let protocol_and_port = |bytes: &[u8]| match bytes.split_at_checked(4) {
        Some((protocol, rest)) => format!("{} . {}", protocol_name(protocol[0]), port(rest)),
        None => String::new(),
    };
    let parts = element.key.split_at_checked(address).unwrap_or_default();
    let key = match set {
        HOST_PORTS | CONDITIONAL_PORTS => protocol_and_port(&element.key),
        LOOPBACK_PODS => {
            let (link, pod) = element.key.split_at_checked(INTERFACE_NAME).unwrap_or_default();
            let link = String::from_utf8_lossy(link);
            format!("\"{}\" . {}", link.trim_end_matches('\0'), show_address(pod))
        }
        HOST_IP_PORTS => format!("{} . {}", show_address(parts.0), protocol_and_port(parts.1)),
        _ => format!("{} . {}", show_address(parts.0), show_address(parts.1)),
    };
    let data = match &element.data {
        Some(Data::Value(data)) => {
            let (pod, rest) = data.split_at_checked(address).unwrap_or_default();
            format!(" : {} . {}", show_address(pod), port(rest))
        }
        Some(Data::Verdict(Verdict::Jump(chain))) => format!(" : jump {chain}"),
        _ => String::new(),
    };
    format!("add element {} {TABLE} {set} {{ {key}{data} }}", TableFamily::from(family).name())
}
