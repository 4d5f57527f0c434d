//! Comparing a plan with what is there, and trying whether the kernel can do it at all.

use kernel::iptables::Nat;
use kernel::nft::{Listed, NewRule, Place};
use kernel::{Batch, Nfnetlink};

use super::held::FAMILIES;
use super::plan::{ConditionalRule, FamilyPlan, Plan, show};
use super::table::{
    CONDITIONAL_PORTS, ENTRY_CHAIN, GUARD_CHAIN, GUARDED_LINKS, LOOPBACK_PODS, NamedSet, Shared,
    TABLE, chain, rules, set, sets,
};
use crate::error::Error;

/// Finds something that is missing.
pub(crate) fn check(netlink: &Nfnetlink, plan: &Plan) -> Result<(), Error> {
    for family in &plan.families {
        if let Some((what, command)) = missing(netlink, family, &plan.owner)? {
            return Err(Error::MissingInTable { what, command });
        }
    }
    Ok(())
}

/// What is missing, and how the program `nft` would add it. Elements are looked for one by one, so that it
/// does not matter how many there are.
fn missing(
    netlink: &Nfnetlink,
    family: &FamilyPlan,
    owner: &str,
) -> Result<Option<(&'static str, String)>, kernel::Error> {
    let nat = family.nat;
    let table = format!("{} {TABLE}", nat.family().name());
    let names = netlink.set_names(nat.family(), TABLE)?;
    // An ADD of a version without the guard made the table.
    let has_guard = names.iter().any(|name| name == LOOPBACK_PODS);
    for NamedSet { name, of } in sets(nat, &family.prefixes) {
        if !has_guard && [GUARDED_LINKS, LOOPBACK_PODS].contains(&name.as_str()) {
            continue;
        }
        if !names.contains(&name) {
            let what = if of.data.is_empty() { "set" } else { "map" };
            return Ok(Some((what, format!("add {what} {table} {name}"))));
        }
    }
    let listed = netlink.table_rules(nat.family(), TABLE)?;
    for Shared { chain, expressions, text, .. } in rules(nat, &family.prefixes) {
        if !has_guard && chain == GUARD_CHAIN {
            continue;
        }
        if !listed.iter().any(|(name, rule)| name == chain && rule.expressions == expressions) {
            return Ok(Some(("rule", format!("add rule {table} {chain} {text}"))));
        }
    }
    for ConditionalRule { chain, expressions, text, .. } in &family.rules {
        let is_there = |(name, rule): &(String, Listed)| {
            let is_own = rule.comment.as_deref() == Some(owner);
            is_own && name == chain && rule.expressions == *expressions
        };
        if !listed.iter().any(is_there) {
            return Ok(Some(("rule", format!("add rule {table} {chain} {text}"))));
        }
    }
    let entries = family.rules.iter().map(|rule| (CONDITIONAL_PORTS, &rule.entry));
    let elements = family.elements.iter().map(|(name, element)| (name.as_str(), element));
    for (name, element) in elements.chain(entries) {
        if netlink.element(set(nat, name), &element.key)?.as_ref() != Some(element) {
            return Ok(Some(("element", show(nat, name, element))));
        }
    }
    Ok(None)
}

/// Whether the kernel can do what the backend asks of it: it is asked to make a whole table, and then to
/// delete one that is not there, so that it takes everything back.
pub(crate) fn status() -> Result<(), Error> {
    const NO_SUCH_TABLE: &str = "podwire_hostport_status";
    let netlink = Nfnetlink::open()?;
    for nat in FAMILIES {
        let mut batch = Batch::new();
        make_all(&mut batch, nat);
        batch.delete_table(nat.family(), NO_SUCH_TABLE);
        match netlink.commit(&batch) {
            Err(error) if error.is_not_found() && error.operation.contains(NO_SUCH_TABLE) => {}
            tried => tried?,
        }
    }
    Ok(())
}

fn make_all(batch: &mut Batch, nat: Nat) {
    const PREFIX: [u8; 1] = [0];
    batch.add_table(nat.family(), TABLE);
    for of in sets(nat, &PREFIX) {
        batch.add_set(set(nat, &of.name), &of.of);
    }
    batch.add_chain(chain(nat, ENTRY_CHAIN));
    for shared in rules(nat, &PREFIX) {
        let name = chain(nat, shared.chain);
        if let Some(base) = shared.base {
            batch.add_base_chain(name, base);
        }
        let rule = NewRule { expressions: shared.expressions, ..NewRule::default() };
        batch.add_rule(name, Place::Last, rule);
    }
}
