//! Adds what a plan contains to the tables.

use std::thread::sleep;
use std::time::Duration;

use kernel::nft::{Contents, Element, NewRule, Owned, OwnedPlace, Place, Removal};
use kernel::{Batch, Family, Nfnetlink};

use super::claims::{claim, end, expires};
use super::elements::{ConditionalRule, FamilyElements, owner};
use super::table::{CONDITIONAL_PORTS, spec, table};
use super::{guard, reference};
use crate::claim::{Claim, End};
use crate::error::Error;
use crate::plan::Plan;

/// How often ADD retries because elements have expired meanwhile: the kernel does not count that as a change
/// of the ruleset, so that the transaction does not notice it.
const ATTEMPTS: u32 = 50;
const NAP: Duration = Duration::from_millis(1);

/// Adds all of a plan or nothing, and removes what an earlier ADD has added for the container. Returns the
/// ends that the removed elements led to. The newest ADD gets a port, unless conflicts are refused.
pub(crate) fn add(netlink: &Nfnetlink, plan: &Plan<'_>) -> Result<Vec<End>, Error> {
    if plan.settings.refuse_conflicts {
        reference::find_holder(netlink, plan)?;
    }
    let mut left = ATTEMPTS;
    loop {
        match try_to_add(netlink, plan) {
            Err(Error::Kernel(error))
                if left > 0 && (error.is_not_found() || error.is_exists()) =>
            {
                left -= 1;
                sleep(NAP);
            }
            added => return added,
        }
    }
}

fn try_to_add(netlink: &Nfnetlink, plan: &Plan<'_>) -> Result<Vec<End>, Error> {
    let mut ends = Vec::new();
    guard::transaction(netlink, |batch, switched_off| {
        ends.clear();
        let owner = owner(&plan.owner);
        for family in Family::ALL {
            let contents = Contents::read(netlink, table(family))?;
            let claims = plan.claims(family);
            let wanted = FamilyElements::new(plan, family);
            let addition = Addition { plan, owner: &owner, contents: &contents, claims, wanted };
            let doomed = addition.find_doomed()?;
            let own = doomed.iter().filter(|one| one.owner == owner);
            ends.extend(own.filter_map(|one| end(family, one)));
            let link = addition.wanted.as_ref().and_then(|wanted| wanted.link.as_deref());
            let how = (Removal::Delete, link);
            guard::remove(netlink, batch, &contents, &doomed, how, switched_off)?;
            addition.add_to(batch, &doomed);
            if let Some(link) = link {
                guard::add(netlink, batch, &contents, link)?;
            }
        }
        Ok(())
    })?;
    Ok(ends)
}

/// Refuses a plan of the other backend if another container has one of its ports here.
pub(crate) fn find_holder(netlink: &Nfnetlink, plan: &Plan<'_>) -> Result<(), Error> {
    let own = owner(&plan.owner);
    for family in plan.families() {
        let (contents, claims) = (Contents::read(netlink, table(family))?, plan.claims(family));
        for other in contents.owned().filter(|other| other.owner != own && !expires(other)) {
            refuse(family, &claims, &other)?;
        }
    }
    reference::find_holder(netlink, plan)
}

/// Refuses claims if another container has one of them, at an address that both have.
fn refuse(family: Family, claims: &[Claim], other: &Owned<'_>) -> Result<(), Error> {
    match claim(family, other) {
        Some(theirs) if claims.iter().any(|claim| claim.overlaps(&theirs)) => {
            Err(theirs.taken(other.owner))
        }
        _ => Ok(()),
    }
}

/// The addition of a plan to the table of one family.
struct Addition<'a> {
    plan: &'a Plan<'a>,
    owner: &'a str,
    contents: &'a Contents,
    claims: Vec<Claim>,
    /// `None` if the pod has no address of the family: then only what an earlier ADD has added is removed.
    wanted: Option<FamilyElements>,
}

