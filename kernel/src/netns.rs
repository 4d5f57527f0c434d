//! Network namespaces (`network_namespaces(7)`).

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{FsType, fstatfs};

use crate::error::{Cause, Error, Result, file_error};

/// An open network namespace. It exists at least as long as this value.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: PathBuf,
}

/// `NSFS_MAGIC` of `include/uapi/linux/magic.h`.
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

impl Netns {
    /// Opens the namespace at a path.
    ///
    /// Errors: ENOENT if there is no file, EINVAL if the file is not a namespace.
    pub fn open(path: &Path) -> Result<Self> {
        let operation = || format!("open network namespace {}", path.display());
        // If the file is a pipe, this does not wait for a writer.
        let file = File::options()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(path)
            .map_err(|error| Error::new(operation(), file_error(path, error)))?;
        let system = fstatfs(&file).map_err(|errno| Error::new(operation(), errno))?;
        if system.filesystem_type() != NSFS_MAGIC {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "it is not a namespace");
            return Err(Error::new(operation(), error));
        }
        Ok(Self { file, path: path.to_owned() })
    }

    /// The namespace of this thread.
    pub fn current() -> Result<Self> {
        ensure_home()?;
        Self::current_unchecked()
    }

    fn current_unchecked() -> Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// Whether both are the same namespace. Their paths may differ.
    pub fn is_same(&self, other: &Self) -> Result<bool> {
        let identity = |it: &Self| {
            let file = it.file.metadata().map_err(|error| {
                Error::new(format!("examine network namespace {}", it.path.display()), error)
            })?;
            Ok((file.dev(), file.ino()))
        };
        Ok(identity(self)? == identity(other)?)
    }

    /// Calls `work` inside the namespace, for example to open a socket or to write a sysctl. Then this thread
    /// returns to its own namespace.
    ///
    /// Errors: those of setns(2). If this thread cannot return, the work was done, but its outcome is lost.
    /// Then all functions of this crate that depend on the namespace try to return first, or fail.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> Result<T> {
        if let Err(error) = ensure_home() {
            // If this thread is in this namespace already, changes in it can be undone.
            return if self.is_same(&Self::current_unchecked()?)? {
                Ok(work())
            } else {
                Err(error)
            };
        }
        let outside = Self::current_unchecked()?;
        setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(|errno| {
            Error::new(format!("enter network namespace {}", self.path.display()), errno)
        })?;
        work_and_return(outside, work)
    }

    /// Calls `work` inside a new namespace, to find out what the kernel can do. The namespace is removed with
    /// all that was made in it. Then this thread returns to its own namespace.
    ///
    /// Errors: those of unshare(2) and of [`Netns::enter`].
    pub fn in_new<T>(work: impl FnOnce() -> T) -> Result<T> {
        let outside = Self::current()?;
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::new("make a network namespace", errno))?;
        work_and_return(outside, work)
    }

    /// The path that it was opened with.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file descriptor, for messages that name a namespace by it.
    pub(crate) fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

thread_local! {
    /// The namespace that this thread belongs to, if it could not return to it.
    static HOME: RefCell<Option<Netns>> = const { RefCell::new(None) };
}

/// Makes sure that this thread is in its own namespace. All functions that depend on the namespace call this
/// first, so that they never change the wrong one.
///
/// A thread that could not return from another namespace tries again here. Sockets that are open already are
/// not affected.
///
/// Errors: those of setns(2).
pub(crate) fn ensure_home() -> Result<()> {
    HOME.with_borrow_mut(|home| match home.take() {
        None => Ok(()),
        Some(outside) => {
            let returned = setns(&outside.file, CloneFlags::CLONE_NEWNET);
            returned.map_err(|errno| {
                let operation = format!("return to network namespace {}", outside.path.display());
                *home = Some(outside);
                Error::new(operation, Cause::Stranded(errno))
            })
        }
    })
}

/// Calls `work`, and returns this thread to `outside`.
fn work_and_return<T>(outside: Netns, work: impl FnOnce() -> T) -> Result<T> {
    let back = Return(Some(outside));
    let outcome = work();
    drop(back);
    ensure_home().map(|()| outcome)
}

/// Returns the thread to a namespace, also if the work panics.
struct Return(Option<Netns>);

impl Drop for Return {
    fn drop(&mut self) {
        // If this fails, the next call of `ensure_home` tries again and reports the error.
        HOME.set(self.0.take());
        let _ = ensure_home();
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

    use super::*;
    use crate::rtnl::{Kind, NewLink};
    use crate::{Nfnetlink, Rtnl, sysctl};

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

    /// Takes the right to change namespaces from this thread, or gives it back.
    fn may_change_namespaces(may: bool) {
        let mut sets = capabilities(None).unwrap();
        sets.effective.set(CapabilitySet::SYS_ADMIN, may);
        set_capabilities(None, sets).unwrap();
    }

    /// Before, the process was aborted.
    #[test]
    fn a_thread_that_cannot_go_back() {
        testbed::in_new_netns(|| {
            let (home, rtnl) = (Netns::current().unwrap(), Rtnl::open().unwrap());
            let pod = testbed::Namespace::create();
            let pod = Netns::open(pod.path().as_ref()).unwrap();
            rtnl.create_link(&NewLink::new("home", Kind::Ifb)).unwrap();

            let error = pod.enter(|| may_change_namespaces(false)).unwrap_err();
            assert!(error.operation.starts_with("return to network namespace"), "{error:?}");
            assert!(!error.is_refusal(), "{error:?}");
            // Nothing happens to the wrong machine.
            assert!(
                Rtnl::open().is_err() && Netns::current().is_err() && Nfnetlink::open().is_err()
            );
            assert!(sysctl::set(&["ipv4", "ip_forward"], "1").is_err());
            assert!(home.enter(|| ()).is_err());
            // What can be undone is undone: by a socket that was open, and where this thread is.
            rtnl.link_by_name("home").unwrap().unwrap();
            assert!(Netns::current_unchecked().unwrap().is_same(&pod).unwrap());
            pod.enter(|| ()).unwrap();

            // A refusal that passes.
            may_change_namespaces(true);
            assert!(Netns::current().unwrap().is_same(&home).unwrap());
            Rtnl::open().unwrap().link_by_name("home").unwrap().unwrap();
        });
    }
}
