//! The table: what is in it whatever is mapped.

use kernel::Family;
use kernel::nft::{
    Base, BaseChain, Expr, Found, Hook, Set, SetType, TableFamily, Type, Verdict, meta,
};

/// The table's name, in both families.
pub(super) const TABLE: &str = "podwire_hostport";
/// Ports at all addresses of the node, and the pods that they lead to.
pub(super) const HOST_PORTS: &str = "host_ports";
/// Ports at one address of the node.
pub(super) const HOST_IP_PORTS: &str = "host_ip_ports";
/// Ports that have mappings with conditions, and the chains of those.
pub(super) const CONDITIONAL_PORTS: &str = "conditional_ports";
/// Links that have the setting `route_localnet` for our sake or others', and take no packets to 127.0.0.0/8.
pub(super) const GUARDED_LINKS: &str = "guarded_links";
/// Those links, each with the pods that get packets from 127.0.0.1 by it.
pub(super) const LOOPBACK_PODS: &str = "loopback_pods";
/// The chain that packets to the node itself go through.
pub(super) const ENTRY_CHAIN: &str = "host_ports";
const POSTROUTING: &str = "postrouting";
/// The chain of the guard.
pub(super) const GUARD_CHAIN: &str = "loopback_guard";

/// The bit of the packet mark that stays on what was mapped, so that nothing but that is masqueraded: not
/// what kube-proxy led to the same pod. Another one than kube-proxy (14, 15) and the backend `iptables` (13)
/// use, whose rules would masquerade all that has it.
const MARK: u32 = 0x1000;

/// Where the destination address is in a header of IPv4.
const DESTINATION_V4: u32 = 16;

/// `IFNAMSIZ`.
pub(super) const INTERFACE_NAME: usize = 16;

/// `RTN_LOCAL` of `linux/rtnetlink.h`.
const LOCAL: u32 = 2;

/// Behind kube-proxy, whose table is at -100 as that of iptables is: a port of a Service stays one
/// (CVE-2019-9946). Of two chains of one priority, the one that was made last would come first.
const BEHIND_KUBE_PROXY: i32 = -99;
/// `mangle`: before any packet gets another destination.
const BEFORE_NAT: i32 = -150;
/// Before others that would give the packet another source, as the backend `iptables` has it.
const BEFORE_MASQUERADING: i32 = 99;

/// A set or map of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedSet {
    pub(super) name: String,
    pub(super) of: SetType,
}

/// A rule that all containers share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shared {
    pub(super) chain: &'static str,
    pub(super) base: Option<BaseChain>,
    pub(super) expressions: Vec<Expr>,
    /// As `nft` would show it.
    pub(super) text: String,
}

/// The set of pods and of those that reach them by the node's address only, as networks of this length.
pub(super) fn masquerade_set(prefix: u8) -> String {
    format!("masquerade_{prefix}")
}

/// A set of the table.
pub(super) fn set(family: Family, name: &str) -> Set<'_> {
    Set { family: family.into(), table: TABLE, name }
}

/// A chain of the table.
pub(super) fn chain(family: Family, name: &str) -> kernel::nft::Chain<'_> {
    kernel::nft::Chain { family: family.into(), table: TABLE, name }
}

