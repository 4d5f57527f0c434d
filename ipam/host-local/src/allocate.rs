//! Choosing the addresses of an attachment.

use std::net::IpAddr;
use std::path::PathBuf;

use cni::{Attachment, Code, Error, IpConfig, Undo};

use crate::boot::BootId;
use crate::config::{NamedSet, Plan};
use crate::lease::{Draft, Owner};
use crate::ranges::{Range, RangeSet};
use crate::store::{Leases, Store, StoreError};

/// How many addresses are tried before the directory is read. Usually the first one is free. After this many
/// tries, reading all names takes less time than trying more addresses.
const TRIES: usize = 32;

/// Why an attachment gets no address.
#[derive(Debug, thiserror::Error)]
pub enum AllocateError {
    /// The attachment already has an address: a second ADD without a DEL.
    #[error(
        "duplicate allocation: {ip} is already leased to {owner}, which needs a DEL first (lease {})",
        lease.display()
    )]
    Duplicate {
        /// The address.
        ip: IpAddr,
        /// The attachment.
        owner: Owner,
        /// The file of the lease.
        lease: PathBuf,
    },
    /// The requested address has another owner.
    #[error("requested address {ip} is leased to {owner} (lease {})", lease.display())]
    Taken {
        /// The address.
        ip: IpAddr,
        /// The owner of the address.
        owner: Owner,
        /// The file of the lease.
        lease: PathBuf,
    },
    /// No address is free.
    #[error("no address is free in {set} (key {key:?}), all leases are in {}", dir.display())]
    Exhausted {
        /// The ranges.
        set: RangeSet,
        /// The key that contains them.
        key: String,
        /// The directory of the leases.
        dir: PathBuf,
    },
    /// The directory could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<AllocateError> for Error {
    fn from(error: AllocateError) -> Self {
        let code = match error {
            AllocateError::Duplicate { .. } | AllocateError::Taken { .. } => Code::Conflict,
            AllocateError::Exhausted { .. } => Code::TryAgain,
            AllocateError::Store(error) => return error.into(),
        };
        Self::from_source(code, &error)
    }
}

/// Reserves an address of each set, or none. The caller must sync the draft after it has closed the store, so
/// that other processes do not wait for the disk.
pub fn allocate(
    store: &Store,
    plan: &Plan,
    attachment: &Attachment,
) -> Result<(Draft, Vec<IpConfig>), Error> {
    let boot = BootId::current();
    let (before, beside) = leases_from_before(store, plan, attachment, boot.as_ref())?;
    let draft = Draft::new(store.leases().dir(), attachment, boot.as_ref())
        .map_err(|error| StoreError::Write(store.leases().dir().to_owned(), error))?;
    let boot = boot.filter(|_| plan.reclaim_after_reboot);
    let ips = Undo::around(|undo| {
        let mut ips = Vec::new();
        for (number, named) in plan.sets.iter().enumerate() {
            let again = before.iter().copied().find(|ip| named.set.contains(*ip));
            let (ip, range) = match named.requested.or(again) {
                Some(ip) => requested(store, named, &draft, boot.as_ref(), ip)?,
                None => next(store, number, named, &draft, boot.as_ref())?,
            };
            undo.on_error("free the address", move || Ok(store.release(ip)?));
            store.set_last_reserved(number, ip)?;
            ips.push(IpConfig {
                interface: None,
                address: range.with_prefix(ip),
                gateway: Some(range.gateway()),
            });
        }
        Ok(ips)
    })?;
    let given = ips.iter().map(|ip: &IpConfig| ip.address.ip());
    store.note(attachment, &given.chain(beside).collect::<Vec<_>>());
    Ok((draft, ips))
}

/// Whether the set has an address for an ADD.
pub fn has_room(
    leases: &Leases,
    number: usize,
    named: &NamedSet,
    boot: Option<&BootId>,
) -> Result<bool, StoreError> {
    let last = leases.last_reserved(number);
    if named.set.after(last).take(TRIES).any(|(ip, _)| !leases.path(ip).exists()) {
        return Ok(true);
    }
    let taken = leases.taken()?;
    if named.set.after(last).any(|(ip, _)| !taken.contains(&ip)) {
        return Ok(true);
    }
    for ip in taken.into_iter().filter(|ip| named.set.contains(*ip)) {
        if leases.is_reclaimable(ip, boot)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Releases the addresses that the attachment had before the last boot, and returns them so that it gets them
/// again. No container runs since then, even without a DEL. Also returns the attachment's addresses outside
/// the ranges of this configuration, which are not released.
fn leases_from_before(
    store: &Store,
    plan: &Plan,
    attachment: &Attachment,
    boot: Option<&BootId>,
) -> Result<(Vec<IpAddr>, Vec<IpAddr>), AllocateError> {
    let held = store.held(attachment)?;
    let (before, beside): (Vec<_>, _) =
        held.into_iter().partition(|ip| plan.sets.iter().any(|named| named.set.contains(*ip)));
    for &ip in &before {
        let lease = store.leases().path(ip);
        if !boot.is_some_and(|boot| boot.is_after(&lease)) {
            let owner = Owner::Attachment(attachment.clone());
            return Err(AllocateError::Duplicate { ip, owner, lease });
        }
    }
    for &ip in &before {
        store.release(ip)?;
    }
    Ok((before, beside))
}

fn requested<'a>(
    store: &Store,
    named: &'a NamedSet,
    draft: &Draft,
    boot: Option<&BootId>,
    ip: IpAddr,
) -> Result<(IpAddr, &'a Range), AllocateError> {
    let leases = store.leases();
    if let Some(range) = named.set.range_of(ip) {
        if store.reserve(draft, ip)? {
            return Ok((ip, range));
        }
        if leases.is_reclaimable(ip, boot)? {
            store.release(ip)?;
            if store.reserve(draft, ip)? {
                return Ok((ip, range));
            }
        }
    }
    let owner = leases.owner(ip)?.unwrap_or(Owner::Other);
    Err(AllocateError::Taken { ip, owner, lease: leases.path(ip) })
}

/// The next free address after the last one that was assigned.
fn next<'a>(
    store: &Store,
    number: usize,
    named: &'a NamedSet,
    draft: &Draft,
    boot: Option<&BootId>,
) -> Result<(IpAddr, &'a Range), AllocateError> {
    let leases = store.leases();
    let last = leases.last_reserved(number);
    for (ip, range) in named.set.after(last).take(TRIES) {
        if store.reserve(draft, ip)? {
            return Ok((ip, range));
        }
    }
    let mut taken = leases.taken()?;
    for reclaiming in [false, true] {
        if reclaiming {
            for ip in taken.clone().into_iter().filter(|ip| named.set.contains(*ip)) {
                if leases.is_reclaimable(ip, boot)? {
                    store.release(ip)?;
                    taken.remove(&ip);
                }
            }
        }
        for (ip, range) in named.set.after(last).filter(|(ip, _)| !taken.contains(ip)) {
            if store.reserve(draft, ip)? {
                return Ok((ip, range));
            }
        }
    }
    let (key, set) = (named.key.clone(), named.set.clone());
    Err(AllocateError::Exhausted { set, key, dir: leases.dir().to_owned() })
}
