//! Expressions of `nf_tables` rules (`include/uapi/linux/netfilter/nf_tables.h`).
//!
//! They are written with the types of `netlink-packet-netfilter`, but read with [`attributes`]: the parser of
//! that crate formats an error text for every attribute, which takes too long for a thousand rules.

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::nftables as wire;

use super::attribute::{attribute, attributes, be_u32, be_u64, string};
use super::verdict::Verdict;
use crate::family::Family;

/// One step of a rule. Steps pass values in register 1, except those [`At`](Expr::At) another register.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Expr {
    /// Load a property of the packet: `enum nft_meta_keys`, see [`meta`].
    Meta(u32),
    /// Load bytes of the packet.
    Payload {
        /// The header.
        base: Base,
        /// The offset in that header.
        offset: u32,
        /// Number of bytes.
        len: u32,
    },
    /// Replace the loaded value by `(value & mask) ^ xor`.
    Bitwise {
        /// Bits to keep.
        mask: Vec<u8>,
        /// Bits to flip.
        xor: Vec<u8>,
    },
    /// Continue only if the loaded value is (or is not) this one.
    Cmp {
        /// True for "is not".
        negated: bool,
        /// In network byte order, except values that the kernel keeps in host order (marks).
        value: Vec<u8>,
    },
    /// Continue only if the loaded value is (or is not) within these bounds.
    Range {
        /// True for "is not".
        negated: bool,
        /// Lowest value, in network byte order.
        from: Vec<u8>,
        /// Highest value, in network byte order.
        to: Vec<u8>,
    },
    /// Count the packets that reach this step.
    Counter {
        /// Bytes so far.
        bytes: u64,
        /// Packets so far.
        packets: u64,
    },
    /// Give the packet the address of the interface on which it leaves, and end the rule.
    Masquerade,
    /// End the rule with a verdict.
    Verdict(Verdict),
    /// Load into this 4-byte word of the registers instead of the first one, for a key with several parts.
    At(u8, Box<Expr>),
    /// Load a constant.
    Immediate(Vec<u8>),
    /// Load the type of the packet's destination, in host byte order (`RTN_LOCAL`, …).
    DestinationType,
    /// Load the state of the packet's connection, in host byte order: a bit of
    /// [`ct_state`](crate::iptables::ct_state).
    ConntrackState,
    /// Load the status of the packet's connection, in host byte order: bits of [`ct_status`].
    ConntrackStatus,
    /// Set a property of the packet to the loaded value: `enum nft_meta_keys`.
    SetMeta(u32),
    /// Look the loaded value up in a set or map of the table.
    Lookup {
        /// Its name.
        set: String,
        /// What happens if the value is found. Otherwise the rule ends.
        found: Found,
    },
    /// Give the packet the destination whose address and port are loaded.
    Dnat {
        /// The family of the address.
        family: Family,
        /// The word of the registers that has the port. The first one has the address.
        port: u8,
    },
    /// A match of `x_tables`.
    Match(Xt),
    /// A target of `x_tables`.
    Target(Xt),
    /// An expression that this module does not decode.
    Other {
        /// Its name in the kernel.
        name: String,
        /// The attributes of its `NFTA_EXPR_DATA`, undecoded.
        data: Vec<u8>,
    },
}

/// The header that a payload is loaded from (`enum nft_payload_bases`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Base {
    /// Ethernet header.
    Link,
    /// IPv4 or IPv6 header.
    Network,
    /// TCP, UDP, … header.
    Transport,
}

/// What happens if a value is found in a set or map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Found {
    /// The rule continues.
    Continue,
    /// The map's data replaces the value.
    Load,
    /// The map's data is the verdict.
    Verdict,
}

/// An extension of `x_tables` in the format of `nft_compat`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Xt {
    /// Name of the extension, as in `/proc/net/ip_tables_matches`.
    pub name: String,
    /// Revision of its data.
    pub revision: u32,
    /// Its data: a C structure, padded to 8 bytes.
    pub info: Vec<u8>,
}

/// The keys of `enum nft_meta_keys` that are used here.
pub mod meta {
    /// Packet mark, in host byte order.
    pub const MARK: u32 = 3;
    /// Name of the input interface.
    pub const IIFNAME: u32 = 6;
    /// Name of the output interface.
    pub const OIFNAME: u32 = 7;
    /// IPv4 or IPv6 (`NFPROTO_*`), in a table of both.
    pub const NFPROTO: u32 = 15;
    /// Protocol above IP.
    pub const L4PROTO: u32 = 16;
}

/// The bits of [`Expr::ConntrackStatus`] that are used here (`enum ip_conntrack_status`).
pub mod ct_status {
    /// The destination of its first packet was changed.
    pub const DST_NAT: u32 = 1 << 5;
}

