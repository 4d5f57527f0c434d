//! Which boot of the kernel a lease was made in.
//!
//! Every boot has an ID of its own (random(4)). A lease carries that of its boot in an extended
//! attribute, which neither the reference plugin nor a listing of the directory sees. A lease
//! whose ID is another one than the kernel's was made before the last boot, and what it was made
//! for is gone. A lease without one - the reference plugin's, or on a file system that keeps no
//! attributes - is never taken for old.

use std::fs::{self, File};
use std::path::Path;

use rustix::fs::{XattrFlags, fsetxattr, getxattr};

const KERNEL_BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const ATTRIBUTE: &str = "user.podwire.boot";
/// The length of a UUID as text.
const LENGTH: usize = 36;

/// The ID of a boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootId(String);

impl BootId {
    /// The ID of the running kernel's boot; `None` if it cannot be read, and then no lease is old.
    #[must_use]
    pub fn current() -> Option<Self> {
        let text = fs::read_to_string(KERNEL_BOOT_ID).ok()?;
        Some(Self(text.trim_ascii().to_owned())).filter(|id| id.0.len() == LENGTH)
    }

    /// Marks a lease as made in this boot. Where that is not possible, the lease counts as one of
    /// unknown age.
    pub fn mark(&self, lease: &File) {
        let _ = fsetxattr(lease, ATTRIBUTE, self.0.as_bytes(), XattrFlags::empty());
    }

    /// Whether a lease was marked, in whatever boot.
    #[must_use]
    pub fn is_marked(lease: &Path) -> bool {
        getxattr(lease, ATTRIBUTE, &mut [0; LENGTH]).is_ok()
    }

    /// Whether a lease was provably made in another boot than this one.
    #[must_use]
    pub fn is_after(&self, lease: &Path) -> bool {
        let mut mark = [0; LENGTH];
        match getxattr(lease, ATTRIBUTE, &mut mark) {
            Ok(LENGTH) => mark != self.0.as_bytes(),
            _ => false,
        }
    }
}
