//! What the reference plugins' backend `nftables` leaves: rules with the container's ID as their comment.

use std::net::IpAddr;

use cni::{ContainerId, ValidAttachments};
use kernel::Family;
use kernel::nft::{Chain, Expr, Listed, TableFamily};
use kernel::{Batch, Nfnetlink};

use super::held::{split_address, written_out};
use super::plan::{Claim, Plan};
use super::table::{destination, destination_port, protocol};
use crate::ends::End;
use crate::error::Error;
use crate::loopback;

const TABLE: &str = "cni_hostport";
const CHAINS: [&str; 3] = ["hostports", "hostip_hostports", "masquerading"];

/// Removes the rules of a container, as those plugins do: whatever the network, which is not on them.
pub(super) fn remove(
    netlink: &Nfnetlink,
    container_id: &ContainerId,
    ends: &mut Vec<End>,
) -> Result<(), Error> {
    delete(netlink, Some(container_id), ends, |_, _| false)
}

/// Removes what is garbage for certain although the network is not on it: rules of a container that is no
/// valid attachment, at an address that a valid one has by now.
pub(super) fn collect_garbage(
    netlink: &Nfnetlink,
    valid: &ValidAttachments,
    addresses: &[IpAddr],
) -> Result<(), Error> {
    if addresses.is_empty() {
        return Ok(());
    }
    // Connections that end there may be the valid one's.
    delete(netlink, None, &mut Vec::new(), |family, rule| {
        let is_valid = rule.comment.as_deref().is_some_and(|id| valid.contains_container(id));
        !is_valid && end(family, rule).is_some_and(|end| addresses.contains(&end.address))
    })
}

/// Takes a plan's ports away from other containers, and removes what its own has there.
pub(crate) fn take(netlink: &Nfnetlink, plan: &Plan, ends: &mut Vec<End>) -> Result<(), Error> {
    delete(netlink, Some(&plan.container_id), ends, |family, rule| {
        let theirs = claim(family, &rule.expressions);
        let mut claims =
            plan.unconditional().filter(|it| it.family == family).flat_map(|it| &it.claims);
        theirs.is_some_and(|theirs| claims.any(|ours| ours.covers(&theirs)))
    })
}

/// Whether no rules of those plugins are there.
pub(super) fn is_unused(netlink: &Nfnetlink) -> Result<bool, kernel::Error> {
    for family in Family::ALL {
        if !netlink.table_rules(family.into(), TABLE)?.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether one of those containers gets packets from 127.0.0.1 by a link.
pub(super) fn needs_loopback(netlink: &Nfnetlink, link: &str) -> Result<bool, kernel::Error> {
    let rules = netlink.table_rules(TableFamily::Ip, TABLE)?;
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

/// Deletes a container's rules, and those of others that are taken from them.
fn delete(
    netlink: &Nfnetlink,
    container_id: Option<&ContainerId>,
    ends: &mut Vec<End>,
    is_taken: impl Fn(Family, &Listed) -> bool,
) -> Result<(), Error> {
    if is_unused(netlink)? {
        return Ok(());
    }
    let before = ends.len();
    Ok(netlink.transaction(|netlink| -> Result<Batch, kernel::Error> {
        let mut batch = Batch::new();
        ends.truncate(before);
        for family in Family::ALL {
            for (chain, rule) in netlink.table_rules(family.into(), TABLE)? {
                let is_own = CHAINS.contains(&chain.as_str())
                    && container_id.is_some_and(|id| rule.comment.as_deref() == Some(id.as_str()));
                if is_own {
                    ends.extend(end(family, &rule));
                }
                if is_own || is_taken(family, &rule) {
                    let chain = Chain { family: family.into(), table: TABLE, name: &chain };
                    batch.delete_rule(chain, rule.handle);
                }
            }
        }
        Ok(batch)
    })?)
}

/// Refuses a plan if one of its ports leads to another container by rules that are here.
pub(super) fn find_holder(netlink: &Nfnetlink, family: Family, plan: &Plan) -> Result<(), Error> {
    let claims = plan.families.iter().filter(|it| it.family == family).flat_map(|it| &it.claims);
    for (_, rule) in netlink.table_rules(family.into(), TABLE)? {
        let Some(theirs) = claim(family, &rule.expressions) else { continue };
        let holder = rule.comment.as_deref().unwrap_or(TABLE);
        let is_own = holder == plan.container_id.as_str();
        if !is_own && claims.clone().any(|claim| claim.overlaps(&theirs)) {
            return Err(theirs.taken(holder));
        }
    }
    Ok(())
}

/// What a rule stands for: `ip daddr 192.0.2.1 tcp dport 8080 dnat to …`, perhaps without the address.
fn claim(family: Family, expressions: &[Expr]) -> Option<Claim> {
    let at = expressions.iter().position(|step| *step == protocol())?;
    let [_, Expr::Cmp { value: protocol, .. }, load, Expr::Cmp { value: port, .. }, ..] =
        &expressions[at..]
    else {
        return None;
    };
    if *load != destination_port() {
        return None;
    }
    let host_ip = match &expressions[..at] {
        [.., load, Expr::Cmp { negated: false, value }] if *load == destination(family) => {
            Some(split_address(family, value)?.0)
        }
        _ => None,
    };
    let port = u16::from_be_bytes(port.first_chunk().copied()?);
    Some(Claim { protocol: *protocol.first()?, port, host_ip })
}

/// Where a rule leads to: `tcp dport 8080 dnat to 10.88.0.2:80`, perhaps with an address before.
fn end(family: Family, rule: &Listed) -> Option<End> {
    let at = rule.expressions.iter().position(|step| *step == protocol())?;
    let Some(Expr::Cmp { value, .. }) = rule.expressions.get(at + 1) else { return None };
    let (address, port) = written_out(family, &rule.expressions)?;
    Some(End { family, protocol: *value.first()?, address, port: Some(u16::from_be_bytes(port)) })
}
