//! What can go wrong between this process and the kernel.

use std::fmt;
use std::io;
use std::path::Path;

use netlink_packet_core::DecodeError;
use nix::errno::Errno;

/// An operation that did not succeed, with the kernel's own words.
#[derive(Debug, thiserror::Error)]
#[error("{operation}")]
pub struct Error {
    /// What was being done to what: `create veth pair vethab12`.
    pub operation: String,
    /// Why it did not succeed.
    #[source]
    pub cause: Cause,
}

/// Why an operation did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The kernel refused it.
    #[error("{}{}", .errno.desc(), Text(.text.as_deref()))]
    Refused {
        /// The error number.
        errno: Errno,
        /// The extended acknowledgement's text (`NLMSGERR_ATTR_MSG`), if there was one.
        text: Option<String>,
    },
    /// A file or socket could not be used.
    #[error("{0}")]
    Io(io::Error),
    /// A reply could not be understood.
    #[error("read the kernel's reply: {0}")]
    Decode(DecodeError),
    /// A reply did not fit into the buffer.
    #[error("the kernel's reply has {0} bytes, more than the buffer")]
    Truncated(usize),
    /// The kernel has carried out or refused the request, but its answer was not received.
    #[error("receive the kernel's answer: {}; whether this was done is not known", .0.desc())]
    Unanswered(Errno),
    /// This thread was in another network namespace and could not go back to its own.
    #[error("{}; nothing can be done from the namespace where this thread is now", .0.desc())]
    Stranded(Errno),
    /// A part of the operation was done and could not be undone when the rest failed: both failures.
    #[error("{0}")]
    NotUndone(String),
    /// A program failed: how it ended, and what it said.
    #[error("{0}")]
    Program(String),
    /// Another program held the lock until the time limit.
    #[error("{0}")]
    Locked(String),
    /// There are legacy iptables rules, and no program that could change them.
    #[error(
        "the legacy tables of iptables are in use here, and neither an iptables-legacy-restore is in PATH \
         nor an iptables-restore that says (legacy) when it is asked for its --version; install the legacy \
         programs of iptables, or move this node's rules to nf_tables"
    )]
    NoLegacyProgram,
    /// The objects changed again and again while they were being read.
    #[error("the list changed {0} times while it was being read")]
    Unstable(u32),
}

/// The result of an operation on the kernel.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An operation and why it did not succeed.
    pub fn new(operation: impl Into<String>, cause: impl Into<Cause>) -> Self {
        Self { operation: operation.into(), cause: cause.into() }
    }

    /// The kernel's error number, if it was the kernel that refused.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        self.cause.errno()
    }

    /// Whether the object of the operation does not exist (any more).
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self.errno(), Some(Errno::ENOENT | Errno::ENODEV | Errno::ESRCH))
    }

    /// Whether the object of the operation is in use.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.errno() == Some(Errno::EBUSY)
    }

    /// Whether there is such an object already.
    #[must_use]
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(Errno::EEXIST)
    }

    /// Whether the kernel does not have the feature that the operation needs.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        self.errno() == Some(Errno::EOPNOTSUPP)
    }

    /// Whether it may work after another program has released a lock.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        matches!(self.cause, Cause::Locked(_))
    }

    /// Whether a program has to be installed first.
    #[must_use]
    pub fn needs_program(&self) -> bool {
        matches!(self.cause, Cause::NoLegacyProgram)
    }

    /// Whether the kernel refused the operation, so that nothing was changed.
    ///
    /// If not, the operation may have been carried out all the same: the kernel's acknowledgement was lost or
    /// not understood, a part could not be undone, or a program failed that had begun to change things.
    /// Whoever undoes what an operation made must then do so in spite of the error:
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
    /// The kernel's error number, if it was the kernel that refused.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Io(error) => error.raw_os_error().map(Errno::from_raw),
            Self::Decode(_)
            | Self::Truncated(_)
            | Self::Unanswered(_)
            | Self::Stranded(_)
            | Self::NotUndone(_)
            | Self::Program(_)
            | Self::Locked(_)
            | Self::NoLegacyProgram
            | Self::Unstable(_) => None,
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

/// Why a file could not be opened. Without a `/proc`, all files below it are missing, which does not
/// mean that a namespace or a setting has gone.
pub(crate) fn file_error(path: &Path, error: io::Error) -> io::Error {
    let is_below = error.kind() == io::ErrorKind::NotFound && path.starts_with("/proc");
    if is_below && !Path::new("/proc/self").exists() {
        return io::Error::other("no /proc is mounted here; mount it");
    }
    error
}

/// The extended text, set off by a dash where there is one.
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
