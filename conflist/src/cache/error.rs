//! Why a result could not be kept, read or removed.

use std::io;
use std::path::PathBuf;

use cni::{ContainerId, IfName};

/// Why a result could not be kept, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The file could not be written.
    #[error("keep the result in {}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The file could not be read.
    #[error("read the result kept in {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The file is not what libcni writes.
    #[error("read the result kept in {}", file.display())]
    Invalid {
        /// The file.
        file: PathBuf,
        /// The error of the parser.
        #[source]
        source: serde_json::Error,
    },
    /// The result in it is not valid.
    #[error("read the result kept of network {network:?}")]
    Result {
        /// The network.
        network: String,
        /// What is wrong with it.
        #[source]
        source: cni::Error,
    },
    /// Another attachment has the file: names may contain the dash that separates them.
    #[error(
        "{} is taken by container {id}, interface {ifname}, network {network:?}", file.display()
    )]
    Taken {
        /// The file.
        file: PathBuf,
        /// The network of that attachment.
        network: String,
        /// Its container.
        id: ContainerId,
        /// Its interface.
        ifname: IfName,
    },
    /// The file could not be removed.
    #[error("remove the result kept in {}", file.display())]
    Remove {
        /// The file.
        file: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// The lock that excludes GC during ADD and DEL could not be taken.
    #[error("lock {}", file.display())]
    Lock {
        /// The file.
        file: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
}
