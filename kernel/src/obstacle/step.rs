//! Evaluates one rule for a packet that is only partly known.

use std::net::IpAddr;

use super::Packet;
use crate::error::Result;
use crate::family::Family;
use crate::iptables::{ct_state, states_of};
use crate::nft::{Base, Data, Element, Expr, Found, Verdict, meta, octets};

/// What a rule does with a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    Accept,
    Drop,
    /// The packet continues at the next rule.
    Continue,
    Return,
    Jump(String),
    Goto(String),
}

/// What a rule may do with a packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Whether the packet certainly matches all conditions of the rule.
    pub(super) is_certain: bool,
    /// What the rule may do if the packet matches.
    pub(super) acts: Vec<Act>,
}

/// What is known about a packet, as the bytes that rules load.
pub(super) struct Known {
    protocol: u8,
    in_interface: Option<[u8; 16]>,
    source: Option<Vec<u8>>,
    /// The offset of the source address in the network header.
    source_offset: u32,
}

/// The content of a rule's register.
enum Loaded {
    Unknown,
    /// The state of the connection, without a mask.
    State,
    Bytes(Vec<u8>),
}

impl Known {
    pub(super) fn of(packet: Packet<'_>) -> Self {
        let is_v6 = packet.family == Family::V6;
        let name = |name: &str| {
            let mut padded = [0; 16];
            padded.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
            padded
        };
        let is_of_family = |source: &IpAddr| source.is_ipv6() == is_v6;
        Self {
            protocol: packet.family.number(),
            in_interface: packet.in_interface.map(name),
            source: packet.source.filter(is_of_family).map(octets),
            source_offset: if is_v6 { 8 } else { 12 },
        }
    }

    fn load(&self, load: &Expr) -> Loaded {
        let bytes = match load {
            Expr::ConntrackState => return Loaded::State,
            Expr::Meta(meta::NFPROTO) => Some(vec![self.protocol]),
            Expr::Meta(meta::IIFNAME) => self.in_interface.map(Into::into),
            Expr::Payload { base: Base::Network, offset, len } => self.payload(*offset, *len),
            _ => None,
        };
        bytes.map_or(Loaded::Unknown, Loaded::Bytes)
    }

    /// Bytes of the network header, if all of them belong to a known source address.
    fn payload(&self, offset: u32, len: u32) -> Option<Vec<u8>> {
        let from = usize::try_from(offset.checked_sub(self.source_offset)?).ok()?;
        let to = from.checked_add(usize::try_from(len).ok()?)?;
        Some(self.source.as_ref()?.get(from..to)?.to_vec())
    }
}

/// Evaluates a rule. For an unknown condition, it is not known whether the packet matches. An unknown target
/// may accept the packet.
pub(super) fn read(
    rule: &[Expr],
    known: &Known,
    elements: impl Fn(&str) -> Result<Vec<Element>>,
) -> Result<Step> {
    let mut loaded = Loaded::Unknown;
    let mut step = Step { is_certain: true, acts: Vec::new() };
    for expression in rule {
        // None if it is not known whether the packet matches.
        let mut holds = Some(true);
        match expression {
            Expr::Meta(_) | Expr::Payload { .. } | Expr::ConntrackState => {
                loaded = known.load(expression);
            }
            Expr::Bitwise { mask, xor } => loaded = masked(&loaded, mask, xor),
            Expr::Cmp { negated, value } => holds = compare(&loaded, *negated, value),
            Expr::Lookup { set, found: Found::Continue } => {
                holds = match loaded {
                    Loaded::State => has_new(&elements(set)?),
                    _ => None,
                };
            }
            Expr::Lookup { set, found: Found::Verdict } => {
                step.acts = verdicts(&loaded, elements(set)?);
            }
            Expr::Match(xt) if xt.name == "comment" => {}
            Expr::Match(xt) => {
                holds = states_of(xt).and_then(|is| Some(takes_new(is.value)? != is.negated));
            }
            Expr::Verdict(verdict) => step.acts.push(act(verdict)),
            Expr::Masquerade | Expr::Dnat { .. } => step.acts.push(Act::Accept),
            Expr::Target(xt) => step.acts.extend(target(&xt.name)),
            Expr::Counter { .. } | Expr::SetMeta(_) => {}
            Expr::Other { name, .. } => match other(name) {
                Other::Nothing => {}
                Other::Condition(answer) => {
                    holds = answer;
                    loaded = Loaded::Unknown;
                }
                Other::Act(act) => step.acts.push(act),
            },
            Expr::Range { .. } => holds = None,
            Expr::Lookup { .. }
            | Expr::At(..)
            | Expr::Immediate(_)
            | Expr::DestinationType
            | Expr::ConntrackStatus => {
                loaded = Loaded::Unknown;
            }
        }
        match holds {
            Some(true) => {}
            Some(false) => return Ok(Step { is_certain: true, acts: vec![Act::Continue] }),
            None => step.is_certain = false,
        }
    }
    if step.acts.is_empty() {
        step.acts.push(Act::Continue);
    }
    Ok(step)
}

