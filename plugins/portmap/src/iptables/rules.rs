//! The rules of a pod's mappings: a plain value, computed without the kernel.
//!
//! In the container's chain, every mapping has its DNAT rule, and before it rules that mark the packets which
//! need the node's address: packets from the pod's own network and from 127.0.0.1, because the answers would
//! not get back otherwise.

use std::net::{IpAddr, Ipv4Addr};

use cni::Cidr;
use ipnetwork::IpNetwork;
use kernel::Family;
use kernel::iptables::{Is, Match, NatChain, Ports, Rule, Target, address_type};
use kernel::nft::Place;

use super::names::{DNAT_CHAIN, MASQUERADE_CHAIN, SET_MARK_CHAIN, comment, own_chain};
use crate::config::{Mark, Settings};
use crate::mapping::{Mapping, protocols};
use crate::plan::Plan;

/// `XT_MULTI_PORTS`.
const PORTS_OF_AN_ENTRY: usize = 15;

/// The rules of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FamilyRules {
    pub(super) family: Family,
    /// Rules that all containers share, each after those whose chains it needs.
    pub(super) shared: Vec<Shared>,
    /// The chain of another program that marks packets.
    pub(super) external: Option<External>,
    /// The comment on the entries, which names the owner.
    pub(super) comment: String,
    /// The container's entries in [`DNAT_CHAIN`].
    pub(super) entries: Vec<Rule>,
    /// The container's chain.
    pub(super) own_chain: String,
    pub(super) rules: Vec<Rule>,
}

/// A chain of another program that marks packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct External {
    pub(super) chain: String,
    /// The rules to make if there is no such chain: they mark packets themselves.
    pub(super) otherwise: Box<FamilyRules>,
}

/// A rule that all containers share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shared {
    pub(super) chain: &'static str,
    /// The base chain that this is, if it is one.
    pub(super) base: Option<NatChain>,
    pub(super) place: Place,
    pub(super) rule: Rule,
}

impl FamilyRules {
    /// The rules of a plan for its address of a family; `None` if it has none.
    pub(super) fn new(plan: &Plan<'_>, family: Family) -> Option<Self> {
        let pod = plan.address(family)?;
        Some(Self::with(plan, plan.settings, family, pod))
    }

    fn with(plan: &Plan<'_>, settings: &Settings, family: Family, pod: Cidr) -> Self {
        let (network, id) = (plan.owner.network.as_str(), plan.owner.container_id.as_str());
        let (own_chain, comment) = (own_chain(network, id), comment(network, id));
        let (mut shared, mut external) = (Vec::new(), None);
        match &settings.mark {
            Some(Mark::Bit(bits)) => shared.extend(masquerade_by_mark(*bits)),
            Some(Mark::External(chain)) => {
                let own_mark = settings.with_own_mark();
                let otherwise = Box::new(Self::with(plan, &own_mark, family, pod));
                external = Some(External { chain: chain.clone(), otherwise });
            }
            None => {}
        }
        shared.extend([NatChain::Prerouting, NatChain::Output].map(packets_for_the_node));
        let mut mappings: Vec<&Mapping> = plan.mappings(family).collect();
        // A mapping at one address would get no packets after one at all addresses.
        mappings.sort_by_key(|mapping| mapping.is_at_all_addresses());
        let rules = mappings.into_iter().flat_map(|it| mapping_rules(it, settings, pod)).collect();
        let entries = entries(&own_chain, &comment, settings, family);
        Self { family, shared, external, comment, entries, own_chain, rules }
    }
}

/// Rules that give the node's address to marked packets. The jump comes first in `POSTROUTING`, before rules
/// that would accept these packets.
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

/// The jump for packets to the node itself. It comes last, after the rules of kube-proxy (CVE-2019-9946).
fn packets_for_the_node(base: NatChain) -> Shared {
    let destination = Some(Is::equal(address_type::LOCAL));
    let rule = Rule::jump(DNAT_CHAIN).matching(Match::AddressType { source: None, destination });
    Shared { chain: base.name(), base: Some(base), place: Place::Last, rule }
}

/// Entries for all ports, also of mappings at addresses of the other family: the reference plugin's CHECK
/// looks for them. Packets that match no rule of the container's chain return from it.
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
            // The settings contain no conditions that cannot be read.
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

#[cfg(test)]
mod tests;
