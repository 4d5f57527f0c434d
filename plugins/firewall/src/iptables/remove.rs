//! Removing rules: those of an owner, and those without an owner for its addresses.

use std::net::IpAddr;

use cni::{Attachment, Failures};
use kernel::Nfnetlink;
use kernel::iptables::{Changes, Iptables, OwnedRule, Rule, Table};
use kernel::rtnl::Usage;

use super::plan::{POD_CHAINS, TABLES, own_rules};
use crate::error::Error;
use crate::owner::owner_name;

/// How many rules are removed at a time: a batch has to fit into the socket's buffer.
const PIECE: usize = 500;

/// Removes an attachment's rules. Rules without an owner, as the reference plugin's, are found by the
/// addresses of the result.
pub(crate) fn remove(
    netlink: &Nfnetlink,
    owner: &Attachment,
    addresses: &[IpAddr],
) -> Result<(), cni::Error> {
    let owner = owner_name(owner);
    in_all(netlink, |iptables| {
        remove_from(iptables, |_, chain, one| match &one.owner {
            Some(other) => *other == owner,
            None => address_of(chain, &one.rule).is_some_and(|it| addresses.contains(&it)),
        })
    })
}

/// Removes the rules of attachments that are no longer valid, and rules without an owner whose address no pod
/// of this node can have. `held` are addresses that have an owner in another backend.
pub(crate) fn collect_garbage(
    netlink: &Nfnetlink,
    is_garbage: impl Fn(&str) -> bool,
    held: &[IpAddr],
) -> Result<(), cni::Error> {
    in_all(netlink, |iptables| {
        remove_from(iptables, |_, _, one| one.owner.as_deref().is_some_and(&is_garbage))?;
        let unowned = unowned(iptables, held)?;
        if unowned.is_empty() {
            return Ok(());
        }
        remove_from(iptables, |table, chain, one| {
            one.owner.is_none() && unowned.contains(&(table, chain, one.rule.clone()))
        })
    })
}

/// The rules without an owner, for addresses that no pod can have: no rule with an owner is for them, and
/// neither a namespace nor a route of this node has them.
fn unowned(
    iptables: &Iptables<'_>,
    held: &[IpAddr],
) -> Result<Vec<(Table, &'static str, Rule)>, Error> {
    let (mut found, mut held) = (Vec::new(), held.to_vec());
    for (table, chain) in places() {
        for one in iptables.owned_rules(table, chain)? {
            let Some(address) = address_of(chain, &one.rule) else { continue };
            match one.owner {
                Some(_) => held.push(address),
                None => found.push((address, (table, chain, one.rule))),
            }
        }
    }
    found.retain(|(address, _)| !held.contains(address));
    if found.is_empty() {
        return Ok(Vec::new());
    }
    // This is read after the rules, so that it has the pods of all of them. If it cannot be read, rules stay.
    let Ok(usage) = Usage::read() else { return Ok(Vec::new()) };
    found.retain(|(address, _)| usage.is_unused(*address).unwrap_or(false));
    Ok(found.into_iter().map(|(_, rule)| rule).collect())
}

/// The address of a rule, if it is exactly one of the rules of a pod.
fn address_of(chain: &str, rule: &Rule) -> Option<IpAddr> {
    let address = rule.source.or(rule.destination)?.value.ip();
    let is_this = |(of, own): &(&str, Rule)| *of == chain && own == rule;
    own_rules(address).iter().any(is_this).then_some(address)
}

/// The chains with rules of pods.
fn places() -> impl Iterator<Item = (Table, &'static str)> {
    TABLES.into_iter().flat_map(|table| POD_CHAINS.map(|chain| (table, chain)))
}

/// Runs a step for each variant of iptables, because the node may have changed from one to the other.
fn in_all(
    netlink: &Nfnetlink,
    step: impl Fn(&Iptables<'_>) -> Result<(), Error>,
) -> Result<(), cni::Error> {
    let mut failures = Failures::new();
    for iptables in &Iptables::all_with(netlink, TABLES[0].name()).map_err(Error::from)? {
        failures.try_to(iptables.variant(), || step(iptables));
    }
    failures.into_result()
}

/// Removes the rules that `is_doomed` accepts, in one variant of iptables.
pub(super) fn remove_from(
    iptables: &Iptables<'_>,
    is_doomed: impl Fn(Table, &'static str, &OwnedRule) -> bool,
) -> Result<(), Error> {
    let mut count = PIECE;
    while count == PIECE {
        iptables.transaction(|| -> Result<Changes, Error> {
            let mut changes = Changes::new();
            count = 0;
            for (table, chain) in places() {
                let mut seen: Vec<Rule> = Vec::new();
                for one in iptables.owned_rules(table, chain)? {
                    // The legacy program deletes the first of equal rules, each time.
                    let is_again = iptables.is_legacy() && seen.contains(&one.rule);
                    if count < PIECE && !is_again && is_doomed(table, chain, &one) {
                        changes.delete_rule(table, chain, one.handle);
                        seen.push(one.rule);
                        count += 1;
                    }
                }
            }
            Ok(changes)
        })?;
    }
    Ok(())
}
