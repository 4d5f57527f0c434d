//! Why a measurement failed.

use std::path::PathBuf;

/// Why a measurement failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// A plugin could not be started.
    #[error("start {}: {}", .0.display(), .1)]
    Start(PathBuf, std::io::Error),
    /// A plugin failed.
    #[error("{command} of {}: {output}", plugin.display())]
    Plugin { plugin: PathBuf, command: String, output: String },
    /// A connection to a hostPort failed.
    #[error("connect to the hostPort: {0}")]
    Visit(std::io::Error),
    /// iperf3 did not report a rate.
    #[error("measure with iperf3: {0}")]
    Iperf(String),
}
