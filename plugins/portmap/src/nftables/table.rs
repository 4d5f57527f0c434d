//! The table: its sets, chains and rules, which all containers share.

use kernel::Family;
use kernel::nft::{
    Base, BaseChain, ChainSpec, Contents, Expr, Found, Hook, Order, RuleSpec, SetSpec, SetType,
    Table, TableFamily, TableSpec, Type, Verdict, meta,
};

/// From ports at all addresses of the node to pods.
pub(super) const HOST_PORTS: &str = "host_ports";
/// From ports at one address of the node to pods.
pub(super) const HOST_IP_PORTS: &str = "host_ip_ports";
/// From ports that have mappings with conditions to the chains of these.
pub(super) const CONDITIONAL_PORTS: &str = "conditional_ports";
/// Links with the setting `route_localnet`, whose packets to 127.0.0.0/8 are dropped.
pub(super) const GUARDED_LINKS: &str = "guarded_links";
/// These links, each with the pods that get packets from 127.0.0.1 by it.
pub(super) const LOOPBACK_PODS: &str = "loopback_pods";
/// The chain for packets to the node itself.
pub(super) const ENTRY_CHAIN: &str = "host_ports";
const POSTROUTING: &str = "postrouting";
/// The chain of the guard.
pub(super) const GUARD_CHAIN: &str = "loopback_guard";

/// The bit of the packet mark that mapped packets keep, so that only these are masqueraded, and not those
/// that kube-proxy sends to the same pod. kube-proxy (14, 15) and the backend `iptables` (13) use other bits.
const MARK: u32 = 0x1000;

/// Where the destination address is in a header of IPv4.
const DESTINATION_V4: u32 = 16;

/// `RTN_LOCAL` of `linux/rtnetlink.h`.
const LOCAL: u32 = 2;

/// After kube-proxy, whose chains have the priority -100 like those of iptables, so that a port of a Service
/// stays one (CVE-2019-9946). Of two chains with one priority, the newer one would come first.
const BEHIND_KUBE_PROXY: i32 = -99;
/// The priority of `mangle`, before a packet gets another destination.
const BEFORE_NAT: i32 = -150;
/// Before other programs give packets another source, like the backend `iptables`.
const BEFORE_MASQUERADING: i32 = 99;

/// The set of pairs of a network of this length and a pod that it reaches only with the node's address.
pub(super) fn masquerade_set(prefix: u8) -> String {
    format!("masquerade_{prefix}")
}

/// The lengths of networks for which a table has such sets.
pub(super) fn masquerade_prefixes(contents: &Contents) -> Vec<u8> {
    let prefix = |(name, _): &(String, _)| name.strip_prefix("masquerade_")?.parse().ok();
    contents.sets.iter().filter_map(prefix).collect()
}

/// The table of a family.
pub(super) fn table(family: Family) -> Table {
    Table { family: family.into(), name: "podwire_hostport" }
}

/// The table with its parts for masquerading networks of these lengths.
pub(super) fn spec(family: Family, prefixes: &[u8]) -> TableSpec {
    let nat = |hook, priority| Some(BaseChain { kind: "nat", hook, priority });
    let any = |name, base, rules| ChainSpec { name, base, comment: None, rules, order: Order::Any };
    let entry = any(ENTRY_CHAIN, None, entry_rules(family));
    let mut chains = vec![
        ChainSpec { order: Order::BeforeOthers, ..entry },
        any("prerouting", nat(Hook::Prerouting, BEHIND_KUBE_PROXY), vec![to_entry()]),
        any("output", nat(Hook::Output, BEHIND_KUBE_PROXY), vec![to_entry()]),
    ];
    let rules = prefixes.iter().map(|prefix| masquerade(family, *prefix)).collect();
    chains.push(any(POSTROUTING, nat(Hook::Postrouting, BEFORE_MASQUERADING), rules));
    if family == Family::V4 {
        let base = BaseChain { kind: "filter", hook: Hook::Prerouting, priority: BEFORE_NAT };
        chains.push(any(GUARD_CHAIN, Some(base), vec![guard()]));
    }
    TableSpec { table: table(family), comment: None, sets: sets(family, prefixes), chains }
}

/// Whether the table has the guard. Earlier versions did not make it.
pub(super) fn has_guard(contents: &Contents) -> bool {
    contents.has_set(LOOPBACK_PODS)
}

/// The table without the guard.
pub(super) fn without_guard(mut spec: TableSpec) -> TableSpec {
    spec.sets.retain(|set| ![GUARDED_LINKS, LOOPBACK_PODS].contains(&set.name.as_str()));
    spec.chains.retain(|chain| chain.name != GUARD_CHAIN);
    spec
}

fn sets(family: Family, prefixes: &[u8]) -> Vec<SetSpec> {
    let address = if family == Family::V6 { Type::Ipv6 } else { Type::Ipv4 };
    let port = vec![Type::Protocol, Type::Port];
    let pod = vec![address, Type::Port];
    let named = |name: &str, key, data, expires| SetSpec {
        name: name.to_owned(),
        of: SetType { key, data, expires },
    };
    let mut all = vec![
        named(HOST_PORTS, port.clone(), pod.clone(), true),
        named(HOST_IP_PORTS, [&[address], port.as_slice()].concat(), pod, true),
        named(CONDITIONAL_PORTS, port, vec![Type::Verdict], false),
    ];
    let masquerade = prefixes.iter().map(|prefix| masquerade_set(*prefix));
    all.extend(masquerade.map(|name| named(&name, vec![address, address], Vec::new(), true)));
    if family == Family::V4 {
        let link = vec![Type::Ifname];
        all.push(named(GUARDED_LINKS, link, Vec::new(), true));
        all.push(named(LOOPBACK_PODS, vec![Type::Ifname, address], Vec::new(), true));
    }
    all
}

