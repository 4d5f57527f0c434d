//! The directories that the tasks use.

use std::path::{Path, PathBuf};

/// The directory of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/")).to_owned()
}

/// The directory of the built programs, to be copied to `/opt/cni/bin`.
pub(crate) fn dist() -> PathBuf {
    root().join("dist/bin")
}

/// The directory of cargo's build output.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}
