//! Adds what a plan contains to the table.

use std::cell::RefCell;

use cni::Undo;
use kernel::nft::{Contents, Data, Element, Verdict};
use kernel::{Batch, Nfnetlink};

use super::plan::{Placed, Plan};
use super::table::{TABLE, WITHIN, has_published, is_answered, spec};
use crate::error::Error;
use crate::obstacle;

/// Makes all of a plan or nothing, and removes what an earlier ADD has added to the same sets for the pod. An
/// address that two pods have had belongs to the newer one.
///
/// Returns what it replaced, for [`restore`].
pub(crate) fn add(netlink: &Nfnetlink, plan: &Plan) -> Result<Vec<Placed>, cni::Error> {
    let before = RefCell::new(Vec::new());
    Undo::around(|undo| {
        // The kernel may have made everything although its answer was lost.
        undo.on_error("remove the elements", || Ok(restore(netlink, plan, &before.borrow())?));
        Ok(make(netlink, plan, &before)?)
    })?;
    Ok(before.into_inner())
}

/// Makes all of a plan or nothing, and stores in `before` what it replaces.
fn make(netlink: &Nfnetlink, plan: &Plan, before: &RefCell<Vec<Placed>>) -> Result<(), Error> {
    netlink.transaction(|netlink| -> Result<Batch, Error> {
        let mut batch = Batch::new();
        let contents = Contents::read(netlink, TABLE)?;
        *before.borrow_mut() = replaced(&contents, plan);
        // A pod without addresses needs no table.
        if !plan.own.is_empty() {
            let spec = spec(plan.has_published() || has_published(&contents));
            let missing = spec.missing(&contents);
            missing.add_to(&mut batch);
            if !missing.is_empty() {
                find_obstacle(netlink, plan)?;
            }
        }
        add_own(&mut batch, &contents, plan);
        for (name, element) in &plan.bridge {
            add_of_bridge(&mut batch, &contents, name, element);
        }
        Ok(batch)
    })
}

/// Looks for a chain of another program that drops the pod's packets.
fn find_obstacle(netlink: &Nfnetlink, plan: &Plan) -> Result<(), Error> {
    if plan.lets_through() {
        return obstacle::refuse(netlink, &plan.addresses, is_answered);
    }
    obstacle::warn(netlink, &plan.addresses, is_answered);
    Ok(())
}

/// Adds the pod's own elements, and deletes those that it no longer needs.
fn add_own(batch: &mut Batch, contents: &Contents, plan: &Plan) {
    let owner = Some(plan.owner.as_str());
    for name in plan.sets.iter().flatten().copied() {
        let is_wanted = |key: &[u8]| plan.own.iter().any(|(set, it)| *set == name && it.key == key);
        for element in contents.elements(name) {
            if element.comment.as_deref() == owner && !is_wanted(&element.key) {
                batch.delete_element(TABLE.set(name), &element.key);
            }
        }
    }
    for (name, element) in &plan.own {
        let there = contents.elements(name).iter().find(|it| it.key == element.key);
        if there == Some(element) {
            continue;
        }
        if there.is_some() {
            batch.delete_element(TABLE.set(name), &element.key);
        }
        batch.create_element(TABLE.set(name), element);
    }
}

/// The elements that a plan replaces: those at the same keys, and the pod's own.
fn replaced(contents: &Contents, plan: &Plan) -> Vec<Placed> {
    let mut all = Vec::new();
    for name in plan.sets.iter().flatten().copied() {
        let is_meant = |there: &&Element| {
            there.comment.as_deref() == Some(plan.owner.as_str())
                || plan.own.iter().any(|(set, it)| *set == name && it.key == there.key)
        };
        all.extend(contents.elements(name).iter().filter(is_meant).map(|it| (name, it.clone())));
    }
    all
}

/// Undoes an [`add`]: the elements get the owners back that they had before.
pub(crate) fn restore(netlink: &Nfnetlink, plan: &Plan, before: &[Placed]) -> Result<(), Error> {
    let owner = plan.owner.as_str();
    netlink.transaction(|netlink| -> Result<Batch, Error> {
        let (mut batch, contents) = (Batch::new(), Contents::read(netlink, TABLE)?);
        for name in plan.sets.iter().flatten().copied() {
            for there in contents.elements(name) {
                let is_own = there.comment.as_deref() == Some(owner);
                if is_own && !before.iter().any(|(set, was)| *set == name && was == there) {
                    batch.delete_element(TABLE.set(name), &there.key);
                }
            }
        }
        for (name, was) in before {
            let there = contents.elements(name).iter().find(|it| it.key == was.key);
            let is_own = |it: &Element| it.comment.as_deref() == Some(owner);
            if there.is_none_or(|it| is_own(it) && it != was) {
                batch.create_element(TABLE.set(name), was);
            }
        }
        Ok(batch)
    })
}

/// Adds an element of a bridge. If it is there, the stricter policy stays.
fn add_of_bridge(batch: &mut Batch, contents: &Contents, name: &str, element: &Element) {
    let drops = |it: &Element| it.data == Some(Data::Verdict(Verdict::Drop));
    match contents.elements(name).iter().find(|it| it.key == element.key) {
        Some(there) if name == WITHIN && drops(element) && !drops(there) => {
            batch.delete_element(TABLE.set(name), &element.key);
            batch.create_element(TABLE.set(name), element);
        }
        Some(_) => {}
        None => batch.create_element(TABLE.set(name), element),
    }
}
