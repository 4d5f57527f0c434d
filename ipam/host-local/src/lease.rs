//! A lease: a file with the address as its name and `ID\r\nIFNAME` as its content.

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

/// Only the plugin reads the file.
const MODE: u32 = 0o600;

/// The owner of a lease, from its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// An attachment.
    Attachment(Attachment),
    /// All interfaces of a container: written by a reference plugin before 0.7.
    Container(ContainerId),
    /// None: a crash has interrupted the write, so the ADD has not succeeded.
    Unfinished,
    /// A text that is not a container ID, with which an administrator reserves the address.
    Other,
}

/// A lease that has no name yet. Its content is written first, so that it appears in the directory complete.
/// If the process ends before that, the file vanishes.
#[derive(Debug)]
pub enum Draft {
    /// A file without a name. Each address gives it a name.
    Unnamed(File),
    /// For a file system without unnamed files: each lease is created under its name. A crash before the
    /// write leaves an empty file.
    Named {
        /// The content.
        text: String,
        /// The boot to mark them with.
        boot: Option<BootId>,
        /// The files made so far.
        written: RefCell<Vec<File>>,
    },
}

impl Owner {
    /// Reads the content of a lease of `network`.
    #[must_use]
    pub fn parse(content: &[u8], network: &NetworkName) -> Self {
        // After a power loss, a file system can return zeros for data that was not written.
        let Some(text) = content.iter().any(|byte| *byte != 0).then_some(content) else {
            return Self::Unfinished;
        };
        let Ok(text) = std::str::from_utf8(text).map(str::trim) else {
            return Self::Other;
        };
        if text.is_empty() {
            return Self::Unfinished;
        }
        let (container, ifname) = match text.split_once("\r\n") {
            Some((container, ifname)) => (container, Some(ifname)),
            None => (text, None),
        };
        let Ok(container_id) = container.parse() else { return Self::Other };
        match ifname.map(str::parse) {
            None => Self::Container(container_id),
            Some(Ok(ifname)) => {
                Self::Attachment(Attachment { network: network.clone(), container_id, ifname })
            }
            Some(Err(_)) => Self::Other,
        }
    }

    /// Whether the owner is the attachment, or its whole container.
    #[must_use]
    pub fn is(&self, attachment: &Attachment) -> bool {
        match self {
            Self::Attachment(owner) => owner == attachment,
            Self::Container(owner) => *owner == attachment.container_id,
            Self::Unfinished | Self::Other => false,
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
            Self::Unfinished => f.write_str("no container"),
            Self::Other => f.write_str("the administrator, by a text that is not a container ID"),
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
            // The errors of open(2) for a file system without unnamed files, and of older kernels.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOSYS | Errno::INVAL) => {
                Ok(Self::named(attachment, boot))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn named(attachment: &Attachment, boot: Option<&BootId>) -> Self {
        Self::Named { text: text(attachment), boot: boot.cloned(), written: RefCell::default() }
    }

    /// Creates the lease at `path`; `false` if one exists.
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

    /// Waits until the published leases are on disk.
    ///
    /// One fsync(2) of the file also writes its names, because a journal commits links and inode together. On
    /// other file systems, a power loss can remove the lease, but it also ends the container.
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
        assert_eq!(owner(""), Owner::Unfinished);
        assert_eq!(owner(" \r\n"), Owner::Unfinished);
        assert_eq!(owner("\0\0\0"), Owner::Unfinished);
        assert_eq!(owner("used by the printer"), Owner::Other);
        assert_eq!(owner("c1\r\na/b"), Owner::Other);
        assert_eq!(Owner::parse(b"c1\xff", &network), Owner::Other);

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
