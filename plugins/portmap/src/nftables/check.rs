//! Comparing a plan with what is there, and trying whether the kernel can do it at all.

use kernel::Family;
use kernel::nft::{Listed, NewRule, Place, TableFamily};
use kernel::{Batch, Nfnetlink};

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
    plan: &FamilyPlan,
    owner: &str,
) -> Result<Option<(&'static str, String)>, kernel::Error> {
    let family = plan.family;
    let table = format!("{} {TABLE}", TableFamily::from(family).name());
    let names = netlink.set_names(family.into(), TABLE)?;
    // An ADD of a version without the guard made the table.
    let has_guard = names.iter().any(|name| name == LOOPBACK_PODS);
    for NamedSet { name, of } in sets(family, &plan.prefixes) {
        if !has_guard && [GUARDED_LINKS, LOOPBACK_PODS].contains(&name.as_str()) {
            continue;
        }
        if !names.contains(&name) {
            let what = if of.data.is_empty() { "set" } else { "map" };
            return Ok(Some((what, format!("add {what} {table} {name}"))));
        }
    }
    let listed = netlink.table_rules(family.into(), TABLE)?;
    for Shared { chain, expressions, text, .. } in rules(family, &plan.prefixes) {
        if !has_guard && chain == GUARD_CHAIN {
            continue;
        }
        if !listed.iter().any(|(name, rule)| name == chain && rule.expressions == expressions) {
            return Ok(Some(("rule", format!("add rule {table} {chain} {text}"))));
        }
    }
    for ConditionalRule { chain, expressions, text, .. } in &plan.rules {
        let is_there = |(name, rule): &(String, Listed)| {
            let is_own = rule.comment.as_deref() == Some(owner);
            is_own && name == chain && rule.expressions == *expressions
        };
        if !listed.iter().any(is_there) {
            return Ok(Some(("rule", format!("add rule {table} {chain} {text}"))));
        }
    }
    let entries = plan.rules.iter().map(|rule| (CONDITIONAL_PORTS, &rule.entry));
    let elements = plan.elements.iter().map(|(name, element)| (name.as_str(), element));
    for (name, element) in elements.chain(entries) {
        if netlink.element(set(family, name), &element.key)?.as_ref() != Some(element) {
            return Ok(Some(("element", show(family, name, element))));
        }
    }
    Ok(None)
}

/// Whether the kernel can do what the backend asks of it: it is asked to make a whole table, and then to
/// delete one that is not there, so that it takes everything back.
pub(crate) fn status() -> Result<(), Error> {
    const NO_SUCH_TABLE: &str = "podwire_hostport_status";
    let netlink = Nfnetlink::open()?;
    for family in Family::ALL {
        let mut batch = Batch::new();
        make_all(&mut batch, family);
        batch.delete_table(family.into(), NO_SUCH_TABLE);
        match netlink.commit(&batch) {
            Err(error) if error.is_not_found() && error.operation.contains(NO_SUCH_TABLE) => {}
            tried => tried?,
        }
    }
    Ok(())
}

fn make_all(batch: &mut Batch, family: Family) {
    const PREFIX: [u8; 1] = [0];
    batch.add_table(family.into(), TABLE);
    for of in sets(family, &PREFIX) {
        batch.add_set(set(family, &of.name), &of.of);
    }
    batch.add_chain(chain(family, ENTRY_CHAIN));
    for shared in rules(family, &PREFIX) {
        let name = chain(family, shared.chain);
        if let Some(base) = shared.base {
            batch.add_base_chain(name, base);
        }
        let rule = NewRule { expressions: shared.expressions, ..NewRule::default() };
        batch.add_rule(name, Place::Last, rule);
    }
}