fn masked(loaded: &Loaded, mask: &[u8], xor: &[u8]) -> Loaded {
    let untracked = u32::from(ct_state::UNTRACKED).to_ne_bytes();
    let bytes = match loaded {
        Loaded::Bytes(bytes) => bytes.clone(),
        // It is not known whether the packet is tracked.
        Loaded::State if mask.iter().zip(untracked).any(|(mask, bit)| mask & bit != 0) => {
            return Loaded::Unknown;
        }
        Loaded::State => u32::from(ct_state::NEW).to_ne_bytes().into(),
        Loaded::Unknown => return Loaded::Unknown,
    };
    if bytes.len() != mask.len() || mask.len() != xor.len() {
        return Loaded::Unknown;
    }
    let bits = bytes.iter().zip(mask).zip(xor);
    Loaded::Bytes(bits.map(|((byte, mask), xor)| byte & mask ^ xor).collect())
}

fn compare(loaded: &Loaded, negated: bool, value: &[u8]) -> Option<bool> {
    let bytes = match loaded {
        Loaded::Bytes(bytes) => bytes.clone(),
        Loaded::State => u32::from(ct_state::NEW).to_ne_bytes().into(),
        Loaded::Unknown => return None,
    };
    Some(bytes.starts_with(value) != negated)
}

/// Whether a set of states contains that of a new connection. None if that is not known.
fn takes_new(states: u16) -> Option<bool> {
    if states & ct_state::UNTRACKED != 0 {
        return None;
    }
    // It is not known whether an address is translated.
    let may_be = ct_state::SNAT | ct_state::DNAT;
    if states & may_be != 0 && states & ct_state::NEW == 0 {
        None
    } else {
        Some(states & ct_state::NEW != 0)
    }
}

fn state(element: &Element) -> Option<u16> {
    let bytes = element.key.first_chunk().copied()?;
    u16::try_from(u32::from_ne_bytes(bytes)).ok()
}

/// The same for the elements of a set.
fn has_new(elements: &[Element]) -> Option<bool> {
    let states = elements.iter().map(|element| state(element).unwrap_or(ct_state::UNTRACKED));
    takes_new(states.fold(0, |all, one| all | one))
}

/// The possible verdicts of a map.
fn verdicts(loaded: &Loaded, mut elements: Vec<Element>) -> Vec<Act> {
    if matches!(loaded, Loaded::State) {
        let is_meant = |one: &Element| {
            state(one).is_none_or(|state| state & (ct_state::NEW | ct_state::UNTRACKED) != 0)
        };
        elements.retain(is_meant);
        if let Some(new) = elements.iter().find(|one| state(one) == Some(ct_state::NEW)) {
            elements = vec![new.clone()];
            return elements.iter().filter_map(of_element).collect();
        }
    }
    elements.iter().filter_map(of_element).chain([Act::Continue]).collect()
}

fn of_element(element: &Element) -> Option<Act> {
    match &element.data {
        Some(Data::Verdict(verdict)) => Some(act(verdict)),
        _ => None,
    }
}

fn act(verdict: &Verdict) -> Act {
    match verdict {
        Verdict::Accept => Act::Accept,
        Verdict::Drop => Act::Drop,
        Verdict::Return => Act::Return,
        Verdict::Jump(chain) => Act::Jump(chain.clone()),
        Verdict::Goto(chain) => Act::Goto(chain.clone()),
    }
}

/// Targets of iptables after which the packet continues at the next rule.
const PASSIVE: [&str; 17] = [
    "AUDIT",
    "CHECKSUM",
    "CLASSIFY",
    "CONNMARK",
    "CONNSECMARK",
    "CT",
    "DSCP",
    "HL",
    "LED",
    "LOG",
    "MARK",
    "NFLOG",
    "SECMARK",
    "SET",
    "TCPMSS",
    "TOS",
    "TTL",
];

/// What a target of iptables does. None if the packet continues at the next rule.
fn target(name: &str) -> Option<Act> {
    match name {
        "REJECT" => Some(Act::Drop),
        passive if PASSIVE.contains(&passive) => None,
        _ => Some(Act::Accept),
    }
}

/// What an expression does that this crate does not decode.
enum Other {
    Nothing,
    Condition(Option<bool>),
    Act(Act),
}

fn other(name: &str) -> Other {
    // The text of a legacy rule.
    if let Some(rest) = name.strip_prefix("-j ") {
        let target = target(rest.split(' ').next().unwrap_or_default());
        return target.map_or(Other::Nothing, Other::Act);
    }
    if let Some(states) = name.strip_prefix("-m state --state ") {
        let is_open_already = |state| matches!(state, "RELATED" | "ESTABLISHED" | "INVALID");
        let is_for_answers = states.split(',').all(is_open_already);
        return Other::Condition(if is_for_answers { Some(false) } else { None });
    }
    match name {
        "log" | "notrack" | "last" | "dup" | "flow_offload" => Other::Nothing,
        "reject" => Other::Act(Act::Drop),
        "queue" | "nat" | "redir" | "tproxy" | "synproxy" | "fwd" => Other::Act(Act::Accept),
        _ => Other::Condition(None),
    }
}
