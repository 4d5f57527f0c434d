//! Tables of iptables and ip6tables, with their base chains and rules.

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
    /// `PREROUTING`: packets from other machines and from pods, before they are routed.
    Prerouting,
    /// `OUTPUT`: packets that this node sends.
    Output,
    /// `POSTROUTING`: packets that leave this node, after they are routed.
    Postrouting,
}

/// A base chain of a table, as iptables makes it.
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

    /// The name for `iptables -t`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.name
    }

    /// The program of this table's family: `iptables` or `ip6tables`.
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

    /// The rules of a chain, in the order of the chain. Empty if the chain does not exist.
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

/// A rule of a chain, and its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedRule {
    /// The number to delete it by.
    pub handle: u64,
    /// The rule.
    pub rule: Rule,
    /// The name of its owner, from [`Changes::add_owned_rule`](super::Changes::add_owned_rule). Always none
    /// in the legacy variant, which cannot store it.
    pub owner: Option<String>,
}

impl NatChain {
    /// The name of the chain in iptables.
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
    /// `FORWARD` of the table `filter`: packets that this node forwards.
    ///
    /// Add it only if it does not exist: adding it sets its policy to accept.
    pub const FORWARD: BaseChain = BaseChain {
        name: "FORWARD",
        place: nft::BaseChain { kind: "filter", hook: Hook::Forward, priority: 0 },
    };

    /// `PREROUTING` of the table `mangle`: packets from other machines and from pods, before DNAT changes
    /// their destination.
    ///
    /// Add it only if it does not exist: adding it sets its policy to accept.
    pub const MANGLE_PREROUTING: BaseChain = BaseChain {
        name: "PREROUTING",
        place: nft::BaseChain { kind: "filter", hook: Hook::Prerouting, priority: -150 },
    };

    /// The name of the chain in iptables.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.name
    }

    pub(super) fn add_to(self, batch: &mut Batch, table: Table) {
        batch.add_base_chain(table.chain(self.name), self.place);
    }
}
