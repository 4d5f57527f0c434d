//! The backend `iptables`: rules in the table `filter`, exactly as the reference plugin has them.
//!
//! Its rules name nobody, and with a comment its DEL would not find them any more. So ours carry their owner
//! in the kernel's user data, which iptables neither shows nor compares.

mod plan;
mod remove;

use kernel::Nfnetlink;
use kernel::iptables::{BaseChain, Changes, Iptables, Match, OwnedRule, Rule, Table};
use kernel::nft::Place;

use crate::error::Error;

pub(crate) use plan::{BASE_CHAINS, OWN_CHAINS, Plan};
pub(crate) use remove::{collect_garbage, remove};

use plan::{FORWARD, FORWARD_CHAIN, FamilyPlan, STAGE_1};

const FAMILIES: [Table; 2] = [Table::FILTER_V4, Table::FILTER_V6];

/// Makes the rules of a plan, all or none, and deletes what the attachment has from an ADD before.
pub(crate) fn add(netlink: &Nfnetlink, plan: &Plan) -> Result<(), Error> {
    let iptables = &Iptables::of_node(netlink)?;
    iptables.transaction(|| -> Result<Changes, Error> {
        let mut changes = Changes::new();
        for family in &plan.families {
            add_shared(iptables, &mut changes, family)?;
        }
        for table in FAMILIES {
            let wanted = plan.families.iter().find(|family| family.table == table);
            let rules = wanted.map(|family| family.rules.as_slice()).unwrap_or_default();
            add_own(iptables, &mut changes, (table, rules), plan.owner.as_str())?;
        }
        Ok(changes)
    })
}

/// Finds a rule that is missing, whoever made it.
pub(crate) fn check(netlink: &Nfnetlink, plan: &Plan) -> Result<(), Error> {
    let iptables = &Iptables::of_node(netlink)?;
    for family in &plan.families {
        let table = family.table;
        let missing = |chain: &str, rule: &Rule| Error::Missing {
            program: table.program(),
            chain: chain.to_owned(),
            rule: rule.to_string(),
        };
        for (chain, rules) in family.shared_by_chain() {
            let there: Vec<Rule> = iptables.rules(table, chain)?.map(|(_, rule)| rule).collect();
            if let Some((_, rule)) = rules.iter().find(|(_, rule)| !is_there(&there, chain, rule)) {
                return Err(missing(chain, rule));
            }
        }
        let there: Vec<Rule> =
            iptables.rules(table, FORWARD_CHAIN)?.map(|(_, rule)| rule).collect();
        if let Some(rule) = family.rules.iter().find(|rule| !there.contains(rule)) {
            return Err(missing(FORWARD_CHAIN, rule));
        }
    }
    Ok(())
}

/// Whether netfilter answers, and rules could be written in the variant that the node uses.
pub(crate) fn status(netlink: &Nfnetlink) -> Result<(), Error> {
    Iptables::of_node(netlink)?.has_chain(Table::FILTER_V4, FORWARD)?;
    Ok(())
}

/// Makes what is missing of what all pods share: nothing, for all but the first.
fn add_shared(
    iptables: &Iptables<'_>,
    changes: &mut Changes,
    family: &FamilyPlan,
) -> Result<(), kernel::Error> {
    let table = family.table;
    let mut missing = Vec::new();
    for (chain, rules) in family.shared_by_chain() {
        let listed: Vec<(u64, Rule)> = iptables.rules(table, chain)?.collect();
        let there: Vec<Rule> = listed.iter().map(|(_, rule)| rule.clone()).collect();
        for (place, rule) in rules {
            if !is_there(&there, chain, rule) {
                missing.push((chain, behind_stage_1(rule, &listed).unwrap_or(*place), rule));
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    changes.add_table(table);
    // Where it is already, it has a policy that is to stay.
    if !iptables.has_chain(table, FORWARD)? {
        changes.add_base_chain(table, BaseChain::FORWARD);
    }
    for chain in family.own_chains() {
        if !iptables.has_chain(table, chain)? {
            changes.add_chain(table, chain);
        }
    }
    for (chain, place, rule) in missing {
        changes.add_rule(table, chain, place, rule);
    }
    Ok(())
}

/// Makes what is missing of an attachment's own rules, and deletes those that it needs no more.
fn add_own(
    iptables: &Iptables<'_>,
    changes: &mut Changes,
    (table, wanted): (Table, &[Rule]),
    owner: &str,
) -> Result<(), kernel::Error> {
    let there: Vec<OwnedRule> = iptables.owned_rules(table, FORWARD_CHAIN)?.collect();
    // Where rules have no owners, those that say the same are one, as for the reference plugin.
    let is_own = |one: &&OwnedRule| iptables.is_legacy() || one.owner.as_deref() == Some(owner);
    for rule in wanted {
        if !there.iter().filter(is_own).any(|one| one.rule == *rule) {
            changes.add_owned_rule(table, FORWARD_CHAIN, Place::Last, rule, owner);
        }
    }
    for stale in there.iter().filter(|one| one.owner.as_deref() == Some(owner)) {
        if !wanted.contains(&stale.rule) {
            changes.delete_rule(table, FORWARD_CHAIN, stale.handle);
        }
    }
    Ok(())
}

/// Whether a shared rule is there, with the comments of any version of the reference plugin. What keeps
/// bridges apart has to come before what lets packets through.
fn is_there(there: &[Rule], chain: &str, rule: &Rule) -> bool {
    let end = there
        .iter()
        .position(|one| chain == FORWARD && one.next_chain() == Some(FORWARD_CHAIN))
        .filter(|_| rule.next_chain() == Some(STAGE_1));
    let wanted = without_comment(rule);
    there[..end.unwrap_or(there.len())].iter().any(|one| without_comment(one) == wanted)
}

fn without_comment(rule: &Rule) -> Rule {
    let mut rule = rule.clone();
    rule.matches.retain(|one| !matches!(one, Match::Comment(_)));
    rule
}

/// The place right behind the jump that keeps bridges apart, for the one that lets packets through.
fn behind_stage_1(rule: &Rule, there: &[(u64, Rule)]) -> Option<Place> {
    if rule.next_chain() != Some(FORWARD_CHAIN) {
        return None;
    }
    let stage_1 = there.iter().position(|(_, one)| one.next_chain() == Some(STAGE_1))?;
    Some(there.get(stage_1 + 1).map_or(Place::Last, |(handle, _)| Place::Before(*handle)))
}
