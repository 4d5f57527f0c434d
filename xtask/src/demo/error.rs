//! Why a demonstration failed.

/// Why the demonstration failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
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