impl<'a> Addition<'a> {
    /// What must be removed: what the container has and no longer wants, and what has its ports.
    fn find_doomed(&self) -> Result<Vec<Owned<'a>>, Error> {
        let family = self.wanted.as_ref().map(|wanted| wanted.family);
        let mut doomed = Vec::new();
        for one in self.contents.owned() {
            if one.owner == self.owner {
                if !self.is_wanted(&one) {
                    doomed.push(one);
                }
                continue;
            }
            let Some(family) = family else { continue };
            if self.plan.settings.refuse_conflicts && !expires(&one) {
                refuse(family, &self.claims, &one)?;
            }
            if self.replaces(family, &one) {
                doomed.push(one);
            }
        }
        Ok(doomed)
    }

    /// Whether something of the container's own stays.
    fn is_wanted(&self, own: &Owned<'_>) -> bool {
        let Some(wanted) = &self.wanted else { return false };
        match own.place {
            OwnedPlace::Element(name, element) => {
                wanted.elements.iter().any(|(set, wanted)| set == name && wanted == element)
            }
            OwnedPlace::Rule(name, rule) => {
                let is_it = |wanted: &&ConditionalRule| {
                    wanted.chain == name && wanted.rule.expressions == rule.expressions
                };
                wanted.rules.iter().any(|one| is_it(&one)) && self.is_whole(wanted, name)
            }
        }
    }

    /// Whether a chain has all of the container's rules for it. If not, they are all made again, because
    /// their order matters.
    fn is_whole(&self, wanted: &FamilyElements, chain: &str) -> bool {
        let is_there = |one: &ConditionalRule| {
            self.contents.rules_of(chain).any(|rule| {
                rule.expressions == one.rule.expressions
                    && rule.comment.as_deref() == Some(self.owner)
            })
        };
        wanted.rules.iter().filter(|one| one.chain == chain).all(is_there)
    }

    /// Whether something of another container must be removed.
    fn replaces(&self, family: Family, other: &Owned<'_>) -> bool {
        let Some(wanted) = &self.wanted else { return false };
        let has_key = |name: &str, element: &Element| {
            wanted.elements.iter().any(|(set, ours)| set == name && ours.key == element.key)
        };
        let is_same =
            matches!(other.place, OwnedPlace::Element(name, element) if has_key(name, element));
        // Packets that do not match the conditions go on to the other container.
        let is_covered = wanted.rules.is_empty()
            && claim(family, other)
                .is_some_and(|theirs| self.claims.iter().any(|claim| claim.covers(&theirs)));
        is_same || is_covered
    }

    fn add_to(&self, batch: &mut Batch, doomed: &[Owned<'_>]) {
        let (contents, table) = (self.contents, self.contents.table);
        if let Some(wanted) = &self.wanted {
            spec(wanted.family, &wanted.prefixes).missing(contents).add_to(batch);
        }
        contents.remove(batch, doomed, Removal::Delete);
        let Some(wanted) = &self.wanted else { return };
        for (name, element) in &wanted.elements {
            if !contents.elements(name).contains(element) {
                batch.create_element(table.set(name), element);
            }
        }
        for one in &wanted.rules {
            self.add_rule(batch, one, self.is_whole(wanted, &one.chain));
        }
    }

    fn add_rule(&self, batch: &mut Batch, one: &ConditionalRule, is_there: bool) {
        let (chain, ports) = (self.contents.table.chain(&one.chain), CONDITIONAL_PORTS);
        if !is_there {
            batch.add_chain(chain, None);
        }
        if !is_there || !self.contents.elements(ports).contains(&one.entry) {
            batch.add_element(self.contents.table.set(ports), &one.entry);
        }
        if !is_there {
            let comment = Some(self.owner.to_owned());
            let expressions = one.rule.expressions.clone();
            let rule = NewRule { expressions, comment, ..NewRule::default() };
            // Before older rules for this port, so that what a crashed pod has left takes no packets.
            batch.add_rule(chain, Place::First, rule);
        }
    }
}
