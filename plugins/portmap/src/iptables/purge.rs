//! Removes all chains and rules of the backend `iptables`, also the reference plugin's.

use kernel::Family;
use kernel::iptables::{Changes, Iptables, NatChain, Rule, Table};

use super::guard::{self, GUARD_CHAIN, GUARD_TABLE};
use super::names::{CHAIN_PREFIX, OLD_CHAIN_PREFIX, OLD_SNAT_CHAIN, SHARED_CHAINS};
use super::remove::ends_of;
use crate::error::Error;
use crate::purge::Purged;

/// Removes the chains, the rules that jump to them, and the guard, in one variant of iptables. A dry run
/// changes nothing.
pub(crate) fn purge(iptables: &Iptables<'_>, is_dry_run: bool) -> Result<Purged, Error> {
    let links = guard::switched_on_links(iptables)?;
    let mut purged = Purged::default();
    let build = || -> Result<Changes, Error> {
        let mut changes = Changes::new();
        purged = Purged { links: links.clone(), ..Purged::default() };
        for family in Family::ALL {
            let chains = [NatChain::Prerouting, NatChain::Output, NatChain::Postrouting];
            let (nat, bases) = (Table::nat(family), chains.map(NatChain::name));
            for chain in purge_table(iptables, &mut changes, nat, &bases, &mut purged.lines)? {
                purged.ends.extend(ends_of(iptables, family, &chain)?);
            }
        }
        let bases = [guard::BASE.name()];
        purge_table(iptables, &mut changes, GUARD_TABLE, &bases, &mut purged.lines)?;
        Ok(changes)
    };
    if is_dry_run {
        let mut build = build;
        build()?;
    } else {
        iptables.transaction(build)?;
    }
    Ok(purged)
}

/// Adds what removes our chains from a table, and the rules of its base chains that lead there; returns the
/// names of the chains.
fn purge_table(
    iptables: &Iptables<'_>,
    changes: &mut Changes,
    table: Table,
    bases: &[&str],
    lines: &mut Vec<String>,
) -> Result<Vec<String>, Error> {
    let names = iptables.chain_names(table)?;
    let (ours, others): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| is_ours(name));
    let variant = if iptables.is_legacy() { "-legacy" } else { "" };
    let program = format!("{}{variant} -t {}", table.program(), table.name());
    let is_to_ours = |rule: &Rule| rule.next_chain().is_some_and(is_ours);
    let mut kept: Vec<String> = Vec::new();
    for chain in if ours.is_empty() { &[] } else { others.as_slice() } {
        for (handle, rule) in iptables.rules(table, chain)?.filter(|(_, rule)| is_to_ours(rule)) {
            if bases.contains(&chain.as_str()) && rule.next_chain().is_some_and(is_shared) {
                changes.delete_rule(table, chain, handle);
                lines.push(format!("{program} -A {chain} {rule}"));
            } else {
                kept.extend(rule.next_chain().map(str::to_owned));
            }
        }
    }
    for chain in &ours {
        changes.flush_chain(table, chain);
    }
    for chain in &ours {
        if kept.contains(chain) {
            lines.push(format!("{program} -F {chain} (rules of others lead to it, so it stays)"));
        } else {
            changes.delete_chain(table, chain);
            lines.push(format!("{program} -N {chain}"));
        }
    }
    Ok(ours)
}

fn is_ours(chain: &str) -> bool {
    is_shared(chain) || chain.starts_with(CHAIN_PREFIX) || chain.starts_with(OLD_CHAIN_PREFIX)
}

/// Whether base chains lead to a chain.
fn is_shared(chain: &str) -> bool {
    SHARED_CHAINS.contains(&chain) || chain == OLD_SNAT_CHAIN || chain == GUARD_CHAIN
}