/// All sets and maps, with those for masquerading networks of these lengths.
pub(super) fn sets(family: Family, prefixes: &[u8]) -> Vec<NamedSet> {
    let address = if family == Family::V6 { Type::Ipv6 } else { Type::Ipv4 };
    let port = vec![Type::Protocol, Type::Port];
    let pod = vec![address, Type::Port];
    let named = |name: &str, key, data, expires| NamedSet {
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

/// All shared rules, with those for masquerading networks of these lengths, in their chains' order.
pub(super) fn rules(family: Family, prefixes: &[u8]) -> Vec<Shared> {
    let ip = TableFamily::from(family).name();
    let hook = |hook, priority| Some(BaseChain { kind: "nat", hook, priority });
    let enter = |chain, at| Shared {
        chain,
        base: hook(at, BEHIND_KUBE_PROXY),
        expressions: vec![
            Expr::DestinationType,
            Expr::Cmp { negated: false, value: LOCAL.to_ne_bytes().into() },
            Expr::Verdict(Verdict::Jump(ENTRY_CHAIN.to_owned())),
        ],
        text: format!("fib daddr type local jump {ENTRY_CHAIN}"),
    };
    let entry = |expressions: Vec<Expr>, text: String| Shared {
        chain: ENTRY_CHAIN,
        base: None,
        expressions,
        text,
    };
    let words = words(family);
    let dnat = Expr::Dnat { family, port: words };
    let port = [protocol(), at(1, destination_port())];
    let host_ip_port =
        [destination(family), at(words, protocol()), at(words + 1, destination_port())];
    let mut all = vec![
        // Before the mark is changed, which conditions may be about.
        entry(
            [&port[..], &[lookup(CONDITIONAL_PORTS, Found::Verdict)]].concat(),
            format!("meta l4proto . th dport vmap @{CONDITIONAL_PORTS}"),
        ),
        entry(set_mark(MARK), mark_text()),
        entry(
            [&host_ip_port[..], &[lookup(HOST_IP_PORTS, Found::Load), dnat.clone()]].concat(),
            format!("dnat {ip} to {ip} daddr . meta l4proto . th dport map @{HOST_IP_PORTS}"),
        ),
        entry(
            [&port[..], &[lookup(HOST_PORTS, Found::Load), dnat]].concat(),
            format!("dnat {ip} to meta l4proto . th dport map @{HOST_PORTS}"),
        ),
        // What was not mapped goes on without the bit.
        entry(set_mark(0), format!("meta mark set meta mark & {:#010x}", !MARK)),
        enter("prerouting", Hook::Prerouting),
        enter("output", Hook::Output),
    ];
    all.extend(prefixes.iter().map(|prefix| Shared {
        chain: POSTROUTING,
        base: hook(Hook::Postrouting, BEFORE_MASQUERADING),
        ..masquerade(family, *prefix)
    }));
    if family == Family::V4 {
        all.push(Shared {
            base: Some(BaseChain { kind: "filter", hook: Hook::Prerouting, priority: BEFORE_NAT }),
            ..guard()
        });
    }
    all
}

/// Drops packets to 127.0.0.0/8 that come in by a link towards a pod.
fn guard() -> Shared {
    Shared {
        chain: GUARD_CHAIN,
        base: None,
        expressions: vec![
            Expr::Payload { base: Base::Network, offset: DESTINATION_V4, len: 1 },
            Expr::Cmp { negated: false, value: vec![127] },
            Expr::Meta(meta::IIFNAME),
            lookup(GUARDED_LINKS, Found::Continue),
            Expr::Verdict(Verdict::Drop),
        ],
        text: format!("ip daddr 127.0.0.0/8 iifname @{GUARDED_LINKS} drop"),
    }
}

/// Gives the node's address to what was mapped, if the set holds the network that it comes from and the pod.
fn masquerade(family: Family, prefix: u8) -> Shared {
    let ip = TableFamily::from(family).name();
    let mask = mask(family, prefix);
    let is_all = mask.iter().all(|byte| *byte == u8::MAX);
    let mut expressions = vec![
        Expr::Meta(meta::MARK),
        Expr::Bitwise { mask: MARK.to_ne_bytes().into(), xor: vec![0; 4] },
        Expr::Cmp { negated: false, value: MARK.to_ne_bytes().into() },
        source(family),
    ];
    let mut shown = String::new();
    if !is_all {
        shown = format!(" & {}", show_address(&mask));
        expressions.push(Expr::Bitwise { xor: vec![0; mask.len()], mask });
    }
    let name = masquerade_set(prefix);
    expressions.extend([
        at(words(family), destination(family)),
        lookup(&name, Found::Continue),
        Expr::Masquerade,
    ]);
    let text = format!(
        "meta mark & {MARK:#010x} == {MARK:#010x} {ip} saddr{shown} . {ip} daddr @{name} masquerade"
    );
    Shared { chain: POSTROUTING, base: None, expressions, text }
}

/// Notes on a packet that it is being mapped.
pub(super) fn mark() -> (Vec<Expr>, String) {
    (set_mark(MARK), mark_text())
}

fn mark_text() -> String {
    format!("meta mark set meta mark | {MARK:#010x}")
}

fn set_mark(bits: u32) -> Vec<Expr> {
    let [mask, xor] = [!MARK, bits].map(|bits| bits.to_ne_bytes().to_vec());
    vec![Expr::Meta(meta::MARK), Expr::Bitwise { mask, xor }, Expr::SetMeta(meta::MARK)]
}

fn lookup(set: &str, found: Found) -> Expr {
    Expr::Lookup { set: set.to_owned(), found }
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

/// Loads the source address.
pub(super) fn source(family: Family) -> Expr {
    let v6 = family == Family::V6;
    let (offset, len) = if v6 { (8, 16) } else { (12, 4) };
    Expr::Payload { base: Base::Network, offset, len }
}

/// Loads the destination address.
pub(super) fn destination(family: Family) -> Expr {
    let v6 = family == Family::V6;
    let (offset, len) = if v6 { (24, 16) } else { (DESTINATION_V4, 4) };
    Expr::Payload { base: Base::Network, offset, len }
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

/// An interface's name as it is compared: all of its 16 bytes.
pub(super) fn interface_name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(INTERFACE_NAME, 0);
    bytes
}

/// An address's bytes as text.
pub(super) fn show_address(bytes: &[u8]) -> String {
    match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
        (Ok(v4), _) => std::net::Ipv4Addr::from(v4).to_string(),
        (_, Ok(v6)) => std::net::Ipv6Addr::from(v6).to_string(),
        _ => format!("{bytes:02x?}"),
    }
}
