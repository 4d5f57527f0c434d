//! The elements and rules of a pod's mappings: a plain value, computed without the kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use attach::name_that_fits;
use cni::{Attachment, Cidr, NetworkName};
use kernel::Family;
use kernel::nft::{Data, Element, Expr, RuleSpec, TableFamily, Verdict, interface_name, octets};

use super::conditions::Condition;
use super::guard::pod_element;
use super::table::{
    CONDITIONAL_PORTS, HOST_IP_PORTS, HOST_PORTS, LOOPBACK_PODS, destination_port, mark,
    masquerade_set, protocol, show_address, table, words,
};
use crate::claim::Claim;
use crate::config::Settings;
use crate::mapping::{protocol_name, protocols};
use crate::plan::Plan;

/// What the table of one family should contain for a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FamilyElements {
    pub(super) family: Family,
    /// The comment on its elements and rules, except the shared [`ConditionalRule::entry`].
    pub(super) owner: String,
    /// The link by which packets from 127.0.0.1 get to the pod.
    pub(super) link: Option<String>,
    /// The lengths of the networks that are masqueraded.
    pub(super) prefixes: Vec<u8>,
    /// Elements of sets and maps, with the sets' names.
    pub(super) elements: Vec<(String, Element)>,
    /// Rules of mappings with conditions. Each is added before those that are there.
    pub(super) rules: Vec<ConditionalRule>,
}

/// The rule of a mapping with conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConditionalRule {
    pub(super) chain: String,
    /// The element that leads there, which mappings of other containers may share.
    pub(super) entry: Element,
    pub(super) rule: RuleSpec,
}

/// Longer names are hashed: `nft -f` accepts comments of at most 128 bytes.
const NETWORK_MAX: usize = 39;
const CONTAINER_ID_MAX: usize = 73;

impl FamilyElements {
    /// The elements of a plan for its address of a family; `None` if it has none.
    pub(super) fn new(plan: &Plan<'_>, family: Family) -> Option<Self> {
        let pod = plan.address(family)?;
        let mut all = Self {
            family,
            owner: owner(&plan.owner),
            link: plan.link.clone().filter(|_| family == Family::V4),
            prefixes: Vec::new(),
            elements: Vec::new(),
            rules: Vec::new(),
        };
        all.add_mappings(plan, pod.ip());
        if plan.settings.masquerades() {
            all.add_masquerading(plan.settings, pod);
        }
        let link = all.link.as_deref().map(|link| pod_element(link, pod.ip()));
        all.elements.extend(link);
        for (_, element) in &mut all.elements {
            element.comment = Some(all.owner.clone());
        }
        Some(all)
    }

    fn add_mappings(&mut self, plan: &Plan<'_>, pod: IpAddr) {
        let conditions = plan.settings.nft_conditions(self.family);
        // Each rule is added before the others, and those for one address of the node must come first.
        let mut mappings: Vec<_> = plan.mappings(self.family).collect();
        if !conditions.is_empty() {
            mappings.reverse();
            mappings.sort_by_key(|mapping| !mapping.is_at_all_addresses());
        }
        for mapping in mappings {
            let claim = Claim::from(mapping);
            if conditions.is_empty() {
                self.elements.push(port_element(claim, pod, mapping.container_port));
            }
            for conditions in conditions.iter().rev() {
                let to = SocketAddr::new(pod, mapping.container_port);
                self.rules.push(conditional_rule(claim, self.family, conditions, to));
            }
        }
    }

    fn add_masquerading(&mut self, settings: &Settings, pod: Cidr) {
        for (source, prefix) in hidden_sources(settings, pod) {
            self.prefixes.push(prefix);
            let key = [octets(source), octets(pod.ip())].concat();
            self.elements.push((masquerade_set(prefix), Element::of_key(key)));
        }
        self.prefixes.sort_unstable();
        self.prefixes.dedup();
    }
}

/// The first part of a claim's key: protocol and port, each padded to 4 bytes.
fn key(claim: Claim) -> Vec<u8> {
    [&[claim.protocol, 0, 0, 0], &padded(claim.port)[..]].concat()
}

fn conditional_rule(
    claim: Claim,
    family: Family,
    conditions: &[Condition],
    to: SocketAddr,
) -> ConditionalRule {
    let name = protocol_name(claim.protocol);
    let mut expressions = vec![
        protocol(),
        Expr::equal([claim.protocol]),
        destination_port(),
        Expr::equal(claim.port.to_be_bytes()),
    ];
    let mut text = vec![format!("{name} dport {}", claim.port)];
    if let Some(host_ip) = claim.host_ip {
        expressions.extend([Expr::destination(family), Expr::equal(octets(host_ip))]);
        text.push(format!("{} daddr {host_ip}", TableFamily::from(family).name()));
    }
    for condition in conditions {
        expressions.extend(condition.expressions.iter().cloned());
        text.push(condition.text.clone());
    }
    let mark = mark();
    expressions.extend(mark.expressions);
    let at_port = words(family).next_multiple_of(4);
    expressions.extend([
        Expr::Immediate(octets(to.ip())),
        Expr::At(at_port, Box::new(Expr::Immediate(to.port().to_be_bytes().into()))),
        Expr::Dnat { family, port: at_port },
    ]);
    text.extend([mark.text, format!("dnat to {to}")]);
    let chain = port_chain(name, claim.port);
    let data = Some(Data::Verdict(Verdict::Jump(chain.clone())));
    let entry = Element { data, ..Element::of_key(key(claim)) };
    ConditionalRule { chain, entry, rule: RuleSpec { expressions, text: text.join(" ") } }
}

/// The owner's name, which is the comment on elements and rules. It has no quotes: `nft list` would not
/// escape them, and could not load the ruleset that it had saved.
pub(super) fn owner(attachment: &Attachment) -> String {
    let id = name_that_fits(attachment.container_id.as_str(), CONTAINER_ID_MAX);
    format!("{}{id}", owner_prefix(&attachment.network))
}

/// Whether a comment is the name of an owner.
pub(super) fn is_owner(comment: &str) -> bool {
    comment.strip_prefix("dnat name: ").is_some_and(|rest| rest.contains(" id: "))
}

/// The chain of mappings of a port with conditions.
fn port_chain(protocol: &str, port: u16) -> String {
    format!("{protocol}_{port}")
}

/// Whether a chain has the name of a [`port_chain`].
pub(super) fn is_port_chain(name: &str) -> bool {
    let parts = name.split_once('_');
    parts.is_some_and(|(protocol, port)| {
        protocols().any(|it| protocol_name(it) == protocol) && port.parse::<u16>().is_ok()
    })
}

/// The prefix of the names of all owners in a network.
pub(super) fn owner_prefix(network: &NetworkName) -> String {
    format!("dnat name: {} id: ", name_that_fits(network.as_str(), NETWORK_MAX))
}

/// The networks from which packets to the pod need the node's address, because the answers would not get back
/// otherwise: the pod's own, whose other pods are its neighbours, and 127.0.0.1; or all networks.
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
        None => (HOST_PORTS, key(claim)),
        Some(host_ip) => (HOST_IP_PORTS, [octets(host_ip), key(claim)].concat()),
    };
    let data = Some(Data::Value([octets(pod), padded(container_port).into()].concat()));
    (set.to_owned(), Element { data, ..Element::of_key(key) })
}

fn padded(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// The `nft` command that adds an element.
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
            let (link, pod) =
                element.key.split_at_checked(interface_name("").len()).unwrap_or_default();
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
    format!("add element {} {set} {{ {key}{data} }}", table(family))
}
