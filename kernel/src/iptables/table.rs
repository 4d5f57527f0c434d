//! Tables of iptables and ip6tables: chains as those programs make them, rules in and out.

use super::Rule;
use crate::error::Result;
use crate::family::Family;
use crate::nfnetlink::{Batch, Nfnetlink};
use crate::nft::{self, Chain, Hook, Listed, NewRule, Place};

/// A table of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    pub(super) family: Family,
    pub(super) name: &'static str,
}

/// A base chain of the table `nat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatChain {
    /// `PREROUTING`: packets from elsewhere, before their way is chosen.
    Prerouting,
    /// `OUTPUT`: packets made on this node.
    Output,
    /// `POSTROUTING`: packets about to leave.
    Postrouting,
}

/// A base chain of any table, as iptables makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseChain {
    pub(super) name: &'static str,
    place: nft::BaseChain,
}

impl From<Table> for nft::Table {
    fn from(Table { family, name }: Table) -> Self {
        Self { family: family.into(), name }
    }
}

impl Table {
    /// The table of `iptables -t filter`, or of `ip6tables`.
    #[must_use]
    pub const fn filter(family: Family) -> Self {
        Self { family, name: "filter" }
    }

    /// The table of `iptables -t mangle`, or of `ip6tables`.
    #[must_use]
    pub const fn mangle(family: Family) -> Self {
        Self { family, name: "mangle" }
    }

    /// The table of `iptables -t nat`, or of `ip6tables`.
    #[must_use]
    pub const fn nat(family: Family) -> Self {
        Self { family, name: "nat" }
    }

    /// IPv4 or IPv6.
    #[must_use]
    pub fn family(self) -> Family {
        self.family
    }

    /// As `iptables -t` has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.name
    }

    /// The program that people know the table by.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self.family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        }
    }

    /// The chain of this name in this table.
    #[must_use]
    pub fn chain(self, name: &str) -> Chain<'_> {
        Chain { family: self.family.into(), table: self.name, name }
    }

    pub(super) fn add_rule(
        self,
        batch: &mut Batch,
        chain: &str,
        place: Place,
        rule: &Rule,
        owner: Option<&str>,
    ) {
        let new = NewRule {
            expressions: rule.encode(self.family),
            owner: owner.map(Into::into),
            compat: Some(rule.compat()),
            ..NewRule::default()
        };
        batch.add_rule(self.chain(chain), place, new);
    }

    /// The rules of a chain, in their order; none if there is no such chain.
    pub(super) fn listed(
        self,
        netlink: &Nfnetlink,
        chain: &str,
    ) -> Result<impl Iterator<Item = OwnedRule>> {
        let decoded = move |one: Listed| OwnedRule {
            handle: one.handle,
            rule: Rule::decode(self.family, &one.expressions),
            owner: one.owner,
        };
        Ok(netlink.rules(self.chain(chain))?.map(decoded))
    }
}

/// A rule of a chain, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedRule {
    /// The number by which it can be deleted.
    pub handle: u64,
    /// What it says.
    pub rule: Rule,
    /// What [`Changes::add_owned_rule`](super::Changes::add_owned_rule) put on it, which no version of
    /// iptables shows or compares; always none in the legacy variant, whose rules have no room for it.
    pub owner: Option<String>,
}

impl NatChain {
    /// The name that iptables knows.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            NatChain::Prerouting => "PREROUTING",
            NatChain::Output => "OUTPUT",
            NatChain::Postrouting => "POSTROUTING",
        }
    }
}

/// `NF_IP_PRI_NAT_DST` before routing, `NF_IP_PRI_NAT_SRC` after it.
impl From<NatChain> for BaseChain {
    fn from(chain: NatChain) -> Self {
        let (hook, priority) = match chain {
            NatChain::Prerouting => (Hook::Prerouting, -100),
            NatChain::Output => (Hook::Output, -100),
            NatChain::Postrouting => (Hook::Postrouting, 100),
        };
        Self { name: chain.name(), place: nft::BaseChain { kind: "nat", hook, priority } }
    }
}

impl BaseChain {
    /// `FORWARD` of the table `filter`: packets on their way through the node.
    ///
    /// To add it where it is already would change its policy to accept.
    pub const FORWARD: BaseChain = BaseChain {
        name: "FORWARD",
        place: nft::BaseChain { kind: "filter", hook: Hook::Forward, priority: 0 },
    };

    /// `PREROUTING` of the table `mangle`: packets from elsewhere, before any of them gets another
    /// destination.
    ///
    /// To add it where it is already would change its policy to accept.
    pub const MANGLE_PREROUTING: BaseChain = BaseChain {
        name: "PREROUTING",
        place: nft::BaseChain { kind: "filter", hook: Hook::Prerouting, priority: -150 },
    };

    /// The name that iptables knows.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.name
    }

    pub(super) fn add_to(self, batch: &mut Batch, table: Table) {
        batch.add_base_chain(table.chain(self.name), self.place);
    }
}
