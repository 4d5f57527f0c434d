//! Why a demonstration failed.

use std::path::PathBuf;

/// Why the demonstration failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    /// A namespace could not be made.
    #[error("{0}: {1}; run as root, or where the kernel lets users make user namespaces")]
    Namespace(&'static str, nix::Error),
    /// A file could not be read or written.
    #[error("{0} {1}: {2}")]
    File(&'static str, PathBuf, std::io::Error),
    /// The page was not served, or another one was.
    #[error("{0}: {1}")]
    Page(String, String),
    /// The machines could not be set up, or a program on one of them failed.
    #[error("{0}")]
    Scene(String),
    /// Something is left that should have been removed, or something is missing.
    #[error("{0}")]
    Evidence(String),
}
