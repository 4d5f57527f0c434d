//! Finding the addresses of an attachment without reading every lease.
//!
//! The file of a lease has the address as its name, so the leases of an attachment (in a second ADD, DEL,
//! CHECK) cannot be found by name. The index has a symbolic link for each attachment, `ID:IFNAME ->
//! ADDRESS,ADDRESS`, below /run, which is in memory. It contains nothing that is not in the leases, and can
//! be deleted at any time.
//!
//! The index is current if its directory was modified one nanosecond after the directory of the leases. The
//! process that has the lock sets both times when it has finished. If another program adds or removes a lease
//! (the reference plugin, an administrator, a process that is killed before it finishes), the kernel's clock
//! sets the time, and its ticks are much longer than a nanosecond. Then every lease is read once.

use std::collections::{HashMap, HashSet};
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cni::{Attachment, file};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, utimensat};

const NANOSECONDS: i128 = 1_000_000_000;

/// The index of one directory of leases.
#[derive(Clone, Debug)]
pub struct Index(PathBuf);

impl Index {
    /// The index below `root` for the directory `leases`. It does not depend on the path of the directory.
    #[must_use]
    pub fn of(root: &Path, leases: &Metadata) -> Self {
        Self(root.join(format!("{}-{}", leases.dev(), leases.ino())))
    }

    /// Whether the index exists.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.0.is_dir()
    }

    /// Removes the index.
    pub fn delete(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether the index is complete. If the file system's times are not in nanoseconds, it is never current,
    /// because changes could not be detected.
    #[must_use]
    pub fn is_current(&self, leases: &Metadata) -> bool {
        let time =
            |dir: &Metadata| i128::from(dir.mtime()) * NANOSECONDS + i128::from(dir.mtime_nsec());
        fs::symlink_metadata(&self.0)
            .is_ok_and(|own| own.is_dir() && file::is_own(&own) && time(&own) == time(leases) + 1)
    }

    /// The addresses that the attachment had when the index was written.
    #[must_use]
    pub fn addresses(&self, attachment: &Attachment) -> Vec<IpAddr> {
        let link = fs::read_link(self.link(attachment)).unwrap_or_default();
        let addresses = link.to_str().unwrap_or_default().split(',');
        addresses.filter_map(|ip| ip.parse().ok()).collect()
    }

    /// Writes the addresses of an attachment.
    pub fn insert(&self, attachment: &Attachment, addresses: &[IpAddr]) -> io::Result<()> {
        let link = self.link(attachment);
        let target = target(addresses);
        match symlink(&target, &link) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.make()?;
                symlink(&target, &link)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                fs::remove_file(&link)?;
                symlink(&target, &link)
            }
            other => other,
        }
    }

    /// Removes an attachment. Removes the index with the last one.
    pub fn remove(&self, attachment: &Attachment) -> io::Result<()> {
        match fs::remove_file(self.link(attachment)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.remove_if_empty(),
        }
    }

    /// Makes the index agree with the leases.
    pub fn rebuild(&self, leases: &HashMap<Attachment, Vec<IpAddr>>) -> io::Result<()> {
        self.make()?;
        let mut known = HashSet::new();
        for (attachment, addresses) in leases {
            let link = self.link(attachment);
            if fs::read_link(&link).ok().is_none_or(|old| old.as_os_str() != &*target(addresses)) {
                self.insert(attachment, addresses)?;
            }
            known.insert(link);
        }
        for entry in fs::read_dir(&self.0)? {
            let link = entry?.path();
            if !known.contains(&link) {
                fs::remove_file(link)?;
            }
        }
        self.remove_if_empty()
    }

    /// Marks the index as current.
    pub fn stamp(&self, leases: &Path) -> io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        set_modified(leases, now)?;
        set_modified(&self.0, now + Duration::from_nanos(1))
    }

    /// Makes the directory, so that other users cannot write to it or rename it.
    fn make(&self) -> io::Result<()> {
        let above: Vec<&Path> = self.0.ancestors().skip(1).take(2).collect();
        above.into_iter().rev().chain([&*self.0]).try_for_each(file::own_dir)
    }

    fn remove_if_empty(&self) -> io::Result<()> {
        match fs::remove_dir(&self.0) {
            Err(error) if error.kind() != ErrorKind::DirectoryNotEmpty => Err(error),
            _ => Ok(()),
        }
    }

    fn link(&self, Attachment { container_id, ifname, .. }: &Attachment) -> PathBuf {
        // No name has a colon or a slash.
        self.0.join(format!("{container_id}:{ifname}"))
    }
}

fn set_modified(dir: &Path, since_epoch: Duration) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: since_epoch.as_secs().try_into().unwrap_or_default(),
            tv_nsec: since_epoch.subsec_nanos().into(),
        },
    };
    Ok(utimensat(CWD, dir, &times, AtFlags::empty())?)
}

fn target(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