const NFT_REG_1: u32 = 1;
const NFT_REG32_00: u32 = 8;
const NFT_CMP_EQ: u32 = 0;
const NFT_CMP_NEQ: u32 = 1;
const NFTA_FIB_F_DADDR: u32 = 2;
const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
const NFT_NAT_DNAT: u32 = 1;
const NFT_CT_STATE: u32 = 0;
const NFT_CT_STATUS: u32 = 2;

impl Expr {
    /// The counter of a new rule.
    pub const ZERO: Expr = Expr::Counter { bytes: 0, packets: 0 };

    /// The attributes that the kernel expects.
    pub(super) fn to_wire(&self) -> wire::ListAttribute<wire::ExpressionAttribute> {
        self.to_wire_at(0)
    }

    fn to_wire_at(&self, word: u8) -> wire::ListAttribute<wire::ExpressionAttribute> {
        let number = |kind, number: u32| DefaultNla::new(kind, number.to_be_bytes().to_vec());
        let count = |kind, number: u64| DefaultNla::new(kind, number.to_be_bytes().to_vec());
        let value = |kind, bytes: &[u8]| DefaultNla::new(kind | NESTED, data_value(bytes));
        let register = |kind| number(kind, self::register(word));
        let (name, attributes) = match self {
            Expr::At(word, load) => return load.to_wire_at(*word),
            Expr::Verdict(verdict) => {
                return wire::Expressions::Immediate(vec![
                    wire::Immediate::DestinationRegister(wire::Register::Verdict),
                    wire::Immediate::Data(verdict.to_wire()),
                ])
                .into();
            }
            Expr::Meta(key) => ("meta", vec![number(2, *key), register(1)]),
            Expr::SetMeta(key) => ("meta", vec![number(2, *key), register(3)]),
            Expr::Payload { base, offset, len } => {
                let (base, offset, len) =
                    (number(2, base.number()), number(3, *offset), number(4, *len));
                ("payload", vec![register(1), base, offset, len])
            }
            Expr::Bitwise { mask, xor } => {
                let len = number(3, u32::try_from(mask.len()).unwrap_or(u32::MAX));
                ("bitwise", vec![register(1), register(2), len, value(4, mask), value(5, xor)])
            }
            Expr::Cmp { negated, value: bytes } => {
                ("cmp", vec![register(1), number(2, operator(*negated)), value(3, bytes)])
            }
            Expr::Range { negated, from, to } => {
                let operator = number(2, operator(*negated));
                ("range", vec![register(1), operator, value(3, from), value(4, to)])
            }
            Expr::Counter { bytes, packets } => {
                ("counter", vec![count(1, *bytes), count(2, *packets)])
            }
            Expr::Immediate(bytes) => ("immediate", vec![register(1), value(2, bytes)]),
            Expr::DestinationType => {
                let result = number(2, NFT_FIB_RESULT_ADDRTYPE);
                ("fib", vec![number(3, NFTA_FIB_F_DADDR), result, register(1)])
            }
            Expr::ConntrackState => ("ct", vec![number(2, NFT_CT_STATE), register(1)]),
            Expr::ConntrackStatus => ("ct", vec![number(2, NFT_CT_STATUS), register(1)]),
            Expr::Lookup { set, found } => {
                let result = match found {
                    Found::Continue => None,
                    Found::Load => Some(register(3)),
                    Found::Verdict => Some(number(3, 0)),
                };
                let name = DefaultNla::new(1, [set.as_bytes(), &[0]].concat());
                let all = [register(2)].into_iter().chain(result).chain([name]);
                ("lookup", all.collect())
            }
            Expr::Dnat { family, port } => {
                let family = number(2, family.number().into());
                let port = number(5, self::register(*port));
                ("nat", vec![number(1, NFT_NAT_DNAT), family, register(3), port])
            }
            Expr::Masquerade => ("masq", Vec::new()),
            Expr::Match(xt) => ("match", xt.to_wire()),
            Expr::Target(xt) => ("target", xt.to_wire()),
            Expr::Other { name, data } => {
                let copy = |(kind, value): (u16, &[u8])| DefaultNla::new(kind, value.into());
                (name.as_str(), attributes(data).map(copy).collect())
            }
        };
        wire::Expressions::Other { expression_type: name.into(), attributes }.into()
    }

    /// Reads an `NFTA_LIST_ELEM` of `NFTA_RULE_EXPRESSIONS`. Unknown expressions become `Other`.
    pub(super) fn parse(element: &[u8]) -> Expr {
        let name = attribute(element, 1).map(string).unwrap_or_default();
        let data = attribute(element, 2).unwrap_or_default();
        Self::parse_known(name, data)
            .unwrap_or_else(|| Expr::Other { name: name.into(), data: data.into() })
    }

