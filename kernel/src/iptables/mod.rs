//! Reads and writes rules of iptables over netlink, without the program.
//!
//! A rule is encoded for `nf_tables` exactly as `iptables` 1.8.9 (`nf_tables`) encodes it, so that
//! `iptables -S`, `-C` and `-D` work on it. Only a node that uses the legacy variant needs the programs of
//! that variant, see [`Iptables`].
//!
//! Never add a native `dnat`, `masquerade`, `fib` or map rule to a table of iptables: `iptables -S` fails for
//! a table that has one.

mod arguments;
mod changes;
mod decode;
mod encode;
mod info;
mod iprange;
mod legacy;
mod lists;
mod show;
mod table;
#[cfg(test)]
mod tests;
mod variant;
mod words;
mod xt;

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::nft::Expr;

pub use arguments::{ArgumentError, parse_matches};
pub use changes::Changes;
pub use iprange::AddressRange;
pub(crate) use legacy::{Legacy, SavedTable};
pub use lists::parse_rules;
pub use table::{BaseChain, NatChain, OwnedRule, Table};
pub use variant::Iptables;
pub(crate) use xt::states_of;

/// `IPPROTO_TCP`.
pub const TCP: u8 = 6;
/// `IPPROTO_UDP`.
pub const UDP: u8 = 17;
/// `IPPROTO_SCTP`.
pub const SCTP: u8 = 132;

/// What a rule means, independent of its encoding.
///
/// Rules that do the same are equal, whichever version of iptables wrote them. The order of `matches`
/// counts, as for `iptables -C`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Rule {
    /// `-i`; a name that ends in `+` matches all names with this beginning.
    pub in_interface: Option<Is<String>>,
    /// `-o`; as above.
    pub out_interface: Option<Is<String>>,
    /// `-p`, by number.
    pub protocol: Option<Is<u8>>,
    /// `-s`; the host bits are zero. Not set if any address matches.
    pub source: Option<Is<IpNetwork>>,
    /// `-d`; as above.
    pub destination: Option<Is<IpNetwork>>,
    /// `-m …`, in the order of the rule.
    pub matches: Vec<Match>,
    /// `-j` or `-g`. Without a target, the rule only counts packets.
    pub target: Option<Target>,
}

/// A condition and whether it is inverted (`!`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Is<T> {
    /// The value to compare with.
    pub value: T,
    /// Whether the condition is inverted.
    pub negated: bool,
}

impl<T> Is<T> {
    /// The condition without `!`.
    pub fn equal(value: T) -> Self {
        Self { value, negated: false }
    }

    /// The condition with `!`.
    pub fn not(value: T) -> Self {
        Self { value, negated: true }
    }
}

/// A match extension (`-m`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Match {
    /// `--sport first[:last]` of tcp, udp or sctp.
    SourcePort(Is<Ports>),
    /// `--dport first[:last]` of tcp, udp or sctp.
    DestinationPort(Is<Ports>),
    /// `-m multiport --dports`, at most 15 ports. A range counts as two.
    DestinationPorts(Is<Vec<Ports>>),
    /// `-m addrtype`: sets of `RTN_*` types, as bits (`1 << type`).
    AddressType {
        /// `--src-type`.
        source: Option<Is<u16>>,
        /// `--dst-type`.
        destination: Option<Is<u16>>,
    },
    /// `-m mark --mark value/mask`.
    Mark(Is<Bits>),
    /// `-m comment --comment`, at most 255 bytes.
    Comment(String),
    /// `-m iprange`.
    AddressRange {
        /// `--src-range`.
        source: Option<Is<AddressRange>>,
        /// `--dst-range`.
        destination: Option<Is<AddressRange>>,
    },
    /// `-m conntrack --ctstate`, as [`ct_state`] bits.
    ConntrackState(Is<u16>),
    /// An `x_tables` match or native expressions that this crate does not decode.
    Other(Vec<Expr>),
}

/// A range of ports, with its first and its last port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ports {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

impl From<u16> for Ports {
    fn from(port: u16) -> Self {
        Ports { first: port, last: port }
    }
}

/// A value and the mask of the bits to compare or to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bits {
    /// The value.
    pub value: u32,
    /// The mask.
    pub mask: u32,
}

