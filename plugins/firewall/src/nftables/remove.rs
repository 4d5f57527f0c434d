//! Removing what pods have in the table, by their names alone.

use std::net::IpAddr;

use kernel::nft::Element;
use kernel::{Batch, Nfnetlink};

use super::plan::address;
use super::table::{PODS, PUBLISHED, SOURCES, set};
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
    let mut all = Vec::new();
    if !netlink.has_nf_tables()? {
        return Ok(all);
    }
    for name in SOURCES {
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
