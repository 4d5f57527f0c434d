//! The guard of the backend `iptables`: rules that drop packets to 127.0.0.0/8 which come in by links towards
//! pods, see [`crate::loopback`].
//!
//! Each container with mappings has a rule for its link, with the name of its chain as the comment. A rule
//! whose container has no chain in the table `nat` any more, because the reference plugin deleted that,
//! counts for nothing.

use std::collections::HashSet;

use kernel::iptables::{BaseChain, Changes, Iptables, Is, Rule, Table, Target};
use kernel::nft::Place;
use kernel::{Family, Nfnetlink};

use crate::chains::DNAT_CHAIN;
use crate::ends::end;
use crate::error::Error;
use crate::loopback::{self, SWITCHED_ON, SwitchedOff};
use crate::nftables;

/// The chain of the guard.
pub(crate) const GUARD_CHAIN: &str = "CNI-HOSTPORT-GUARD";
/// Its table.
pub(crate) const GUARD_TABLE: Table = Table::mangle(Family::V4);
/// The base chain that leads to it.
pub(crate) const BASE: BaseChain = BaseChain::MANGLE_PREROUTING;

/// A container's rule.
struct Entry {
    handle: u64,
    link: String,
    chain: String,
    switched_on: bool,
}

/// The rule that leads to the guard.
pub(crate) fn jump() -> Rule {
    let loopback = ipnetwork::Ipv4Network::new_checked([127, 0, 0, 0].into(), 8);
    let mut rule = Rule::jump(GUARD_CHAIN).comment("CNI portfwd guard of loopback addresses");
    rule.destination = loopback.map(|network| Is::equal(network.into()));
    rule.in_interface = Some(Is::not("lo".to_owned()));
    rule
}

/// Adds a container's rule, and what leads to it, unless they are there. The link's setting is switched on
/// afterwards.
pub(crate) fn add(
    iptables: &Iptables<'_>,
    changes: &mut Changes,
    chain: &str,
    link: &str,
) -> Result<(), Error> {
    let jump = jump();
    if !iptables.rules(GUARD_TABLE, BASE.name())?.any(|(_, rule)| rule == jump) {
        changes.add_table(GUARD_TABLE);
        if !iptables.has_chain(GUARD_TABLE, BASE.name())? {
            changes.add_base_chain(GUARD_TABLE, BASE);
        }
        changes.add_chain(GUARD_TABLE, GUARD_CHAIN);
        changes.add_rule(GUARD_TABLE, BASE.name(), Place::First, &jump);
    }
    let all = entries(iptables)?;
    let own: Vec<_> = all.iter().filter(|entry| entry.chain == chain).collect();
    let switched_on = all.iter().any(|entry| entry.link == link && entry.switched_on);
    let switched_on = switched_on
        || !loopback::is_on(link)?
        || nftables::has_switched_on(&Nfnetlink::open()?, link)?;
    if let [one] = own[..]
        && (one.link.as_str(), one.switched_on) == (link, switched_on)
    {
        return Ok(());
    }
    for entry in own {
        changes.delete_rule(GUARD_TABLE, GUARD_CHAIN, entry.handle);
    }
    changes.add_rule(GUARD_TABLE, GUARD_CHAIN, Place::Last, &rule(chain, link, switched_on));
    Ok(())
}

/// Adds what removes the rules of containers with these chains, and switches off the setting of links that
/// nobody else needs it on.
pub(crate) fn remove(
    iptables: &Iptables<'_>,
    changes: &mut Changes,
    chains: &[&str],
    switched_off: &mut SwitchedOff,
) -> Result<(), kernel::Error> {
    let all = entries(iptables)?;
    let (own, others): (Vec<_>, Vec<_>) =
        all.iter().partition(|entry| chains.contains(&entry.chain.as_str()));
    let mut free: Vec<&str> = Vec::new();
    for Entry { handle, link, switched_on, .. } in own {
        changes.delete_rule(GUARD_TABLE, GUARD_CHAIN, *handle);
        if *switched_on && !free.contains(&link.as_str()) {
            free.push(link);
        }
    }
    for link in free {
        for entry in others.iter().filter(|entry| entry.link == link) {
            if !iptables.has_chain(Table::nat(Family::V4), &entry.chain)? {
                changes.delete_rule(GUARD_TABLE, GUARD_CHAIN, entry.handle);
            }
        }
        let is_needed = needs(iptables, &all, chains, link)?;
        if !is_needed && !nftables::needs_loopback(&Nfnetlink::open()?, link)? {
            switched_off.add(link)?;
        }
    }
    Ok(())
}

/// Switches on again what is needed in either backend, see [`SwitchedOff::take_back`].
pub(crate) fn take_back(
    iptables: &Iptables<'_>,
    switched_off: &mut SwitchedOff,
) -> Result<(), kernel::Error> {
    switched_off.take_back(|link| {
        Ok(is_needed(iptables, link)? || nftables::needs_loopback(&Nfnetlink::open()?, link)?)
    })
}

