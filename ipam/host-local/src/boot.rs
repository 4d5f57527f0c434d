//! The boot of the kernel in which a lease was made.
//!
//! Every boot has an ID (random(4)). A lease has that ID in an extended attribute, which the reference plugin
//! and listings of the directory ignore. If it differs from the kernel's ID, the lease was made before the
//! last boot, and its container no longer exists. A lease without the attribute never counts as made before
//! the last boot. The reference plugin writes none, and some file systems do not support it.

use std::fs::{self, File};
use std::path::Path;

use rustix::fs::{XattrFlags, fsetxattr, getxattr};

const KERNEL_BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const ATTRIBUTE: &str = "user.podwire.boot";
/// The length of a UUID in bytes.
const LENGTH: usize = 36;

/// The ID of a boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootId(String);

impl BootId {
    /// The ID of the current boot; `None` if it cannot be read. Then no lease counts as made before the boot.
    #[must_use]
    pub fn current() -> Option<Self> {
        let text = fs::read_to_string(KERNEL_BOOT_ID).ok()?;
        Some(Self(text.trim_ascii().to_owned())).filter(|id| id.0.len() == LENGTH)
    }

    /// Marks a lease as made in this boot. If the file system does not support it, the lease has no mark.
    pub fn mark(&self, lease: &File) {
        let _ = fsetxattr(lease, ATTRIBUTE, self.0.as_bytes(), XattrFlags::empty());
    }

    /// Whether a lease has a mark of any boot.
    #[must_use]
    pub fn is_marked(lease: &Path) -> bool {
        getxattr(lease, ATTRIBUTE, &mut [0; LENGTH]).is_ok()
    }

    /// Whether a lease has the mark of another boot.
    #[must_use]
    pub fn is_after(&self, lease: &Path) -> bool {
        let mut mark = [0; LENGTH];
        match getxattr(lease, ATTRIBUTE, &mut mark) {
            Ok(LENGTH) => mark != self.0.as_bytes(),
            _ => false,
        }
    }
}
