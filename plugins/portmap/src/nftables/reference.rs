//! The rules of the reference plugins' backend `nftables`, which have the container's ID as their comment.

use std::net::IpAddr;

use cni::{Attachment, ContainerId, ValidAttachments};
use kernel::nft::{Contents, Expr, Listed, Table};
use kernel::{Batch, Family, Nfnetlink};

use super::claims::{claim_of_rule, dnat_destination, split_address};
use crate::claim::{Claim, End, Removed};
use crate::error::Error;
use crate::loopback;
use crate::plan::Plan;

const CHAINS: [&str; 3] = ["hostports", "hostip_hostports", "masquerading"];

/// Removes the rules of a container, of any network: like those plugins, because the rules do not name it.
pub(super) fn remove(netlink: &Nfnetlink, owner: &Attachment) -> Removed {
    let (ends, outcome) = delete(netlink, Some(&owner.container_id), |_, _| false);
    Removed::of("remove the reference plugin's rules", ends, outcome)
}

/// Removes rules that are certainly garbage although they do not name the network: those of a container
/// without a valid attachment, at an address that now belongs to a valid owner in our tables.
pub(super) fn collect_garbage(
    netlink: &Nfnetlink,
    valid: &ValidAttachments,
    is_valid: impl Fn(&str) -> bool,
) -> Result<(), Error> {
    if is_unused(netlink)? {
        return Ok(());
    }
    let mut addresses = Vec::new();
    for family in Family::ALL {
        let contents = Contents::read(netlink, super::table::table(family))?;
        let of_valid = contents.owned().filter(|owned| is_valid(owned.owner));
        addresses.extend(of_valid.filter_map(|it| Some(super::claims::end(family, &it)?.address)));
    }
    // Connections to these addresses may belong to the valid owners, so the ends are not needed.
    let (_, outcome) = delete(netlink, None, |family, rule| {
        let is_valid = rule.comment.as_deref().is_some_and(|id| valid.contains_container(id));
        !is_valid && end(family, rule).is_some_and(|end| addresses.contains(&end.address))
    });
    outcome
}

/// Takes a plan's ports from other containers, and removes what its own container has there. Returns the ends
/// of the latter.
pub(crate) fn take(netlink: &Nfnetlink, plan: &Plan<'_>) -> Result<Vec<End>, Error> {
    let families = plan.families().filter(|family| !plan.settings.has_conditions(*family));
    let claims: Vec<_> = families.map(|family| (family, plan.claims(family))).collect();
    let (ends, outcome) = delete(netlink, Some(&plan.owner.container_id), |family, rule| {
        let of_family = claims.iter().find(|(of, _)| *of == family);
        let theirs = claim_of_rule(family, &rule.expressions);
        theirs.zip(of_family).is_some_and(|(it, (_, all))| all.iter().any(|one| one.covers(&it)))
    });
    outcome.map(|()| ends)
}

/// Whether no rules of those plugins are there.
pub(super) fn is_unused(netlink: &Nfnetlink) -> Result<bool, kernel::Error> {
    for family in Family::ALL {
        if !netlink.table_rules(table(family))?.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether one of those containers gets packets from 127.0.0.1 by a link.
pub(super) fn needs_loopback(netlink: &Nfnetlink, link: &str) -> Result<bool, kernel::Error> {
    let rules = netlink.table_rules(table(Family::V4))?;
    let pods: Vec<_> =
        rules.iter().filter_map(|(_, rule)| masqueraded_from_loopback(&rule.expressions)).collect();
    Ok(loopback::leads_to_any(link, &pods))
}

/// The pod of a rule `ip saddr 127.0.0.1 ip daddr 10.88.0.2 masquerade`. `nft` compares both at once.
fn masqueraded_from_loopback(expressions: &[Expr]) -> Option<IpAddr> {
    let [compared @ .., Expr::Masquerade] = expressions else { return None };
    let values = compared.iter().filter_map(|one| match one {
        Expr::Cmp { negated: false, value } => Some(value.as_slice()),
        _ => None,
    });
    let [127, 0, 0, 1, pod @ ..] = &*values.collect::<Vec<_>>().concat() else { return None };
    Some(split_address(Family::V4, pod)?.0)
}

/// Deletes a container's rules, and those of other containers that `is_taken` selects. Returns the ends of
/// the container's rules.
fn delete(
    netlink: &Nfnetlink,
    container_id: Option<&ContainerId>,
    is_taken: impl Fn(Family, &Listed) -> bool,
) -> (Vec<End>, Result<(), Error>) {
    let mut ends = Vec::new();
    let is_own = |chain: &str, rule: &Listed| {
        CHAINS.contains(&chain)
            && container_id.is_some_and(|id| rule.comment.as_deref() == Some(id.as_str()))
    };
    let outcome = is_unused(netlink).and_then(|is_unused| {
        if is_unused {
            return Ok(());
        }
        netlink.transaction(|netlink| {
            let mut batch = Batch::new();
            ends.clear();
            for family in Family::ALL {
                for (chain, rule) in netlink.table_rules(table(family))? {
                    let is_own = is_own(&chain, &rule);
                    ends.extend(end(family, &rule).filter(|_| is_own));
                    if is_own || is_taken(family, &rule) {
                        batch.delete_rule(table(family).chain(&chain), rule.handle);
                    }
                }
            }
            Ok(batch)
        })
    });
    (ends, outcome.map_err(Error::from))
}

/// Refuses a plan if another container has one of its ports here.
pub(super) fn find_holder(netlink: &Nfnetlink, plan: &Plan<'_>) -> Result<(), Error> {
    for family in plan.families() {
        let (table, claims) = (table(family), plan.claims(family));
        for (_, rule) in netlink.table_rules(table)? {
            let Some(theirs) = claim_of_rule(family, &rule.expressions) else { continue };
            let holder = rule.comment.as_deref().unwrap_or(table.name);
            let is_own = holder == plan.owner.container_id.as_str();
            if !is_own && claims.iter().any(|claim| claim.overlaps(&theirs)) {
                return Err(theirs.taken(holder));
            }
        }
    }
    Ok(())
}

/// The end of a rule `tcp dport 8080 dnat to 10.88.0.2:80`, maybe with an address before it.
fn end(family: Family, rule: &Listed) -> Option<End> {
    let Claim { protocol, .. } = claim_of_rule(family, &rule.expressions)?;
    let (address, port) = dnat_destination(family, &rule.expressions)?;
    Some(End { family, protocol, address, port: Some(port) })
}

fn table(family: Family) -> Table {
    Table { family: family.into(), name: "cni_hostport" }
}
