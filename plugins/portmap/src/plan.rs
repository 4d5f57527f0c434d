//! The rules that a container's mappings come to: a plain value, the same on every machine.
//!
//! `PREROUTING` and `OUTPUT` send packets for the node itself to `CNI-HOSTPORT-DNAT`; there each container
//! has an entry for each protocol and 15 ports, which leads to its own chain. In that chain every mapping has
//! its DNAT rule, and before it those that mark what needs the node's address: packets from the pod's own
//! network and from 127.0.0.1, whose answers would not find back otherwise.

use std::net::{IpAddr, Ipv4Addr};

use attach::chain_name;
use cni::{Cidr, ContainerId, NetworkName};
use ipnetwork::IpNetwork;
use kernel::Family;
use kernel::iptables::{COMMENT_MAX, Is, Match, NatChain, Ports, Rule, Target, address_type};
use kernel::nft::Place;

use crate::chains::{DNAT_CHAIN, MASQUERADE_CHAIN, SET_MARK_CHAIN};
use crate::config::{Mark, Settings};
use crate::mapping::{Mapping, protocols};

/// `XT_MULTI_PORTS`.
const PORTS_OF_AN_ENTRY: usize = 15;

/// The end of a comment that was too long.
const CUT: &str = "...";

/// The rules of both families, and whose they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    network: NetworkName,
    container_id: ContainerId,
    families: Vec<FamilyPlan>,
}

/// The rules of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FamilyPlan {
    /// The table.
    pub(crate) family: Family,
    /// Rules that all containers share, in the order in which their chains need each other.
    pub(crate) shared: Vec<Shared>,
    /// The chain of another program that marks packets.
    pub(crate) external: Option<External>,
    /// The container's entries in [`DNAT_CHAIN`].
    pub(crate) entries: Vec<Rule>,
    /// The container's chain.
    pub(crate) own_chain: String,
    /// Its rules.
    pub(crate) rules: Vec<Rule>,
}

/// A chain of another program that marks packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct External {
    /// Its name.
    pub(crate) chain: String,
    /// The rules to make if there is no such chain: they mark packets themselves.
    pub(crate) otherwise: Box<FamilyPlan>,
}

/// A rule that all containers share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shared {
    /// The chain it is in.
    pub(crate) chain: &'static str,
    /// How that is one of the table's own chains.
    pub(crate) base: Option<NatChain>,
    /// Where in the chain it goes.
    pub(crate) place: Place,
    /// The rule.
    pub(crate) rule: Rule,
}

impl Plan {
    /// The rules for a pod with these addresses, at most one of each family.
    pub(crate) fn new(
        network: &NetworkName,
        container_id: &ContainerId,
        settings: &Settings,
        pod: &[Cidr],
    ) -> Self {
        let owner = (network.as_str(), container_id.as_str());
        let addresses = if settings.mappings.is_empty() { &[] } else { pod };
        let families = addresses.iter().map(|address| FamilyPlan::new(owner, settings, *address));
        let families = families.collect();
        Self { network: network.clone(), container_id: container_id.clone(), families }
    }

    /// True if there is nothing to map, or nowhere to map it to.
    pub(crate) fn is_empty(&self) -> bool {
        self.families.is_empty()
    }

    pub(crate) fn families(&self) -> &[FamilyPlan] {
        &self.families
    }

    /// The names of network and container.
    pub(crate) fn owner(&self) -> (&str, &str) {
        (self.network.as_str(), self.container_id.as_str())
    }

    /// What the container's entries are known by.
    pub(crate) fn comment(&self) -> String {
        let (network, container_id) = self.owner();
        comment(network, container_id)
    }
}

impl FamilyPlan {
    fn new((network, container_id): (&str, &str), settings: &Settings, pod: Cidr) -> Self {
        let family = Family::of(pod.ip());
        let own_chain = own_chain(network, container_id);
        let (mut shared, mut external) = (Vec::new(), None);
        match &settings.mark {
            Some(Mark::Bit(bits)) => shared.extend(masquerade_by_mark(*bits)),
            Some(Mark::External(chain)) => {
                let own = settings.with_own_mark();
                let otherwise = Box::new(Self::new((network, container_id), &own, pod));
                external = Some(External { chain: chain.clone(), otherwise });
            }
            None => {}
        }
        shared.extend([NatChain::Prerouting, NatChain::Output].map(packets_for_the_node));
        let mut mappings: Vec<&Mapping> =
            settings.mappings.iter().filter(|mapping| mapping.is_of(family)).collect();
        // One at an address of its own would get nothing after one at all addresses.
        mappings.sort_by_key(|mapping| mapping.is_at_all_addresses());
        let rules = mappings.into_iter();
        Self {
            family,
            shared,
            external,
            entries: entries(&own_chain, &comment(network, container_id), settings, family),
            rules: rules.flat_map(|mapping| mapping_rules(mapping, settings, pod)).collect(),
            own_chain,
        }
    }
}

/// The name of a container's chain. Network and ID are hashed without anything between them, as the reference
/// plugin does, so that it can be another container's as well; [`is_foreign`] tells.
pub(crate) fn own_chain(network: &str, container_id: &str) -> String {
    chain_name("DN-", network, container_id)
}

/// The ID of the container that a comment names, if it is one of this network.
pub(crate) fn owner_id<'a>(comment: &'a str, network: &str) -> Option<&'a str> {
    owner_rest(comment, network)?.strip_suffix('"')
}

/// Whether a comment names a container of this network whose ID was cut.
pub(crate) fn cut_owner(comment: &str, network: &str) -> bool {
    comment.len() == COMMENT_MAX
        && owner_rest(comment, network).is_some_and(|rest| rest.ends_with(CUT))
}

