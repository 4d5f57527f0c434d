//! Finds base chains that drop forwarded packets, even if rules in other chains accept them.
//!
//! A packet passes every base chain on its path, in all tables of `nf_tables` and in both variants of
//! iptables. If one of them drops it, a rule that accepts it in another chain does not help. Only chains that
//! see routed packets are read: those of the families `ip`, `ip6` and `inet`. Tables of the family `bridge`
//! see only frames between the ports of a bridge.

mod step;
#[cfg(test)]
mod tests;
mod walk;

use std::fmt;
use std::net::IpAddr;

use self::walk::{Chains, Walk};
use crate::error::Result;
use crate::family::Family;
use crate::iptables::{Legacy, SavedTable};
use crate::nfnetlink::Nfnetlink;
use crate::nft::{Chain, Element, Expr, FilterChain, Hook, Set, TableFamily};

/// What is known about the first packet of a forwarded connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// IPv4 or IPv6.
    pub family: Family,
    /// Its source address. None if it can be any address.
    pub source: Option<IpAddr>,
    /// The link that it arrives on. None if it can be any link.
    pub in_interface: Option<&'a str>,
}

/// A base chain, in `nf_tables` or in the legacy variant of iptables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Whether it is in the legacy variant of iptables. Otherwise it is in `nf_tables`.
    pub is_legacy: bool,
    /// The family of its table.
    pub family: TableFamily,
    /// The name of its table.
    pub table: String,
    /// Its name.
    pub chain: String,
}

/// A base chain that certainly drops a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// The chain.
    pub place: Place,
    /// Whether its policy drops the packet. Otherwise a rule without conditions does.
    pub by_policy: bool,
}

/// The hooks that a forwarded packet passes.
const HOOKS: [Hook; 3] = [Hook::Prerouting, Hook::Forward, Hook::Postrouting];

/// The base chains of legacy tables at these hooks.
const LEGACY_CHAINS: [&str; 3] = ["PREROUTING", "FORWARD", "POSTROUTING"];

/// Finds a base chain that certainly drops the packet. If it is not known whether the packet matches the
/// condition of a rule, the rule may accept the packet, and the chain is not reported. Chains for which
/// `is_answered` returns true are skipped: those where the caller's own rules come first.
///
/// This lists all chains of two families, so it is too slow for every ADD.
pub fn find(
    netlink: &Nfnetlink,
    packet: Packet<'_>,
    is_answered: impl Fn(&Place) -> bool,
) -> Result<Option<Obstacle>> {
    if netlink.has_nf_tables()? {
        for family in [TableFamily::Inet, packet.family.into()] {
            let chains = netlink.filter_chains(family)?;
            for chain in chains.iter().filter(|chain| HOOKS.contains(&chain.hook)) {
                let place = Place::of(chain);
                if is_answered(&place) {
                    continue;
                }
                let table = NfTable { netlink, family, name: &chain.table };
                let dropped = Walk::new(&table, packet).drops(&chain.name, chain.drops)?;
                if let Some(by_policy) = dropped
                    && !netlink.is_dormant(family, &chain.table)?
                {
                    return Ok(Some(Obstacle { place, by_policy }));
                }
            }
        }
    }
    find_in_legacy(packet, is_answered)
}

fn find_in_legacy(
    packet: Packet<'_>,
    is_answered: impl Fn(&Place) -> bool,
) -> Result<Option<Obstacle>> {
    if !Legacy::is_possible()? {
        return Ok(None);
    }
    // Without the programs, there are no legacy rules.
    let Some(legacy) = Legacy::open()? else { return Ok(None) };
    let saved = legacy.tables(packet.family)?;
    // The table `nat` does not drop packets.
    for table in saved.tables().iter().filter(|table| table.name() != "nat") {
        for (chain, policy) in table.policies().filter(|(name, _)| LEGACY_CHAINS.contains(name)) {
            let place = Place {
                is_legacy: true,
                family: packet.family.into(),
                table: table.name().to_owned(),
                chain: chain.to_owned(),
            };
            if is_answered(&place) {
                continue;
            }
            let table = LegacyTable { family: packet.family, table };
            if let Some(by_policy) = Walk::new(&table, packet).drops(chain, policy)? {
                return Ok(Some(Obstacle { place, by_policy }));
            }
        }
    }
    Ok(None)
}

/// A table of `nf_tables`.
struct NfTable<'a> {
    netlink: &'a Nfnetlink,
    family: TableFamily,
    name: &'a str,
}

impl Chains for NfTable<'_> {
    fn rules(&self, chain: &str) -> Result<Vec<Vec<Expr>>> {
        let chain = Chain { family: self.family, table: self.name, name: chain };
        Ok(self.netlink.rules(chain)?.map(|rule| rule.expressions).collect())
    }

    fn elements(&self, set: &str) -> Result<Vec<Element>> {
        let set = Set { family: self.family, table: self.name, name: set };
        self.netlink.elements_and_catch_all(set)
    }
}

/// A table of the legacy variant.
struct LegacyTable<'a> {
    family: Family,
    table: &'a SavedTable,
}

impl Chains for LegacyTable<'_> {
    fn rules(&self, chain: &str) -> Result<Vec<Vec<Expr>>> {
        let rules = self.table.rules(chain).into_iter();
        Ok(rules.map(|(_, rule)| rule.encode(self.family)).collect())
    }

    fn elements(&self, _set: &str) -> Result<Vec<Element>> {
        Ok(Vec::new())
    }
}

impl Place {
    fn of(chain: &FilterChain) -> Self {
        Self {
            is_legacy: false,
            family: chain.family,
            table: chain.table.clone(),
            chain: chain.name.clone(),
        }
    }

    /// The command that inserts a rule as the first of the chain, without the rule, and whether the rule has
    /// the syntax of `iptables`. Otherwise it has the syntax of `nft`.
    #[must_use]
    pub fn insert_command(&self) -> (String, bool) {
        let Self { is_legacy, family, table, chain } = self;
        if *is_legacy {
            let program = if *family == TableFamily::Ip6 { "ip6tables" } else { "iptables" };
            return (format!("{program}-legacy -t {table} -I {chain}"), true);
        }
        (format!("nft insert rule {} {table} {chain}", family.name()), false)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { is_legacy, family, table, chain } = self;
        if *is_legacy {
            let program = if *family == TableFamily::Ip6 { "ip6tables" } else { "iptables" };
            return write!(f, "{chain} of {program}-legacy -t {table}");
        }
        write!(f, "{} {table} {chain}", family.name())
    }
}
