//! Removing everything of ours from the tables of iptables.

use kernel::iptables::{Changes, Iptables, Rule, Table};
use kernel::{Family, Nfnetlink};

use super::FAMILIES;
use super::plan::{OWN_CHAINS, POD_CHAINS, TO_ADMIN};
use crate::error::Error;

/// Removes our chains, with whatever is in them, and the jumps to them, from both variants; or only says what
/// it would remove, a line for everything. The administrator's chains stay if they have rules, or other
/// chains lead to them.
pub(crate) fn purge(netlink: &Nfnetlink, dry_run: bool) -> Result<Vec<String>, Error> {
    let mut removed = Vec::new();
    for iptables in &Iptables::all_with(netlink, FAMILIES[0].name())? {
        let mut of_this = Vec::new();
        iptables.transaction(|| -> Result<Changes, Error> {
            of_this.clear();
            let mut changes = Changes::new();
            for table in Family::ALL.map(Table::filter) {
                purge_table(iptables, table, &mut changes, &mut of_this)?;
            }
            Ok(if dry_run { Changes::new() } else { changes })
        })?;
        removed.extend(of_this);
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
    let ours: Vec<&str> =
        OWN_CHAINS.into_iter().filter(|own| names.iter().any(|name| name == own)).collect();
    if ours.is_empty() {
        return Ok(());
    }
    let variant = if iptables.is_legacy() { "legacy" } else { "nf_tables" };
    let mut say = |what: String| removed.push(format!("{} ({variant}): {what}", table.program()));
    let mut jumps: Vec<(&str, u64, Rule)> = Vec::new();
    for name in &names {
        let leads_on = |(_, rule): &(u64, Rule)| rule.next_chain().is_some();
        let rules = iptables.rules(table, name)?.filter(leads_on);
        jumps.extend(rules.map(|(handle, rule)| (name.as_str(), handle, rule)));
    }
    // The chains could not be deleted while others lead to them.
    for (from, handle, rule) in &jumps {
        let is_to_ours = rule.next_chain().is_some_and(|next| ours.contains(&next));
        if is_to_ours && !ours.contains(from) {
            say(format!("rule -A {from} {rule}"));
            changes.delete_rule(table, from, *handle);
        }
    }
    for chain in &ours {
        say(format!("chain {chain} with {} rules", iptables.rules(table, chain)?.count()));
        changes.flush_chain(table, chain);
    }
    let mut doomed = ours.clone();
    for name in &names {
        let leads_here = |rule: &Rule| rule.next_chain() == Some(name);
        let is_admins = jumps.iter().any(|(from, _, rule)| {
            leads_here(rule) && POD_CHAINS.contains(from) && rule.comment_text() == Some(TO_ADMIN)
        });
        let is_ours_alone =
            jumps.iter().all(|(from, _, rule)| !leads_here(rule) || ours.contains(from));
        if is_admins && is_ours_alone && iptables.rules(table, name)?.next().is_none() {
            say(format!("chain {name} without rules"));
            doomed.push(name);
        }
    }
    for chain in doomed {
        changes.delete_chain(table, chain);
    }
    Ok(())
}
