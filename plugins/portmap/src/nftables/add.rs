//! Making what a plan asks for.

use std::thread::sleep;
use std::time::Duration;

use cni::{ContainerId, NetworkName};
use kernel::iptables::{Changes, Iptables, Nat, Rule, Target};
use kernel::nft::{Element, NewRule, Place as RulePlace};
use kernel::{Batch, Nfnetlink};

use super::held::{FAMILIES, Held, Holding, Place, Way};
use super::plan::{Claim, ConditionalRule, FamilyPlan, Plan};
use super::table::{CONDITIONAL_PORTS, ENTRY_CHAIN, Shared, TABLE, chain, rules, set, sets};
use crate::apply::{destination_port, same_port};
use crate::error::Error;
use crate::mapping::protocol_name;
use crate::plan::DNAT_CHAIN;
use crate::remove::{self, End};

/// ADD begins anew this often if elements vanish meanwhile: that is no change which the kernel would count.
const ATTEMPTS: u32 = 50;
const NAP: Duration = Duration::from_millis(1);

/// Makes all of a plan or nothing, and removes what the container has from an ADD before, of this backend or
/// the other; gives the ends that this led to. The newest ADD gets a port, unless conflicts are refused.
pub(crate) fn add(
    netlink: &Nfnetlink,
    plan: &Plan,
    names: (&NetworkName, &ContainerId),
    refuse_conflicts: bool,
) -> Result<Vec<End>, Error> {
    let mut former = Vec::new();
    remove::remove(netlink, names.0, names.1, &mut former)?;
    take_from_iptables(netlink, plan, refuse_conflicts)?;
    let mut left = ATTEMPTS;
    loop {
        let mut ends = former.clone();
        let added = netlink.transaction(|netlink| -> Result<Batch, Error> {
            let mut batch = Batch::new();
            ends.truncate(former.len());
            for nat in FAMILIES {
                let held = Held::read(netlink, nat)?;
                let family = plan.families.iter().find(|family| family.nat == nat);
                add_family(&mut batch, &held, family, &plan.owner, refuse_conflicts, &mut ends)?;
            }
            Ok(batch)
        });
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

/// Refuses a plan of the other backend if one of its ports leads to another container already.
pub(crate) fn find_holder(netlink: &Nfnetlink, plan: &Plan) -> Result<(), Error> {
    for family in &plan.families {
        let held = Held::read(netlink, family.nat)?;
        let others = held.holdings().filter(|other| other.owner != plan.owner);
        others.filter(|other| !other.expires()).try_for_each(|other| family.refuse(&other))?;
    }
    Ok(())
}

fn add_family(
    batch: &mut Batch,
    held: &Held,
    family: Option<&FamilyPlan>,
    owner: &str,
    refuse_conflicts: bool,
    ends: &mut Vec<End>,
) -> Result<(), Error> {
    let mut doomed: Vec<Holding<'_>> = Vec::new();
    for holding in held.holdings() {
        let is_own = holding.owner == owner;
        let is_wanted = family.is_some_and(|family| family.wants(&holding));
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
    if let Some(family) = family {
        add_shared(batch, held, family);
    }
    held.remove(batch, &doomed, Way::Delete);
    let Some(family) = family else { return Ok(()) };
    for (name, element) in &family.elements {
        if !held.elements(name).contains(element) {
            batch.create_element(set(held.nat, name), element);
        }
    }
    for rule in &family.rules {
        let is_there = held.rules.iter().any(|(name, there)| {
            (name, &there.expressions) == (&rule.chain, &rule.expressions)
                && there.comment.as_deref() == Some(owner)
        });
        if !is_there {
            batch.add_chain(chain(held.nat, &rule.chain));
            batch.add_element(set(held.nat, CONDITIONAL_PORTS), &rule.entry);
            let new = NewRule {
                expressions: rule.expressions.clone(),
                comment: Some(owner.to_owned()),
                ..NewRule::default()
            };
            // Before whoever had the port, so that a crashed pod's leftovers do not swallow packets.
            batch.add_rule(chain(held.nat, &rule.chain), RulePlace::First, new);
        }
    }
    Ok(())
}

/// Makes what is missing of what all containers share: nothing, for all but the first.
fn add_shared(batch: &mut Batch, held: &Held, family: &FamilyPlan) {
    let nat = held.nat;
    let all = rules(nat, &family.prefixes);
    let listed = |shared: &Shared| {
        held.rules
            .iter()
            .find(|(name, rule)| *name == shared.chain && rule.expressions == shared.expressions)
    };
    let mut missing = Vec::new();
    for of in sets(nat, &family.prefixes) {
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
    batch.add_table(nat.family(), TABLE);
    for of in missing {
        batch.add_set(set(nat, &of.name), &of.of);
    }
    for shared in all {
        let name = chain(nat, shared.chain);
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

/// Takes ports away from the other backend's containers: its rules come first in a packet's way, so that a
/// crashed pod's leftovers would keep the port.
fn take_from_iptables(
    netlink: &Nfnetlink,
    plan: &Plan,
    refuse_conflicts: bool,
) -> Result<(), Error> {
    for iptables in &Iptables::all(netlink)? {
        iptables.transaction(|| -> Result<Changes, Error> {
            let mut changes = Changes::new();
            for FamilyPlan { nat, claims, .. } in &plan.families {
                take_claims(iptables, &mut changes, *nat, claims, refuse_conflicts)?;
            }
            Ok(changes)
        })?;
    }
    Ok(())
}

fn take_claims(
    iptables: &Iptables<'_>,
    changes: &mut Changes,
    nat: Nat,
    claims: &[Claim],
    refuse_conflicts: bool,
) -> Result<(), Error> {
    let mut taken = Vec::new();
    for (_, entry) in iptables.rules(nat, DNAT_CHAIN)? {
        let Some(next) = entry.next_chain() else { continue };
        if !claims.iter().any(|claim| same_port(&claim.entry(), &entry)) {
            continue;
        }
        for (handle, rule) in iptables.rules(nat, next)? {
            let Some(theirs) = claim_of(&rule) else { continue };
            if refuse_conflicts && claims.iter().any(|claim| claim.overlaps(&theirs)) {
                return Err(theirs.taken(entry.comment_text().unwrap_or(next)));
            }
            if claims.iter().any(|claim| claim.covers(&theirs)) && !taken.contains(&handle) {
                changes.delete_rule(nat, next, handle);
                taken.push(handle);
            }
        }
    }
    Ok(())
}

/// What a rule of the other backend stands for.
fn claim_of(rule: &Rule) -> Option<Claim> {
    let Some(Target::Dnat { .. }) = rule.target else { return None };
    let host_ip = rule.destination.map(|network| network.value.ip());
    Some(Claim { protocol: rule.protocol?.value, port: destination_port(rule)?, host_ip })
}

impl FamilyPlan {
    /// Whether something of the container's own is to stay.
    fn wants(&self, own: &Holding<'_>) -> bool {
        match own.place {
            Place::Element(name, element) => {
                self.elements.iter().any(|(set, wanted)| set == name && wanted == element)
            }
            Place::Rule(name, rule) => {
                let same = |wanted: &ConditionalRule| wanted.expressions == rule.expressions;
                self.rules.iter().any(|wanted| wanted.chain == name && same(wanted))
            }
        }
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
    fn overlaps(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// Whether all packets that are meant for the other are meant for this one.
    fn covers(&self, other: &Self) -> bool {
        let covers_address = self.host_ip.is_none() || self.host_ip == other.host_ip;
        (self.protocol, self.port) == (other.protocol, other.port) && covers_address
    }

    /// An entry of the other backend for this port.
    fn entry(&self) -> Rule {
        Rule::default().protocol(self.protocol).destination_port(self.port)
    }

    fn taken(&self, holder: &str) -> Error {
        let protocol = protocol_name(self.protocol);
        Error::Taken { port: self.port, protocol, holder: holder.to_owned() }
    }
}
