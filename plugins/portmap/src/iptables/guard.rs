//! The guard of the backend `iptables`: rules that drop packets to 127.0.0.0/8 which come in by links towards
//! pods, see [`crate::loopback`].
//!
//! Each container with mappings has a rule for its link. Its comment is the name of the container's chain.
//! The reference plugin deletes the chain without the rule; a rule without a chain is ignored.

use std::collections::HashSet;

use kernel::iptables::{BaseChain, Changes, Iptables, Is, Rule, Table, Target};
use kernel::nft::Place;
use kernel::{Family, Nfnetlink};

use super::claims::end;
use super::names::DNAT_CHAIN;
use crate::error::Error;
use crate::loopback::{self, SWITCHED_ON, SwitchedOff};
use crate::nftables;

/// The chain of the guard.
pub(super) const GUARD_CHAIN: &str = "CNI-HOSTPORT-GUARD";
/// Its table.
pub(crate) const GUARD_TABLE: Table = Table::mangle(Family::V4);
/// The base chain that leads to it.
pub(super) const BASE: BaseChain = BaseChain::MANGLE_PREROUTING;

/// A container's rule.
struct Entry {
    handle: u64,
    link: String,
    chain: String,
    switched_on: bool,
}

/// The rule that leads to the guard.
pub(super) fn jump() -> Rule {
    let loopback = ipnetwork::Ipv4Network::new_checked([127, 0, 0, 0].into(), 8);
    let mut rule = Rule::jump(GUARD_CHAIN).comment("CNI portfwd guard of loopback addresses");
    rule.destination = loopback.map(|network| Is::equal(network.into()));
    rule.in_interface = Some(Is::not("lo".to_owned()));
    rule
}

/// Adds a container's rule, and what leads to it, unless they are there. The link's setting is switched on
/// afterwards.
pub(super) fn add(
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

/// Adds what removes the rules of containers with these chains, and switches off the setting of links on
/// which no other container needs it.
pub(super) fn remove(
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

/// Commits changes of which some switch off settings of links. Before each attempt and after a failure, it
/// switches on again what was switched off for an earlier attempt and is still needed.
pub(super) fn transaction(
    iptables: &Iptables<'_>,
    mut build: impl FnMut(&mut Changes, &mut SwitchedOff) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut switched_off = SwitchedOff::default();
    let switch_on = |switched_off: &mut SwitchedOff| {
        switched_off.take_back(|link| {
            Ok(is_needed(iptables, link)? || nftables::needs_loopback(&Nfnetlink::open()?, link)?)
        })
    };
    let committed = iptables.transaction(|| -> Result<Changes, Error> {
        switch_on(&mut switched_off)?;
        let mut changes = Changes::new();
        build(&mut changes, &mut switched_off)?;
        Ok(changes)
    });
    committed.map_err(|error| error.unless(switch_on(&mut switched_off)))
}

/// Removes the rules of containers whose chain the reference plugin deleted.
pub(super) fn collect_garbage(iptables: &Iptables<'_>) -> Result<(), Error> {
    transaction(iptables, |changes, switched_off| {
        let mut chains: Vec<String> = entries(iptables)?.into_iter().map(|one| one.chain).collect();
        chains.sort_unstable();
        chains.dedup();
        let mut gone = Vec::new();
        for chain in &chains {
            if !iptables.has_chain(Table::nat(Family::V4), chain)? {
                gone.push(chain.as_str());
            }
        }
        Ok(remove(iptables, changes, &gone, switched_off)?)
    })
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
pub(super) fn switched_on_links(iptables: &Iptables<'_>) -> Result<Vec<String>, kernel::Error> {
    let all = entries(iptables)?.into_iter().filter(|entry| entry.switched_on);
    Ok(all.map(|entry| entry.link).collect())
}

/// Whether a container has a rule, so that the rule that leads there is needed too.
pub(super) fn has_entry(iptables: &Iptables<'_>, chain: &str) -> Result<bool, kernel::Error> {
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
