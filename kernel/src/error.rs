//! Errors of operations on the kernel.

use std::fmt;
use std::io;
use std::path::Path;

use netlink_packet_core::DecodeError;
use nix::errno::Errno;

/// An operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("{operation}")]
pub struct Error {
    /// The operation and its object: `create veth pair vethab12`.
    pub operation: String,
    /// Why it failed.
    #[source]
    pub cause: Cause,
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The kernel refused it.
    #[error("{}{}", .errno.desc(), Text(.text.as_deref()))]
    Refused {
        /// The error number.
        errno: Errno,
        /// The kernel's text (`NLMSGERR_ATTR_MSG`), if it gave one.
        text: Option<String>,
    },
    /// A file or socket could not be used.
    #[error("{0}")]
    Io(io::Error),
    /// A reply has an unknown format.
    #[error("the kernel's reply cannot be read: {0}")]
    Decode(DecodeError),
    /// A reply did not fit into the buffer.
    #[error("the kernel's reply has {0} bytes, more than the buffer")]
    Truncated(usize),
    /// The kernel carried out or refused the request, but its answer was not received.
    #[error("the kernel's answer was not received: {}; it is not known whether this was done", .0.desc())]
    Unanswered(Errno),
    /// This thread was in another network namespace and could not return to its own.
    #[error("{}; this thread is in the wrong network namespace and can do nothing there", .0.desc())]
    Stranded(Errno),
    /// The second part of an operation failed, and the first part could not be undone: both errors.
    #[error("{0}")]
    NotUndone(String),
    /// A program failed: its exit status and its output.
    #[error("{0}")]
    Program(String),
    /// Another program held the lock until the time limit.
    #[error("{0}")]
    Locked(String),
    /// There are legacy iptables rules, and no program that can change them.
    #[error(
        "this node uses the legacy tables of iptables, but PATH has neither iptables-legacy-restore nor an \
         iptables-restore whose --version prints (legacy); install the legacy programs of iptables, or \
         move this node's rules to nf_tables"
    )]
    NoLegacyProgram,
    /// The objects changed in each attempt to list them.
    #[error("the list changed {0} times while it was being read")]
    Unstable(u32),
}

/// The result of an operation on the kernel.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of an operation.
    pub fn new(operation: impl Into<String>, cause: impl Into<Cause>) -> Self {
        Self { operation: operation.into(), cause: cause.into() }
    }

    /// The kernel's error number, if the kernel refused the operation.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        self.cause.errno()
    }

    /// Whether the object of the operation does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self.errno(), Some(Errno::ENOENT | Errno::ENODEV | Errno::ESRCH))
    }

    /// Whether the object of the operation is in use.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.errno() == Some(Errno::EBUSY)
    }

    /// Whether the operation is not valid for its objects.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        self.errno() == Some(Errno::EINVAL)
    }

    /// Whether the object exists already.
    #[must_use]
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(Errno::EEXIST)
    }

    /// Whether the kernel does not have the feature that the operation needs.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        self.errno() == Some(Errno::EOPNOTSUPP)
    }

    /// Whether another program held a lock. The operation may succeed later.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        matches!(self.cause, Cause::Locked(_))
    }

    /// Whether a program must be installed first.
    #[must_use]
    pub fn needs_program(&self) -> bool {
        matches!(self.cause, Cause::NoLegacyProgram)
    }

    /// Whether the kernel refused the operation, so that nothing was changed.
    ///
    /// Otherwise the operation, or a part of it, may have been carried out: the kernel's answer was lost or
    /// could not be read, a part could not be undone, or a program failed after its first changes. Then the
    /// caller must undo the operation although it failed:
    ///
    /// ```
    /// # use kernel::{Cause, Error};
    /// # use nix::errno::Errno;
    /// assert!(Error::new("add rule", Errno::EPERM).is_refusal());
    /// assert!(!Error::new("add rule", Cause::Unanswered(Errno::ENOBUFS)).is_refusal());
    /// ```
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self.cause {
            Cause::Refused { .. }
            | Cause::Io(_)
            | Cause::Locked(_)
            | Cause::NoLegacyProgram
            | Cause::Unstable(_) => true,
            Cause::Decode(_)
            | Cause::Truncated(_)
            | Cause::Unanswered(_)
            | Cause::Stranded(_)
            | Cause::NotUndone(_)
            | Cause::Program(_) => false,
        }
    }

    /// Adds a second failure to the operation's text.
    pub(crate) fn also(&mut self, text: &str) {
        self.operation = format!("{}, {text}", self.operation);
    }
}

impl Cause {
    /// The kernel's error number, if the kernel refused the operation.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Io(error) => error.raw_os_error().map(Errno::from_raw),
            _ => None,
        }
    }
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<DecodeError> for Cause {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

impl From<Errno> for Cause {
    fn from(errno: Errno) -> Self {
        Self::Refused { errno, text: None }
    }
}

/// The error of opening a file. Without a `/proc`, all files below it are missing, which does not mean that
/// the namespace or setting does not exist.
pub(crate) fn file_error(path: &Path, error: io::Error) -> io::Error {
    let is_below = error.kind() == io::ErrorKind::NotFound && path.starts_with("/proc");
    if is_below && !Path::new("/proc/self").exists() {
        return io::Error::other("no /proc is mounted here; mount it");
    }
    error
}

/// The kernel's text in parentheses, if there is one.
struct Text<'a>(Option<&'a str>);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |text| write!(f, " ({text})"))
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn the_kernels_words_are_kept() {
        let text = Some("Nexthop has invalid gateway".to_owned());
        let error = Error::new("add route", Cause::Refused { errno: Errno::ENETUNREACH, text });
        assert_eq!(error.to_string(), "add route");
        assert_eq!(
            error.source().map(ToString::to_string).as_deref(),
            Some("Network is unreachable (Nexthop has invalid gateway)")
        );
        assert_eq!(error.errno(), Some(Errno::ENETUNREACH));
        assert!(!error.is_not_found() && !error.is_busy());
        assert!(Error::new("x", Errno::EBUSY).is_busy());
        assert!(Error::new("x", Errno::ENODEV).is_not_found());
        assert!(Error::new("x", io::Error::from_raw_os_error(17)).is_exists());
    }
}
