//! Making what a plan asks for.

use std::thread::sleep;
use std::time::Duration;

use kernel::iptables::{Changes, Iptables, Rule, Table};
use kernel::nft::{Element, NewRule, Place as RulePlace};
use kernel::{Batch, Family, Nfnetlink};

use super::guard;
use super::held::{Held, Holding, Place, Way};
use super::plan::{Claim, ConditionalRule, FamilyPlan, Plan};
use super::reference;
use super::table::{CONDITIONAL_PORTS, ENTRY_CHAIN, Shared, TABLE, chain, rules, set, sets};
use crate::apply::destination_port;
use crate::chains::DNAT_CHAIN;
use crate::ends::End;
use crate::error::Error;
use crate::loopback::SwitchedOff;
use crate::mapping::protocol_name;
use crate::plan::same_port;

/// ADD starts over this often if elements vanish meanwhile: that is no change which the kernel would count.
const ATTEMPTS: u32 = 50;
const NAP: Duration = Duration::from_millis(1);

/// Makes all of a plan or nothing, and removes what the container has in the tables from an ADD before; gives
/// the ends that this led to. The newest ADD gets a port, unless conflicts are refused.
pub(crate) fn add(
    netlink: &Nfnetlink,
    plan: &Plan,
    refuse_conflicts: bool,
) -> Result<Vec<End>, Error> {
    if refuse_conflicts {
        find_others(netlink, plan)?;
    }
    let (mut left, mut switched_off) = (ATTEMPTS, SwitchedOff::default());
    loop {
        let mut ends = Vec::new();
        let added = netlink.transaction(|netlink| -> Result<Batch, Error> {
            let mut batch = Batch::new();
            ends.clear();
            guard::take_back(netlink, &mut switched_off)?;
            for family in Family::ALL {
                let held = Held::read(netlink, family)?;
                let family = plan.families.iter().find(|it| it.family == family);
                let doomed = find_doomed(&held, family, &plan.owner, refuse_conflicts, &mut ends)?;
                let link = family.and_then(|family| family.link.as_deref());
                let how = (Way::Delete, link);
                guard::remove(netlink, &mut batch, &held, &doomed, how, &mut switched_off)?;
                add_family(&mut batch, &held, &doomed, family, &plan.owner);
                if let Some(link) = link {
                    guard::add(netlink, &mut batch, &held, link)?;
                }
            }
            Ok(batch)
        });
        if added.is_err() {
            guard::take_back(netlink, &mut switched_off)?;
        }
        match added {
            Err(Error::Kernel(error))
                if left > 0 && (error.is_not_found() || error.is_exists()) =>
            {
                left -= 1;
                sleep(NAP);
            }
            added => return added.map(|()| ends),
        }
    }
}

/// Takes a plan's ports away from the containers of the backend `iptables`: its rules come first in a
/// packet's way, so that a crashed pod's leftovers would keep the port. What a mapping with conditions does
/// not take is left to them.
pub(crate) fn take_from_iptables(netlink: &Nfnetlink, plan: &Plan) -> Result<(), Error> {
    for iptables in &Iptables::all(netlink)? {
        iptables.transaction(|| -> Result<Changes, Error> {
            let mut changes = Changes::new();
            for FamilyPlan { family, claims, .. } in plan.unconditional() {
                for (chain, handle, theirs, _) in iptables_claims(iptables, *family, claims)? {
                    if claims.iter().any(|claim| claim.covers(&theirs)) {
                        changes.delete_rule(Table::nat(*family), &chain, handle);
                    }
                }
            }
            Ok(changes)
        })?;
    }
    Ok(())
}

/// Refuses a plan of the other backend if one of its ports leads to another container already.
pub(crate) fn find_holder(netlink: &Nfnetlink, plan: &Plan) -> Result<(), Error> {
    for family in &plan.families {
        let held = Held::read(netlink, family.family)?;
        let others = held.holdings().filter(|other| other.owner != plan.owner);
        others.filter(|other| !other.expires()).try_for_each(|other| family.refuse(&other))?;
        reference::find_holder(netlink, family.family, plan)?;
    }
    Ok(())
}

