//! A lease: a file named like the address, holding `ID\r\nIFNAME`.

use std::cell::RefCell;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use cni::file::or_remove;
use cni::{Attachment, ContainerId, NetworkName};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, open};
use rustix::io::Errno;

use crate::boot::BootId;

/// Only the plugin has to read it.
const MODE: u32 = 0o600;

/// Whom a lease belongs to, going by its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// An attachment.
    Attachment(Attachment),
    /// A container, whichever its interface: written by a reference plugin before 0.7.
    Container(ContainerId),
    /// Nobody: the write was cut off by a crash, and the ADD it was part of has not succeeded.
    Nobody,
    /// Somebody who is no container; an administrator's note keeps an address out of use.
    Stranger,
}

/// A lease that has no name yet. It is given all its content first, so that it can appear in the
/// directory only as a whole, and vanishes with the process if that never happens.
#[derive(Debug)]
pub enum Draft {
    /// A file without a name, which gets one for each address.
    Unnamed(File),
    /// Where the file system knows no such files: each lease is created under its name, and an
    /// empty one is what a crash in between leaves behind.
    Named {
        /// The content.
        text: String,
        /// The mark.
        boot: Option<BootId>,
        /// The files made so far.
        written: RefCell<Vec<File>>,
    },
}

impl Owner {
    /// Reads the content of a lease of `network`.
    #[must_use]
    pub fn parse(content: &[u8], network: &NetworkName) -> Self {
        // A file system may give zeros for data that a power loss kept from being written.
        let Some(text) = content.iter().any(|byte| *byte != 0).then_some(content) else {
            return Self::Nobody;
        };
        let Ok(text) = std::str::from_utf8(text).map(str::trim) else {
            return Self::Stranger;
        };
        if text.is_empty() {
            return Self::Nobody;
        }
        let (container, ifname) = match text.split_once("\r\n") {
            Some((container, ifname)) => (container, Some(ifname)),
            None => (text, None),
        };
        let Ok(container_id) = container.parse() else { return Self::Stranger };
        match ifname.map(str::parse) {
            None => Self::Container(container_id),
            Some(Ok(ifname)) => {
                Self::Attachment(Attachment { network: network.clone(), container_id, ifname })
            }
            Some(Err(_)) => Self::Stranger,
        }
    }

    /// Whether the lease is the attachment's, or that of its container as a whole.
    #[must_use]
    pub fn is(&self, attachment: &Attachment) -> bool {
        match self {
            Self::Attachment(owner) => owner == attachment,
            Self::Container(owner) => *owner == attachment.container_id,
            Self::Nobody | Self::Stranger => false,
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attachment(Attachment { container_id, ifname, .. }) => {
                write!(f, "container {container_id}, interface {ifname}")
            }
            Self::Container(owner) => write!(f, "container {owner}"),
            Self::Nobody => f.write_str("nobody"),
            Self::Stranger => f.write_str("somebody who is no container"),
        }
    }
}

impl Draft {
    /// A lease of `attachment` in `dir`, made in this boot.
    pub fn new(dir: &Path, attachment: &Attachment, boot: Option<&BootId>) -> io::Result<Self> {
        let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
        match open(dir, flags, Mode::from_raw_mode(MODE)) {
            Ok(file) => {
                let file = File::from(file);
                fill(&file, &text(attachment), boot)?;
                Ok(Self::Unnamed(file))
            }
            // What open(2) names for a file system without unnamed files, and older kernels had.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOSYS | Errno::INVAL) => {
                Ok(Self::named(attachment, boot))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn named(attachment: &Attachment, boot: Option<&BootId>) -> Self {
        Self::Named { text: text(attachment), boot: boot.cloned(), written: RefCell::default() }
    }

    /// Makes it the lease at `path`; `false` if there is one already.
    pub fn publish(&self, path: &Path) -> io::Result<bool> {
        match self {
            Self::Unnamed(file) => {
                let from = format!("/proc/self/fd/{}", file.as_raw_fd());
                match linkat(CWD, from, CWD, path, AtFlags::SYMLINK_FOLLOW) {
                    Ok(()) => Ok(true),
                    Err(Errno::EXIST) => Ok(false),
                    Err(error) => Err(error.into()),
                }
            }
            Self::Named { text, boot, written } => {
                let file =
                    match OpenOptions::new().write(true).create_new(true).mode(MODE).open(path) {
                        Ok(file) => file,
                        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                            return Ok(false);
                        }
                        Err(error) => return Err(error),
                    };
                or_remove(path, || fill(&file, text, boot.as_ref()))?;
                written.borrow_mut().push(file);
                Ok(true)
            }
        }
    }

    /// Waits until what was published is on disk.
    ///
    /// One fsync(2) of the file takes its new names along: a journal commits the link and the
    /// inode together. Where that does not hold, a power loss costs the lease and its owner alike.
    pub fn sync(&self) -> io::Result<()> {
        match self {
            Self::Unnamed(file) => file.sync_all(),
            Self::Named { written, .. } => written.borrow().iter().try_for_each(File::sync_all),
        }
    }
}

fn text(Attachment { container_id, ifname, .. }: &Attachment) -> String {
    format!("{container_id}\r\n{ifname}")
}

fn fill(mut file: &File, text: &str, boot: Option<&BootId>) -> io::Result<()> {
    file.write_all(text.as_bytes())?;
    if let Some(boot) = boot {
        boot.mark(file);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::{TempDir, attachment};

    #[test]
    fn owners() {
        let network = "net".parse().unwrap();
        let owner = |text: &str| Owner::parse(text.as_bytes(), &network);
        let c1 = attachment("c1", "eth0");
        assert_eq!(owner("c1\r\neth0"), Owner::Attachment(c1.clone()));
        assert_eq!(owner(" c1\r\neth0\n"), Owner::Attachment(c1.clone()));
        assert_eq!(owner("c1"), Owner::Container("c1".parse().unwrap()));
        assert_eq!(owner("c1\r\n"), Owner::Container("c1".parse().unwrap()));
        assert_eq!(owner(""), Owner::Nobody);
        assert_eq!(owner(" \r\n"), Owner::Nobody);
        assert_eq!(owner("\0\0\0"), Owner::Nobody);
        assert_eq!(owner("the printer's"), Owner::Stranger);
        assert_eq!(owner("c1\r\na/b"), Owner::Stranger);
        assert_eq!(Owner::parse(b"c1\xff", &network), Owner::Stranger);

        assert!(owner("c1\r\neth0").is(&c1) && owner("c1").is(&c1));
        assert!(!owner("c1\r\neth1").is(&c1) && !owner("").is(&c1) && !owner("c").is(&c1));
    }

    #[test]
    fn both_kinds_of_draft_write_the_same() {
        let dir = TempDir::new("draft");
        let c1 = attachment("c1", "eth0");
        let unnamed = Draft::new(dir.path(), &c1, None).unwrap();
        let named = Draft::named(&c1, None);
        for (draft, name) in [(&unnamed, "10.0.0.1"), (&named, "10.0.0.2")] {
            let path = dir.path().join(name);
            assert!(draft.publish(&path).unwrap());
            assert!(!draft.publish(&path).unwrap());
            draft.sync().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "c1\r\neth0");
        }
        assert_eq!(dir.names(), ["10.0.0.1", "10.0.0.2"]);
    }
}
