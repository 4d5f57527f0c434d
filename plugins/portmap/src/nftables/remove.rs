//! Removing what containers have in the tables, by their names alone.

use std::thread::sleep;
use std::time::{Duration, Instant};

use cni::{ContainerId, NetworkName, ValidAttachments};
use kernel::Family;
use kernel::nft::Element;
use kernel::{Batch, Nfnetlink};

use super::held::{Held, Holding, Place, Way};
use super::plan::{owner, owner_prefix};
use super::{guard, reference, table};
use crate::ends::End;
use crate::error::Error;
use crate::loopback::SwitchedOff;

/// An element that was made to expire.
struct Dying {
    family: Family,
    set: String,
    element: Element,
}

/// So much is removed at a time: a batch has to fit into the socket's buffer.
const PIECE: usize = 500;

/// An element that should vanish at the clock's next tick, which comes after 10 ms at most, is deleted if it
/// has not by then.
const PATIENCE: Duration = Duration::from_millis(100);
const NAP: Duration = Duration::from_micros(200);

/// Removes all that a container has, of the reference plugins' backend of this name too. Adds to `ends` what
/// it led to, even if there is an error.
pub(crate) fn remove(
    netlink: &Nfnetlink,
    network: &NetworkName,
    container_id: &ContainerId,
    ends: &mut Vec<End>,
) -> Result<(), Error> {
    if !netlink.has_nf_tables()? {
        return Ok(());
    }
    remove_elements(netlink, network, container_id, ends)?;
    reference::remove(netlink, container_id, ends)
}

/// Removes what a container has in our own tables.
pub(crate) fn remove_elements(
    netlink: &Nfnetlink,
    network: &NetworkName,
    container_id: &ContainerId,
    ends: &mut Vec<End>,
) -> Result<(), Error> {
    let owner = owner(network.as_str(), container_id.as_str());
    remove_all(netlink, |other| other == owner, ends)
}

/// Removes what the network's containers have that have no valid attachment.
pub(crate) fn collect_garbage(
    netlink: &Nfnetlink,
    network: &NetworkName,
    valid: &ValidAttachments,
    ends: &mut Vec<End>,
) -> Result<(), Error> {
    if !netlink.has_nf_tables()? {
        return Ok(());
    }
    let of_network = owner_prefix(network.as_str());
    let owners: Vec<String> = valid.iter().map(|(id, _)| owner(network.as_str(), id)).collect();
    let is_valid = |other: &str| owners.iter().any(|owner| owner == other);
    let is_garbage = |other: &str| other.starts_with(&of_network) && !is_valid(other);
    remove_all(netlink, is_garbage, ends)?;
    if reference::is_unused(netlink)? {
        return Ok(());
    }
    let mut addresses = Vec::new();
    for family in Family::ALL {
        let held = Held::read(netlink, family)?;
        let of_valid = held.holdings().filter(|holding| is_valid(holding.owner));
        addresses.extend(of_valid.filter_map(|holding| Some(holding.end()?.address)));
    }
    reference::collect_garbage(netlink, valid, &addresses)
}

/// Lets elements expire, and waits until no packet finds them any more; deletes them if the kernel cannot do
/// that.
fn remove_all(
    netlink: &Nfnetlink,
    is_doomed: impl Fn(&str) -> bool,
    ends: &mut Vec<End>,
) -> Result<(), Error> {
    for family in Family::ALL {
        if netlink.set_names(family.into(), table::TABLE)?.is_empty() {
            continue;
        }
        loop {
            let (mut dying, mut left) = (Vec::new(), false);
            let expired =
                remove_piece(netlink, family, &is_doomed, Way::Expire, ends, |doomed, more| {
                    left = more;
                    dying = doomed.iter().filter_map(Dying::new).collect();
                });
            if expired.is_err() || !all_gone(netlink, &dying)? {
                remove_piece(netlink, family, &is_doomed, Way::Delete, ends, |_, more| {
                    left = more;
                })?;
            }
            if !left {
                break;
            }
        }
    }
    Ok(())
}

/// Removes some of what is doomed, and tells `report` what, and whether there is more.
fn remove_piece(
    netlink: &Nfnetlink,
    family: Family,
    is_doomed: impl Fn(&str) -> bool,
    way: Way,
    ends: &mut Vec<End>,
    mut report: impl FnMut(&[Holding<'_>], bool),
) -> Result<(), kernel::Error> {
    let (before, mut switched_off) = (ends.len(), SwitchedOff::default());
    let removed = netlink.transaction(|netlink| -> Result<Batch, kernel::Error> {
        let mut batch = Batch::new();
        ends.truncate(before);
        guard::take_back(netlink, &mut switched_off)?;
        let held = Held::read(netlink, family)?;
        let mut doomed: Vec<_> =
            held.holdings().filter(|holding| is_doomed(holding.owner)).collect();
        report(&doomed[..doomed.len().min(PIECE)], doomed.len() > PIECE);
        doomed.truncate(PIECE);
        let stay = |end: &End| {
            held.holdings().any(|other| !is_doomed(other.owner) && other.end() == Some(*end))
        };
        ends.extend(doomed.iter().filter_map(Holding::end).filter(|end| !stay(end)));
        // Another DEL is at it already.
        doomed.retain(|holding| way == Way::Delete || !holding.expires());
        // First, so that it does not outlive the elements that are waited for.
        guard::remove(netlink, &mut batch, &held, &doomed, (way, None), &mut switched_off)?;
        held.remove(&mut batch, &doomed, way);
        Ok(batch)
    });
    removed.or_else(|error| guard::take_back(netlink, &mut switched_off).and(Err(error)))
}

/// Waits until elements have expired; false if they do not.
fn all_gone(netlink: &Nfnetlink, dying: &[Dying]) -> Result<bool, kernel::Error> {
    let deadline = Instant::now() + PATIENCE;
    for Dying { family, set, element } in dying {
        loop {
            match netlink.element(table::set(*family, set), &element.key)? {
                Some(now) if now.comment == element.comment => {
                    if !now.expires || Instant::now() > deadline {
                        return Ok(false);
                    }
                    sleep(NAP);
                }
                // None, or the successor's.
                _ => break,
            }
        }
    }
    Ok(true)
}

impl Dying {
    fn new(holding: &Holding<'_>) -> Option<Self> {
        match holding.place {
            Place::Element(set, element) => Some(Self {
                family: holding.family(),
                set: set.to_owned(),
                element: element.clone(),
            }),
            Place::Rule(..) => None,
        }
    }
}
