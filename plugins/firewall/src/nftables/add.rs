//! Making what a plan asks for.

use std::cell::RefCell;

use cni::Undo;
use kernel::nft::{Data, Element, NewRule, Place, Verdict};
use kernel::{Batch, Nfnetlink};

use super::held::Held;
use super::plan::Plan;
use super::table::{FAMILY, TABLE, WITHIN, chain, is_answered, set};
use crate::error::Error;
use crate::obstacle;

/// Makes all of a plan or nothing, and removes what the pod has in the same sets from an ADD before. Of two
/// pods that have had an address, it is the newest one's.
///
/// Returns what it replaced, for [`restore`].
pub(crate) fn add(netlink: &Nfnetlink, plan: &Plan) -> Result<Vec<Noted>, cni::Error> {
    let before = RefCell::new(Vec::new());
    Undo::around(|undo| {
        // The kernel may have made everything, and only its answer was lost.
        undo.on_error("take the elements back", || Ok(restore(netlink, plan, &before.borrow())?));
        Ok(make(netlink, plan, &before)?)
    })?;
    Ok(before.into_inner())
}

/// Makes all of a plan or nothing; notes what it replaces.
fn make(netlink: &Nfnetlink, plan: &Plan, before: &RefCell<Vec<Noted>>) -> Result<(), Error> {
    netlink.transaction(|netlink| -> Result<Batch, Error> {
        let mut batch = Batch::new();
        let held = Held::read(netlink, plan.has_published())?;
        *before.borrow_mut() = replaced(&held, plan);
        // Without addresses, there is nothing for which the table would have to be there.
        if !plan.own.is_empty() && make_whole(&mut batch, &held) {
            if plan.lets_through() {
                obstacle::refuse(netlink, &plan.addresses, is_answered)?;
            } else {
                obstacle::warn(netlink, &plan.addresses, is_answered);
            }
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
    let broken: Vec<_> =
        held.wanted_chains().into_iter().filter(|(name, _)| broken(name)).collect();
    if missing.is_empty() && broken.is_empty() {
        return false;
    }
    batch.add_table(FAMILY, TABLE);
    for (name, of) in held.wanted_sets() {
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
        for rule in held.wanted_rules(name).into_iter().rev() {
            let rule = NewRule { expressions: rule.expressions, ..NewRule::default() };
            batch.add_rule(chain(name), Place::First, rule);
        }
    }
    true
}

/// Makes the pod's own elements, and deletes those that it needs no more.
fn add_own(batch: &mut Batch, held: &Held, plan: &Plan) {
    let owner = Some(plan.owner.as_str());
    for name in plan.sets.iter().flatten().copied() {
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

/// An element with its set.
pub(crate) type Noted = (&'static str, Element);

/// The elements that a plan replaces: those at the same keys, and the pod's own.
fn replaced(held: &Held, plan: &Plan) -> Vec<Noted> {
    let mut all = Vec::new();
    for name in plan.sets.iter().flatten().copied() {
        let is_meant = |there: &&Element| {
            there.comment.as_deref() == Some(plan.owner.as_str())
                || plan.own.iter().any(|(set, it)| *set == name && it.key == there.key)
        };
        all.extend(held.elements(name).iter().filter(is_meant).map(|it| (name, it.clone())));
    }
    all
}

/// Undoes an [`add`]: the elements are again whose they were before.
pub(crate) fn restore(netlink: &Nfnetlink, plan: &Plan, before: &[Noted]) -> Result<(), Error> {
    let owner = plan.owner.as_str();
    netlink.transaction(|netlink| -> Result<Batch, Error> {
        let (mut batch, held) = (Batch::new(), Held::read(netlink, false)?);
        for name in plan.sets.iter().flatten().copied() {
            for there in held.elements(name) {
                let is_own = there.comment.as_deref() == Some(owner);
                if is_own && !before.iter().any(|(set, was)| *set == name && was == there) {
                    batch.delete_element(set(name), &there.key);
                }
            }
        }
        for (name, was) in before {
            let there = held.elements(name).iter().find(|it| it.key == was.key);
            let is_own = |it: &Element| it.comment.as_deref() == Some(owner);
            if there.is_none_or(|it| is_own(it) && it != was) {
                batch.create_element(set(name), was);
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