/// Refuses a plan if one of its ports leads to another container by rules that are not in the tables.
fn find_others(netlink: &Nfnetlink, plan: &Plan) -> Result<(), Error> {
    let is_own = |holder: &str| holder == plan.iptables_comment;
    for FamilyPlan { family, claims, .. } in &plan.families {
        for iptables in &Iptables::all(netlink)? {
            for (_, _, theirs, holder) in iptables_claims(iptables, *family, claims)? {
                if !is_own(&holder) && claims.iter().any(|claim| claim.overlaps(&theirs)) {
                    return Err(theirs.taken(&holder));
                }
            }
        }
        reference::find_holder(netlink, *family, plan)?;
    }
    Ok(())
}

/// What is there and has to go: what the container has and does not want any more, and what takes its ports.
fn find_doomed<'h>(
    held: &'h Held,
    family: Option<&FamilyPlan>,
    owner: &str,
    refuse_conflicts: bool,
    ends: &mut Vec<End>,
) -> Result<Vec<Holding<'h>>, Error> {
    let mut doomed: Vec<Holding<'_>> = Vec::new();
    for holding in held.holdings() {
        let is_own = holding.owner == owner;
        let is_wanted = family.is_some_and(|family| family.wants(held, &holding));
        if is_own && !is_wanted {
            ends.extend(holding.end());
            doomed.push(holding);
        }
        let Some(family) = family.filter(|_| !is_own) else { continue };
        if refuse_conflicts && !holding.expires() {
            family.refuse(&holding)?;
        }
        if family.replaces(&holding) {
            doomed.push(holding);
        }
    }
    Ok(doomed)
}

