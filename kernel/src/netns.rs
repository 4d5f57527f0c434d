//! Network namespaces (`network_namespaces(7)`).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{FsType, fstatfs};

use crate::error::{Error, Result};

/// An open network namespace, which stays alive as long as it is held.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: PathBuf,
}

/// `NSFS_MAGIC` of `include/uapi/linux/magic.h`.
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

impl Netns {
    /// Opens the namespace that a path leads to.
    ///
    /// Errors: ENOENT if nothing is there, EINVAL if it is something else.
    pub fn open(path: &Path) -> Result<Self> {
        let operation = || format!("open network namespace {}", path.display());
        // Not to wait for a writer, should the path lead to a pipe.
        let file = File::options()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(path)
            .map_err(|error| Error::new(operation(), error))?;
        let system = fstatfs(&file).map_err(|errno| Error::new(operation(), errno))?;
        if system.filesystem_type() != NSFS_MAGIC {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "it is not a namespace");
            return Err(Error::new(operation(), error));
        }
        Ok(Self { file, path: path.to_owned() })
    }

    /// The namespace that this thread is in.
    pub fn current() -> Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// Whether both are the same namespace, whatever paths led to them.
    pub fn is_same(&self, other: &Self) -> Result<bool> {
        let identity = |it: &Self| {
            let file = it.file.metadata().map_err(|error| {
                Error::new(format!("examine network namespace {}", it.path.display()), error)
            })?;
            Ok((file.dev(), file.ino()))
        };
        Ok(identity(self)? == identity(other)?)
    }

    /// Does something inside the namespace: open a socket, write its sysctls. This thread is back
    /// where it was when this returns.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> Result<T> {
        let outside = Self::current()?;
        setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(|errno| {
            Error::new(format!("enter network namespace {}", self.path.display()), errno)
        })?;
        let _back = Return(&outside);
        Ok(work())
    }

    /// Does something inside a new namespace, which vanishes with what is made in it: to try out
    /// what the kernel can. This thread is back where it was when this returns.
    pub fn in_new<T>(work: impl FnOnce() -> T) -> Result<T> {
        let outside = Self::current()?;
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::new("make a network namespace", errno))?;
        let _back = Return(&outside);
        Ok(work())
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The descriptor's number, for messages to the kernel that name a namespace by it.
    pub(crate) fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Brings the thread back, also when the work inside panics.
struct Return<'a>(&'a Netns);

impl Drop for Return<'_> {
    fn drop(&mut self) {
        if let Err(errno) = setns(&self.0.file, CloneFlags::CLONE_NEWNET) {
            // Whatever came next would happen to the wrong machine.
            eprintln!("return to network namespace {}: {errno}", self.0.path.display());
            process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn what_is_no_namespace_is_refused() {
        let gone = Netns::open(Path::new("/run/netns/there-is-no-such")).unwrap_err();
        assert!(gone.is_not_found());
        let file = Netns::open(Path::new("/proc/self/status")).unwrap_err();
        assert!(file.cause.to_string().contains("not a namespace"), "{file:?}");
        let other = Netns::open(Path::new("/proc/self/ns/uts")).unwrap();
        assert_eq!(other.enter(|| ()).unwrap_err().errno(), Some(Errno::EINVAL));
    }

    #[test]
    fn work_happens_inside_and_the_thread_comes_back() {
        std::thread::spawn(|| {
            let outside = Netns::current().unwrap();
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let inside = Netns::current().unwrap();
            assert!(!inside.is_same(&outside).unwrap());
            let seen = outside.enter(|| Netns::current().unwrap()).unwrap();
            assert!(seen.is_same(&outside).unwrap());
            assert!(Netns::current().unwrap().is_same(&inside).unwrap());
            let new = Netns::in_new(|| Netns::current().unwrap()).unwrap();
            assert!(!new.is_same(&inside).unwrap() && !new.is_same(&outside).unwrap());
            assert!(Netns::current().unwrap().is_same(&inside).unwrap());
        })
        .join()
        .unwrap();
    }
}
