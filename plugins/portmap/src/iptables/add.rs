//! Makes the rules of a plan.

use kernel::iptables::{Changes, Iptables, Rule, Table};
use kernel::nft::Place;
use kernel::{Family, Nfnetlink};

use super::claims::{refuse, same_port};
use super::names::{DNAT_CHAIN, is_foreign};
use super::rules::{External, FamilyRules, Shared};
use super::{guard, remove};
use crate::claim::{Claim, End};
use crate::error::Error;
use crate::plan::Plan;

/// Makes the rules of a plan, all or none, and removes what an earlier ADD has made for the container in a
/// family without an address now. Returns the ends that nothing leads to any more. For a new container,
/// nothing is sent but additions, so that closing the socket waits for no disposal.
pub(crate) fn add(netlink: &Nfnetlink, plan: &Plan<'_>) -> Result<Vec<End>, Error> {
    let iptables = &Iptables::of_node(netlink)?;
    let (mut ends, mut absent) = (Vec::new(), Vec::new());
    guard::transaction(iptables, |changes, switched_off| {
        (ends, absent) = (Vec::new(), Vec::new());
        for family in Family::ALL {
            let Some(rules) = FamilyRules::new(plan, family) else {
                let stale = remove::find(iptables, family, &plan.owner)?;
                ends.extend(remove::removal(iptables, changes, &stale, true, switched_off)?);
                continue;
            };
            let (rules, missing) = with_mark(iptables, rules)?;
            absent.extend(missing);
            let is_new = add_family(iptables, changes, &rules, plan)?;
            let own_chain = rules.own_chain.as_str();
            match plan.link.as_deref().filter(|_| family == Family::V4) {
                Some(link) => guard::add(iptables, changes, own_chain, link)?,
                None if is_new || family == Family::V6 => {}
                None => guard::remove(iptables, changes, &[own_chain], switched_off)?,
            }
        }
        Ok(())
    })?;
    for (nat, chain) in absent {
        // The program's stderr goes to the runtime's log.
        eprintln!(
            "portmap: {} has no chain {chain} in its table nat, which key \"externalSetMarkChain\" names; \
             packets are marked with bit 13 instead",
            nat.program()
        );
    }
    Ok(ends)
}

/// The rules to make: those that mark packets themselves if the chain of another program that should do so is
/// missing. Returns that chain, too.
fn with_mark(
    iptables: &Iptables<'_>,
    rules: FamilyRules,
) -> Result<(FamilyRules, Option<(Table, String)>), kernel::Error> {
    let nat = Table::nat(rules.family);
    match rules.external {
        Some(External { chain, otherwise }) if !iptables.has_chain(nat, &chain)? => {
            Ok((*otherwise, Some((nat, chain))))
        }
        external => Ok((FamilyRules { external, ..rules }, None)),
    }
}

/// Adds a family's rules. Returns whether the container had none there.
fn add_family(
    iptables: &Iptables<'_>,
    changes: &mut Changes,
    rules: &FamilyRules,
    plan: &Plan<'_>,
) -> Result<bool, Error> {
    let (nat, own_chain) = (Table::nat(rules.family), rules.own_chain.as_str());
    let existing: Vec<(u64, Rule)> = iptables.rules(nat, DNAT_CHAIN)?.collect();
    let (own, others): (Vec<_>, Vec<_>) =
        existing.into_iter().partition(|(_, rule)| rule.next_chain() == Some(own_chain));
    if let Some((_, foreign)) = own.iter().find(|(_, rule)| is_foreign(rule, &rules.comment)) {
        let holder = foreign.comment_text().unwrap_or_default().to_owned();
        return Err(Error::NameTaken { chain: own_chain.to_owned(), holder });
    }
    if plan.settings.refuse_conflicts {
        let (claims, entries): (Vec<Claim>, Vec<Rule>) =
            (plan.claims(rules.family), others.iter().map(|(_, rule)| rule.clone()).collect());
        refuse(iptables, rules.family, &claims, &entries, &rules.comment)?;
    }
    add_shared(iptables, changes, rules)?;
    let is_new = !iptables.has_chain(nat, own_chain)?;
    if is_new {
        changes.add_chain(nat, own_chain);
    } else {
        for (handle, _) in &own {
            changes.delete_rule(nat, DNAT_CHAIN, *handle);
        }
        changes.flush_chain(nat, own_chain);
    }
    for rule in &rules.rules {
        changes.add_rule(nat, own_chain, Place::Last, rule);
    }
    for entry in &rules.entries {
        // Before older entries for these ports, so that what a crashed pod has left takes no packets.
        let older = others.iter().find(|(_, other)| same_port(entry, other));
        let place = older.map_or(Place::Last, |(handle, _)| Place::Before(*handle));
        changes.add_rule(nat, DNAT_CHAIN, place, entry);
    }
    Ok(is_new)
}

/// Adds the shared rules that are missing. A rule that is there is not added again, because the kernel would
/// treat that as an update, and closing the socket would wait for its disposal.
fn add_shared(
    iptables: &Iptables<'_>,
    changes: &mut Changes,
    rules: &FamilyRules,
) -> Result<(), Error> {
    let nat = Table::nat(rules.family);
    let mut missing = Vec::new();
    for shared in &rules.shared {
        if !iptables.rules(nat, shared.chain)?.any(|(_, there)| there == shared.rule) {
            missing.push(shared);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    changes.add_table(nat);
    changes.add_chain(nat, DNAT_CHAIN);
    for Shared { chain, base, place, rule } in missing {
        match base {
            Some(base) => changes.add_base_chain(nat, *base),
            None => changes.add_chain(nat, chain),
        }
        changes.add_rule(nat, chain, *place, rule);
    }
    Ok(())
}