fn owner_rest<'a>(comment: &'a str, network: &str) -> Option<&'a str> {
    let rest = comment.strip_prefix("dnat name: \"")?.strip_prefix(network)?;
    rest.strip_prefix("\" id: \"")
}

/// Whether an entry is, by its comment, that of another container than the one whose comment is given. Old
/// reference plugins had a second kind, `snat`.
pub(crate) fn is_foreign(entry: &Rule, comment: &str) -> bool {
    let owner = |text: &str| {
        let rest = text.strip_prefix("dnat ").or_else(|| text.strip_prefix("snat "))?;
        rest.starts_with("name: \"").then(|| rest.to_owned())
    };
    let theirs = entry.comment_text().and_then(owner);
    theirs.is_some() && theirs != owner(comment)
}

/// As the reference plugin has it; cut if it is too long.
pub(crate) fn comment(network: &str, container_id: &str) -> String {
    let mut text = format!("dnat name: \"{network}\" id: \"{container_id}\"");
    if text.len() > COMMENT_MAX {
        // Names are ASCII, so every byte is a character.
        text.truncate(COMMENT_MAX - CUT.len());
        text.push_str(CUT);
    }
    text
}

/// Rules that give the node's address to what is marked; first of all, before others of `POSTROUTING` that
/// would let it pass.
fn masquerade_by_mark(bits: kernel::iptables::Bits) -> [Shared; 3] {
    let in_chain = |chain, rule| Shared { chain, base: None, place: Place::Last, rule };
    let masquerade = Rule::to(Target::Masquerade { random_fully: false });
    [
        in_chain(
            SET_MARK_CHAIN,
            Rule::to(Target::Mark(bits)).comment("CNI portfwd masquerade mark"),
        ),
        in_chain(MASQUERADE_CHAIN, masquerade.matching(Match::Mark(Is::equal(bits)))),
        Shared {
            chain: NatChain::Postrouting.name(),
            base: Some(NatChain::Postrouting),
            place: Place::First,
            rule: Rule::jump(MASQUERADE_CHAIN).comment("CNI portfwd requiring masquerade"),
        },
    ]
}

/// Last of all: what kube-proxy has there goes first (CVE-2019-9946).
fn packets_for_the_node(base: NatChain) -> Shared {
    let destination = Some(Is::equal(address_type::LOCAL));
    let rule = Rule::jump(DNAT_CHAIN).matching(Match::AddressType { source: None, destination });
    Shared { chain: base.name(), base: Some(base), place: Place::Last, rule }
}

/// Entries for all ports, those of the other family's addresses too: the reference plugin's CHECK looks for
/// them like this. Packets that find no rule in the container's chain come back and go on.
fn entries(own_chain: &str, comment: &str, settings: &Settings, family: Family) -> Vec<Rule> {
    let mut entries = Vec::new();
    for protocol in protocols() {
        let of_protocol = settings.mappings.iter().filter(|mapping| mapping.protocol == protocol);
        let ports: Vec<Ports> = of_protocol.map(|mapping| mapping.host_port.into()).collect();
        for some in ports.chunks(PORTS_OF_AN_ENTRY) {
            let rule = Rule::jump(own_chain)
                .protocol(protocol)
                .comment(comment)
                .matching(Match::DestinationPorts(Is::equal(some.to_vec())));
            // Conditions that cannot be read were refused together with the configuration.
            entries.extend(settings.with_conditions(family, &rule).into_iter().flatten());
        }
    }
    entries
}

fn mapping_rules(mapping: &Mapping, settings: &Settings, pod: Cidr) -> Vec<Rule> {
    let to_port = |target: Target| {
        let rule = Rule::to(target).protocol(mapping.protocol);
        let rule = rule.destination_port(mapping.host_port);
        match mapping.host_ip.filter(|_| !mapping.is_at_all_addresses()) {
            Some(host_ip) => rule.destination(Is::equal(IpNetwork::from(host_ip))),
            None => rule,
        }
    };
    let mut rules = Vec::new();
    let chain = match &settings.mark {
        Some(Mark::Bit(_)) => Some(SET_MARK_CHAIN),
        Some(Mark::External(chain)) => Some(chain.as_str()),
        None => None,
    };
    if let Some(chain) = chain {
        let mark = || to_port(Target::Jump(chain.to_owned()));
        if settings.mark_all {
            rules.push(mark());
        } else {
            rules.push(mark().source(Is::equal(pod.network().into())));
            if pod.is_ipv4() {
                let loopback = IpNetwork::from(IpAddr::from(Ipv4Addr::LOCALHOST));
                rules.push(mark().source(Is::equal(loopback)));
            }
        }
    }
    let (address, port) = (pod.ip(), Some(mapping.container_port));
    rules.push(to_port(Target::Dnat { address, port }));
    rules
}

/// Whether two entries have a port in common.
pub(crate) fn same_port(one: &Rule, other: &Rule) -> bool {
    let ports = |rule: &Rule| {
        rule.matches.iter().find_map(|one| match one {
            Match::DestinationPorts(is) if !is.negated => Some(is.value.clone()),
            Match::DestinationPort(is) if !is.negated => Some(vec![is.value]),
            _ => None,
        })
    };
    let (Some(ours), Some(theirs)) = (ports(one), ports(other)) else { return false };
    one.protocol == other.protocol
        && ours.iter().any(|a| theirs.iter().any(|b| a.first <= b.last && b.first <= a.last))
}

#[cfg(test)]
mod tests;
