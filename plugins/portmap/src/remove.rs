//! Removing a container's rules, by nothing but names.

use std::net::IpAddr;

use attach::chain_name;
use cni::{ContainerId, NetworkName, ValidAttachments};
use kernel::iptables::{Changes, Iptables, Rule, Table};
use kernel::{Family, Nfnetlink};

use crate::chains::{CHAIN_PREFIX, DNAT_CHAIN};
use crate::ends::{End, end};
use crate::error::Error;
use crate::guard;
use crate::loopback::SwitchedOff;
use crate::plan::{comment, cut_owner, is_foreign, own_chain, owner_id, same_port};

/// A container's chain that is to go, with the entries that lead to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Doomed {
    pub(crate) family: Family,
    entry_chain: &'static str,
    pub(crate) chain: String,
    /// On the entries; those with another container's comment stay, and with them the chain.
    comment: String,
}

/// The rules of one family's chain of entries, with their handles.
struct Entries {
    of: (Family, &'static str),
    rules: Vec<(u64, Rule)>,
}

/// Reference plugins before 0.8 had a second chain for each container.
const OLD_SNAT_CHAIN: &str = "CNI-HOSTPORT-SNAT";
/// Shared chains that only older reference plugins make.
pub(crate) const OLD_CHAINS: [&str; 1] = [OLD_SNAT_CHAIN];

/// GC removes so many chains at a time: a batch has to fit into the socket's buffer.
const PIECE: usize = 64;

/// Removes all rules of a container, those of the reference plugins too. Adds to `ends` what they led to,
/// save for what another container's rules for the same ports lead to as well, even if there is an error.
pub(crate) fn remove(
    netlink: &Nfnetlink,
    network: &NetworkName,
    container_id: &ContainerId,
    ends: &mut Vec<End>,
) -> Result<(), Error> {
    remove_of(netlink, (network.as_str(), container_id.as_str()), ends)
}

/// As [`remove`], by the names that a plan has.
pub(crate) fn remove_of(
    netlink: &Nfnetlink,
    (network, container_id): (&str, &str),
    ends: &mut Vec<End>,
) -> Result<(), Error> {
    everywhere(netlink, |iptables| {
        remove_all(iptables, ends, || {
            let mut all = Vec::new();
            for family in Family::ALL {
                all.extend(find(iptables, family, network, container_id)?);
            }
            Ok(all)
        })
    })
}

/// Removes the rules of the network's containers that have no valid attachment, known by their entries'
/// comments; `ends` as above.
pub(crate) fn collect_garbage(
    netlink: &Nfnetlink,
    network: &NetworkName,
    valid: &ValidAttachments,
    ends: &mut Vec<End>,
) -> Result<(), Error> {
    everywhere(netlink, |iptables| {
        collect_from(iptables, network, valid, ends)?;
        Ok(guard::collect_garbage(iptables)?)
    })
}

/// In `nf_tables`, and in the legacy tables if there are some: the node may have changed over.
fn everywhere(
    netlink: &Nfnetlink,
    mut remove: impl FnMut(&Iptables<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut result = Ok(());
    for iptables in &Iptables::all(netlink)? {
        result = result.and(remove(iptables));
    }
    result
}

fn collect_from(
    iptables: &Iptables<'_>,
    network: &NetworkName,
    valid: &ValidAttachments,
    ends: &mut Vec<End>,
) -> Result<(), Error> {
    let mut result = Ok(());
    loop {
        let mut left = false;
        let removed = remove_all(iptables, ends, || {
            let mut all = find_garbage(iptables, network.as_str(), valid)?;
            left = all.len() > PIECE;
            all.truncate(PIECE);
            Ok(all)
        });
        match removed {
            Err(error @ Error::StillUsed { .. }) => result = Err(error),
            removed => removed?,
        }
        if !left {
            return result;
        }
    }
}

/// The chains that a container has in one family.
pub(crate) fn find(
    iptables: &Iptables<'_>,
    family: Family,
    network: &str,
    id: &str,
) -> Result<Vec<Doomed>, kernel::Error> {
    let chains =
        [(DNAT_CHAIN, own_chain(network, id)), (OLD_SNAT_CHAIN, chain_name("SN-", network, id))];
    let mut found = Vec::new();
    for (entry_chain, chain) in chains {
        if iptables.has_chain(Table::nat(family), &chain)? {
            found.push(Doomed { family, entry_chain, chain, comment: comment(network, id) });
        }
    }
    Ok(found)
}

/// Adds what removes chains, the entries that lead to them and their containers' rules of the guard. The
/// chains themselves stay, without their rules, unless `delete_chains`.
pub(crate) fn removal(
    iptables: &Iptables<'_>,
    changes: &mut Changes,
    doomed: &[Doomed],
    delete_chains: bool,
    ends: &mut Vec<End>,
    switched_off: &mut SwitchedOff,
) -> Result<(), kernel::Error> {
    let mut lists: Vec<Entries> = Vec::new();
    let mut gone: Vec<&str> = Vec::new();
    for one in doomed {
        let of = (one.family, one.entry_chain);
        if !lists.iter().any(|list| list.of == of) {
            let rules = iptables.rules(Table::nat(one.family), one.entry_chain)?.collect();
            lists.push(Entries { of, rules });
        }
        for list in lists.iter().filter(|list| list.of == of) {
            let is_gone = remove_chain(iptables, changes, &list.rules, one, delete_chains, ends)?;
            if is_gone && one.family == Family::V4 {
                gone.push(&one.chain);
            }
        }
    }
    if gone.is_empty() {
        return Ok(());
    }
    guard::remove(iptables, changes, &gone, switched_off)
}

/// Removes what `find` finds. A chain that rules of others lead to cannot be deleted; it loses its rules, the
/// other chains go all the same, and it is the error.
fn remove_all(
    iptables: &Iptables<'_>,
    ends: &mut Vec<End>,
    mut find: impl FnMut() -> Result<Vec<Doomed>, kernel::Error>,
) -> Result<(), Error> {
    let (before, mut doomed) = (ends.len(), Vec::new());
    let mut switched_off = SwitchedOff::default();
    let mut attempt = |delete_chains| {
        let removed = iptables.transaction(|| -> Result<Changes, kernel::Error> {
            let mut changes = Changes::new();
            ends.truncate(before);
            guard::take_back(iptables, &mut switched_off)?;
            doomed = find()?;
            removal(iptables, &mut changes, &doomed, delete_chains, ends, &mut switched_off)?;
            Ok(changes)
        });
        removed.or_else(|error| guard::take_back(iptables, &mut switched_off).and(Err(error)))
    };
    match attempt(true) {
        Err(error) if error.is_busy() => attempt(false)?,
        done => return Ok(done?),
    }
    let mut result = Ok(());
    for Doomed { family, chain, .. } in doomed {
        let mut changes = Changes::new();
        changes.delete_chain(Table::nat(family), &chain);
        match iptables.commit(&changes) {
            Err(error) if error.is_not_found() => {}
            Err(source) => result = Err(Error::StillUsed { chain, source }),
            Ok(()) => {}
        }
    }
    result
}

/// Adds what removes one chain; false if rules of another container lead there, so that it stays.
fn remove_chain(
    iptables: &Iptables<'_>,
    changes: &mut Changes,
    entries: &[(u64, Rule)],
    doomed: &Doomed,
    delete_chain: bool,
    ends: &mut Vec<End>,
) -> Result<bool, kernel::Error> {
    let Doomed { family, entry_chain, chain, comment } = doomed;
    let (to_chain, others): (Vec<_>, Vec<_>) =
        entries.iter().partition(|(_, entry)| entry.next_chain() == Some(chain));
    let (foreign, own): (Vec<_>, Vec<_>) =
        to_chain.into_iter().partition(|(_, entry)| is_foreign(entry, comment));
    for (handle, _) in &own {
        changes.delete_rule(Table::nat(*family), entry_chain, *handle);
    }
    if !foreign.is_empty() {
        return Ok(false);
    }
    let mut shared = Vec::new();
    for (_, other) in &others {
        if own.iter().any(|(_, entry)| same_port(entry, other)) {
            let rules = other
                .next_chain()
                .map(|next| iptables.rules(Table::nat(*family), next))
                .transpose()?;
            shared.extend(rules.into_iter().flatten().filter_map(|(_, rule)| end(*family, &rule)));
        }
    }
    let led_to =
        iptables.rules(Table::nat(*family), chain)?.filter_map(|(_, rule)| end(*family, &rule));
    // Without an owner's name, another container may have the address by now.
    ends.extend(led_to.filter(|end| !comment.is_empty() && !shared.contains(end)));
    changes.flush_chain(Table::nat(*family), chain);
    if delete_chain {
        changes.delete_chain(Table::nat(*family), chain);
    }
    Ok(true)
}

fn find_garbage(
    iptables: &Iptables<'_>,
    network: &str,
    valid: &ValidAttachments,
) -> Result<Vec<Doomed>, kernel::Error> {
    let mut garbage: Vec<Doomed> = Vec::new();
    for family in Family::ALL {
        let entries: Vec<Rule> =
            iptables.rules(Table::nat(family), DNAT_CHAIN)?.map(|(_, entry)| entry).collect();
        let mut taken = None;
        for entry in &entries {
            let Some(chain) = entry.next_chain() else { continue };
            let is_known =
                garbage.iter().any(|known| known.family == family && known.chain == chain);
            if is_known {
                continue;
            }
            let text = entry.comment_text().unwrap_or_default();
            let is_garbage = if text.is_empty() {
                if taken.is_none() {
                    taken = Some(valid_addresses(iptables, family, &entries, network, valid)?);
                }
                is_unowned_garbage(iptables, family, chain, (network, valid), taken.as_deref())?
            } else {
                is_garbage(text, chain, network, valid)
            };
            if is_garbage {
                let (chain, comment) = (chain.to_owned(), text.to_owned());
                garbage.push(Doomed { family, entry_chain: DNAT_CHAIN, chain, comment });
            }
        }
    }
    Ok(garbage)
}

/// The addresses of the network's valid attachments, as far as mappings lead to them.
fn valid_addresses(
    iptables: &Iptables<'_>,
    family: Family,
    entries: &[Rule],
    network: &str,
    valid: &ValidAttachments,
) -> Result<Vec<IpAddr>, kernel::Error> {
    let mut addresses = Vec::new();
    for (id, _) in valid.iter() {
        let chain = own_chain(network, id);
        if entries.iter().any(|entry| entry.next_chain() == Some(&chain)) {
            addresses.extend(destinations(iptables, family, &chain)?);
        }
    }
    Ok(addresses)
}

/// Whether a chain that has lost its owner's name is garbage for certain: it is that of no valid attachment,
/// but one of these has its address by now.
fn is_unowned_garbage(
    iptables: &Iptables<'_>,
    family: Family,
    chain: &str,
    (network, valid): (&str, &ValidAttachments),
    taken: Option<&[IpAddr]>,
) -> Result<bool, kernel::Error> {
    if !chain.starts_with(CHAIN_PREFIX)
        || valid.iter().any(|(id, _)| own_chain(network, id) == chain)
    {
        return Ok(false);
    }
    let taken = taken.unwrap_or_default();
    let addresses = destinations(iptables, family, chain)?;
    Ok(!addresses.is_empty() && addresses.iter().all(|address| taken.contains(address)))
}

/// Where a container's chain leads to.
fn destinations(
    iptables: &Iptables<'_>,
    family: Family,
    chain: &str,
) -> Result<Vec<IpAddr>, kernel::Error> {
    let ends =
        iptables.rules(Table::nat(family), chain)?.filter_map(|(_, rule)| end(family, &rule));
    Ok(ends.map(|end| end.address).collect())
}

fn is_garbage(comment: &str, chain: &str, network: &str, valid: &ValidAttachments) -> bool {
    if let Some(id) = owner_id(comment, network) {
        return own_chain(network, id) == chain && !valid.contains_container(id);
    }
    // What is left of a long ID is not enough to find the chain by; all others have to be excluded.
    cut_owner(comment, network)
        && chain.starts_with(CHAIN_PREFIX)
        && !valid.iter().any(|(id, _)| own_chain(network, id) == chain)
}
