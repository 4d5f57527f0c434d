//! Comparing a plan with what is there, and trying whether the kernel can do it at all.

use kernel::nft::{Data, Element, Verdict};
use kernel::{Batch, Nfnetlink};

use super::add::make_whole;
use super::held::Held;
use super::plan::{Plan, show};
use super::table::{FAMILY, TABLE, is_answered, set};
use crate::error::Error;
use crate::obstacle;

/// Finds something that is missing, whoever made it. Elements are looked for one by one, so that it does not
/// matter how many there are.
pub(crate) fn check(netlink: &Nfnetlink, plan: &Plan) -> Result<(), Error> {
    if plan.own.is_empty() && plan.bridge.is_empty() {
        return Ok(());
    }
    let held = Held::frame(netlink, plan.has_published())?;
    if let Some(name) = held.missing_sets().first() {
        return Err(missing("set", format!("add set inet {TABLE} {name}")));
    }
    for (name, _) in held.wanted_chains() {
        if !held.has_chain(name) {
            return Err(missing("chain", format!("add chain inet {TABLE} {name}")));
        }
        if let Some(rule) = held.missing_rule(name) {
            return Err(missing("rule", format!("add rule inet {TABLE} {name} {}", rule.text)));
        }
    }
    for (name, wanted) in plan.own.iter().chain(&plan.bridge) {
        let there = netlink.element(set(name), &wanted.key)?;
        if !there.is_some_and(|there| does_as_much(&there, wanted)) {
            return Err(missing("element", show(name, wanted)));
        }
    }
    Ok(())
}

/// Whether the kernel can do what the backend asks of it: it is asked to make a whole table, and then to
/// delete one that is not there, so that it takes everything back. And whether packets would get through at
/// all.
pub(crate) fn status(netlink: &Nfnetlink, published: bool) -> Result<(), Error> {
    const NO_SUCH_TABLE: &str = "podwire_firewall_status";
    if make_whole(&mut Batch::new(), &Held::frame(netlink, published)?) {
        let mut batch = Batch::new();
        make_whole(&mut batch, &Held::nothing(published));
        batch.delete_table(FAMILY, NO_SUCH_TABLE);
        match netlink.commit(&batch) {
            Err(error) if error.is_not_found() && error.operation.contains(NO_SUCH_TABLE) => {}
            tried => tried?,
        }
    }
    obstacle::refuse(netlink, &[], is_answered)
}

/// Whether an element has a pod's address, or keeps a bridge apart, be it by the stricter policy of another
/// network.
fn does_as_much(there: &Element, wanted: &Element) -> bool {
    there.data == wanted.data || there.data == Some(Data::Verdict(Verdict::Drop))
}

fn missing(what: &'static str, command: String) -> Error {
    Error::MissingInTable { what, command }
}