/// What a rule does with a packet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Target {
    /// `-j CHAIN`.
    Jump(String),
    /// `-g CHAIN`.
    Goto(String),
    /// `-j ACCEPT`.
    Accept,
    /// `-j DROP`.
    Drop,
    /// `-j RETURN`.
    Return,
    /// `-j DNAT --to-destination address[:port]`.
    Dnat {
        /// New destination.
        address: IpAddr,
        /// New port. If not set, the port does not change.
        port: Option<u16>,
    },
    /// `-j MASQUERADE`.
    Masquerade {
        /// `--random-fully`.
        random_fully: bool,
    },
    /// `-j MARK --set-xmark value/mask`: clears the bits of the mask, then inverts the bits of the value.
    Mark(Bits),
    /// A target that this crate does not decode.
    Other(Expr),
}

/// The maximum length of a comment in bytes (`XT_MAX_COMMENT_LEN` without the final zero).
pub const COMMENT_MAX: usize = 255;

/// Bits of [`Match::ConntrackState`] (`linux/netfilter/nf_conntrack_common.h`, `xt_conntrack.h`).
pub mod ct_state {
    /// INVALID.
    pub const INVALID: u16 = 1;
    /// ESTABLISHED.
    pub const ESTABLISHED: u16 = 1 << 1;
    /// RELATED.
    pub const RELATED: u16 = 1 << 2;
    /// NEW.
    pub const NEW: u16 = 1 << 3;
    /// SNAT.
    pub const SNAT: u16 = 1 << 6;
    /// DNAT.
    pub const DNAT: u16 = 1 << 7;
    /// UNTRACKED.
    pub const UNTRACKED: u16 = 1 << 8;
}

/// Bits of [`Match::AddressType`] (`RTN_*` of `linux/rtnetlink.h`).
pub mod address_type {
    /// Addresses of this node.
    pub const LOCAL: u16 = 1 << 2;
}

impl Rule {
    /// A rule that sends all packets to `target`. The methods below add conditions.
    #[must_use]
    pub fn to(target: Target) -> Self {
        Self { target: Some(target), ..Self::default() }
    }

    /// A jump to `chain`.
    #[must_use]
    pub fn jump(chain: impl Into<String>) -> Self {
        Self::to(Target::Jump(chain.into()))
    }

    /// `-p protocol`.
    #[must_use]
    pub fn protocol(mut self, protocol: u8) -> Self {
        self.protocol = Some(Is::equal(protocol));
        self
    }

    /// `[!] -s network`. Host bits are cleared. A network of all addresses sets no condition.
    #[must_use]
    pub fn source(mut self, network: Is<IpNetwork>) -> Self {
        self.source = significant(network);
        self
    }

    /// `[!] -d network`, with the same changes as in [`Rule::source`].
    #[must_use]
    pub fn destination(mut self, network: Is<IpNetwork>) -> Self {
        self.destination = significant(network);
        self
    }

    /// Adds a match.
    #[must_use]
    pub fn matching(mut self, one: Match) -> Self {
        self.matches.push(one);
        self
    }

    /// `-m comment --comment text`, shortened to [`COMMENT_MAX`] bytes.
    #[must_use]
    pub fn comment(self, text: impl Into<String>) -> Self {
        let mut text = text.into();
        while text.len() > COMMENT_MAX {
            text.pop();
        }
        self.matching(Match::Comment(text))
    }

    /// `--dport port`; the protocol must be set.
    #[must_use]
    pub fn destination_port(self, port: u16) -> Self {
        self.matching(Match::DestinationPort(Is::equal(port.into())))
    }

    /// The first comment of the rule.
    #[must_use]
    pub fn comment_text(&self) -> Option<&str> {
        self.matches.iter().find_map(|one| match one {
            Match::Comment(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// The chain of a `-j` or `-g`.
    #[must_use]
    pub fn next_chain(&self) -> Option<&str> {
        match &self.target {
            Some(Target::Jump(chain) | Target::Goto(chain)) => Some(chain),
            _ => None,
        }
    }
}

/// The network without host bits; none if it has all addresses. iptables stores it like this.
fn significant(network: Is<IpNetwork>) -> Option<Is<IpNetwork>> {
    let (address, prefix) = (network.value.network(), network.value.prefix());
    if prefix == 0 && !network.negated {
        return None;
    }
    let value = IpNetwork::new(address, prefix).ok()?;
    Some(Is { value, negated: network.negated })
}
