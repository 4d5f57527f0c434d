//! The table: what is in it whatever pods there are.

use std::net::IpAddr;

use kernel::Family;
use kernel::iptables::ct_state;
use kernel::nft::{
    Base, BaseChain, Chain, Expr, Found, Hook, Set, SetType, TableFamily, Type, Verdict, ct_status,
    meta,
};
use kernel::obstacle::Place;

/// One table for both.
pub(super) const FAMILY: TableFamily = TableFamily::Inet;
/// The table's name.
pub(super) const TABLE: &str = "podwire_firewall";
/// Addresses of pods, by family.
pub(super) const PODS: [&str; 2] = ["pods4", "pods6"];
/// Addresses that firewalld has been given as sources of a zone, by family.
pub(super) const SOURCES: [&str; 2] = ["firewalld_sources4", "firewalld_sources6"];
/// Addresses of pods that connections to published ports may reach, by family.
pub(super) const PUBLISHED: [&str; 2] = ["published4", "published6"];
/// Bridges that are kept apart from each other.
pub(super) const BRIDGES: &str = "bridges";
/// What becomes of packets that leave such a bridge to itself.
pub(super) const WITHIN: &str = "within_bridges";

pub(super) const FORWARD: &str = "forward";
pub(super) const ISOLATION: &str = "isolation";
/// Connections that came by DNAT; it comes before what keeps bridges apart.
const OF_PUBLISHED: &str = "published";
/// The administrator's own.
const ADMIN: &str = "admin";

/// Where iptables' `FORWARD` is too. An administrator's policy on it stays.
const AT_FORWARD: BaseChain = BaseChain { kind: "filter", hook: Hook::Forward, priority: 0 };

/// A rule that all pods share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shared {
    pub(super) chain: &'static str,
    pub(super) expressions: Vec<Expr>,
    /// As `nft` would show it.
    pub(super) text: String,
}

/// A set of the table.
pub(super) fn set(name: &str) -> Set<'_> {
    Set { family: FAMILY, table: TABLE, name }
}

/// A chain of the table.
pub(super) fn chain(name: &str) -> Chain<'_> {
    Chain { family: FAMILY, table: TABLE, name }
}

