//! Removing everything of the plugin from the tables of iptables.

use kernel::Nfnetlink;
use kernel::iptables::{Changes, Iptables, Rule, Table};

use super::plan::{OWN_CHAINS, TABLES, TO_ADMIN};
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
    let is_ours = |chain: &str| OWN_CHAINS.contains(&chain);
    let names = iptables.chain_names(table)?;
    if !names.iter().any(|name| is_ours(name)) {
        return Ok(());
    }
    let (mut ours, mut others): (Vec<Listed>, Vec<Listed>) = (Vec::new(), Vec::new());
    for name in names {
        let rules = iptables.rules(table, &name)?.collect();
        if is_ours(&name) { &mut ours } else { &mut others }.push((name, rules));
    }
    let mut say =
        |what| removed.push(format!("{} ({}): {what}", table.program(), iptables.variant()));
    // A chain cannot be deleted while other chains lead to it.
    for (from, handle, rule) in all_rules(&others) {
        if rule.next_chain().is_some_and(is_ours) {
            say(format!("rule -A {from} {rule}"));
            changes.delete_rule(table, from, handle);
        }
    }
    for (name, rules) in &ours {
        say(format!("chain {name} with {} rules", rules.len()));
        changes.flush_chain(table, name);
    }
    for (name, rules) in &others {
        let leads_here = |rule: &Rule| rule.next_chain() == Some(name);
        let is_of_admin = |rule: &Rule| leads_here(rule) && rule.comment_text() == Some(TO_ADMIN);
        let is_unused = rules.is_empty() && !all_rules(&others).any(|(.., it)| leads_here(it));
        if is_unused && all_rules(&ours).any(|(.., it)| is_of_admin(it)) {
            say(format!("chain {name} without rules"));
            changes.delete_chain(table, name);
        }
    }
    for (name, _) in &ours {
        changes.delete_chain(table, name);
    }
    Ok(())
}

fn all_rules(chains: &[Listed]) -> impl Iterator<Item = (&str, u64, &Rule)> {
    chains.iter().flat_map(|(chain, rules)| {
        rules.iter().map(move |(handle, rule)| (chain.as_str(), *handle, rule))
    })
}
