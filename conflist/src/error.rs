//! Why a command on a network did not succeed.

use std::fmt;
use std::path::PathBuf;

use cni::{Command, ContainerId, IfName, Version};

use crate::cache::CacheError;
use crate::causes::with_causes;
use crate::files::FilesError;

/// Why a command on a network did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name of the network is not valid.
    #[error(transparent)]
    Name(#[from] cni::name::InvalidName),
    /// The network's files could not be read.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A result could not be kept, read or removed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A plugin failed, or could not be run.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// ADD: the container has this interface already. Another ADD would fail, and undoing it would remove the
    /// interface.
    #[error("container {id} already has interface {ifname} in network {network:?}: run DEL first")]
    Attached {
        /// The network that the interface belongs to.
        network: String,
        /// The container.
        id: ContainerId,
        /// The interface.
        ifname: IfName,
    },
    /// CHECK: there is no kept result of an ADD.
    #[error(
        "no result of an ADD is kept for container {id}, interface {ifname}, network {network:?}"
    )]
    NotAttached {
        /// The network.
        network: String,
        /// The container.
        id: ContainerId,
        /// The interface.
        ifname: IfName,
    },
    /// CHECK exists from version 0.4.0 on.
    #[error("CHECK needs a network of cniVersion 0.4.0 or later, {network:?} has {version}")]
    NoCheck {
        /// The network.
        network: String,
        /// Its version.
        version: Version,
    },
    /// ADD failed, and so did the DEL that should have undone it.
    #[error("{add}; undoing it failed, too: {del}", add = with_causes(add), del = with_causes(del))]
    NotUndone {
        /// The error of the ADD.
        add: Box<Error>,
        /// The error of the DEL.
        del: Box<Error>,
    },
    /// GC: an attachment that is not valid could not be detached.
    #[error("detach container {id}, interface {ifname}, which is not valid")]
    NotDetached {
        /// The container.
        id: ContainerId,
        /// The interface.
        ifname: IfName,
        /// What went wrong.
        #[source]
        error: Box<Error>,
    },
    /// GC: kept attachments are valid, but not all of them can be read.
    #[error("remove nothing of network {network:?}, because a kept result cannot be read")]
    Unreadable {
        /// The network.
        network: String,
        /// The first file that cannot be read.
        #[source]
        error: CacheError,
    },
    /// GC: the name of a file can also be that of another network.
    #[error("keep {}, because it may belong to network {other:?}", file.display())]
    Ambiguous {
        /// The file.
        file: PathBuf,
        /// The other network.
        other: String,
    },
    /// GC continues after errors: these are all of them.
    #[error("{}", Joined(.0))]
    Several(Vec<Error>),
}

/// A plugin of a chain failed, or could not be run.
#[derive(Debug, thiserror::Error)]
#[error(
    "{command} of plugin {kind:?} ({position} of {of} of network {network:?})",
    command = command.as_str()
)]
pub struct PluginError {
    /// The network.
    pub network: String,
    /// The command.
    pub command: Command,
    /// Its type.
    pub kind: String,
    /// Its place in the chain, from 1.
    pub position: usize,
    /// The length of the chain.
    pub of: usize,
    /// The error that it printed, or why it could not be run.
    #[source]
    pub error: Box<cni::Error>,
}

struct Joined<'a>(&'a [Error]);

impl fmt::Display for Joined<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(|error| with_causes(error)).collect();
        f.write_str(&texts.join("; also: "))
    }
}
