//! Removes what containers have in the tables, found by their names alone.

use std::thread::sleep;
use std::time::{Duration, Instant};

use cni::{Attachment, NetworkName, ValidAttachments};
use kernel::nft::{Contents, Element, Owned, OwnedPlace, Removal};
use kernel::{Family, Nfnetlink};

use super::claims::{end, expires};
use super::elements::{owner, owner_prefix};
use super::table::table;
use super::{guard, reference};
use crate::claim::{End, Removed};
use crate::error::Error;

/// What one batch removes.
#[derive(Default)]
struct Piece {
    /// The ends that nothing leads to any more.
    ends: Vec<End>,
    /// The elements, with the names of their sets.
    elements: Vec<(String, Element)>,
    /// Whether there is more to remove.
    is_partial: bool,
}

/// This much is removed at a time, because a batch must fit in the socket's buffer.
const PIECE: usize = 500;

/// An element should expire at the next tick of the clock, after 10 ms at most. If it has not expired after
/// this time, it is deleted.
const PATIENCE: Duration = Duration::from_millis(100);
const NAP: Duration = Duration::from_micros(200);

/// Removes all that a container has, also what the reference plugins' backend of this name has made.
pub(crate) fn remove(netlink: &Nfnetlink, owner: &Attachment) -> Removed {
    if_possible(netlink, || {
        let mut removed = remove_own(netlink, owner);
        removed.add("remove rules", reference::remove(netlink, owner));
        removed
    })
}

/// Removes what a container has in our own tables.
pub(crate) fn remove_own(netlink: &Nfnetlink, attachment: &Attachment) -> Removed {
    let own = owner(attachment);
    remove_all(netlink, |other| other == own)
}

/// Removes what the network's containers have that have no valid attachment.
pub(crate) fn collect_garbage(
    netlink: &Nfnetlink,
    network: &NetworkName,
    valid: &ValidAttachments,
) -> Removed {
    let of_network = owner_prefix(network);
    let owners: Vec<String> = valid.attachments().map(|it| owner(&it)).collect();
    let is_valid = |other: &str| owners.iter().any(|owner| owner == other);
    let is_garbage = |other: &str| other.starts_with(&of_network) && !is_valid(other);
    if_possible(netlink, || {
        let mut removed = remove_all(netlink, is_garbage);
        let of_reference = reference::collect_garbage(netlink, valid, is_valid);
        removed.add("remove rules", Removed::of("collect garbage", Vec::new(), of_reference));
        removed
    })
}

/// Runs a removal if the kernel has `nf_tables`.
fn if_possible(netlink: &Nfnetlink, remove: impl FnOnce() -> Removed) -> Removed {
    match netlink.has_nf_tables() {
        Ok(true) => remove(),
        Ok(false) => Removed::default(),
        Err(error) => Removed::of("find nf_tables", Vec::new(), Err(error.into())),
    }
}

fn remove_all(netlink: &Nfnetlink, is_doomed: impl Fn(&str) -> bool) -> Removed {
    let mut removed = Removed::default();
    for family in Family::ALL {
        let (ends, outcome) = remove_from(netlink, family, &is_doomed);
        removed.add("remove elements", Removed::of(table(family).family.name(), ends, outcome));
    }
    removed
}

/// Lets elements expire, and waits until no packet finds them any more; deletes them if the kernel cannot
/// make them expire. Also returns the ends that it found if it fails.
fn remove_from(
    netlink: &Nfnetlink,
    family: Family,
    is_doomed: impl Fn(&str) -> bool,
) -> (Vec<End>, Result<(), Error>) {
    let mut ends = Vec::new();
    let mut remove = || -> Result<(), Error> {
        let mut is_partial = !netlink.set_names(table(family))?.is_empty();
        while is_partial {
            let (mut piece, mut outcome) =
                remove_piece(netlink, family, &is_doomed, Removal::Expire);
            ends.append(&mut piece.ends);
            if outcome.is_err() || !all_expired(netlink, family, &piece.elements)? {
                (piece, outcome) = remove_piece(netlink, family, &is_doomed, Removal::Delete);
                ends.append(&mut piece.ends);
            }
            outcome?;
            is_partial = piece.is_partial;
        }
        Ok(())
    };
    let outcome = remove();
    (ends, outcome)
}

/// Removes some of what is doomed. Also returns what it found if it fails.
fn remove_piece(
    netlink: &Nfnetlink,
    family: Family,
    is_doomed: impl Fn(&str) -> bool,
    how: Removal,
) -> (Piece, Result<(), Error>) {
    let mut piece = Piece::default();
    let outcome = guard::transaction(netlink, |batch, switched_off| {
        let contents = Contents::read(netlink, table(family))?;
        let (mut doomed, others): (Vec<_>, Vec<_>) =
            contents.owned().partition(|one| is_doomed(one.owner));
        piece = Piece { is_partial: doomed.len() > PIECE, ..Piece::default() };
        doomed.truncate(PIECE);
        let is_used = |found: &End| others.iter().any(|one| end(family, one) == Some(*found));
        let found = doomed.iter().filter_map(|one| end(family, one));
        piece.ends.extend(found.filter(|found| !is_used(found)));
        piece.elements.extend(doomed.iter().filter_map(element));
        // Another DEL has made these expire.
        doomed.retain(|one| how == Removal::Delete || !expires(one));
        // First, so that the guard does not outlive the elements that are waited for.
        guard::remove(netlink, batch, &contents, &doomed, (how, None), switched_off)?;
        contents.remove(batch, &doomed, how);
        Ok(())
    });
    (piece, outcome)
}

fn element(owned: &Owned<'_>) -> Option<(String, Element)> {
    match owned.place {
        OwnedPlace::Element(set, element) => Some((set.to_owned(), element.clone())),
        OwnedPlace::Rule(..) => None,
    }
}

/// Waits until elements have expired. Returns false if they do not.
fn all_expired(
    netlink: &Nfnetlink,
    family: Family,
    elements: &[(String, Element)],
) -> Result<bool, kernel::Error> {
    let deadline = Instant::now() + PATIENCE;
    for (set, element) in elements {
        loop {
            match netlink.element(table(family).set(set), &element.key)? {
                Some(now) if now.comment == element.comment => {
                    if !now.expires || Instant::now() > deadline {
                        return Ok(false);
                    }
                    sleep(NAP);
                }
                // It is gone, or the next container has the key.
                _ => break,
            }
        }
    }
    Ok(true)
}
