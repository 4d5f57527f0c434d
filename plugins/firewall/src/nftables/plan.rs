//! What a pod comes to in the table: a plain value, the same on every machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kernel::nft::{Data, Element, Verdict};

use super::table::{BRIDGES, PODS, PUBLISHED, SOURCES, TABLE, WITHIN, of_family};
use crate::config::Isolation;
use crate::owner::Owner;
use crate::pod::Pod;

/// What is to be in the table for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(super) owner: Owner,
    /// Where the pod's own elements are.
    pub(super) sets: Vec<[&'static str; 2]>,
    pub(super) addresses: Vec<IpAddr>,
    /// The pod's own elements, with their sets.
    pub(super) own: Vec<(&'static str, Element)>,
    /// Those of its bridge, which other pods share.
    pub(super) bridge: Vec<(&'static str, Element)>,
}

impl Plan {
    /// The plan that lets a pod's packets through.
    pub(crate) fn new(owner: Owner, pod: &Pod) -> Self {
        Self::with(PODS, owner, pod)
    }

    /// The plan that notes which addresses firewalld is given.
    pub(crate) fn of_sources(owner: Owner, pod: &Pod) -> Self {
        Self::with(SOURCES, owner, pod)
    }

    /// What the table does for a pod whose packets firewalld lets through.
    pub(crate) fn of_bridge(owner: Owner, pod: &Pod) -> Self {
        let mut plan = Self::of_sources(owner, pod);
        plan.own.retain(|(set, _)| PUBLISHED.contains(set));
        plan
    }

    /// Whether this table lets the pod's packets through; else firewalld does.
    pub(super) fn lets_through(&self) -> bool {
        self.sets.contains(&PODS)
    }

    pub(super) fn has_published(&self) -> bool {
        self.own.iter().any(|(set, _)| PUBLISHED.contains(set))
    }

    fn with(sets: [&'static str; 2], owner: Owner, pod: &Pod) -> Self {
        let of = |sets| {
            let owner = owner.as_str();
            pod.addresses.iter().map(move |address| noted(sets, *address, owner))
        };
        let own = of(sets).chain(of(PUBLISHED).filter(|_| pod.published)).collect();
        // Without an address, it has nothing that could be let through or kept apart.
        let bridge = pod.bridge.as_ref().filter(|_| !pod.addresses.is_empty());
        Self {
            sets: vec![sets, PUBLISHED],
            own,
            addresses: pod.addresses.clone(),
            bridge: bridge
                .map(|(name, isolation)| apart(name, *isolation))
                .into_iter()
                .flatten()
                .collect(),
            owner,
        }
    }
}

/// An address of an owner as an element, with its set.
pub(super) fn noted(
    sets: [&'static str; 2],
    address: IpAddr,
    owner: &str,
) -> (&'static str, Element) {
    let comment = Some(owner.to_owned());
    let element = Element { key: octets(address), data: None, comment, expires: false };
    (of_family(sets, address), element)
}

/// What keeps a bridge apart from others, and maybe its pods from each other.
fn apart(name: &str, isolation: Isolation) -> [(&'static str, Element); 2] {
    let verdict = match isolation {
        Isolation::SameBridge => Verdict::Return,
        Isolation::Isolated => Verdict::Drop,
    };
    let shared = |key, data| Element { key, data, comment: None, expires: false };
    let name = ifname(name);
    [
        (WITHIN, shared([name, name].concat(), Some(Data::Verdict(verdict)))),
        (BRIDGES, shared(name.into(), None)),
    ]
}

/// A name of an interface as the kernel compares it.
fn ifname(name: &str) -> [u8; 16] {
    let mut padded = [0; 16];
    padded.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    padded
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().into(),
        IpAddr::V6(v6) => v6.octets().into(),
    }
}

/// The address that an element stands for.
pub(super) fn address(element: &Element) -> Option<IpAddr> {
    let v4 = || Some(IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(&*element.key).ok()?)));
    let v6 = || Some(IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(&*element.key).ok()?)));
    v4().or_else(v6)
}

/// An element as `nft` would have it added.
pub(super) fn show(set: &str, element: &Element) -> String {
    let name = || {
        let text = element.key.iter().take(16).take_while(|byte| **byte != 0);
        format!("\"{}\"", text.map(|byte| char::from(*byte)).collect::<String>())
    };
    let key = match set {
        BRIDGES => name(),
        WITHIN => format!("{0} . {0}", name()),
        _ => address(element).map(|address| address.to_string()).unwrap_or_default(),
    };
    let data = match &element.data {
        Some(Data::Verdict(Verdict::Drop)) => " : drop",
        Some(_) => " : return",
        None => "",
    };
    let comment = element.comment.as_ref().map(|text| format!(" comment \"{text}\""));
    format!("add element inet {TABLE} {set} {{ {key}{}{data} }}", comment.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_of_a_pod() {
        let owner = Owner::new(
            &"testnet".parse().unwrap(),
            &"pod-a".parse().unwrap(),
            &"eth0".parse().unwrap(),
        );
        let mut pod = Pod {
            addresses: vec!["10.88.0.2".parse().unwrap(), "fd00:88::2".parse().unwrap()],
            bridge: Some(("cni0".to_owned(), Isolation::Isolated)),
            published: false,
        };
        let shown = |plan: &Plan| {
            let all = plan.own.iter().chain(&plan.bridge);
            all.map(|(set, element)| show(set, element)).collect::<Vec<_>>()
        };
        assert_eq!(
            shown(&Plan::new(owner.clone(), &pod)),
            [
                r#"add element inet podwire_firewall pods4 { 10.88.0.2 comment "testnet pod-a eth0" }"#,
                r#"add element inet podwire_firewall pods6 { fd00:88::2 comment "testnet pod-a eth0" }"#,
                r#"add element inet podwire_firewall within_bridges { "cni0" . "cni0" : drop }"#,
                r#"add element inet podwire_firewall bridges { "cni0" }"#,
            ]
        );
        let sources = Plan::of_sources(owner.clone(), &pod);
        assert_eq!(sources.own.iter().map(|(set, _)| *set).collect::<Vec<_>>(), SOURCES);
        assert_eq!(
            sources.own.iter().filter_map(|(_, element)| address(element)).collect::<Vec<_>>(),
            pod.addresses
        );
        pod.published = true;
        let published = Plan::of_sources(owner.clone(), &pod);
        assert_eq!(
            published.own.iter().map(|(set, _)| *set).collect::<Vec<_>>(),
            [SOURCES, PUBLISHED].concat()
        );
        assert_eq!(Plan::of_bridge(owner.clone(), &pod).own.len(), 2);
        pod.addresses.clear();
        assert!(shown(&Plan::new(owner, &pod)).is_empty());
    }
}
