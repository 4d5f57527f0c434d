//! What the reference plugins' backend `nftables` leaves: rules with the container's ID as their comment.

use cni::ContainerId;
use kernel::iptables::Nat;
use kernel::nft::{Chain, Expr, Listed};
use kernel::{Batch, Nfnetlink};

use super::held::{FAMILIES, split_address, written_out};
use super::plan::{Claim, FamilyPlan, Plan};
use super::table::{destination, destination_port, protocol};
use crate::error::Error;
use crate::remove::End;

const TABLE: &str = "cni_hostport";
const CHAINS: [&str; 3] = ["hostports", "hostip_hostports", "masquerading"];

/// Removes the rules of a container, as those plugins do: whatever the network, which is not on them.
pub(super) fn remove(
    netlink: &Nfnetlink,
    container_id: &ContainerId,
    ends: &mut Vec<End>,
) -> Result<(), Error> {
    let is_unused = |nat: Nat| -> Result<bool, kernel::Error> {
        Ok(netlink.table_rules(nat.family(), TABLE)?.is_empty())
    };
    if is_unused(Nat::V4)? && is_unused(Nat::V6)? {
        return Ok(());
    }
    let before = ends.len();
    Ok(netlink.transaction(|netlink| -> Result<Batch, kernel::Error> {
        let mut batch = Batch::new();
        ends.truncate(before);
        for nat in FAMILIES {
            for (chain, rule) in netlink.table_rules(nat.family(), TABLE)? {
                let is_theirs = CHAINS.contains(&chain.as_str());
                if is_theirs && rule.comment.as_deref() == Some(container_id.as_str()) {
                    let chain = Chain { family: nat.family(), table: TABLE, name: &chain };
                    batch.delete_rule(chain, rule.handle);
                    ends.extend(end(nat, &rule));
                }
            }
        }
        Ok(batch)
    })?)
}

/// Takes a plan's ports away from other containers, and removes what its own has there.
pub(crate) fn take(netlink: &Nfnetlink, plan: &Plan, ends: &mut Vec<End>) -> Result<(), Error> {
    remove(netlink, &plan.container_id, ends)?;
    for FamilyPlan { nat, claims, .. } in plan.unconditional() {
        if claims.is_empty() || theirs(netlink, *nat)?.is_empty() {
            continue;
        }
        netlink.transaction(|netlink| -> Result<Batch, kernel::Error> {
            let mut batch = Batch::new();
            for (chain, rule, claim) in theirs(netlink, *nat)? {
                if claims.iter().any(|ours| ours.covers(&claim)) {
                    let chain = Chain { family: nat.family(), table: TABLE, name: &chain };
                    batch.delete_rule(chain, rule.handle);
                }
            }
            Ok(batch)
        })?;
    }
    Ok(())
}

/// Refuses a plan if one of its ports leads to another container by rules that are here.
pub(super) fn find_holder(netlink: &Nfnetlink, nat: Nat, plan: &Plan) -> Result<(), Error> {
    let claims = plan.families.iter().filter(|family| family.nat == nat).flat_map(|it| &it.claims);
    for (_, rule, theirs) in theirs(netlink, nat)? {
        let holder = rule.comment.as_deref().unwrap_or(TABLE);
        let is_own = holder == plan.container_id.as_str();
        if !is_own && claims.clone().any(|claim| claim.overlaps(&theirs)) {
            return Err(theirs.taken(holder));
        }
    }
    Ok(())
}

/// The rules that map ports, each with its chain and what it stands for.
fn theirs(netlink: &Nfnetlink, nat: Nat) -> Result<Vec<(String, Listed, Claim)>, kernel::Error> {
    let all = netlink.table_rules(nat.family(), TABLE)?.into_iter();
    let claimed = |(chain, rule): (String, Listed)| {
        let claim = claim(nat, &rule.expressions)?;
        Some((chain, rule, claim))
    };
    Ok(all.filter_map(claimed).collect())
}

/// What a rule stands for: `ip daddr 192.0.2.1 tcp dport 8080 dnat to …`, perhaps without the address.
fn claim(nat: Nat, expressions: &[Expr]) -> Option<Claim> {
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
        [.., load, Expr::Cmp { negated: false, value }] if *load == destination(nat.family()) => {
            Some(split_address(nat, value)?.0)
        }
        _ => None,
    };
    let port = u16::from_be_bytes(port.first_chunk().copied()?);
    Some(Claim { protocol: *protocol.first()?, port, host_ip })
}

/// Where a rule leads to: `tcp dport 8080 dnat to 10.88.0.2:80`, perhaps with an address before.
fn end(nat: Nat, rule: &Listed) -> Option<End> {
    let at = rule.expressions.iter().position(|step| *step == protocol())?;
    let Some(Expr::Cmp { value, .. }) = rule.expressions.get(at + 1) else { return None };
    let (address, port) = written_out(nat, &rule.expressions)?;
    Some(End { nat, protocol: *value.first()?, address, port: Some(u16::from_be_bytes(port)) })
}
