//! Compares a plan with the table, and checks that the kernel can make it.

use kernel::Nfnetlink;
use kernel::nft::{Contents, Data, Element, MissingPart, Verdict};

use super::plan::{Plan, show};
use super::table::{TABLE, has_published, is_answered, spec};
use crate::error::Error;
use crate::obstacle;

/// Finds something that is missing. Elements are looked up one by one, so that the time does not depend on
/// the number of pods.
pub(crate) fn check(netlink: &Nfnetlink, plan: &Plan) -> Result<(), Error> {
    if plan.own.is_empty() && plan.bridge.is_empty() {
        return Ok(());
    }
    let contents = Contents::frame(netlink, TABLE)?;
    let spec = spec(plan.has_published() || has_published(&contents));
    if let Some(part) = spec.missing(&contents).first() {
        let MissingPart { what, name, .. } = &part;
        let command = format!("nft add {what} {name}");
        return Err(Error::Missing { what, how: part.how(), command });
    }
    for (name, wanted) in plan.own.iter().chain(&plan.bridge) {
        let there = netlink.element(TABLE.set(name), &wanted.key)?;
        if !there.is_some_and(|there| does_as_much(&there, wanted)) {
            return Err(Error::missing("element", format!("nft {}", show(name, wanted))));
        }
    }
    Ok(())
}

/// Checks that the kernel can make the table, unless it is there, and that no other chain drops the packets
/// of pods.
pub(crate) fn status(netlink: &Nfnetlink, published: bool) -> Result<(), Error> {
    let contents = Contents::frame(netlink, TABLE)?;
    let spec = spec(published || has_published(&contents));
    if !spec.missing(&contents).is_empty() {
        spec.try_out(netlink)?;
    }
    obstacle::refuse(netlink, &[], is_answered)
}

/// Whether an element contains a pod's address, or isolates a bridge at least as strictly as wanted.
fn does_as_much(there: &Element, wanted: &Element) -> bool {
    there.data == wanted.data || there.data == Some(Data::Verdict(Verdict::Drop))
}
