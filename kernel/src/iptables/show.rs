//! Formats rules as `iptables -S` does, for messages and for `iptables-restore`.

use std::fmt::{Display, Formatter, Result};
use std::net::IpAddr;

use super::{Bits, Is, Match, Ports, Rule, SCTP, TCP, Target, UDP, ct_state, iprange};

/// The text that `iptables -S` shows after `-A CHAIN`.
impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let mut words = Vec::new();
        let mut option = |name: &str, negated: bool, value: String| {
            words.extend(negated.then(|| "!".to_owned()));
            words.push(format!("{name} {value}"));
        };
        if let Some(is) = &self.source {
            option("-s", is.negated, is.value.to_string());
        }
        if let Some(is) = &self.destination {
            option("-d", is.negated, is.value.to_string());
        }
        if let Some(is) = &self.in_interface {
            option("-i", is.negated, word(&is.value));
        }
        if let Some(is) = &self.out_interface {
            option("-o", is.negated, word(&is.value));
        }
        if let Some(is) = &self.protocol {
            option("-p", is.negated, protocol_name(is.value));
        }
        let protocol = self.protocol.map(|is| protocol_name(is.value)).unwrap_or_default();
        words.extend(self.matches.iter().map(|one| show_match(one, &protocol)));
        words.extend(self.target.as_ref().map(show_target));
        f.write_str(&words.join(" "))
    }
}

fn protocol_name(number: u8) -> String {
    match number {
        TCP => "tcp".into(),
        UDP => "udp".into(),
        SCTP => "sctp".into(),
        other => other.to_string(),
    }
}

fn show_match(one: &Match, protocol: &str) -> String {
    match one {
        Match::SourcePort(is) => format!("-m {protocol} {}--sport {}", not(is), ports(is.value)),
        Match::DestinationPort(is) => {
            format!("-m {protocol} {}--dport {}", not(is), ports(is.value))
        }
        Match::DestinationPorts(is) => {
            let list: Vec<_> = is.value.iter().copied().map(ports).collect();
            format!("-m multiport {}--dports {}", not(is), list.join(","))
        }
        Match::AddressType { source, destination } => {
            let side = |name, side: &Option<Is<u16>>| {
                side.map(|is| format!(" {}{name} {}", not(&is), address_types(is.value)))
            };
            let source = side("--src-type", source).unwrap_or_default();
            format!("-m addrtype{source}{}", side("--dst-type", destination).unwrap_or_default())
        }
        Match::Mark(is) => format!("-m mark {}--mark {}", not(is), bits(is.value)),
        Match::Comment(text) => format!("-m comment --comment {}", comment(text)),
        Match::AddressRange { source, destination } => iprange::show(*source, *destination),
        Match::ConntrackState(is) => {
            format!("-m conntrack {}--ctstate {}", not(is), conntrack_states(is.value))
        }
        Match::Other(expressions) => format!("[{expressions:?}]"),
    }
}

fn show_target(target: &Target) -> String {
    match target {
        Target::Jump(chain) => format!("-j {}", word(chain)),
        Target::Goto(chain) => format!("-g {}", word(chain)),
        Target::Accept => "-j ACCEPT".into(),
        Target::Drop => "-j DROP".into(),
        Target::Return => "-j RETURN".into(),
        Target::Dnat { address, port } => {
            format!("-j DNAT --to-destination {}", at(*address, *port))
        }
        Target::Masquerade { random_fully: false } => "-j MASQUERADE".into(),
        Target::Masquerade { random_fully: true } => "-j MASQUERADE --random-fully".into(),
        Target::Mark(value) => format!("-j MARK --set-xmark {:#x}/{:#x}", value.value, value.mask),
        Target::Other(expression) => format!("-j [{expression:?}]"),
    }
}

/// A comment, quoted as iptables quotes it: not if it has only letters, digits, `_` and `-`.
fn comment(text: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "_-".contains(character);
    if !text.is_empty() && text.chars().all(is_plain) { text.to_owned() } else { quoted(text) }
}

/// A name. It is quoted only if it would otherwise not be read as one word.
pub(super) fn word(name: &str) -> String {
    let splits = |character: char| character.is_whitespace() || "\"\\".contains(character);
    if name.contains(splits) { quoted(name) } else { name.to_owned() }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        if "\"\\'".contains(character) {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted + "\""
}

fn not<T>(is: &Is<T>) -> &'static str {
    if is.negated { "! " } else { "" }
}

fn ports(ports: Ports) -> String {
    let Ports { first, last } = ports;
    if first == last { first.to_string() } else { format!("{first}:{last}") }
}

fn bits(bits: Bits) -> String {
    let Bits { value, mask } = bits;
    if mask == u32::MAX { format!("{value:#x}") } else { format!("{value:#x}/{mask:#x}") }
}

fn at(address: IpAddr, port: Option<u16>) -> String {
    match (address, port) {
        (address, None) => address.to_string(),
        (IpAddr::V4(address), Some(port)) => format!("{address}:{port}"),
        (IpAddr::V6(address), Some(port)) => format!("[{address}]:{port}"),
    }
}

/// The names of the `RTN_*` types; the index is the number.
pub(super) const ADDRESS_TYPES: [&str; 12] = [
    "UNSPEC",
    "UNICAST",
    "LOCAL",
    "BROADCAST",
    "ANYCAST",
    "MULTICAST",
    "BLACKHOLE",
    "UNREACHABLE",
    "PROHIBIT",
    "THROW",
    "NAT",
    "XRESOLVE",
];

/// The states of `--ctstate`.
pub(super) const CONNTRACK_STATES: [(&str, u16); 7] = [
    ("INVALID", ct_state::INVALID),
    ("NEW", ct_state::NEW),
    ("RELATED", ct_state::RELATED),
    ("ESTABLISHED", ct_state::ESTABLISHED),
    ("UNTRACKED", ct_state::UNTRACKED),
    ("SNAT", ct_state::SNAT),
    ("DNAT", ct_state::DNAT),
];

fn address_types(set: u16) -> String {
    let named = ADDRESS_TYPES.iter().enumerate().filter(|(bit, _)| set & (1 << bit) != 0);
    named.map(|(_, name)| *name).collect::<Vec<_>>().join(",")
}

fn conntrack_states(set: u16) -> String {
    let named = CONNTRACK_STATES.iter().filter(|(_, bit)| set & bit != 0);
    named.map(|(name, _)| *name).collect::<Vec<_>>().join(",")
}