/// Removes the rules of containers whose chain the reference plugin deleted.
pub(crate) fn collect_garbage(iptables: &Iptables<'_>) -> Result<(), kernel::Error> {
    let mut switched_off = SwitchedOff::default();
    let removed = iptables.transaction(|| -> Result<Changes, kernel::Error> {
        let mut changes = Changes::new();
        take_back(iptables, &mut switched_off)?;
        let mut chains: Vec<String> = entries(iptables)?.into_iter().map(|one| one.chain).collect();
        chains.sort_unstable();
        chains.dedup();
        let mut gone = Vec::new();
        for chain in &chains {
            if !iptables.has_chain(Table::nat(Family::V4), chain)? {
                gone.push(chain.as_str());
            }
        }
        remove(iptables, &mut changes, &gone, &mut switched_off)?;
        Ok(changes)
    });
    removed.or_else(|error| take_back(iptables, &mut switched_off).and(Err(error)))
}

/// Whether a container of this backend needs the setting on a link, in this variant of iptables.
pub(crate) fn is_needed(iptables: &Iptables<'_>, link: &str) -> Result<bool, kernel::Error> {
    needs(iptables, &entries(iptables)?, &[], link)
}

/// As [`is_needed`], except for containers with these chains. `guarded` are the rules of the guard.
fn needs(
    iptables: &Iptables<'_>,
    guarded: &[Entry],
    chains: &[&str],
    link: &str,
) -> Result<bool, kernel::Error> {
    let counts = |chain: &str| !chains.contains(&chain);
    for entry in guarded.iter().filter(|entry| entry.link == link && counts(&entry.chain)) {
        if iptables.has_chain(Table::nat(Family::V4), &entry.chain)? {
            return Ok(true);
        }
    }
    // There may be thousands of rules; usually, all containers have one in the guard.
    let mut seen: HashSet<String> = guarded.iter().map(|one| one.chain.clone()).collect();
    for (_, entry) in iptables.rules(Table::nat(Family::V4), DNAT_CHAIN)? {
        let Some(chain) = entry.next_chain().filter(|chain| counts(chain)) else { continue };
        if seen.insert(chain.to_owned()) && leads_from_loopback(iptables, chain, link)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a container that has no rule in the guard, because the reference plugin added it, gets packets
/// from 127.0.0.1 by a link.
fn leads_from_loopback(
    iptables: &Iptables<'_>,
    chain: &str,
    link: &str,
) -> Result<bool, kernel::Error> {
    let rules: Vec<Rule> =
        iptables.rules(Table::nat(Family::V4), chain)?.map(|(_, rule)| rule).collect();
    let is_loopback = |rule: &Rule| rule.source.is_some_and(|from| from.value.ip().is_loopback());
    let pods: Vec<_> =
        rules.iter().filter_map(|rule| Some(end(Family::V4, rule)?.address)).collect();
    Ok(rules.iter().any(is_loopback) && loopback::leads_to_any(link, &pods))
}

/// Whether a link has the setting because a mapping of this backend needed it.
pub(crate) fn has_switched_on(iptables: &Iptables<'_>, link: &str) -> Result<bool, kernel::Error> {
    Ok(entries(iptables)?.iter().any(|entry| entry.link == link && entry.switched_on))
}

/// The links that have the setting because a mapping of this backend needed it.
pub(crate) fn switched_on_links(iptables: &Iptables<'_>) -> Result<Vec<String>, kernel::Error> {
    let all = entries(iptables)?.into_iter().filter(|entry| entry.switched_on);
    Ok(all.map(|entry| entry.link).collect())
}

/// Whether a container has a rule, so that the rule that leads there is needed too.
pub(crate) fn has_entry(iptables: &Iptables<'_>, chain: &str) -> Result<bool, kernel::Error> {
    Ok(entries(iptables)?.iter().any(|entry| entry.chain == chain))
}

fn entries(iptables: &Iptables<'_>) -> Result<Vec<Entry>, kernel::Error> {
    let entry = |(handle, rule): (u64, Rule)| {
        let (chain, note) = match rule.comment_text()?.split_once(", ") {
            Some((chain, note)) => (chain, note),
            None => (rule.comment_text()?, ""),
        };
        let (chain, switched_on) = (chain.to_owned(), note == SWITCHED_ON);
        Some(Entry { handle, link: rule.in_interface?.value, chain, switched_on })
    };
    Ok(iptables.rules(GUARD_TABLE, GUARD_CHAIN)?.filter_map(entry).collect())
}

fn rule(chain: &str, link: &str, switched_on: bool) -> Rule {
    let note = if switched_on { format!(", {SWITCHED_ON}") } else { String::new() };
    let mut rule = Rule::to(Target::Drop).comment(format!("{chain}{note}"));
    rule.in_interface = Some(Is::equal(link.to_owned()));
    rule
}
