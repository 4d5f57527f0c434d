//! The directory of a network's leases, in the reference plugin's format: one file for each
//! address, `last_reserved_ip.N` for each set, and `lock`, which whoever writes holds by flock(2).

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use cni::{Attachment, NetworkName, file};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::retry_on_intr;

use crate::boot::BootId;
use crate::index::Index;
use crate::lease::{Draft, Owner};

/// What the reference plugin creates its lock with.
const LOCK_MODE: u32 = 0o750;
const LAST_RESERVED_MODE: u32 = 0o600;
/// A container ID and an interface's name take far less.
const LEASE_LIMIT: u64 = 64 * 1024;

/// A network's leases, locked. [`Store::close`] lets the lock go; so does dropping it, and then
/// the next one reads every lease to be sure.
#[derive(Debug)]
pub struct Store {
    leases: Leases,
    index: Index,
    /// Whether the index knows every attachment.
    indexed: Cell<bool>,
    /// Whether anything was changed, so that the index has to be declared current at the end.
    changed: Cell<bool>,
    _lock: File,
}

/// The directory of a network's leases, to look at without the lock.
#[derive(Clone, Debug)]
pub struct Leases {
    dir: PathBuf,
    network: NetworkName,
}

/// What could not be done with the directory.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory was not there and could not be made.
    #[error("create directory {}", .0.display())]
    Create(PathBuf, #[source] io::Error),
    /// The directory cannot be trusted, or not be looked at.
    #[error("use directory {}", .0.display())]
    Directory(PathBuf, #[source] io::Error),
    /// A FIFO, a device or a directory in place of a file.
    #[error("{} must be a regular file: remove what is there", .0.display())]
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
    /// The disk did not take the leases.
    #[error("synchronise the leases in {}", .0.display())]
    Sync(PathBuf, #[source] io::Error),
    /// The last address given out could not be noted.
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

    /// Whose lease an address is; `None` if it is free.
    pub fn owner(&self, ip: IpAddr) -> Result<Option<Owner>, StoreError> {
        let path = self.path(ip);
        match file::read(&path, LEASE_LIMIT) {
            Ok(content) => Ok(Some(Owner::parse(&content, &self.network))),
            Err(error) if is_gone(&error) => Ok(None),
            // No plugin has written it: not a regular file, or far larger than a lease.
            Err(error)
                if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::FileTooLarge) =>
            {
                Ok(Some(Owner::Stranger))
            }
            Err(error) => Err(StoreError::Read(path, error)),
        }
    }

    /// Refuses a directory of another user, who could forge or remove leases, and files in it with which
    /// no ADD of `sets` sets could work.
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

    /// Refuses a directory of another user, and takes from other users the permission to write to ours.
    /// Returns what the directory is, if it is there.
    fn refuse_other_owner(&self) -> Result<Option<Metadata>, StoreError> {
        let failed = |error| StoreError::Directory(self.dir.clone(), error);
        match fs::metadata(&self.dir) {
            Ok(dir) => {
                if dir.is_dir() && !file::is_own(&dir) {
                    file::own_dir(&self.dir).map_err(failed)?;
                }
                Ok(Some(dir))
            }
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Every address that has a lease, in no order. None if there is no directory.
    pub fn taken(&self) -> Result<HashSet<IpAddr>, StoreError> {
        let failed = |error| StoreError::List(self.dir.clone(), error);
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if is_gone(&error) => return Ok(HashSet::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut taken = HashSet::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            taken.extend(name.to_str().and_then(|name| name.parse::<IpAddr>().ok()));
        }
        Ok(taken)
    }

    /// Whether a lease can be taken from its owner: it has none, or `boot` is given and proves
    /// that the lease is from before it.
    pub fn is_reclaimable(&self, ip: IpAddr, boot: Option<&BootId>) -> Result<bool, StoreError> {
        let old = boot.is_some_and(|boot| boot.is_after(&self.path(ip)));
        Ok(old || self.owner(ip)? == Some(Owner::Nobody))
    }

    /// The address of set `number` that was given out last. A file that says something else
    /// costs the round robin one turn, and nothing more.
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
    /// Locks a network's leases, and makes their directory if it is not there.
    pub fn create(leases: &Leases, index_root: &Path) -> Result<Self, StoreError> {
        if let Some(store) = Self::open(leases, index_root)? {
            return Ok(store);
        }
        file::own_dir(leases.dir())
            .map_err(|error| StoreError::Create(leases.dir.clone(), error))?;
        let gone = || StoreError::Lock(leases.dir.clone(), ErrorKind::NotFound.into());
        Self::open(leases, index_root)?.ok_or_else(gone)
    }

    /// Locks a network's leases; `None` if there is no directory, and so no lease.
    pub fn open(leases: &Leases, index_root: &Path) -> Result<Option<Self>, StoreError> {
        let path = leases.lock_path();
        let failed = |error: io::Error| StoreError::Lock(path.clone(), error);
        if leases.refuse_other_owner()?.is_none() {
            return Ok(None);
        }
        // Without waiting for the other end of a FIFO.
        let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let lock = match open(&path, flags, Mode::from_raw_mode(LOCK_MODE)) {
            Ok(lock) => File::from(lock),
            Err(error) if is_gone(&error.into()) => return Ok(None),
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

    /// The addresses that an attachment holds: its own, or else those of its container as a whole.
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

    /// Reads every lease, in the order of the addresses, and brings the index up to date. Leases
    /// that a crash has left empty are removed: their writer held the lock, and is gone.
    pub fn survey(&self) -> Result<Vec<(IpAddr, Owner)>, StoreError> {
        let mut leases = Vec::new();
        for ip in self.leases.taken()? {
            match self.leases.owner(ip)? {
                Some(Owner::Nobody) => self.release(ip)?,
                Some(owner) => leases.push((ip, owner)),
                None => {}
            }
        }
        leases.sort_unstable_by_key(|(ip, _)| *ip);
        self.reindex(&leases);
        Ok(leases)
    }

    /// Makes the index say what `leases` say. A failure costs time and nothing else.
    pub fn reindex(&self, leases: &[(IpAddr, Owner)]) {
        let mut attachments: HashMap<Attachment, Vec<IpAddr>> = HashMap::new();
        // The old format has no interface to look a lease up by.
        let mut complete = true;
        for (ip, owner) in leases {
            match owner {
                Owner::Attachment(one) => attachments.entry(one.clone()).or_default().push(*ip),
                Owner::Container(_) => complete = false,
                Owner::Nobody | Owner::Stranger => {}
            }
        }
        self.changed.set(true);
        self.indexed.set(complete && self.index.rebuild(&attachments).is_ok());
    }

    /// Gives an address to the owner of `draft`; `false` if it has a lease already.
    pub fn reserve(&self, draft: &Draft, ip: IpAddr) -> Result<bool, StoreError> {
        let path = self.leases.path(ip);
        self.changed.set(true);
        draft.publish(&path).map_err(|error| StoreError::Write(path, error))
    }

    /// Removes a lease; one that is gone already is no error.
    pub fn release(&self, ip: IpAddr) -> Result<(), StoreError> {
        let path = self.leases.path(ip);
        self.changed.set(true);
        match fs::remove_file(&path) {
            Err(error) if !is_gone(&error) => Err(StoreError::Remove(path, error)),
            _ => Ok(()),
        }
    }

    /// Notes the address of set `number` that was given out last.
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

    /// Notes in the index that `addresses` are all that an attachment holds now.
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

    /// Lets the lock go, with the index as it should be.
    pub fn close(self) {
        if self.indexed.get() && self.changed.get() {
            // An index that is not current is one that nobody uses.
            let _ = self.index.stamp(&self.leases.dir);
        }
    }
}

/// Whether a path leads nowhere, at its end or on the way.
fn is_gone(error: &io::Error) -> bool {
    // A name that is too long is one that no file can have.
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename
    )
}
