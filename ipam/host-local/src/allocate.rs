//! Which addresses an attachment gets.

use std::net::IpAddr;
use std::path::PathBuf;

use cni::{Attachment, Code, Error, IpConfig, Undo};

use crate::boot::BootId;
use crate::config::{NamedSet, Plan};
use crate::lease::{Draft, Owner};
use crate::ranges::{Range, RangeSet};
use crate::store::{Leases, Store, StoreError};

/// How many addresses are tried one by one before the directory is read. Usually the first one is
/// free; after so many that are not, the names of all cost less than going on.
const TRIES: usize = 32;

/// Why an attachment gets no address.
#[derive(Debug, thiserror::Error)]
pub enum AllocateError {
    /// It has one: an ADD without a DEL before it.
    #[error(
        "duplicate allocation: {ip} is leased to {owner} already, which needs a DEL first \
         (lease {})", lease.display()
    )]
    Duplicate {
        /// The address.
        ip: IpAddr,
        /// The attachment that has it and asks for one.
        owner: Owner,
        /// The file that says so.
        lease: PathBuf,
    },
    /// The requested address is somebody else's.
    #[error("requested address {ip} is leased to {owner} (lease {})", lease.display())]
    Taken {
        /// The address.
        ip: IpAddr,
        /// Who has it.
        owner: Owner,
        /// The file that says so.
        lease: PathBuf,
    },
    /// No address is free.
    #[error("no address is free in {set} (key {key:?}), all leases are in {}", dir.display())]
    Exhausted {
        /// The ranges.
        set: RangeSet,
        /// The key they come from.
        key: String,
        /// Where the leases are.
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

/// Reserves an address of each set, or none. The draft is to be synchronised once the store is
/// closed: nobody should wait for the disk of somebody else.
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

/// Whether an ADD would find an address in the set.
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

/// Removes what the attachment had before the last boot and returns those addresses, to be given
/// to it again: nobody runs there any more, whatever became of the DEL. Addresses of ranges that
/// this configuration does not know are left alone, and returned beside them.
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
    let owner = leases.owner(ip)?.unwrap_or(Owner::Stranger);
    Err(AllocateError::Taken { ip, owner, lease: leases.path(ip) })
}

/// The next address after the last one given out that is free.
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