/// Sends packets to the node itself through the chain of mappings.
fn to_entry() -> RuleSpec {
    RuleSpec {
        expressions: vec![
            Expr::DestinationType,
            Expr::equal(LOCAL.to_ne_bytes()),
            Expr::jump(ENTRY_CHAIN),
        ],
        text: format!("fib daddr type local jump {ENTRY_CHAIN}"),
    }
}

fn entry_rules(family: Family) -> Vec<RuleSpec> {
    let (ip, words) = (TableFamily::from(family).name(), words(family));
    let lookup = |set: &str, found| Expr::Lookup { set: set.to_owned(), found };
    let dnat = Expr::Dnat { family, port: words };
    let port = [protocol(), at(1, destination_port())];
    let host_ip_port =
        [Expr::destination(family), at(words, protocol()), at(words + 1, destination_port())];
    let rule = |expressions: Vec<Expr>, text: String| RuleSpec { expressions, text };
    vec![
        // First, because conditions may be about the mark.
        rule(
            [&port[..], &[lookup(CONDITIONAL_PORTS, Found::Verdict)]].concat(),
            format!("meta l4proto . th dport vmap @{CONDITIONAL_PORTS}"),
        ),
        mark(),
        rule(
            [&host_ip_port[..], &[lookup(HOST_IP_PORTS, Found::Load), dnat.clone()]].concat(),
            format!("dnat {ip} to {ip} daddr . meta l4proto . th dport map @{HOST_IP_PORTS}"),
        ),
        rule(
            [&port[..], &[lookup(HOST_PORTS, Found::Load), dnat]].concat(),
            format!("dnat {ip} to meta l4proto . th dport map @{HOST_PORTS}"),
        ),
        // Packets without a mapping go on without the bit.
        rule(set_mark(0), format!("meta mark set meta mark & {:#010x}", !MARK)),
    ]
}

/// Drops packets to 127.0.0.0/8 that come in by a link towards a pod.
fn guard() -> RuleSpec {
    RuleSpec {
        expressions: vec![
            Expr::Payload { base: Base::Network, offset: DESTINATION_V4, len: 1 },
            Expr::equal([127]),
            Expr::Meta(meta::IIFNAME),
            Expr::is_in(GUARDED_LINKS),
            Expr::Verdict(Verdict::Drop),
        ],
        text: format!("ip daddr 127.0.0.0/8 iifname @{GUARDED_LINKS} drop"),
    }
}

/// Gives the node's address to mapped packets, if the set contains their source network and the pod.
fn masquerade(family: Family, prefix: u8) -> RuleSpec {
    let ip = TableFamily::from(family).name();
    let mask = mask(family, prefix);
    let bit = MARK.to_ne_bytes();
    let mut expressions = vec![
        Expr::Meta(meta::MARK),
        Expr::Bitwise { mask: bit.into(), xor: vec![0; 4] },
        Expr::equal(bit),
        Expr::source(family),
    ];
    let mut shown = String::new();
    if mask.iter().any(|byte| *byte != u8::MAX) {
        shown = format!(" & {}", show_address(&mask));
        expressions.push(Expr::Bitwise { xor: vec![0; mask.len()], mask });
    }
    let name = masquerade_set(prefix);
    expressions.extend([
        at(words(family), Expr::destination(family)),
        Expr::is_in(&name),
        Expr::Masquerade,
    ]);
    let text = format!(
        "meta mark & {MARK:#010x} == {MARK:#010x} {ip} saddr{shown} . {ip} daddr @{name} masquerade"
    );
    RuleSpec { expressions, text }
}

/// Marks a packet that is being mapped.
pub(super) fn mark() -> RuleSpec {
    let text = format!("meta mark set meta mark | {MARK:#010x}");
    RuleSpec { expressions: set_mark(MARK), text }
}

fn set_mark(bits: u32) -> Vec<Expr> {
    let [mask, xor] = [!MARK, bits].map(|bits| bits.to_ne_bytes().to_vec());
    vec![Expr::Meta(meta::MARK), Expr::Bitwise { mask, xor }, Expr::SetMeta(meta::MARK)]
}

fn at(word: u8, load: Expr) -> Expr {
    Expr::At(word, Box::new(load))
}

/// The words of 4 bytes that an address has.
pub(super) fn words(family: Family) -> u8 {
    if family == Family::V6 { 4 } else { 1 }
}

/// Loads the protocol above IP.
pub(super) fn protocol() -> Expr {
    Expr::Meta(meta::L4PROTO)
}

/// Loads the destination port.
pub(super) fn destination_port() -> Expr {
    Expr::Payload { base: Base::Transport, offset: 2, len: 2 }
}

/// A network's mask.
pub(super) fn mask(family: Family, prefix: u8) -> Vec<u8> {
    let bits = |at: u8| prefix.saturating_sub(8 * at).min(8);
    (0..4 * words(family))
        .map(|at| u8::MAX.checked_shl(8 - u32::from(bits(at))).unwrap_or(0))
        .collect()
}

/// The bytes of an address as text.
pub(super) fn show_address(bytes: &[u8]) -> String {
    kernel::nft::address(bytes)
        .map_or_else(|| format!("{bytes:02x?}"), |address| address.to_string())
}
