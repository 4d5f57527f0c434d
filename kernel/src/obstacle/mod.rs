//! Base chains that drop forwarded packets, whatever the rules of other chains let through.
//!
//! A packet has to get through every base chain on its way, of all tables of `nf_tables` and of both variants
//! of iptables. So a rule that accepts it in one chain cannot help if another one drops it. Looked at are the
//! chains that routed packets pass: those of the families `ip`, `ip6` and `inet`. Tables of the family
//! `bridge` see frames between the ports of a bridge, which nobody routes, and are not looked at.

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

/// The first packet of a forwarded connection, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// IPv4 or IPv6.
    pub family: Family,
    /// Where it comes from; none if that may be any address.
    pub source: Option<IpAddr>,
    /// The link that it comes in by; none if that may be any link.
    pub in_interface: Option<&'a str>,
}

/// A base chain of any ruleset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Whether it is one of the legacy variant of iptables; else it is in `nf_tables`.
    pub is_legacy: bool,
    /// The family of its table.
    pub family: TableFamily,
    /// The name of its table.
    pub table: String,
    /// Its own name.
    pub chain: String,
}

/// A base chain that is certain to drop a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// The chain.
    pub place: Place,
    /// Whether its policy drops the packet; else a rule without conditions does.
    pub by_policy: bool,
}

/// The points in the way of a forwarded packet.
const HOOKS: [Hook; 3] = [Hook::Prerouting, Hook::Forward, Hook::Postrouting];

/// The base chains of legacy tables at these points.
const LEGACY_CHAINS: [&str; 3] = ["PREROUTING", "FORWARD", "POSTROUTING"];

/// Finds a base chain that is certain to drop the packet. A chain that may let it through is none: a rule
/// whose condition cannot be judged by what is known of the packet may be true or not. Chains that
/// `is_answered` takes are passed over: those where rules of the caller's own come first.
///
/// This lists all chains of two families, and is nothing for every ADD.
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
    // Without the programs, nobody can have made rules.
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

/// The tables of `nf_tables`.
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

    /// The command that puts a rule before all others of the chain, without the rule, which is one of
    /// `iptables` if this says true, and one of `nft` else.
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
