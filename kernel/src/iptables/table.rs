//! The table `nat` of iptables and ip6tables: chains as those programs make
//! them, rules in and out.

use super::Rule;
use crate::error::Result;
use crate::nfnetlink::{Batch, Nfnetlink};
use crate::nft::{BaseChain, Chain, Family, Hook, Listed, NewRule, Place};

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
        if self == Self::V6 { "ip6tables" } else { "iptables" }
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
        batch.add_base_chain(self.chain(base.name()), base.place());
    }

    /// Adds a rule.
    pub fn add_rule(self, batch: &mut Batch, chain: &str, place: Place, rule: &Rule) {
        let new = NewRule {
            expressions: rule.encode(self.0),
            comment: None,
            compat: Some(rule.compat()),
        };
        batch.add_rule(self.chain(chain), place, new);
    }

    /// The rules of a chain with their handles, in their order; none if there is no such chain.
    pub fn rules(
        self,
        netlink: &Nfnetlink,
        chain: &str,
    ) -> Result<impl Iterator<Item = (u64, Rule)>> {
        let decoded = move |one: Listed| (one.handle, Rule::decode(self.0, &one.expressions));
        Ok(netlink.rules(self.chain(chain))?.map(decoded))
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

    /// `NF_IP_PRI_NAT_DST` before routing, `NF_IP_PRI_NAT_SRC` after it.
    fn place(self) -> BaseChain {
        let (hook, priority) = match self {
            NatChain::Prerouting => (Hook::Prerouting, -100),
            NatChain::Output => (Hook::Output, -100),
            NatChain::Postrouting => (Hook::Postrouting, 100),
        };
        BaseChain { kind: "nat", hook, priority }
    }
}
