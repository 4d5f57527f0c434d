//! Making what a plan asks for.

use std::net::IpAddr;

use kernel::nft::{Data, Element, NewRule, Place, Verdict};
use kernel::{Batch, Nfnetlink};

use super::held::Held;
use super::obstacle;
use super::plan::{Plan, noted};
use super::table::{FAMILY, TABLE, WITHIN, chain, chains, rules, set, sets};
use crate::error::Error;

/// Makes all of a plan or nothing, and removes what the pod has in the same sets from an ADD before. Of two
/// pods that have had an address, it is the newest one's.
pub(crate) fn add(netlink: &Nfnetlink, plan: &Plan) -> Result<(), Error> {
    netlink.transaction(|netlink| -> Result<Batch, Error> {
        let mut batch = Batch::new();
        let held = Held::read(netlink)?;
        // Without addresses, there is nothing for which the table would have to be there.
        if !plan.own.is_empty() && make_whole(&mut batch, &held) {
            obstacle::refuse(netlink, &plan.addresses)?;
        }
        add_own(&mut batch, &held, plan);
        for (name, element) in &plan.bridge {
            add_of_bridge(&mut batch, &held, name, element);
        }
        Ok(batch)
    })
}

/// Makes what is missing of what all pods share: nothing, for all but the first. Says whether there was
/// something.
pub(super) fn make_whole(batch: &mut Batch, held: &Held) -> bool {
    let missing = held.missing_sets();
    let broken = |name: &str| !held.has_chain(name) || held.missing_rule(name).is_some();
    let broken: Vec<_> = chains().into_iter().filter(|(name, _)| broken(name)).collect();
    if missing.is_empty() && broken.is_empty() {
        return false;
    }
    batch.add_table(FAMILY, TABLE);
    for (name, of) in sets() {
        if missing.contains(&name) {
            batch.add_set(set(name), &of);
        }
    }
    for (name, base) in &broken {
        match base {
            _ if held.has_chain(name) => {}
            Some(base) => batch.add_base_chain(chain(name), *base),
            None => batch.add_chain(chain(name)),
        }
        // Their order matters, so they are made as a whole, before those of others.
        for handle in held.handles(name) {
            batch.delete_rule(chain(name), handle);
        }
        let ours: Vec<_> = rules().into_iter().filter(|rule| rule.chain == *name).collect();
        for rule in ours.into_iter().rev() {
            let rule = NewRule { expressions: rule.expressions, ..NewRule::default() };
            batch.add_rule(chain(name), Place::First, rule);
        }
    }
    true
}

/// Makes the pod's own elements, and deletes those that it needs no more.
fn add_own(batch: &mut Batch, held: &Held, plan: &Plan) {
    let owner = Some(plan.owner.as_str());
    for name in plan.sets {
        let is_wanted = |key: &[u8]| plan.own.iter().any(|(set, it)| *set == name && it.key == key);
        for element in held.elements(name) {
            if element.comment.as_deref() == owner && !is_wanted(&element.key) {
                batch.delete_element(set(name), &element.key);
            }
        }
    }
    for (name, element) in &plan.own {
        let there = held.elements(name).iter().find(|it| it.key == element.key);
        if there == Some(element) {
            continue;
        }
        if there.is_some() {
            batch.delete_element(set(name), &element.key);
        }
        batch.create_element(set(name), element);
    }
}

/// Undoes what [`add`] has noted of a plan's sources: they are again whose they were before.
pub(crate) fn restore_sources(
    netlink: &Nfnetlink,
    plan: &Plan,
    before: &[(IpAddr, String)],
) -> Result<(), Error> {
    let owner = plan.owner.as_str();
    netlink.transaction(|netlink| -> Result<Batch, Error> {
        let (mut batch, held) = (Batch::new(), Held::read(netlink)?);
        for name in plan.sets {
            let own = held.elements(name).iter().filter(|it| it.comment.as_deref() == Some(owner));
            own.for_each(|element| batch.delete_element(set(name), &element.key));
        }
        for (address, of) in before {
            let (name, element) = noted(plan.sets, *address, of);
            let there = held.elements(name).iter().find(|it| it.key == element.key);
            if there.is_none_or(|it| it.comment.as_deref() == Some(owner))
                && (of == owner || plan.addresses.contains(address))
            {
                batch.create_element(set(name), &element);
            }
        }
        Ok(batch)
    })
}

/// Makes an element of a bridge. Where it is, the stricter policy stays.
fn add_of_bridge(batch: &mut Batch, held: &Held, name: &str, element: &Element) {
    let drops = |it: &Element| it.data == Some(Data::Verdict(Verdict::Drop));
    match held.elements(name).iter().find(|it| it.key == element.key) {
        Some(there) if name == WITHIN && drops(element) && !drops(there) => {
            batch.delete_element(set(name), &element.key);
            batch.create_element(set(name), element);
        }
        Some(_) => {}
        None => batch.create_element(set(name), element),
    }
}
