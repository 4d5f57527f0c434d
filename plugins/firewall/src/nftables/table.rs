//! The table: what is in it whatever pods there are.

use std::net::IpAddr;

use kernel::iptables::ct_state;
use kernel::nft::{
    Base, BaseChain, Chain, Expr, Family, Found, Hook, Set, SetType, Type, Verdict, meta,
};

/// One table for both.
pub(super) const FAMILY: Family = Family::Inet;
/// The table's name.
pub(super) const TABLE: &str = "podwire_firewall";
/// Addresses of pods, by family.
pub(super) const PODS: [&str; 2] = ["pods4", "pods6"];
/// Addresses that firewalld has been given as sources of a zone, by family.
pub(super) const SOURCES: [&str; 2] = ["firewalld_sources4", "firewalld_sources6"];
/// Bridges that are kept apart from each other.
pub(super) const BRIDGES: &str = "bridges";
/// What becomes of packets that leave such a bridge to itself.
pub(super) const WITHIN: &str = "within_bridges";

pub(super) const FORWARD: &str = "forward";
pub(super) const ISOLATION: &str = "isolation";
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

/// All sets and maps.
pub(super) fn sets() -> [(&'static str, SetType); 6] {
    let of = |key: &[Type], data: &[Type]| SetType {
        key: key.to_vec(),
        data: data.to_vec(),
        expires: false,
    };
    let [v4, v6] = [of(&[Type::Ipv4], &[]), of(&[Type::Ipv6], &[])];
    [
        (PODS[0], v4.clone()),
        (PODS[1], v6.clone()),
        (SOURCES[0], v4),
        (SOURCES[1], v6),
        (BRIDGES, of(&[Type::Ifname], &[])),
        (WITHIN, of(&[Type::Ifname, Type::Ifname], &[Type::Verdict])),
    ]
}

/// All chains, those that others lead to first, with the places of base chains.
pub(super) fn chains() -> [(&'static str, Option<BaseChain>); 3] {
    [(ISOLATION, None), (ADMIN, None), (FORWARD, Some(AT_FORWARD))]
}

/// All rules, in their chains' order.
pub(super) fn rules() -> Vec<Shared> {
    let iifname = || Expr::Meta(meta::IIFNAME);
    let oifname = || Expr::Meta(meta::OIFNAME);
    let jump = |to: &str| Shared {
        chain: FORWARD,
        expressions: vec![Expr::Verdict(Verdict::Jump(to.to_owned()))],
        text: format!("jump {to}"),
    };
    let mut all = vec![
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
        jump(ISOLATION),
        jump(ADMIN),
    ];
    for (family, pods) in [Family::Ipv4, Family::Ipv6].into_iter().zip(PODS) {
        all.extend(let_through(family, pods));
    }
    all
}

/// What lets packets of pods through: the answers to them, and whatever comes from them.
fn let_through(family: Family, pods: &str) -> [Shared; 2] {
    let (ip, number, [source, destination], len) = if family == Family::Ipv6 {
        ("ip6", NFPROTO_IPV6, [8, 24], 16)
    } else {
        ("ip", NFPROTO_IPV4, [12, 16], 4)
    };
    let is_of_pod = |offset| {
        vec![
            Expr::Meta(meta::NFPROTO),
            Expr::Cmp { negated: false, value: vec![number] },
            Expr::Payload { base: Base::Network, offset, len },
            lookup(pods, Found::Continue),
        ]
    };
    let answers = u32::from(ct_state::RELATED | ct_state::ESTABLISHED);
    let is_answer = vec![
        Expr::ConntrackState,
        Expr::Bitwise { mask: answers.to_ne_bytes().into(), xor: vec![0; 4] },
        Expr::Cmp { negated: true, value: vec![0; 4] },
    ];
    let accept = || vec![Expr::Verdict(Verdict::Accept)];
    let shared = |expressions: [Vec<Expr>; 3], text| Shared {
        chain: FORWARD,
        expressions: expressions.concat(),
        text,
    };
    [
        shared(
            [is_of_pod(destination), is_answer, accept()],
            format!("{ip} daddr @{pods} ct state established,related accept"),
        ),
        shared([is_of_pod(source), Vec::new(), accept()], format!("{ip} saddr @{pods} accept")),
    ]
}

/// The registers that a name of an interface takes, in words of 4 bytes.
const IFNAME_WORDS: u8 = 4;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;

fn lookup(set: &str, found: Found) -> Expr {
    Expr::Lookup { set: set.to_owned(), found }
}
