//! Removes what pods have in the table, found by their names.

use std::net::IpAddr;

use cni::Attachment;
use kernel::nft::{Element, Purged, address};
use kernel::{Batch, Nfnetlink};

use super::table::{PODS, PUBLISHED, SOURCES, TABLE, spec};
use crate::error::Error;
use crate::owner::owner_name;

/// Removes the addresses that a pod has.
pub(crate) fn remove(netlink: &Nfnetlink, owner: &Attachment) -> Result<(), Error> {
    let owner = Some(owner_name(owner));
    remove_all(netlink, &[PODS, PUBLISHED], |one| one.comment == owner)
}

/// Removes the addresses of pods that are no longer valid.
pub(crate) fn collect_garbage(
    netlink: &Nfnetlink,
    is_garbage: impl Fn(&str) -> bool,
) -> Result<(), Error> {
    remove_all(netlink, &[PODS, PUBLISHED], |one| one.comment.as_deref().is_some_and(&is_garbage))
}

/// The addresses that were added to firewalld, with their owners.
pub(crate) fn sources(netlink: &Nfnetlink) -> Result<Vec<(IpAddr, String)>, Error> {
    owned(netlink, SOURCES)
}

/// The addresses of all pods.
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
        let elements = netlink.elements(TABLE.set(name))?.into_iter();
        all.extend(elements.filter_map(|element| Some((address(&element.key)?, element.comment?))));
    }
    Ok(all)
}

/// Removes the record that these addresses were added to firewalld for these owners.
pub(crate) fn remove_sources(
    netlink: &Nfnetlink,
    doomed: &[(IpAddr, String)],
) -> Result<(), Error> {
    remove_all(netlink, &[SOURCES], |one| {
        doomed
            .iter()
            .any(|(ip, of)| address(&one.key) == Some(*ip) && one.comment.as_ref() == Some(of))
    })
}

/// Removes the table. Rules and chains of other programs stay, and a policy that drops. A dry run changes
/// nothing. Returns a line for everything that is removed.
pub(crate) fn purge(netlink: &Nfnetlink, dry_run: bool) -> Result<Vec<String>, Error> {
    if !netlink.has_nf_tables()? {
        return Ok(Vec::new());
    }
    let mut purged = Purged::Nothing;
    netlink.transaction(|netlink| -> Result<Batch, Error> {
        let mut batch = Batch::new();
        purged = spec(true).purge(netlink, &mut batch, |_| false, |_| false)?;
        Ok(if dry_run { Batch::new() } else { batch })
    })?;
    Ok(match purged {
        Purged::Nothing => Vec::new(),
        Purged::Table => vec![format!("nft: table {TABLE}")],
        Purged::Parts => vec![format!(
            "nft: our rules and sets in table {TABLE}, whose other rules and policy stay"
        )],
    })
}

fn remove_all(
    netlink: &Nfnetlink,
    sets: &[[&str; 2]],
    is_doomed: impl Fn(&Element) -> bool,
) -> Result<(), Error> {
    if netlink.has_nf_tables()? {
        let sets: Vec<_> = sets.as_flattened().iter().map(|name| TABLE.set(name)).collect();
        netlink.delete_elements(&sets, is_doomed)?;
    }
    Ok(())
}