fn add_family(
    batch: &mut Batch,
    held: &Held,
    doomed: &[Holding<'_>],
    family: Option<&FamilyPlan>,
    owner: &str,
) {
    if let Some(family) = family {
        add_shared(batch, held, family);
    }
    held.remove(batch, doomed, Way::Delete);
    let Some(family) = family else { return };
    for (name, element) in &family.elements {
        if !held.elements(name).contains(element) {
            batch.create_element(set(held.family, name), element);
        }
    }
    for rule in &family.rules {
        let is_whole = family.is_whole(held, &rule.chain, owner);
        if !is_whole {
            batch.add_chain(chain(held.family, &rule.chain));
        }
        if !is_whole || !held.elements(CONDITIONAL_PORTS).contains(&rule.entry) {
            batch.add_element(set(held.family, CONDITIONAL_PORTS), &rule.entry);
        }
        if !is_whole {
            let new = NewRule {
                expressions: rule.expressions.clone(),
                comment: Some(owner.to_owned()),
                ..NewRule::default()
            };
            // Before whoever had the port, so that a crashed pod's leftovers do not swallow packets.
            batch.add_rule(chain(held.family, &rule.chain), RulePlace::First, new);
        }
    }
}

/// Makes what is missing of what all containers share: nothing, for all but the first.
fn add_shared(batch: &mut Batch, held: &Held, plan: &FamilyPlan) {
    let family = held.family;
    let all = rules(family, &plan.prefixes);
    let listed = |shared: &Shared| {
        held.rules
            .iter()
            .find(|(name, rule)| *name == shared.chain && rule.expressions == shared.expressions)
    };
    let mut missing = Vec::new();
    for of in sets(family, &plan.prefixes) {
        if !held.sets.iter().any(|(name, _)| *name == of.name) {
            missing.push(of);
        }
    }
    let entry_is_whole = all
        .iter()
        .filter(|shared| shared.chain == ENTRY_CHAIN)
        .all(|shared| listed(shared).is_some());
    if missing.is_empty() && all.iter().all(|shared| listed(shared).is_some()) {
        return;
    }
    batch.add_table(family.into(), TABLE);
    for of in missing {
        batch.add_set(set(family, &of.name), &of.of);
    }
    for shared in all {
        let name = chain(family, shared.chain);
        match (listed(&shared), shared.base) {
            // The order of this chain's rules matters, so it is made as a whole.
            (Some((_, rule)), None) if !entry_is_whole => batch.delete_rule(name, rule.handle),
            (Some(_), _) => continue,
            (None, Some(base)) => batch.add_base_chain(name, base),
            (None, None) => batch.add_chain(name),
        }
        let Shared { expressions, .. } = shared;
        batch.add_rule(name, RulePlace::Last, NewRule { expressions, ..NewRule::default() });
    }
}

/// The rules of the backend `iptables` for the ports of these claims: chain, handle, what they stand for, and
/// whose they are by the comment on the entry that leads there.
fn iptables_claims(
    iptables: &Iptables<'_>,
    family: Family,
    claims: &[Claim],
) -> Result<Vec<(String, u64, Claim, String)>, Error> {
    let mut found: Vec<(String, u64, Claim, String)> = Vec::new();
    for (_, entry) in iptables.rules(Table::nat(family), DNAT_CHAIN)? {
        let Some(next) = entry.next_chain() else { continue };
        let is_meant = claims.iter().any(|claim| same_port(&claim.entry(), &entry));
        if !is_meant || found.iter().any(|(chain, ..)| chain == next) {
            continue;
        }
        let holder = entry.comment_text().unwrap_or(next);
        for (handle, rule) in iptables.rules(Table::nat(family), next)? {
            let Some(theirs) = claim_of(&rule) else { continue };
            found.push((next.to_owned(), handle, theirs, holder.to_owned()));
        }
    }
    Ok(found)
}

/// What a rule of the other backend stands for, be it one that maps or one that marks.
fn claim_of(rule: &Rule) -> Option<Claim> {
    let host_ip = rule.destination.map(|network| network.value.ip());
    Some(Claim { protocol: rule.protocol?.value, port: destination_port(rule)?, host_ip })
}

impl FamilyPlan {
    /// Whether something of the container's own is to stay.
    fn wants(&self, held: &Held, own: &Holding<'_>) -> bool {
        match own.place {
            Place::Element(name, element) => {
                self.elements.iter().any(|(set, wanted)| set == name && wanted == element)
            }
            Place::Rule(name, rule) => {
                let same = |wanted: &ConditionalRule| wanted.expressions == rule.expressions;
                self.rules.iter().any(|wanted| wanted.chain == name && same(wanted))
                    && self.is_whole(held, name, own.owner)
            }
        }
    }

    /// Whether a chain has all of the container's rules for it. If not, they are made again, as their order
    /// matters.
    fn is_whole(&self, held: &Held, chain: &str, owner: &str) -> bool {
        let there = |wanted: &ConditionalRule| {
            held.rules.iter().any(|(name, rule)| {
                (name, &rule.expressions) == (&wanted.chain, &wanted.expressions)
                    && rule.comment.as_deref() == Some(owner)
            })
        };
        self.rules.iter().filter(|wanted| wanted.chain == chain).all(there)
    }

    /// Whether something of another container's has to go.
    fn replaces(&self, other: &Holding<'_>) -> bool {
        let has_key = |name: &str, element: &Element| {
            self.elements.iter().any(|(set, ours)| set == name && ours.key == element.key)
        };
        let is_same =
            matches!(other.place, Place::Element(name, element) if has_key(name, element));
        // With conditions, what does not fulfil them goes on to the other.
        let is_covered = self.rules.is_empty()
            && other.claim().is_some_and(|theirs| self.claims.iter().any(|c| c.covers(&theirs)));
        is_same || is_covered
    }

    /// Refuses the plan if another container has one of its ports, at an address that both have.
    fn refuse(&self, other: &Holding<'_>) -> Result<(), Error> {
        match other.claim() {
            Some(theirs) if self.claims.iter().any(|claim| claim.overlaps(&theirs)) => {
                Err(theirs.taken(other.owner))
            }
            _ => Ok(()),
        }
    }
}

impl Claim {
    /// Whether a packet can be meant for both.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// Whether all packets that are meant for the other are meant for this one.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let covers_address = self.host_ip.is_none() || self.host_ip == other.host_ip;
        (self.protocol, self.port) == (other.protocol, other.port) && covers_address
    }

    /// An entry of the other backend for this port.
    fn entry(&self) -> Rule {
        Rule::default().protocol(self.protocol).destination_port(self.port)
    }

    pub(super) fn taken(&self, holder: &str) -> Error {
        let protocol = protocol_name(self.protocol);
        Error::Taken { port: self.port, protocol, holder: holder.to_owned() }
    }
}
