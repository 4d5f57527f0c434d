//! Compares a plan with the tables, and checks that the kernel can make them.

use kernel::nft::{Contents, Element, MissingPart};
use kernel::{Family, Nfnetlink};

use super::elements::{ConditionalRule, FamilyElements, show};
use super::table::{CONDITIONAL_PORTS, has_guard, spec, table, without_guard};
use crate::error::Error;
use crate::plan::Plan;

/// Finds something that is missing. Elements are looked up one by one, so that the time does not depend on
/// their number.
pub(crate) fn check(netlink: &Nfnetlink, plan: &Plan<'_>) -> Result<(), Error> {
    for wanted in Family::ALL.into_iter().filter_map(|family| FamilyElements::new(plan, family)) {
        check_family(netlink, &wanted)?;
    }
    Ok(())
}

fn check_family(netlink: &Nfnetlink, wanted: &FamilyElements) -> Result<(), Error> {
    let table = table(wanted.family);
    let contents = Contents::frame(netlink, table)?;
    let mut spec = spec(wanted.family, &wanted.prefixes);
    // A version without the guard may have made the table.
    if !has_guard(&contents) {
        spec = without_guard(spec);
    }
    if let Some(part) = spec.missing(&contents).first() {
        let MissingPart { what, name, .. } = &part;
        let command = format!("add {what} {name}");
        return Err(Error::MissingInTable { what, how: part.how(), command });
    }
    let missing = |what, command| Error::MissingInTable { what, how: "is missing", command };
    for ConditionalRule { chain, rule, .. } in &wanted.rules {
        let owner = Some(wanted.owner.as_str());
        let mut listed = contents.rules_of(chain);
        if !listed.any(|it| it.comment.as_deref() == owner && it.expressions == rule.expressions) {
            return Err(missing("rule", format!("add rule {} {}", table.chain(chain), rule.text)));
        }
    }
    let entries = wanted.rules.iter().map(|rule| (CONDITIONAL_PORTS, &rule.entry));
    let elements = wanted.elements.iter().map(|(name, element)| (name.as_str(), element));
    for (name, element) in elements.chain(entries) {
        if !has_element(netlink, wanted.family, name, element)? {
            return Err(missing("element", show(wanted.family, name, element)));
        }
    }
    Ok(())
}

fn has_element(
    netlink: &Nfnetlink,
    family: Family,
    set: &str,
    element: &Element,
) -> Result<bool, kernel::Error> {
    Ok(netlink.element(table(family).set(set), &element.key)?.as_ref() == Some(element))
}

/// Checks that the kernel can make the tables.
pub(crate) fn status(netlink: &Nfnetlink) -> Result<(), Error> {
    const ANY_PREFIX: [u8; 1] = [0];
    Family::ALL.into_iter().try_for_each(|family| Ok(spec(family, &ANY_PREFIX).try_out(netlink)?))
}
