//! Compares a plan's rules with those in the kernel.

use kernel::iptables::{Iptables, Rule, Table};
use kernel::{Family, Nfnetlink};

use super::guard::{self, GUARD_TABLE};
use super::names::DNAT_CHAIN;
use super::rules::{External, FamilyRules};
use crate::error::Error;
use crate::plan::Plan;

/// Finds a rule that is missing. The rules may be in either variant of iptables, because the one that the
/// node uses may have changed since the ADD.
pub(crate) fn check(netlink: &Nfnetlink, plan: &Plan<'_>) -> Result<(), Error> {
    Iptables::check(netlink, |iptables| {
        for rules in Family::ALL.into_iter().filter_map(|family| FamilyRules::new(plan, family)) {
            check_family(iptables, &rules)?;
        }
        Ok(())
    })
}

/// Checks that the kernel or the legacy program answers.
pub(crate) fn status(netlink: &Nfnetlink) -> Result<(), Error> {
    let iptables = Iptables::of_node(netlink)?;
    iptables.has_chain(Table::nat(Family::V4), DNAT_CHAIN)?;
    Ok(())
}

fn check_family(iptables: &Iptables<'_>, rules: &FamilyRules) -> Result<(), Error> {
    match (check_rules(iptables, rules), &rules.external) {
        // The chain may have been made or deleted since the ADD; the rules of that ADD still work.
        (Err(error), Some(External { otherwise, .. })) => {
            check_rules(iptables, otherwise).map_err(|_| error)
        }
        (checked, _) => checked,
    }
}

fn check_rules(iptables: &Iptables<'_>, rules: &FamilyRules) -> Result<(), Error> {
    let nat = Table::nat(rules.family);
    let shared = rules.shared.iter().map(|shared| (shared.chain, &shared.rule));
    let entries = rules.entries.iter().map(|entry| (DNAT_CHAIN, entry));
    let own = rules.rules.iter().map(|rule| (rules.own_chain.as_str(), rule));
    let mut read: Option<(&str, Vec<Rule>)> = None;
    for (chain, rule) in shared.chain(entries).chain(own) {
        if read.as_ref().is_none_or(|(name, _)| *name != chain) {
            let there = iptables.rules(nat, chain)?.map(|(_, rule)| rule);
            read = Some((chain, there.collect()));
        }
        if !read.iter().any(|(_, there)| there.contains(rule)) {
            return Err(missing(nat, chain, rule));
        }
    }
    // A container that the reference plugin added has no rule in the guard.
    if rules.family == Family::V4 && guard::has_entry(iptables, &rules.own_chain)? {
        let (base, jump) = (guard::BASE.name(), guard::jump());
        if !iptables.rules(GUARD_TABLE, base)?.any(|(_, rule)| rule == jump) {
            return Err(missing(GUARD_TABLE, base, &jump));
        }
    }
    Ok(())
}

fn missing(table: Table, chain: &str, rule: &Rule) -> Error {
    let (program, table) = (table.program(), table.name());
    Error::Missing { program, table, chain: chain.to_owned(), rule: rule.to_string() }
}
