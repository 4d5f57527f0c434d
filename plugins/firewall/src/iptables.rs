//! The backend `iptables`: rules in the table `filter`, exactly as the reference plugin writes them.
//!
//! The reference plugin's rules do not name their owner. With a comment on a rule, its DEL would not find the
//! rule. So the owner is in the kernel's user data of the rule, which iptables neither shows nor compares.

mod plan;
mod purge;
mod remove;

use cni::{Attachment, Undo};
use kernel::iptables::{BaseChain, Changes, Iptables, Match, OwnedRule, Rule, Table};
use kernel::nft::Place as At;
use kernel::obstacle::Place;
use kernel::{Family, Nfnetlink};

use crate::error::Error;
use crate::obstacle;
use crate::pod::Pod;

pub(crate) use plan::{BASE_CHAINS, OWN_CHAINS};
pub(crate) use purge::purge;
pub(crate) use remove::{collect_garbage, remove};

use plan::{FORWARD, FORWARD_CHAIN, POD_CHAINS, PUBLISHED, Plan, TABLES, rank};
use remove::remove_from;

/// Makes the rules of a pod, all or none, and deletes other rules that an earlier ADD has made for it. For
/// the first pod of the node, warns if chains of other programs drop everything.
pub(crate) fn add(
    netlink: &Nfnetlink,
    owner: &Attachment,
    pod: &Pod,
    admin_chain: &str,
) -> Result<(), cni::Error> {
    let plan = &Plan::new(owner, admin_chain, pod);
    let iptables = Iptables::of_node(netlink).map_err(Error::from)?;
    let (is_first, is_legacy) = (is_first(&iptables, plan)?, iptables.is_legacy());
    let is_own =
        |_: Table, _: &'static str, one: &OwnedRule| one.owner.as_deref() == Some(&plan.owner);
    Undo::around(|undo| {
        // The kernel may have made everything although its answer was lost.
        undo.on_error("remove the rules", || Ok(remove_from(&iptables, is_own)?));
        Ok(make(&iptables, plan)?)
    })?;
    if is_first {
        // It may hold the lock, which looking at the legacy tables takes.
        drop(iptables);
        obstacle::warn(netlink, &pod.addresses, |place| is_answered(place, is_legacy));
    }
    Ok(())
}

fn make(iptables: &Iptables<'_>, plan: &Plan) -> Result<(), Error> {
    iptables.transaction(|| -> Result<Changes, Error> {
        let mut changes = Changes::new();
        for (table, own) in &plan.own {
            if !own.is_empty() {
                add_shared(iptables, &mut changes, *table, plan)?;
            }
            add_own(iptables, &mut changes, (*table, own), &plan.owner)?;
        }
        Ok(changes)
    })
}

/// Whether no pod of this node has rules yet, in the first family of the plan.
fn is_first(iptables: &Iptables<'_>, plan: &Plan) -> Result<bool, Error> {
    let Some((table, _)) = plan.used().next() else { return Ok(false) };
    Ok(!iptables.has_chain(*table, FORWARD_CHAIN)?)
}

/// Whether a chain is `FORWARD` of the variant that has our rules, where they come first.
fn is_answered(place: &Place, is_legacy: bool) -> bool {
    place.is_legacy == is_legacy
        && (place.table.as_str(), place.chain.as_str()) == ("filter", FORWARD)
        && Family::ALL.iter().any(|family| place.family == (*family).into())
}

/// Finds a rule that is missing. It does not matter which program made the rules.
pub(crate) fn check(
    netlink: &Nfnetlink,
    owner: &Attachment,
    pod: &Pod,
    admin_chain: &str,
) -> Result<(), Error> {
    let plan = Plan::new(owner, admin_chain, pod);
    let iptables = &Iptables::of_node(netlink)?;
    for (table, own) in plan.used() {
        for (chain, shared) in &plan.shared {
            let there: Vec<_> = iptables.rules(*table, chain)?.collect();
            let own = plan::rules_of(own, chain);
            let mut wanted = shared.iter().map(|(_, rule)| rule).chain(own);
            if let Some(rule) = wanted.find(|rule| !is_there(&there, rule)) {
                let command = format!("{} -A {chain} {rule}", table.program());
                return Err(Error::missing("rule", command));
            }
        }
    }
    Ok(())
}

