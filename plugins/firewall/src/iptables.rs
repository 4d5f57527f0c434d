//! The backend `iptables`: rules in the table `filter`, exactly as the reference plugin has them.
//!
//! Its rules name nobody, and with a comment its DEL would not find them any more. So ours carry their owner
//! in the kernel's user data, which iptables neither shows nor compares.

mod plan;
mod purge;
mod remove;

use std::net::IpAddr;

use cni::Undo;
use kernel::iptables::{BaseChain, Changes, Iptables, Match, OwnedRule, Rule, Table};
use kernel::nft::Place as At;
use kernel::obstacle::Place;
use kernel::{Family, Nfnetlink};

use crate::error::Error;
use crate::obstacle;

pub(crate) use plan::{BASE_CHAINS, OWN_CHAINS, Plan};
pub(crate) use purge::purge;
pub(crate) use remove::{collect_garbage, remove};

use plan::{FORWARD, FORWARD_CHAIN, FamilyPlan, POD_CHAINS, PUBLISHED, rank};
use remove::remove_own;

const FAMILIES: [Table; 2] = [Table::filter(Family::V4), Table::filter(Family::V6)];

/// Makes the rules of a plan, all or none, and deletes what the attachment has from an ADD before. For the
/// first pod of the node, warns if chains of others drop everything.
pub(crate) fn add(
    netlink: &Nfnetlink,
    plan: &Plan,
    addresses: &[IpAddr],
) -> Result<(), cni::Error> {
    let iptables = Iptables::of_node(netlink).map_err(Error::from)?;
    let (is_first, is_legacy) = (is_first(&iptables, plan)?, iptables.is_legacy());
    Undo::around(|undo| {
        // The kernel may have made everything, and only its answer was lost.
        undo.on_error("remove the rules", || Ok(remove_own(&iptables, &plan.owner)?));
        Ok(make(&iptables, plan)?)
    })?;
    if is_first {
        // It may hold the lock that is needed to look at the legacy tables.
        drop(iptables);
        obstacle::warn(netlink, addresses, |place| is_answered(place, is_legacy));
    }
    Ok(())
}

fn make(iptables: &Iptables<'_>, plan: &Plan) -> Result<(), Error> {
    iptables.transaction(|| -> Result<Changes, Error> {
        let mut changes = Changes::new();
        for family in &plan.families {
            add_shared(iptables, &mut changes, family)?;
        }
        for table in Family::ALL.map(Table::filter) {
            let wanted = plan.families.iter().find(|family| family.table == table);
            let rules = wanted.map(|family| family.rules.as_slice()).unwrap_or_default();
            add_own(iptables, &mut changes, (table, rules), plan.owner.as_str())?;
        }
        Ok(changes)
    })
}

/// Whether no pod of this node has rules yet, of the family of a plan that is looked at first.
fn is_first(iptables: &Iptables<'_>, plan: &Plan) -> Result<bool, Error> {
    let Some(family) = plan.families.first() else { return Ok(false) };
    Ok(!iptables.has_chain(family.table, FORWARD_CHAIN)?)
}

/// Whether a chain is `FORWARD` of the variant that has our rules, which come first there.
fn is_answered(place: &Place, is_legacy: bool) -> bool {
    let is_table = |family: &Family| place.family == (*family).into();
    place.is_legacy == is_legacy
        && (place.table.as_str(), place.chain.as_str()) == ("filter", FORWARD)
        && Family::ALL.iter().any(is_table)
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
        for chain in POD_CHAINS {
            let mut wanted = family.rules.iter().filter(|(of, _)| *of == chain).peekable();
            if wanted.peek().is_none() {
                continue;
            }
            let there: Vec<Rule> = iptables.rules(table, chain)?.map(|(_, rule)| rule).collect();
            if let Some((_, rule)) = wanted.find(|(_, rule)| !there.contains(rule)) {
                return Err(missing(chain, rule));
            }
        }
    }
    Ok(())
}

/// Whether netfilter answers, rules could be written in the variant that the node uses, and no chain of
/// others drops everything.
pub(crate) fn status(netlink: &Nfnetlink) -> Result<(), Error> {
    let iptables = Iptables::of_node(netlink)?;
    iptables.has_chain(Table::filter(Family::V4), FORWARD)?;
    let is_legacy = iptables.is_legacy();
    // It may hold the lock that is needed to look at the legacy tables.
    drop(iptables);
    obstacle::refuse(netlink, &[], |place| is_answered(place, is_legacy))
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
        let absent = rules.iter().filter(|(_, rule)| !is_there(&there, chain, rule));
        let behind = |rule| if chain == FORWARD { behind_others(rule, &listed) } else { None };
        let (later, first): (Vec<_>, Vec<_>) = absent
            .map(|(place, rule)| (chain, behind(rule), *place, rule))
            .partition(|(_, behind, ..)| behind.is_some());
        // Each that comes first is made before those that are there; the others one after the other.
        missing.extend(first.into_iter().chain(later.into_iter().rev()));
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
    for (chain, behind, place, rule) in missing {
        changes.add_rule(table, chain, behind.unwrap_or(place), rule);
    }
    Ok(())
}

/// Makes what is missing of an attachment's own rules, and deletes those that it needs no more.
fn add_own(
    iptables: &Iptables<'_>,
    changes: &mut Changes,
    (table, wanted): (Table, &[(&str, Rule)]),
    owner: &str,
) -> Result<(), kernel::Error> {
    let mut has_own = false;
    for chain in POD_CHAINS {
        let wanted: Vec<&Rule> =
            wanted.iter().filter(|(of, _)| *of == chain).map(|(_, rule)| rule).collect();
        // Who has nothing in the first chain from an ADD before has nothing in the second either.
        if chain == PUBLISHED && wanted.is_empty() && !has_own {
            break;
        }
        let there: Vec<OwnedRule> = iptables.owned_rules(table, chain)?.collect();
        let is_own = |one: &&OwnedRule| one.owner.as_deref() == Some(owner);
        // Where rules have no owners, those that say the same are one, as for the reference plugin.
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

/// Whether a shared rule is there, with the comments of any version of the reference plugin. Published ports
/// come before what keeps bridges apart, and that before what lets packets through.
fn is_there(there: &[Rule], chain: &str, rule: &Rule) -> bool {
    let is_later = |one: &Rule| rank(one) > rank(rule) && rank(rule).is_some();
    let end = there.iter().position(|one| chain == FORWARD && is_later(one));
    let wanted = without_comment(rule);
    there[..end.unwrap_or(there.len())].iter().any(|one| without_comment(one) == wanted)
}

fn without_comment(rule: &Rule) -> Rule {
    let mut rule = rule.clone();
    rule.matches.retain(|one| !matches!(one, Match::Comment(_)));
    rule
}

/// The place right behind the last jump that comes before this one; none if there is no such jump.
fn behind_others(rule: &Rule, there: &[(u64, Rule)]) -> Option<At> {
    let is_earlier = |(_, one): &(u64, Rule)| rank(one).is_some() && rank(one) < rank(rule);
    let last = there.iter().rposition(is_earlier)?;
    Some(there.get(last + 1).map_or(At::Last, |(handle, _)| At::Before(*handle)))
}
