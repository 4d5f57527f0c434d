//! Removes a container's rules, found by its names alone.

use cni::Attachment;
use kernel::iptables::{Changes, Iptables, Rule, Table};
use kernel::{Family, Nfnetlink};

use super::claims::{end, same_port};
use super::guard;
use super::names::{DNAT_CHAIN, OLD_SNAT_CHAIN, comment, is_foreign, old_chain, own_chain};
use crate::claim::{End, Removed};
use crate::error::Error;
use crate::loopback::SwitchedOff;

/// A container's chain that will be removed, with the entries that jump to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Doomed {
    pub(super) family: Family,
    pub(super) entry_chain: &'static str,
    pub(super) chain: String,
    /// The comment on the entries. Entries with another container's comment stay, and with them the chain.
    pub(super) comment: String,
}

/// Removes all rules of a container, also those of the reference plugins. A node may have changed from one
/// variant of iptables to the other, so both are searched.
pub(crate) fn remove(netlink: &Nfnetlink, owner: &Attachment) -> Removed {
    in_all_variants(netlink, |iptables| {
        remove_all(iptables, || {
            let mut all = Vec::new();
            for family in Family::ALL {
                all.extend(find(iptables, family, owner)?);
            }
            Ok(all)
        })
        .0
    })
}

/// Runs a removal in `nf_tables`, and in the legacy tables if there are any.
pub(super) fn in_all_variants(
    netlink: &Nfnetlink,
    remove: impl Fn(&Iptables<'_>) -> Removed,
) -> Removed {
    let mut removed = Removed::default();
    match Iptables::all(netlink) {
        Ok(all) => all.iter().for_each(|it| removed.add(it.variant(), remove(it))),
        Err(error) => return Removed::of("find the tables", Vec::new(), Err(error.into())),
    }
    removed
}

/// The chains that a container has in one family.
pub(super) fn find(
    iptables: &Iptables<'_>,
    family: Family,
    owner: &Attachment,
) -> Result<Vec<Doomed>, kernel::Error> {
    let (network, id) = (owner.network.as_str(), owner.container_id.as_str());
    let chains = [(DNAT_CHAIN, own_chain(network, id)), (OLD_SNAT_CHAIN, old_chain(network, id))];
    let mut found = Vec::new();
    for (entry_chain, chain) in chains {
        if iptables.has_chain(Table::nat(family), &chain)? {
            found.push(Doomed { family, entry_chain, chain, comment: comment(network, id) });
        }
    }
    Ok(found)
}

/// Removes what `find` finds. A chain to which rules of other programs jump cannot be deleted: it loses its
/// rules, and the error names it. The other chains are removed. Also returns whether the rules were removed.
pub(super) fn remove_all(
    iptables: &Iptables<'_>,
    find: impl Fn() -> Result<Vec<Doomed>, kernel::Error>,
) -> (Removed, bool) {
    let (mut ends, mut doomed) = (Vec::new(), Vec::new());
    let mut attempt = |delete_chains| {
        guard::transaction(iptables, |changes, switched_off| {
            doomed = find()?;
            ends = removal(iptables, changes, &doomed, delete_chains, switched_off)?;
            Ok(())
        })
    };
    let mut outcome = attempt(true);
    let is_busy = matches!(&outcome, Err(error) if error.is_busy());
    if is_busy {
        outcome = attempt(false);
    }
    let is_done = outcome.is_ok();
    let mut removed = Removed::of("remove rules", ends, outcome);
    for Doomed { family, chain, .. } in doomed.into_iter().filter(|_| is_busy && is_done) {
        let deleted = delete_chain(iptables, family, chain);
        removed.add("remove rules", Removed::of("delete chain", Vec::new(), deleted));
    }
    (removed, is_done)
}

fn delete_chain(iptables: &Iptables<'_>, family: Family, chain: String) -> Result<(), Error> {
    let mut changes = Changes::new();
    changes.delete_chain(Table::nat(family), &chain);
    match iptables.commit(&changes) {
        Err(error) if error.is_not_found() => Ok(()),
        deleted => deleted.map_err(|source| Error::StillUsed { chain, source }),
    }
}

/// Adds what removes chains, the entries that jump to them and their containers' rules of the guard. The
/// chains themselves stay, without their rules, unless `delete_chains` is set. Returns the ends that nothing
/// leads to any more.
pub(super) fn removal(
    iptables: &Iptables<'_>,
    changes: &mut Changes,
    doomed: &[Doomed],
    delete_chains: bool,
    switched_off: &mut SwitchedOff,
) -> Result<Vec<End>, kernel::Error> {
    let (mut ends, mut gone) = (Vec::new(), Vec::new());
    for of_list in doomed.chunk_by(|a, b| (a.family, a.entry_chain) == (b.family, b.entry_chain)) {
        let Doomed { family, entry_chain, .. } = of_list[0];
        let entries: Vec<_> = iptables.rules(Table::nat(family), entry_chain)?.collect();
        for one in of_list {
            let Some(found) = remove_chain(iptables, changes, &entries, one, delete_chains)? else {
                continue;
            };
            ends.extend(found);
            if family == Family::V4 {
                gone.push(one.chain.as_str());
            }
        }
    }
    if !gone.is_empty() {
        guard::remove(iptables, changes, &gone, switched_off)?;
    }
    Ok(ends)
}

/// Adds what removes one chain. Returns the ends that nothing leads to any more; `None` if entries of another
/// container jump to the chain, so that it stays.
fn remove_chain(
    iptables: &Iptables<'_>,
    changes: &mut Changes,
    entries: &[(u64, Rule)],
    doomed: &Doomed,
    delete_chain: bool,
) -> Result<Option<Vec<End>>, kernel::Error> {
    let Doomed { family, entry_chain, chain, comment } = doomed;
    let nat = Table::nat(*family);
    let (to_chain, others): (Vec<_>, Vec<_>) =
        entries.iter().partition(|(_, entry)| entry.next_chain() == Some(chain));
    let (foreign, own): (Vec<_>, Vec<_>) =
        to_chain.into_iter().partition(|(_, entry)| is_foreign(entry, comment));
    for (handle, _) in &own {
        changes.delete_rule(nat, entry_chain, *handle);
    }
    if !foreign.is_empty() {
        return Ok(None);
    }
    let mut shared = Vec::new();
    for (_, other) in &others {
        if own.iter().any(|(_, entry)| same_port(entry, other)) {
            let next = other.next_chain().map(|next| ends_of(iptables, *family, next));
            shared.extend(next.transpose()?.into_iter().flatten());
        }
    }
    let mut ends = ends_of(iptables, *family, chain)?;
    // Without an owner's name, another container may have the address by now.
    ends.retain(|end| !comment.is_empty() && !shared.contains(end));
    changes.flush_chain(nat, chain);
    if delete_chain {
        changes.delete_chain(nat, chain);
    }
    Ok(Some(ends))
}

/// The ends that the rules of a chain lead to.
pub(super) fn ends_of(
    iptables: &Iptables<'_>,
    family: Family,
    chain: &str,
) -> Result<Vec<End>, kernel::Error> {
    let rules = iptables.rules(Table::nat(family), chain)?;
    Ok(rules.filter_map(|(_, rule)| end(family, &rule)).collect())
}
