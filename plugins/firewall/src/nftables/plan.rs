//! What the table should contain for a pod: a plain value, computed without the kernel.

use std::net::IpAddr;

use cni::Attachment;
use kernel::nft::{Data, Element, Verdict, address, interface_name, octets};

use super::table::{BRIDGES, PODS, PUBLISHED, SOURCES, TABLE, WITHIN, of_family};
use crate::config::Isolation;
use crate::owner::owner_name;
use crate::pod::Pod;

/// An element with the name of its set.
pub(crate) type Placed = (&'static str, Element);

/// What the table should contain for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(super) owner: String,
    /// The sets that contain the pod's own elements.
    pub(super) sets: Vec<[&'static str; 2]>,
    pub(super) addresses: Vec<IpAddr>,
    /// The pod's own elements, with their sets.
    pub(super) own: Vec<Placed>,
    /// The elements of its bridge, which other pods share.
    pub(super) bridge: Vec<Placed>,
}

impl Plan {
    /// The plan that accepts a pod's packets.
    pub(crate) fn new(owner: &Attachment, pod: &Pod) -> Self {
        Self::with(PODS, owner, pod)
    }

    /// The plan that records which addresses are added to firewalld.
    pub(crate) fn of_sources(owner: &Attachment, pod: &Pod) -> Self {
        Self::with(SOURCES, owner, pod)
    }

    /// The plan for the table if firewalld accepts the pod's packets.
    pub(crate) fn of_bridge(owner: &Attachment, pod: &Pod) -> Self {
        let mut plan = Self::of_sources(owner, pod);
        plan.own.retain(|(set, _)| PUBLISHED.contains(set));
        plan
    }

    /// Whether this table accepts the pod's packets, and not firewalld.
    pub(super) fn lets_through(&self) -> bool {
        self.sets.contains(&PODS)
    }

    pub(super) fn has_published(&self) -> bool {
        self.own.iter().any(|(set, _)| PUBLISHED.contains(set))
    }

    fn with(sets: [&'static str; 2], owner: &Attachment, pod: &Pod) -> Self {
        let owner = owner_name(owner);
        let of = |sets| {
            let owner = owner.as_str();
            pod.addresses.iter().map(move |address| owned(sets, *address, owner))
        };
        let own = of(sets).chain(of(PUBLISHED).filter(|_| pod.published)).collect();
        // Without an address, there is nothing to accept or isolate.
        let bridge = pod.bridge.as_ref().filter(|_| !pod.addresses.is_empty());
        Self {
            sets: vec![sets, PUBLISHED],
            own,
            addresses: pod.addresses.clone(),
            bridge: bridge
                .map(|(name, isolation)| isolate(name, *isolation))
                .into_iter()
                .flatten()
                .collect(),
            owner,
        }
    }
}

/// An address of an owner as an element, with its set.
fn owned(sets: [&'static str; 2], address: IpAddr, owner: &str) -> Placed {
    let comment = Some(owner.to_owned());
    (of_family(sets, address), Element { comment, ..Element::of_key(octets(address)) })
}

/// Isolates a bridge from others, and its pods from each other if the policy says so.
fn isolate(name: &str, isolation: Isolation) -> [Placed; 2] {
    let verdict = match isolation {
        Isolation::SameBridge => Verdict::Return,
        Isolation::Isolated => Verdict::Drop,
    };
    let (name, data) = (interface_name(name), Some(Data::Verdict(verdict)));
    let within = Element { data, ..Element::of_key(name.repeat(2)) };
    [(WITHIN, within), (BRIDGES, Element::of_key(name))]
}

/// The `nft` command that adds an element.
pub(super) fn show(set: &str, element: &Element) -> String {
    let name = || {
        let text = element.key.iter().take(16).take_while(|byte| **byte != 0);
        format!("\"{}\"", text.map(|byte| char::from(*byte)).collect::<String>())
    };
    let key = match set {
        BRIDGES => name(),
        WITHIN => format!("{0} . {0}", name()),
        _ => address(&element.key).map(|address| address.to_string()).unwrap_or_default(),
    };
    let data = match &element.data {
        Some(Data::Verdict(Verdict::Drop)) => " : drop",
        Some(_) => " : return",
        None => "",
    };
    let comment = element.comment.as_ref().map(|text| format!(" comment \"{text}\""));
    format!("add element {TABLE} {set} {{ {key}{}{data} }}", comment.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_of_a_pod() {
        let owner = &Attachment::parse("testnet/pod-a/eth0").unwrap();
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
            shown(&Plan::new(owner, &pod)),
            [
                r#"add element inet podwire_firewall pods4 { 10.88.0.2 comment "testnet pod-a eth0" }"#,
                r#"add element inet podwire_firewall pods6 { fd00:88::2 comment "testnet pod-a eth0" }"#,
                r#"add element inet podwire_firewall within_bridges { "cni0" . "cni0" : drop }"#,
                r#"add element inet podwire_firewall bridges { "cni0" }"#,
            ]
        );
        let sources = Plan::of_sources(owner, &pod);
        assert_eq!(sources.own.iter().map(|(set, _)| *set).collect::<Vec<_>>(), SOURCES);
        assert_eq!(
            sources.own.iter().filter_map(|(_, element)| address(&element.key)).collect::<Vec<_>>(),
            pod.addresses
        );
        pod.published = true;
        let published = Plan::of_sources(owner, &pod);
        assert_eq!(
            published.own.iter().map(|(set, _)| *set).collect::<Vec<_>>(),
            [SOURCES, PUBLISHED].concat()
        );
        assert_eq!(Plan::of_bridge(owner, &pod).own.len(), 2);
        pod.addresses.clear();
        assert!(shown(&Plan::new(owner, &pod)).is_empty());
    }
}
