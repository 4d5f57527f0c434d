//! The directory of a network's leases, in the reference plugin's format: one file for each address,
//! `last_reserved_ip.N` for each set, and `lock`, which a process locks with flock(2) before it writes.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use cni::file::{self, is_missing};
use cni::{Attachment, NetworkName};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::retry_on_intr;

use crate::boot::BootId;
use crate::index::Index;
use crate::lease::{Draft, Owner};

/// The permissions with which the reference plugin creates the lock.
const LOCK_MODE: u32 = 0o750;
const LAST_RESERVED_MODE: u32 = 0o600;
/// A container ID and an interface's name need much less.
const LEASE_LIMIT: u64 = 64 * 1024;

/// A network's leases, locked. [`Store::close`] releases the lock. Dropping the store also releases it, but
/// then the next process must read every lease.
#[derive(Debug)]
pub struct Store {
    leases: Leases,
    index: Index,
    /// Whether the index is complete.
    indexed: Cell<bool>,
    /// Whether anything was changed, so that the index must be marked as current at the end.
    changed: Cell<bool>,
    _lock: File,
}

/// The directory of a network's leases, for reading without the lock.
#[derive(Clone, Debug)]
pub struct Leases {
    dir: PathBuf,
    network: NetworkName,
}

/// The errors of the directory and its files.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory did not exist and could not be made.
    #[error("create directory {}", .0.display())]
    Create(PathBuf, #[source] io::Error),
    /// The directory is not trusted, or could not be read.
    #[error("use directory {}", .0.display())]
    Directory(PathBuf, #[source] io::Error),
    /// A FIFO, a device or a directory instead of a file.
    #[error("{} must be a regular file; remove it", .0.display())]
    NotRegular(PathBuf),
    /// The lock file could not be opened or locked.
    #[error("lock {}", .0.display())]
    Lock(PathBuf, #[source] io::Error),
    /// The names of the leases could not be read.
    #[error("list the leases in {}", .0.display())]
    List(PathBuf, #[source] io::Error),
    /// A lease could not be read.
    #[error("read lease {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// A lease could not be written.
    #[error("write lease {}", .0.display())]
    Write(PathBuf, #[source] io::Error),
    /// A lease could not be removed.
    #[error("remove lease {}", .0.display())]
    Remove(PathBuf, #[source] io::Error),
    /// The leases could not be written to disk.
    #[error("synchronise the leases in {}", .0.display())]
    Sync(PathBuf, #[source] io::Error),
    /// The file with the last assigned address could not be written.
    #[error("write {}", .0.display())]
    LastReserved(PathBuf, #[source] io::Error),
}

impl From<StoreError> for cni::Error {
    fn from(error: StoreError) -> Self {
        Self::from_source(cni::Code::Io, &error)
    }
}

impl Leases {
    /// The leases of a network.
    #[must_use]
    pub fn of(data_dir: &Path, network: NetworkName) -> Self {
        Self { dir: data_dir.join(network.as_str()), network }
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> &NetworkName {
        &self.network
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of an address's lease. IPv6 addresses are written as in RFC 5952, with colons.
    #[must_use]
    pub fn path(&self, ip: IpAddr) -> PathBuf {
        self.dir.join(ip.to_string())
    }

    /// The owner of an address; `None` if the address is free.
    pub fn owner(&self, ip: IpAddr) -> Result<Option<Owner>, StoreError> {
        let path = self.path(ip);
        match file::read(&path, LEASE_LIMIT) {
            Ok(content) => Ok(Some(Owner::parse(&content, &self.network))),
            Err(error) if is_missing(&error) => Ok(None),
            // Not a regular file, or much larger than a lease: no plugin has written it.
            Err(error)
                if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::FileTooLarge) =>
            {
                Ok(Some(Owner::Other))
            }
            Err(error) => Err(StoreError::Read(path, error)),
        }
    }

    /// Refuses a directory of another user, who could forge or remove leases, and files with which an ADD of
    /// `sets` sets would fail.
    pub fn refuse_unsafe(&self, sets: usize) -> Result<(), StoreError> {
        self.refuse_other_owner()?;
        let names = (0..sets).map(|number| self.last_reserved_path(number));
        for path in names.chain([self.lock_path()]) {
            if fs::metadata(&path).is_ok_and(|file| !file.is_file()) {
                return Err(StoreError::NotRegular(path));
            }
        }
        Ok(())
    }

    /// Refuses a directory of another user. Removes the permission of other users to write to the directory.
    /// Returns its metadata; `None` if it does not exist.
    fn refuse_other_owner(&self) -> Result<Option<Metadata>, StoreError> {
        let failed = |error| StoreError::Directory(self.dir.clone(), error);
        match fs::metadata(&self.dir) {
            Ok(dir) => {
                if dir.is_dir() && !file::is_own(&dir) {
                    file::own_dir(&self.dir).map_err(failed)?;
                }
                Ok(Some(dir))
            }
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Every address that has a lease, in no order. Empty if the directory does not exist.
    pub fn taken(&self) -> Result<HashSet<IpAddr>, StoreError> {
        let failed = |error| StoreError::List(self.dir.clone(), error);
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if is_missing(&error) => return Ok(HashSet::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut taken = HashSet::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            taken.extend(name.to_str().and_then(|name| name.parse::<IpAddr>().ok()));
        }
        Ok(taken)
    }

    /// Whether a lease can be reused: it has no owner, or `boot` is given and the lease was made before that
    /// boot.
    pub fn is_reclaimable(&self, ip: IpAddr, boot: Option<&BootId>) -> Result<bool, StoreError> {
        let old = boot.is_some_and(|boot| boot.is_after(&self.path(ip)));
        Ok(old || self.owner(ip)? == Some(Owner::Unfinished))
    }

    /// The address of set `number` that was assigned last; `None` if the file contains something else. Then
    /// the round robin begins again.
    #[must_use]
    pub fn last_reserved(&self, number: usize) -> Option<IpAddr> {
        let text = file::read(&self.last_reserved_path(number), LEASE_LIMIT).ok()?;
        let text = String::from_utf8(text).ok()?;
        text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
    }

    fn lock_path(&self) -> PathBuf {
        self.dir.join("lock")
    }

    fn last_reserved_path(&self, number: usize) -> PathBuf {
        self.dir.join(format!("last_reserved_ip.{number}"))
    }
}

impl Store {
    /// Locks a network's leases. Makes the directory if it does not exist.
    pub fn create(leases: &Leases, index_root: &Path) -> Result<Self, StoreError> {
        if let Some(store) = Self::open(leases, index_root)? {
            return Ok(store);
        }
        file::own_dir(leases.dir())
            .map_err(|error| StoreError::Create(leases.dir.clone(), error))?;
        let gone = || StoreError::Lock(leases.dir.clone(), ErrorKind::NotFound.into());
        Self::open(leases, index_root)?.ok_or_else(gone)
    }

    /// Locks a network's leases; `None` if the directory does not exist, so that there is no lease.
    pub fn open(leases: &Leases, index_root: &Path) -> Result<Option<Self>, StoreError> {
        let path = leases.lock_path();
        let failed = |error: io::Error| StoreError::Lock(path.clone(), error);
        if leases.refuse_other_owner()?.is_none() {
            return Ok(None);
        }
        // Opening a FIFO would wait for the other end.
        let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let lock = match open(&path, flags, Mode::from_raw_mode(LOCK_MODE)) {
            Ok(lock) => File::from(lock),
            Err(error) if is_missing(&error.into()) => return Ok(None),
            Err(error) => return Err(failed(error.into())),
        };
        if !lock.metadata().map_err(failed)?.is_file() {
            return Err(StoreError::NotRegular(path));
        }
        retry_on_intr(|| flock(&lock, FlockOperation::LockExclusive))
            .map_err(|error| failed(error.into()))?;

        let dir = fs::metadata(&leases.dir).map_err(failed)?;
        let index = Index::of(index_root, &dir);
        let indexed = Cell::new(index.is_current(&dir));
        let (leases, changed) = (leases.clone(), Cell::new(false));
        Ok(Some(Self { leases, index, indexed, changed, _lock: lock }))
    }

    /// The leases.
    #[must_use]
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// The addresses of an attachment: its own, or those of its whole container if it has none.
    pub fn held(&self, attachment: &Attachment) -> Result<Vec<IpAddr>, StoreError> {
        if self.indexed.get() {
            let mut held = self.index.addresses(attachment);
            for ip in std::mem::take(&mut held) {
                if self.leases.owner(ip)?.is_some_and(|owner| owner.is(attachment)) {
                    held.push(ip);
                }
            }
            return Ok(held);
        }
        let leases = self.survey()?;
        let mut held = leases.clone();
        held.retain(|(_, owner)| matches!(owner, Owner::Attachment(one) if one == attachment));
        if held.is_empty() {
            held = leases;
            held.retain(|(_, owner)| owner.is(attachment));
        }
        Ok(held.into_iter().map(|(ip, _)| ip).collect())
    }

    /// Reads every lease, in the order of the addresses, and updates the index. Removes empty leases, which a
    /// crash has left: their writer had the lock, and no longer runs.
    pub fn survey(&self) -> Result<Vec<(IpAddr, Owner)>, StoreError> {
        let mut leases = Vec::new();
        for ip in self.leases.taken()? {
            match self.leases.owner(ip)? {
                Some(Owner::Unfinished) => self.release(ip)?,
                Some(owner) => leases.push((ip, owner)),
                None => {}
            }
        }
        leases.sort_unstable_by_key(|(ip, _)| *ip);
        self.reindex(&leases);
        Ok(leases)
    }

    /// Makes the index agree with `leases`. If this fails, the next process reads every lease.
    pub fn reindex(&self, leases: &[(IpAddr, Owner)]) {
        let mut attachments: HashMap<Attachment, Vec<IpAddr>> = HashMap::new();
        // The old format has no interface, so the index cannot contain it.
        let mut complete = true;
        for (ip, owner) in leases {
            match owner {
                Owner::Attachment(one) => attachments.entry(one.clone()).or_default().push(*ip),
                Owner::Container(_) => complete = false,
                Owner::Unfinished | Owner::Other => {}
            }
        }
        self.changed.set(true);
        self.indexed.set(complete && self.index.rebuild(&attachments).is_ok());
    }

    /// Leases an address to the owner of `draft`; `false` if the address has a lease.
    pub fn reserve(&self, draft: &Draft, ip: IpAddr) -> Result<bool, StoreError> {
        let path = self.leases.path(ip);
        self.changed.set(true);
        draft.publish(&path).map_err(|error| StoreError::Write(path, error))
    }

    /// Removes a lease. A lease that does not exist is not an error.
    pub fn release(&self, ip: IpAddr) -> Result<(), StoreError> {
        let path = self.leases.path(ip);
        self.changed.set(true);
        file::remove(&path).map_err(|error| StoreError::Remove(path, error))
    }

    /// Writes the address of set `number` that was assigned last.
    pub fn set_last_reserved(&self, number: usize, ip: IpAddr) -> Result<(), StoreError> {
        let path = self.leases.last_reserved_path(number);
        self.changed.set(true);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let opened = open(&path, flags, Mode::from_raw_mode(LAST_RESERVED_MODE)).map(File::from);
        let written = opened.map_err(io::Error::from).and_then(|mut file| {
            if !file.metadata()?.is_file() {
                return Err(io::Error::other("it is not a regular file"));
            }
            file.write_all(ip.to_string().as_bytes())
        });
        written.map_err(|error| StoreError::LastReserved(path, error))
    }

    /// Writes to the index that `addresses` are all addresses of an attachment.
    pub fn note(&self, attachment: &Attachment, addresses: &[IpAddr]) {
        if self.indexed.get() {
            let noted = if addresses.is_empty() {
                self.index.remove(attachment)
            } else {
                self.index.insert(attachment, addresses)
            };
            self.changed.set(true);
            self.indexed.set(noted.is_ok());
        }
    }

    /// Marks the index as current and releases the lock.
    pub fn close(self) {
        if self.indexed.get() && self.changed.get() {
            // If this fails, the index is not current and is not used.
            let _ = self.index.stamp(&self.leases.dir);
        }
    }
}