/// The set of a pair that addresses of this family belong into.
pub(super) fn of_family(pair: [&'static str; 2], address: IpAddr) -> &'static str {
    pair[usize::from(address.is_ipv6())]
}

/// Whether a chain is one where our rules come first, or firewalld's, which we tell about addresses.
pub(super) fn is_answered(place: &Place) -> bool {
    !place.is_legacy
        && place.family == FAMILY
        && [TABLE, "firewalld"].contains(&place.table.as_str())
}

/// All sets and maps; those of published ports only where a pod asks for them.
pub(super) fn sets(published: bool) -> Vec<(&'static str, SetType)> {
    let of = |key: &[Type], data: &[Type]| SetType {
        key: key.to_vec(),
        data: data.to_vec(),
        expires: false,
    };
    let [v4, v6] = [of(&[Type::Ipv4], &[]), of(&[Type::Ipv6], &[])];
    let mut all = vec![
        (PODS[0], v4.clone()),
        (PODS[1], v6.clone()),
        (SOURCES[0], v4.clone()),
        (SOURCES[1], v6.clone()),
        (BRIDGES, of(&[Type::Ifname], &[])),
        (WITHIN, of(&[Type::Ifname, Type::Ifname], &[Type::Verdict])),
    ];
    if published {
        all.extend([(PUBLISHED[0], v4), (PUBLISHED[1], v6)]);
    }
    all
}

/// All chains, those that others lead to first, with the places of base chains.
pub(super) fn chains(published: bool) -> Vec<(&'static str, Option<BaseChain>)> {
    let mut all = vec![(ISOLATION, None), (ADMIN, None), (FORWARD, Some(AT_FORWARD))];
    if published {
        all.insert(2, (OF_PUBLISHED, None));
    }
    all
}

/// All rules, in their chains' order.
pub(super) fn rules(published: bool) -> Vec<Shared> {
    let iifname = || Expr::Meta(meta::IIFNAME);
    let oifname = || Expr::Meta(meta::OIFNAME);
    let mut all = if published { of_published() } else { Vec::new() };
    all.extend([
        Shared {
            chain: ISOLATION,
            expressions: vec![
                iifname(),
                Expr::At(IFNAME_WORDS, Box::new(oifname())),
                lookup(WITHIN, Found::Verdict),
            ],
            text: format!("iifname . oifname vmap @{WITHIN}"),
        },
        Shared {
            chain: ISOLATION,
            expressions: vec![
                iifname(),
                lookup(BRIDGES, Found::Continue),
                oifname(),
                lookup(BRIDGES, Found::Continue),
                Expr::Verdict(Verdict::Drop),
            ],
            text: format!("iifname @{BRIDGES} oifname @{BRIDGES} drop"),
        },
        jump(FORWARD, ISOLATION),
        jump(FORWARD, ADMIN),
    ]);
    for (family, pods) in Family::ALL.into_iter().zip(PODS) {
        let Sides { ip, from, to } = sides(family, pods);
        let accept = vec![Expr::Verdict(Verdict::Accept)];
        // The answers to a pod, and whatever comes from it.
        all.extend([
            Shared {
                chain: FORWARD,
                expressions: [to, is_answer(), accept.clone()].concat(),
                text: format!("{ip} daddr @{pods} ct state established,related accept"),
            },
            Shared {
                chain: FORWARD,
                expressions: [from, accept].concat(),
                text: format!("{ip} saddr @{pods} accept"),
            },
        ]);
    }
    all
}

/// What lets connections through that came by DNAT to a pod: its packets, and the answers to them. The
/// administrator's rules come first.
fn of_published() -> Vec<Shared> {
    let mask = ct_status::DST_NAT.to_ne_bytes().into();
    let mut all = vec![
        Shared {
            chain: FORWARD,
            expressions: vec![
                Expr::ConntrackStatus,
                Expr::Bitwise { mask, xor: vec![0; 4] },
                Expr::Cmp { negated: true, value: vec![0; 4] },
                Expr::Verdict(Verdict::Jump(OF_PUBLISHED.to_owned())),
            ],
            text: format!("ct status dnat jump {OF_PUBLISHED}"),
        },
        jump(OF_PUBLISHED, ADMIN),
    ];
    for (family, pods) in Family::ALL.into_iter().zip(PUBLISHED) {
        let Sides { ip, from, to } = sides(family, pods);
        let accept = vec![Expr::Verdict(Verdict::Accept)];
        all.extend([
            Shared {
                chain: OF_PUBLISHED,
                expressions: [to, accept.clone()].concat(),
                text: format!("{ip} daddr @{pods} accept"),
            },
            Shared {
                chain: OF_PUBLISHED,
                expressions: [from, is_answer(), accept].concat(),
                text: format!("{ip} saddr @{pods} ct state established,related accept"),
            },
        ]);
    }
    all
}

fn jump(chain: &'static str, to: &str) -> Shared {
    let expressions = vec![Expr::Verdict(Verdict::Jump(to.to_owned()))];
    Shared { chain, expressions, text: format!("jump {to}") }
}

/// Conditions of packets from and to the addresses of a set.
struct Sides {
    /// As `nft` calls the protocol.
    ip: &'static str,
    from: Vec<Expr>,
    to: Vec<Expr>,
}

fn sides(family: Family, pods: &str) -> Sides {
    let (ip, number, [source, destination], len) = if family == Family::V6 {
        ("ip6", family.number(), [8, 24], 16)
    } else {
        ("ip", family.number(), [12, 16], 4)
    };
    let is_of_pod = |offset| {
        vec![
            Expr::Meta(meta::NFPROTO),
            Expr::Cmp { negated: false, value: vec![number] },
            Expr::Payload { base: Base::Network, offset, len },
            lookup(pods, Found::Continue),
        ]
    };
    Sides { ip, from: is_of_pod(source), to: is_of_pod(destination) }
}

fn is_answer() -> Vec<Expr> {
    let answers = u32::from(ct_state::RELATED | ct_state::ESTABLISHED);
    vec![
        Expr::ConntrackState,
        Expr::Bitwise { mask: answers.to_ne_bytes().into(), xor: vec![0; 4] },
        Expr::Cmp { negated: true, value: vec![0; 4] },
    ]
}

/// The registers that a name of an interface takes, in words of 4 bytes.
const IFNAME_WORDS: u8 = 4;

fn lookup(set: &str, found: Found) -> Expr {
    Expr::Lookup { set: set.to_owned(), found }
}
