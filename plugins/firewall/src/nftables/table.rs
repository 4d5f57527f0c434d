//! The table: its sets, chains and rules, which all pods share.

use std::net::IpAddr;

use kernel::Family;
use kernel::iptables::ct_state;
use kernel::nft::{
    BaseChain, ChainSpec, Contents, Expr, Found, Hook, Order, RuleSpec, SetSpec, SetType, Table,
    TableFamily, TableSpec, Type, Verdict, ct_status, meta,
};
use kernel::obstacle::Place;

/// One table for both families.
pub(super) const TABLE: Table = Table { family: TableFamily::Inet, name: "podwire_firewall" };
/// Addresses of pods, by family.
pub(super) const PODS: [&str; 2] = ["pods4", "pods6"];
/// Addresses that the plugin has added to a zone of firewalld as sources, by family.
pub(super) const SOURCES: [&str; 2] = ["firewalld_sources4", "firewalld_sources6"];
/// Addresses of pods that connections to published ports may reach, by family.
pub(super) const PUBLISHED: [&str; 2] = ["published4", "published6"];
/// Bridges that are isolated from each other.
pub(super) const BRIDGES: &str = "bridges";
/// The verdicts for packets from such a bridge to itself.
pub(super) const WITHIN: &str = "within_bridges";

const FORWARD: &str = "forward";
const ISOLATION: &str = "isolation";
/// For connections with a DNAT. It comes before the isolation of bridges.
const OF_PUBLISHED: &str = "published";
/// For rules of the administrator.
const ADMIN: &str = "admin";

/// The hook and priority of iptables' `FORWARD`.
const AT_FORWARD: BaseChain = BaseChain { kind: "filter", hook: Hook::Forward, priority: 0 };

/// The registers that the name of an interface takes, in words of 4 bytes.
const IFNAME_WORDS: u8 = 4;

/// The set of a pair that contains addresses of this family.
pub(super) fn of_family(pair: [&'static str; 2], address: IpAddr) -> &'static str {
    pair[usize::from(address.is_ipv6())]
}

/// Whether the table has been made for published ports.
pub(super) fn has_published(contents: &Contents) -> bool {
    PUBLISHED.iter().any(|name| contents.has_set(name))
}

/// Whether packets that this chain drops get through all the same: it is ours, where our rules come first, or
/// firewalld's, which gets the addresses.
pub(super) fn is_answered(place: &Place) -> bool {
    !place.is_legacy
        && place.family == TABLE.family
        && [TABLE.name, "firewalld"].contains(&place.table.as_str())
}

/// The table; with the parts for published ports if a pod has some.
pub(super) fn spec(published: bool) -> TableSpec {
    let mut chains = vec![
        chain(ISOLATION, None, isolation()),
        chain(ADMIN, None, Vec::new()),
        chain(FORWARD, Some(AT_FORWARD), forward(published)),
    ];
    if published {
        chains.insert(2, chain(OF_PUBLISHED, None, of_published()));
    }
    TableSpec { table: TABLE, comment: None, sets: sets(published), chains }
}

fn chain(name: &'static str, base: Option<BaseChain>, rules: Vec<RuleSpec>) -> ChainSpec {
    ChainSpec { name, base, comment: None, rules, order: Order::BeforeOthers }
}

fn sets(published: bool) -> Vec<SetSpec> {
    let set = |name: &str, key: &[Type], data: &[Type]| SetSpec {
        name: name.to_owned(),
        of: SetType { key: key.to_vec(), data: data.to_vec(), expires: false },
    };
    let pair = |names: [&str; 2]| {
        let types = [Type::Ipv4, Type::Ipv6];
        names.into_iter().zip(types).map(|(name, of)| set(name, &[of], &[])).collect::<Vec<_>>()
    };
    let mut all = [pair(PODS), pair(SOURCES)].concat();
    all.extend([
        set(BRIDGES, &[Type::Ifname], &[]),
        set(WITHIN, &[Type::Ifname, Type::Ifname], &[Type::Verdict]),
    ]);
    if published {
        all.extend(pair(PUBLISHED));
    }
    all
}

fn isolation() -> Vec<RuleSpec> {
    let oifname = Expr::At(IFNAME_WORDS, Box::new(Expr::Meta(meta::OIFNAME)));
    let verdict = Expr::Lookup { set: WITHIN.to_owned(), found: Found::Verdict };
    vec![
        RuleSpec {
            expressions: vec![Expr::Meta(meta::IIFNAME), oifname, verdict],
            text: format!("iifname . oifname vmap @{WITHIN}"),
        },
        RuleSpec {
            expressions: vec![
                Expr::Meta(meta::IIFNAME),
                Expr::is_in(BRIDGES),
                Expr::Meta(meta::OIFNAME),
                Expr::is_in(BRIDGES),
                Expr::Verdict(Verdict::Drop),
            ],
            text: format!("iifname @{BRIDGES} oifname @{BRIDGES} drop"),
        },
    ]
}

/// Accepts what a pod sends, and the answers to it.
fn forward(published: bool) -> Vec<RuleSpec> {
    let mut all = Vec::new();
    if published {
        let is_mapped = Expr::any_bit(ct_status::DST_NAT);
        all.push(RuleSpec {
            expressions: [&[Expr::ConntrackStatus], &is_mapped[..], &[Expr::jump(OF_PUBLISHED)]]
                .concat(),
            text: format!("ct status dnat jump {OF_PUBLISHED}"),
        });
    }
    all.extend([jump(ISOLATION), jump(ADMIN)]);
    for (family, pods) in Family::ALL.into_iter().zip(PODS) {
        all.extend([accept(family, "daddr", pods, true), accept(family, "saddr", pods, false)]);
    }
    all
}

/// Accepts connections with a DNAT to a pod: its packets, and the answers to them. The administrator's rules
/// come first.
fn of_published() -> Vec<RuleSpec> {
    let mut all = vec![jump(ADMIN)];
    for (family, pods) in Family::ALL.into_iter().zip(PUBLISHED) {
        all.extend([accept(family, "daddr", pods, false), accept(family, "saddr", pods, true)]);
    }
    all
}

fn jump(chain: &str) -> RuleSpec {
    RuleSpec { expressions: vec![Expr::jump(chain)], text: format!("jump {chain}") }
}

/// Accepts packets to (`daddr`) or from (`saddr`) the addresses of a set; only answers if `answers` is set.
fn accept(family: Family, side: &str, pods: &str, answers: bool) -> RuleSpec {
    let address = if side == "daddr" { Expr::destination(family) } else { Expr::source(family) };
    let mut expressions = [&Expr::is_of(family)[..], &[address, Expr::is_in(pods)]].concat();
    let ip = TableFamily::from(family).name();
    let mut text = format!("{ip} {side} @{pods}");
    if answers {
        let states = u32::from(ct_state::RELATED | ct_state::ESTABLISHED);
        expressions.push(Expr::ConntrackState);
        expressions.extend(Expr::any_bit(states));
        text += " ct state established,related";
    }
    expressions.push(Expr::Verdict(Verdict::Accept));
    RuleSpec { expressions, text: text + " accept" }
}
