//! Comparing a plan with what is there, and trying whether the kernel can do it at all.

use kernel::iptables::Nat;
use kernel::nft::NewRule;
use kernel::nft::Place;
use kernel::{Batch, Nfnetlink};

use super::held::{FAMILIES, Held};
use super::plan::{FamilyPlan, Plan, show};
use super::table::{ENTRY_CHAIN, TABLE, chain, rules, set, sets};
use crate::error::Error;

/// Finds something that is missing.
pub(crate) fn check(netlink: &Nfnetlink, plan: &Plan) -> Result<(), Error> {
    for family in &plan.families {
        if let Some((what, command)) =
            missing(&Held::read(netlink, family.nat)?, family, &plan.owner)
        {
            return Err(Error::MissingInTable { what, command });
        }
    }
    Ok(())
}

/// What is missing, and how the program `nft` would add it.
fn missing(held: &Held, family: &FamilyPlan, owner: &str) -> Option<(&'static str, String)> {
    let table = format!("{} {TABLE}", family.nat.family().name());
    for of in sets(family.nat, &family.prefixes) {
        if !held.sets.iter().any(|(name, _)| *name == of.name) {
            let what = if of.of.data.is_empty() { "set" } else { "map" };
            return Some((what, format!("add {what} {table} {}", of.name)));
        }
    }
    let has_rule = |chain: &str, expressions: &[_], owner: Option<&str>| {
        held.rules.iter().any(|(name, rule)| {
            name == chain
                && rule.expressions == expressions
                && (owner.is_none() || rule.comment.as_deref() == owner)
        })
    };
    for shared in rules(family.nat, &family.prefixes) {
        if !has_rule(shared.chain, &shared.expressions, None) {
            return Some(("rule", format!("add rule {table} {} {}", shared.chain, shared.text)));
        }
    }
    for (name, element) in &family.elements {
        if !held.elements(name).contains(element) {
            return Some(("element", show(family.nat, name, element)));
        }
    }
    for rule in &family.rules {
        if !held.elements(super::table::CONDITIONAL_PORTS).contains(&rule.entry) {
            return Some((
                "element",
                show(family.nat, super::table::CONDITIONAL_PORTS, &rule.entry),
            ));
        }
        if !has_rule(&rule.chain, &rule.expressions, Some(owner)) {
            return Some(("rule", format!("add rule {table} {} {}", rule.chain, rule.text)));
        }
    }
    None
}

/// Whether the kernel can do what the backend asks of it: it is asked to make a whole table, and then to delete
/// one that is not there, so that it takes everything back.
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
