//! `nf_tables`: tables, chains, rules, sets and maps (`include/uapi/linux/netfilter/nf_tables.h`).
//!
//! Changes are written in batches. A [`TableSpec`] describes a table that belongs to one program.

pub(crate) mod attribute;
mod build;
mod contents;
mod expr;
#[cfg(test)]
mod firewall_tests;
#[cfg(test)]
mod map_tests;
mod read;
mod set;
mod table;
#[cfg(test)]
mod tests;
mod verdict;
mod write;

use crate::family::Family;

pub(crate) use build::address_offsets;
pub use build::{address, interface_name, octets};
pub use contents::{Contents, Owned, OwnedPlace, Removal};
pub use expr::{Base, Expr, Found, Xt, ct_status, meta};
pub use read::{FilterChain, Listed};
pub use set::{Data, Element, Set, SetType, Type};
pub use table::{ChainSpec, Missing, MissingPart, Order, Purged, RuleSpec, SetSpec, TableSpec};
pub use verdict::Verdict;

/// The packets that a table sees (`NFPROTO_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TableFamily {
    /// IPv4, as the tables of `iptables`.
    Ip,
    /// IPv6, as the tables of `ip6tables`.
    Ip6,
    /// IPv4 and IPv6 in one table.
    Inet,
    /// Frames on a bridge.
    Bridge,
}

/// A table by its full name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// The packets that it sees.
    pub family: TableFamily,
    /// Its own name.
    pub name: &'static str,
}

/// A chain by its full name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Chain<'a> {
    /// The family of its table.
    pub family: TableFamily,
    /// Name of its table.
    pub table: &'a str,
    /// Its own name.
    pub name: &'a str,
}

/// The place of a base chain. Its policy is to accept packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BaseChain {
    /// `filter`, `nat` or `route`.
    pub kind: &'static str,
    /// Its hook.
    pub hook: Hook,
    /// Its priority: chains with lower ones come first (`enum nf_ip_hook_priorities`).
    pub priority: i32,
}

/// A point in the path of a packet (`enum nf_inet_hooks`, `NF_BR_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    /// Packets that arrive.
    Prerouting,
    /// Packets to this node.
    Input,
    /// Packets to other machines.
    Forward,
    /// Packets from this node.
    Output,
    /// Packets that leave.
    Postrouting,
}

/// A rule to be added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewRule {
    /// Its expressions.
    pub expressions: Vec<Expr>,
    /// Its comment in the format of `nft`, at most 128 bytes.
    pub comment: Option<String>,
    /// Its owner, at most 253 bytes. Other programs do not show it.
    pub owner: Option<String>,
    /// Protocol and flags of `NFTA_RULE_COMPAT`, for rules that use `x_tables` extensions.
    pub compat: Option<(u32, u32)>,
}

/// The place of a new rule in its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Before all others.
    First,
    /// After all others.
    Last,
    /// Directly before the rule with this handle.
    Before(u64),
}

impl TableFamily {
    /// `NFPROTO_*`.
    pub(crate) fn number(self) -> u8 {
        match self {
            TableFamily::Inet => 1,
            TableFamily::Ip => Family::V4.number(),
            TableFamily::Bridge => 7,
            TableFamily::Ip6 => Family::V6.number(),
        }
    }

    /// Its name in `nft`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            TableFamily::Ip => "ip",
            TableFamily::Ip6 => "ip6",
            TableFamily::Inet => "inet",
            TableFamily::Bridge => "bridge",
        }
    }
}

impl Table {
    /// A set or map of the table.
    #[must_use]
    pub const fn set(self, name: &str) -> Set<'_> {
        Set { family: self.family, table: self.name, name }
    }

    /// A chain of the table.
    #[must_use]
    pub const fn chain(self, name: &str) -> Chain<'_> {
        Chain { family: self.family, table: self.name, name }
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.family.name(), self.name)
    }
}

impl From<Family> for TableFamily {
    fn from(family: Family) -> Self {
        match family {
            Family::V4 => Self::Ip,
            Family::V6 => Self::Ip6,
        }
    }
}

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.family.name(), self.table, self.name)
    }
}

impl Hook {
    fn from_number(number: u32) -> Option<Self> {
        let all = [Self::Prerouting, Self::Input, Self::Forward, Self::Output, Self::Postrouting];
        all.into_iter().find(|hook| hook.number() == number)
    }

    fn number(self) -> u32 {
        match self {
            Hook::Prerouting => 0,
            Hook::Input => 1,
            Hook::Forward => 2,
            Hook::Output => 3,
            Hook::Postrouting => 4,
        }
    }
}
