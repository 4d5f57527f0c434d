//! iptables rules without iptables: the kernel's `nf_tables` API carries the
//! same rules, and what is written here is what `iptables` 1.8.9 (`nf_tables`)
//! itself would write, so that `iptables -S`, `-C` and `-D` work on it. Only a
//! node that uses the legacy variant needs its programs, see [`Iptables`].
//!
//! Never put a native `dnat`, `masquerade`, `fib` or map rule into a table
//! that iptables knows: one of them makes `iptables -S` fail for the table.

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

/// A rule, by its meaning.
///
/// Equal rules do the same, whichever version of iptables wrote them. The order of `matches` counts, as it
/// does for `iptables -C`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Rule {
    /// `-i`; a name that ends in `+` stands for all that begin so.
    pub in_interface: Option<Is<String>>,
    /// `-o`; as above.
    pub out_interface: Option<Is<String>>,
    /// `-p`, by number.
    pub protocol: Option<Is<u8>>,
    /// `-s`; the address with its host bits cleared, absent where it would be any address.
    pub source: Option<Is<IpNetwork>>,
    /// `-d`; as above.
    pub destination: Option<Is<IpNetwork>>,
    /// `-m …`, in their order.
    pub matches: Vec<Match>,
    /// `-j` or `-g`; none counts only.
    pub target: Option<Target>,
}

/// A condition and whether it is inverted (`!`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Is<T> {
    /// What is compared with.
    pub value: T,
    /// True for `!`.
    pub negated: bool,
}

impl<T> Is<T> {
    /// The plain condition.
    pub fn equal(value: T) -> Self {
        Self { value, negated: false }
    }

    /// The inverted condition.
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
    /// `-m multiport --dports`, at most 15; a range takes two of them.
    DestinationPorts(Is<Vec<Ports>>),
    /// `-m addrtype`: sets of `RTN_*` as bits (1 << type).
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
    /// An `x_tables` match or a native expression that is not taken apart.
    Other(Vec<Expr>),
}

/// Ports from the first to the last, both included.
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

/// A value and the bits of it that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bits {
    /// The bits.
    pub value: u32,
    /// Which of them count.
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
        /// New port; none leaves it.
        port: Option<u16>,
    },
    /// `-j MASQUERADE`.
    Masquerade {
        /// `--random-fully`.
        random_fully: bool,
    },
    /// `-j MARK --set-xmark value/mask`: clear the mask's bits, then flip the value's.
    Mark(Bits),
    /// A target that is not taken apart.
    Other(Expr),
}

/// Bytes that fit into a comment (`XT_MAX_COMMENT_LEN` less the final zero).
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
    /// A rule that sends everything to `target`; the methods below narrow it down.
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

    /// `[!] -s network`; host bits are dropped, and so is a network of all addresses.
    #[must_use]
    pub fn source(mut self, network: Is<IpNetwork>) -> Self {
        self.source = significant(network);
        self
    }

    /// `[!] -d network`; as [`Rule::source`].
    #[must_use]
    pub fn destination(mut self, network: Is<IpNetwork>) -> Self {
        self.destination = significant(network);
        self
    }

    /// One more match.
    #[must_use]
    pub fn matching(mut self, one: Match) -> Self {
        self.matches.push(one);
        self
    }

    /// `-m comment --comment text`, cut to the 255 bytes that fit.
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

    /// The chain that the rule jumps or goes to.
    #[must_use]
    pub fn next_chain(&self) -> Option<&str> {
        match &self.target {
            Some(Target::Jump(chain) | Target::Goto(chain)) => Some(chain),
            _ => None,
        }
    }
}

/// The network as iptables keeps it: without host bits, and not at all if it is everything.
fn significant(network: Is<IpNetwork>) -> Option<Is<IpNetwork>> {
    let (address, prefix) = (network.value.network(), network.value.prefix());
    if prefix == 0 && !network.negated {
        return None;
    }
    let value = IpNetwork::new(address, prefix).ok()?;
    Some(Is { value, negated: network.negated })
}
