//! Reads the claims and ends of rules, and takes claims from other containers.

use kernel::iptables::{Changes, Iptables, Match, Ports, Rule, Table, Target};
use kernel::{Family, Nfnetlink};

use super::names::{DNAT_CHAIN, comment};
use crate::claim::{Claim, End};
use crate::error::Error;
use crate::plan::Plan;

/// A rule of a container's chain that maps a port or marks its packets.
struct Held {
    chain: String,
    handle: u64,
    claim: Claim,
    /// The owner, by the comment on the entry that jumps to the chain.
    holder: String,
}

/// Refuses a plan of the other backend if another container has one of its ports here.
pub(crate) fn find_holder(netlink: &Nfnetlink, plan: &Plan<'_>) -> Result<(), Error> {
    let own = comment(plan.owner.network.as_str(), plan.owner.container_id.as_str());
    for iptables in &Iptables::all(netlink)? {
        for family in plan.families() {
            let entries = entries(iptables, family)?;
            refuse(iptables, family, &plan.claims(family), &entries, &own)?;
        }
    }
    Ok(())
}

/// Refuses claims if another container has one of them, at an address that both have. `own` is the comment of
/// the container itself.
pub(super) fn refuse(
    iptables: &Iptables<'_>,
    family: Family,
    claims: &[Claim],
    entries: &[Rule],
    own: &str,
) -> Result<(), Error> {
    for Held { claim, holder, .. } in held(iptables, family, claims, entries)? {
        if holder != own && claims.iter().any(|wanted| wanted.overlaps(&claim)) {
            return Err(claim.taken(&holder));
        }
    }
    Ok(())
}

/// Takes the ports of a plan of the other backend from all containers here. Packets pass these rules first,
/// so that what a crashed pod has left would keep the port. Mappings with conditions take nothing, because
/// packets that do not match go on to the others.
pub(crate) fn take(netlink: &Nfnetlink, plan: &Plan<'_>) -> Result<(), Error> {
    for iptables in &Iptables::all(netlink)? {
        iptables.transaction(|| -> Result<Changes, Error> {
            let mut changes = Changes::new();
            for family in plan.families().filter(|it| !plan.settings.has_conditions(*it)) {
                let (claims, entries) = (plan.claims(family), entries(iptables, family)?);
                for Held { chain, handle, claim, .. } in held(iptables, family, &claims, &entries)?
                {
                    if claims.iter().any(|wanted| wanted.covers(&claim)) {
                        changes.delete_rule(Table::nat(family), &chain, handle);
                    }
                }
            }
            Ok(changes)
        })?;
    }
    Ok(())
}

fn entries(iptables: &Iptables<'_>, family: Family) -> Result<Vec<Rule>, kernel::Error> {
    Ok(iptables.rules(Table::nat(family), DNAT_CHAIN)?.map(|(_, rule)| rule).collect())
}

/// The rules of containers that have entries for the ports of these claims.
fn held(
    iptables: &Iptables<'_>,
    family: Family,
    claims: &[Claim],
    entries: &[Rule],
) -> Result<Vec<Held>, Error> {
    let mut found: Vec<Held> = Vec::new();
    for entry in entries {
        let Some(chain) = entry.next_chain() else { continue };
        let has_port = |claim: &Claim| has_port(entry, claim);
        if !claims.iter().any(has_port) || found.iter().any(|held| held.chain == chain) {
            continue;
        }
        let holder = entry.comment_text().unwrap_or(chain);
        for (handle, rule) in iptables.rules(Table::nat(family), chain)? {
            if let Some(claim) = claim(&rule) {
                let (chain, holder) = (chain.to_owned(), holder.to_owned());
                found.push(Held { chain, handle, claim, holder });
            }
        }
    }
    Ok(found)
}

fn has_port(entry: &Rule, claim: &Claim) -> bool {
    entry.protocol.is_some_and(|is| is.value == claim.protocol)
        && ports(entry).iter().any(|ports| (ports.first..=ports.last).contains(&claim.port))
}

/// Whether two entries have a port in common.
pub(super) fn same_port(one: &Rule, other: &Rule) -> bool {
    let overlap = |a: &Ports, b: &Ports| a.first <= b.last && b.first <= a.last;
    let (ours, theirs) = (ports(one), ports(other));
    one.protocol == other.protocol && ours.iter().any(|a| theirs.iter().any(|b| overlap(a, b)))
}

fn ports(rule: &Rule) -> Vec<Ports> {
    let ports = rule.matches.iter().find_map(|one| match one {
        Match::DestinationPorts(is) if !is.negated => Some(is.value.clone()),
        Match::DestinationPort(is) if !is.negated => Some(vec![is.value]),
        _ => None,
    });
    ports.unwrap_or_default()
}

/// The claim of a rule that maps a port or marks its packets.
fn claim(rule: &Rule) -> Option<Claim> {
    let port = rule.matches.iter().find_map(|one| match one {
        Match::DestinationPort(is) => Some(is.value.first),
        _ => None,
    });
    let host_ip = rule.destination.map(|network| network.value.ip());
    Some(Claim { protocol: rule.protocol?.value, port: port?, host_ip })
}

/// The end that a rule leads to; `None` if it is not a DNAT rule.
pub(super) fn end(family: Family, rule: &Rule) -> Option<End> {
    match rule.target {
        Some(Target::Dnat { address, port }) => {
            Some(End { family, protocol: rule.protocol?.value, address, port })
        }
        _ => None,
    }
}