/// Checks that the tables can be read, that the variant which the node uses can be written, and that no chain
/// of another program drops everything.
pub(crate) fn status(netlink: &Nfnetlink) -> Result<(), Error> {
    let iptables = Iptables::of_node(netlink)?;
    iptables.has_chain(TABLES[0], FORWARD)?;
    let is_legacy = iptables.is_legacy();
    // It may hold the lock, which looking at the legacy tables takes.
    drop(iptables);
    obstacle::refuse(netlink, &[], |place| is_answered(place, is_legacy))
}

/// Adds what is missing of the rules that all pods share.
fn add_shared(
    iptables: &Iptables<'_>,
    changes: &mut Changes,
    table: Table,
    plan: &Plan,
) -> Result<(), kernel::Error> {
    let mut missing = Vec::new();
    for (chain, rules) in &plan.shared {
        let there: Vec<_> = iptables.rules(table, chain)?.collect();
        let absent = rules.iter().filter(|(_, rule)| !is_there(&there, rule));
        missing.extend(absent.map(|(at, rule)| (*chain, place(*at, rule, &there), rule)));
    }
    if missing.is_empty() {
        return Ok(());
    }
    changes.add_table(table);
    // Adding a base chain that exists would change its policy.
    if !iptables.has_chain(table, FORWARD)? {
        changes.add_base_chain(table, BaseChain::FORWARD);
    }
    for chain in plan.chains() {
        if !iptables.has_chain(table, chain)? {
            changes.add_chain(table, chain);
        }
    }
    for (chain, place, rule) in missing {
        changes.add_rule(table, chain, place, rule);
    }
    Ok(())
}

/// Adds what is missing of an attachment's own rules, and deletes those that it no longer needs.
fn add_own(
    iptables: &Iptables<'_>,
    changes: &mut Changes,
    (table, own): (Table, &[(&'static str, Rule)]),
    owner: &str,
) -> Result<(), kernel::Error> {
    let mut has_own = false;
    for chain in POD_CHAINS {
        let wanted = plan::rules_of(own, chain);
        // An attachment without rules in the first chain has none in the second.
        if chain == PUBLISHED && wanted.is_empty() && !has_own {
            break;
        }
        let there: Vec<OwnedRule> = iptables.owned_rules(table, chain)?.collect();
        let is_own = |one: &&OwnedRule| one.owner.as_deref() == Some(owner);
        // Legacy rules have no owner. Equal rules are one rule, as for the reference plugin.
        let counts = |one: &&OwnedRule| iptables.is_legacy() || is_own(one);
        for rule in &wanted {
            if !there.iter().filter(counts).any(|one| one.rule == **rule) {
                changes.add_owned_rule(table, chain, At::Last, rule, owner);
            }
        }
        for own in there.iter().filter(is_own) {
            has_own = true;
            if !wanted.contains(&&own.rule) {
                changes.delete_rule(table, chain, own.handle);
            }
        }
    }
    Ok(())
}

/// Whether a rule is in its chain, before the jumps that must come after it. Different versions of the
/// reference plugin have different comments on the rules that pods share; these are not compared.
fn is_there(there: &[(u64, Rule)], rule: &Rule) -> bool {
    let is_same = |one: &Rule| {
        let has_comment = rule.comment_text().is_some();
        one == rule || (has_comment && without_comment(one) == without_comment(rule))
    };
    let is_later = |one: &Rule| rank(rule).is_some() && rank(one) > rank(rule);
    there.iter().take_while(|(_, one)| !is_later(one)).any(|(_, one)| is_same(one))
}

fn without_comment(rule: &Rule) -> Rule {
    let mut rule = rule.clone();
    rule.matches.retain(|one| !matches!(one, Match::Comment(_)));
    rule
}

/// The place of a missing rule among those that are there. A rule for the start of a chain comes behind the
/// last jump that must come before it.
fn place(at: At, rule: &Rule, there: &[(u64, Rule)]) -> At {
    if at == At::Last {
        return at;
    }
    let is_earlier = |(_, one): &(u64, Rule)| rank(one).is_some() && rank(one) < rank(rule);
    let next = there.iter().rposition(is_earlier).map_or(0, |last| last + 1);
    there.get(next).map_or(At::Last, |(handle, _)| At::Before(*handle))
}