    fn parse_known(name: &str, data: &[u8]) -> Option<Expr> {
        let attribute = |wanted| attribute(data, wanted);
        let number = |wanted| attribute(wanted).and_then(be_u32);
        let bytes = |wanted| {
            let (kind, value) = attributes(attribute(wanted)?).next()?;
            (kind == 1).then(|| value.to_vec())
        };
        let in_register_1 = |wanted| (number(wanted)? == NFT_REG_1).then_some(());
        let negated = |wanted| match number(wanted)? {
            NFT_CMP_EQ => Some(false),
            NFT_CMP_NEQ => Some(true),
            _ => None,
        };
        let at = |wanted, load| match word(number(wanted)?)? {
            0 => Some(load),
            word => Some(Expr::At(word, Box::new(load))),
        };
        Some(match name {
            "meta" if attribute(3).is_some() => {
                in_register_1(3)?;
                Expr::SetMeta(number(2)?)
            }
            "meta" => at(1, Expr::Meta(number(2)?))?,
            "payload" => {
                let base = Base::from_number(number(2)?)?;
                at(1, Expr::Payload { base, offset: number(3)?, len: number(4)? })?
            }
            "bitwise" => {
                in_register_1(1)?;
                in_register_1(2)?;
                Expr::Bitwise { mask: bytes(4)?, xor: bytes(5)? }
            }
            "cmp" => {
                in_register_1(1)?;
                Expr::Cmp { negated: negated(2)?, value: bytes(3)? }
            }
            "range" => {
                in_register_1(1)?;
                Expr::Range { negated: negated(2)?, from: bytes(3)?, to: bytes(4)? }
            }
            "counter" => {
                Expr::Counter { bytes: be_u64(attribute(1)?)?, packets: be_u64(attribute(2)?)? }
            }
            "immediate" if number(1)? == 0 => Expr::Verdict(Verdict::parse(attribute(2)?)?),
            "immediate" => at(1, Expr::Immediate(bytes(2)?))?,
            "fib" => {
                in_register_1(1)?;
                let is_type =
                    (number(3)?, number(2)?) == (NFTA_FIB_F_DADDR, NFT_FIB_RESULT_ADDRTYPE);
                is_type.then_some(Expr::DestinationType)?
            }
            "ct" => {
                in_register_1(1)?;
                match (number(2)?, attribute(3)) {
                    (NFT_CT_STATE, None) => Expr::ConntrackState,
                    (NFT_CT_STATUS, None) => Expr::ConntrackStatus,
                    _ => return None,
                }
            }
            "lookup" => {
                in_register_1(2)?;
                // The flag negates the lookup.
                if number(5).is_some_and(|flags| flags != 0) {
                    return None;
                }
                let found = match number(3) {
                    None => Found::Continue,
                    Some(0) => Found::Verdict,
                    Some(_) => in_register_1(3).map(|()| Found::Load)?,
                };
                Expr::Lookup { set: string(attribute(1)?).to_owned(), found }
            }
            "nat" if number(1)? == NFT_NAT_DNAT => {
                in_register_1(3)?;
                Expr::Dnat { family: Family::from_number(number(2)?)?, port: word(number(5)?)? }
            }
            "masq" if data.is_empty() => Expr::Masquerade,
            "match" => Expr::Match(Xt::parse(data)?),
            "target" => Expr::Target(Xt::parse(data)?),
            _ => return None,
        })
    }
}

impl Base {
    fn number(self) -> u32 {
        match self {
            Base::Link => 0,
            Base::Network => 1,
            Base::Transport => 2,
        }
    }

    fn from_number(number: u32) -> Option<Self> {
        [Base::Link, Base::Network, Base::Transport].into_iter().find(|b| b.number() == number)
    }
}

impl Xt {
    fn to_wire(&self) -> Vec<DefaultNla> {
        vec![
            DefaultNla::new(1, [self.name.as_bytes(), &[0]].concat()),
            DefaultNla::new(2, self.revision.to_be_bytes().to_vec()),
            DefaultNla::new(3, self.info.clone()),
        ]
    }

    fn parse(data: &[u8]) -> Option<Self> {
        Some(Xt {
            name: string(attribute(data, 1)?).to_owned(),
            revision: be_u32(attribute(data, 2)?)?,
            info: attribute(data, 3)?.to_vec(),
        })
    }
}

const NESTED: u16 = netlink_packet_core::NLA_F_NESTED;

/// The register that begins at a 4-byte word. The old registers of 16 bytes have their own numbers.
fn register(word: u8) -> u32 {
    let word = u32::from(word);
    if word % 4 == 0 { NFT_REG_1 + word / 4 } else { NFT_REG32_00 + word }
}

/// The word at which a register begins.
fn word(register: u32) -> Option<u8> {
    (0..16).find(|word| self::register(*word) == register)
}

fn operator(negated: bool) -> u32 {
    if negated { NFT_CMP_NEQ } else { NFT_CMP_EQ }
}

/// An `NFTA_DATA_VALUE` with its header and padding.
fn data_value(value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut out = [len.to_ne_bytes(), 1_u16.to_ne_bytes()].concat();
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}
