//! Tables of iptables and ip6tables: chains as those programs make them, rules in and out.

use super::Rule;
use crate::error::Result;
use crate::nfnetlink::{Batch, Nfnetlink};
use crate::nft::{self, Chain, Family, Hook, Listed, NewRule, Place};

/// A table of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    pub(super) family: Family,
    pub(super) name: &'static str,
}

/// The table `nat` of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nat(pub(super) Family);

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

impl Table {
    /// The table of `iptables -t filter`.
    pub const FILTER_V4: Table = Table { family: Family::Ipv4, name: "filter" };
    /// The table of `ip6tables -t filter`.
    pub const FILTER_V6: Table = Table { family: Family::Ipv6, name: "filter" };

    /// The table of `iptables -t mangle`.
    pub const MANGLE_V4: Table = Table { family: Family::Ipv4, name: "mangle" };

    /// The table `filter` that addresses of this kind need.
    #[must_use]
    pub fn filter_of(address: std::net::IpAddr) -> Self {
        if address.is_ipv6() { Self::FILTER_V6 } else { Self::FILTER_V4 }
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
        if self.family == Family::Ipv6 { "ip6tables" } else { "iptables" }
    }

    /// The chain of this name in this table.
    #[must_use]
    pub fn chain(self, name: &str) -> Chain<'_> {
        Chain { family: self.family, table: self.name, name }
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

impl From<Nat> for Table {
    fn from(nat: Nat) -> Self {
        Self { family: nat.0, name: "nat" }
    }
}

impl Nat {
    /// The table of `iptables -t nat`.
    pub const V4: Nat = Nat(Family::Ipv4);
    /// The table of `ip6tables -t nat`.
    pub const V6: Nat = Nat(Family::Ipv6);

    /// The table that addresses of this kind need.
    #[must_use]
    pub fn of(address: std::net::IpAddr) -> Self {
        if address.is_ipv6() { Self::V6 } else { Self::V4 }
    }

    /// IPv4 or IPv6.
    #[must_use]
    pub fn family(self) -> Family {
        self.0
    }

    /// The program that people know the table by.
    #[must_use]
    pub fn program(self) -> &'static str {
        Table::from(self).program()
    }

    /// The chain of this name in this table.
    #[must_use]
    pub fn chain(self, name: &str) -> Chain<'_> {
        Chain { family: self.0, table: "nat", name }
    }

    /// Makes the table unless it is there.
    pub fn add_table(self, batch: &mut Batch) {
        batch.add_table(self.0, "nat");
    }

    /// Makes a base chain unless it is there, with iptables' hook and priority.
    pub fn add_base_chain(self, batch: &mut Batch, base: NatChain) {
        BaseChain::from(base).add_to(batch, self.into());
    }

    /// Adds a rule.
    pub fn add_rule(self, batch: &mut Batch, chain: &str, place: Place, rule: &Rule) {
        Table::from(self).add_rule(batch, chain, place, rule, None);
    }

    /// The rules of a chain with their handles, in their order; none if there is no such chain.
    pub fn rules(
        self,
        netlink: &Nfnetlink,
        chain: &str,
    ) -> Result<impl Iterator<Item = (u64, Rule)>> {
        let listed = Table::from(self).listed(netlink, chain)?;
        Ok(listed.map(|one| (one.handle, one.rule)))
    }
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
