//! Removing rules: those of an owner, and those without owner at the addresses that it had.

use std::net::IpAddr;

use kernel::iptables::{Changes, Iptables, OwnedRule, Rule, Table};
use kernel::rtnl::Usage;
use kernel::{Family, Nfnetlink};

use super::FAMILIES;
use super::plan::{POD_CHAINS, own_rules};
use crate::error::Error;
use crate::owner::{Garbage, Owner};

/// So much is removed at a time: a batch has to fit into the socket's buffer.
const PIECE: usize = 500;

/// Removes an attachment's rules. What names nobody, as the reference plugin's rules do, is known by the
/// addresses that the result tells.
pub(crate) fn remove(
    netlink: &Nfnetlink,
    owner: &Owner,
    addresses: &[IpAddr],
) -> Result<(), Error> {
    remove_all(netlink, |table, chain, one| {
        if let Some(other) = &one.owner {
            return other == owner.as_str();
        }
        let mut of_family =
            addresses.iter().filter(|address| Family::of(**address) == table.family());
        let is_this = |(of, rule): &(&str, Rule)| *of == chain && *rule == one.rule;
        of_family.any(|address| own_rules(*address).iter().any(is_this))
    })
}

/// Removes the rules that name an attachment, in one variant of iptables.
pub(super) fn remove_own(iptables: &Iptables<'_>, owner: &Owner) -> Result<(), Error> {
    remove_from(iptables, |_, _, one| one.owner.as_deref() == Some(owner.as_str()))
}

/// Removes the rules of attachments that are not valid any more; and those that name nobody, if nobody on
/// this node can have their address. `held` are addresses that have an owner in another backend.
pub(crate) fn collect_garbage(
    netlink: &Nfnetlink,
    garbage: &Garbage,
    held: &[IpAddr],
) -> Result<(), Error> {
    remove_all(netlink, |_, _, one| one.owner.as_deref().is_some_and(|it| garbage.contains(it)))?;
    for iptables in &Iptables::all_with(netlink, FAMILIES[0].name())? {
        let doomed = unowned(iptables, held)?;
        if !doomed.is_empty() {
            remove_from(iptables, |table, chain, one| {
                one.owner.is_none() && doomed.contains(&(table, chain_of(chain), one.rule.clone()))
            })?;
        }
    }
    Ok(())
}

type Unowned = (Table, Option<&'static str>, Rule);

/// The rules of pods that name nobody, at addresses that nobody can have: no rule with an owner has them, and
/// no namespace and no route of this node does.
fn unowned(iptables: &Iptables<'_>, held: &[IpAddr]) -> Result<Vec<Unowned>, Error> {
    let (mut found, mut held) = (Vec::new(), held.to_vec());
    for (table, chain) in places() {
        for one in iptables.owned_rules(table, chain)? {
            let Some(address) = address_of(chain, &one.rule) else { continue };
            match one.owner {
                Some(_) => held.push(address),
                None => found.push((address, (table, Some(chain), one.rule))),
            }
        }
    }
    found.retain(|(address, _)| !held.contains(address));
    if found.is_empty() {
        return Ok(Vec::new());
    }
    // Read after the rules: a pod that came meanwhile is seen. Where this cannot be told, rules stay.
    let Ok(usage) = Usage::read() else { return Ok(Vec::new()) };
    found.retain(|(address, _)| usage.is_unused(*address).unwrap_or(false));
    Ok(found.into_iter().map(|(_, rule)| rule).collect())
}

/// The address that a rule is about, if it says what one of ours would say.
fn address_of(chain: &str, rule: &Rule) -> Option<IpAddr> {
    let address = rule.source.or(rule.destination)?.value.ip();
    let says_so = |(of, own): &(&str, Rule)| *of == chain && own == rule;
    own_rules(address).iter().any(says_so).then_some(address)
}

fn chain_of(name: &str) -> Option<&'static str> {
    POD_CHAINS.into_iter().find(|chain| *chain == name)
}

/// The chains that have rules of pods.
fn places() -> impl Iterator<Item = (Table, &'static str)> {
    Family::ALL
        .map(Table::filter)
        .into_iter()
        .flat_map(|table| POD_CHAINS.map(|chain| (table, chain)))
}

/// In `nf_tables`, and in the legacy tables if there are some: the node may have changed over.
fn remove_all(
    netlink: &Nfnetlink,
    is_doomed: impl Fn(Table, &str, &OwnedRule) -> bool,
) -> Result<(), Error> {
    let mut result = Ok(());
    for iptables in &Iptables::all_with(netlink, FAMILIES[0].name())? {
        result = result.and(remove_from(iptables, &is_doomed));
    }
    result
}

fn remove_from(
    iptables: &Iptables<'_>,
    is_doomed: impl Fn(Table, &str, &OwnedRule) -> bool,
) -> Result<(), Error> {
    loop {
        let mut count = 0;
        iptables.transaction(|| -> Result<Changes, Error> {
            let mut changes = Changes::new();
            count = 0;
            for (table, chain) in places() {
                let mut seen: Vec<Rule> = Vec::new();
                for one in iptables.owned_rules(table, chain)? {
                    // The legacy program deletes by what a rule says, and always the first that says so.
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
        if count < PIECE {
            return Ok(());
        }
    }
}
