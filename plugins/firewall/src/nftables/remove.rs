//! Removing what pods have in the table, by their names alone.

use std::net::IpAddr;

use kernel::nft::{Element, FilterChain};
use kernel::{Batch, Nfnetlink};

use super::held::Held;
use super::plan::address;
use super::table::{FAMILY, FORWARD, PODS, PUBLISHED, SOURCES, TABLE, chain, set};
use crate::error::Error;
use crate::owner::{Garbage, Owner};

/// So much is removed at a time: a batch has to fit into the socket's buffer.
const PIECE: usize = 500;

/// Removes the addresses that a pod has.
pub(crate) fn remove(netlink: &Nfnetlink, owner: &Owner) -> Result<(), Error> {
    remove_all(netlink, &[PODS, PUBLISHED], |one| one.comment.as_deref() == Some(owner.as_str()))
}

/// Removes the addresses of pods that are not valid any more.
pub(crate) fn collect_garbage(netlink: &Nfnetlink, garbage: &Garbage) -> Result<(), Error> {
    remove_all(netlink, &[PODS, PUBLISHED], |one| {
        one.comment.as_deref().is_some_and(|it| garbage.contains(it))
    })
}

/// The addresses that firewalld has been given, with their owners.
pub(crate) fn sources(netlink: &Nfnetlink) -> Result<Vec<(IpAddr, String)>, Error> {
    owned(netlink, SOURCES)
}

/// The addresses of all pods, whose owners are noted.
pub(crate) fn addresses(netlink: &Nfnetlink) -> Result<Vec<IpAddr>, Error> {
    let all = [owned(netlink, PODS)?, sources(netlink)?].concat();
    Ok(all.into_iter().map(|(address, _)| address).collect())
}

fn owned(netlink: &Nfnetlink, sets: [&str; 2]) -> Result<Vec<(IpAddr, String)>, Error> {
    let mut all = Vec::new();
    if !netlink.has_nf_tables()? {
        return Ok(all);
    }
    for name in sets {
        let elements = netlink.elements(set(name))?.into_iter();
        all.extend(elements.filter_map(|element| Some((address(&element)?, element.comment?))));
    }
    Ok(all)
}

/// Forgets that firewalld has been given these addresses for these owners.
pub(crate) fn remove_sources(
    netlink: &Nfnetlink,
    doomed: &[(IpAddr, String)],
) -> Result<(), Error> {
    remove_all(netlink, &[SOURCES], |one| {
        doomed.iter().any(|(ip, of)| address(one) == Some(*ip) && one.comment.as_ref() == Some(of))
    })
}

/// Removes the table, or what would be removed of it is only said: a line for everything. What others have in
/// the table stays: their rules, and a policy that drops.
pub(crate) fn purge(netlink: &Nfnetlink, dry_run: bool) -> Result<Vec<String>, Error> {
    let mut removed = Vec::new();
    if !netlink.has_nf_tables()? {
        return Ok(removed);
    }
    netlink.transaction(|netlink| -> Result<Batch, Error> {
        let (mut batch, held) = (Batch::new(), Held::read(netlink, false)?);
        removed.clear();
        if !held.is_there() {
            return Ok(batch);
        }
        let forward = chain(FORWARD);
        let is_forward = |it: &FilterChain| it.table == TABLE && it.name == forward.name;
        let drops = netlink.filter_chains(FAMILY)?.iter().any(|it| is_forward(it) && it.drops);
        if !drops && !held.has_rules_of_others() {
            removed.push(format!("nft: table inet {TABLE}"));
            batch.delete_table(FAMILY, TABLE);
        } else {
            removed.push(format!(
                "nft: our rules and sets in table inet {TABLE}, whose other rules and policy stay"
            ));
            held.remove_ours(&mut batch);
        }
        Ok(if dry_run { Batch::new() } else { batch })
    })?;
    Ok(removed)
}

fn remove_all(
    netlink: &Nfnetlink,
    sets: &[[&str; 2]],
    is_doomed: impl Fn(&Element) -> bool,
) -> Result<(), Error> {
    if !netlink.has_nf_tables()? {
        return Ok(());
    }
    let mut left = true;
    while left {
        netlink.transaction(|netlink| -> Result<Batch, Error> {
            let (mut batch, mut count) = (Batch::new(), 0);
            for name in sets.as_flattened() {
                let elements = netlink.elements(set(name))?;
                for element in elements.iter().filter(|one| is_doomed(one)).take(PIECE - count) {
                    batch.delete_element(set(name), &element.key);
                    count += 1;
                }
            }
            left = count == PIECE;
            Ok(batch)
        })?;
    }
    Ok(())
}
