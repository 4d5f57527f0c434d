//! Removing everything of the plugin from the tables of iptables.

use kernel::Nfnetlink;
use kernel::iptables::{Changes, Iptables, Rule, Table};

use super::plan::{OWN_CHAINS, POD_CHAINS, TABLES, TO_ADMIN};
use crate::error::Error;

/// A chain with its rules and their handles.
type Listed = (String, Vec<(u64, Rule)>);

/// Removes the plugin's chains with all their rules, and the jumps to them, from both variants. The
/// administrator's chain stays if it has rules, or if other chains lead to it. A dry run changes nothing.
/// Returns a line for everything that is removed.
pub(crate) fn purge(netlink: &Nfnetlink, dry_run: bool) -> Result<Vec<String>, Error> {
    let mut removed = Vec::new();
    for iptables in &Iptables::all_with(netlink, TABLES[0].name())? {
        let before = removed.len();
        iptables.transaction(|| -> Result<Changes, Error> {
            removed.truncate(before);
            let mut changes = Changes::new();
            for table in TABLES {
                purge_table(iptables, table, &mut changes, &mut removed)?;
            }
            Ok(if dry_run { Changes::new() } else { changes })
        })?;
    }
    Ok(removed)
}

fn purge_table(
    iptables: &Iptables<'_>,
    table: Table,
    changes: &mut Changes,
    removed: &mut Vec<String>,
) -> Result<(), Error> {
    let names = iptables.chain_names(table)?;
    if !names.iter().any(|name| is_ours(name)) {
        return Ok(());
    }
    let mut chains: Vec<Listed> = Vec::new();
    for name in names {
        let rules = iptables.rules(table, &name)?.collect();
        chains.push((name, rules));
    }
    let mut say =
        |what| removed.push(format!("{} ({}): {what}", table.program(), iptables.variant()));
    // A chain cannot be deleted while other chains lead to it.
    for (from, rules) in chains.iter().filter(|(name, _)| !is_ours(name)) {
        for (handle, rule) in
            rules.iter().filter(|(_, rule)| rule.next_chain().is_some_and(is_ours))
        {
            say(format!("rule -A {from} {rule}"));
            changes.delete_rule(table, from, *handle);
        }
    }
    for (name, rules) in chains.iter().filter(|(name, _)| is_ours(name)) {
        say(format!("chain {name} with {} rules", rules.len()));
        changes.flush_chain(table, name);
    }
    for (name, _) in chains.iter().filter(|chain| is_unused_of_admin(chain, &chains)) {
        say(format!("chain {name} without rules"));
        changes.delete_chain(table, name);
    }
    for (name, _) in chains.iter().filter(|(name, _)| is_ours(name)) {
        changes.delete_chain(table, name);
    }
    Ok(())
}

fn is_ours(chain: &str) -> bool {
    OWN_CHAINS.contains(&chain)
}

/// Whether a chain is an administrator's, without rules, and only the plugin's chains lead to it.
fn is_unused_of_admin((name, rules): &Listed, chains: &[Listed]) -> bool {
    let all = chains.iter().flat_map(|(from, rules)| rules.iter().map(move |(_, it)| (from, it)));
    let jumps: Vec<_> = all.filter(|(_, rule)| rule.next_chain() == Some(name)).collect();
    let is_of_admin = |(from, rule): &(&String, &Rule)| {
        POD_CHAINS.contains(&from.as_str()) && rule.comment_text() == Some(TO_ADMIN)
    };
    rules.is_empty() && jumps.iter().any(is_of_admin) && jumps.iter().all(|(from, _)| is_ours(from))
}
