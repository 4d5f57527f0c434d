//! Why a command of the program failed.

use std::io;

use conflist::{Error, with_causes};

/// Why a command was not even begun, or did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Network(#[from] Error),
    #[error("container ID")]
    ContainerId(#[source] cni::name::InvalidName),
    #[error("CNI_IFNAME")]
    IfName(#[source] cni::name::InvalidName),
    #[error("NETNS is empty: which namespace? (a DEL goes without, given --container-id)")]
    NoNetns,
    #[error(transparent)]
    Args(cni::Error),
    #[error(transparent)]
    Result(cni::Error),
    #[error("a purge removes the network of all pods: there is no terminal to ask on, use --yes")]
    NoTerminal,
    #[error("read the answer")]
    Answer(#[source] io::Error),
    #[error("print on stdout")]
    Print(#[source] io::Error),
    #[error("{add}; and undoing it: {del}", add = with_causes(add), del = with_causes(&**del))]
    NotUndone { add: Box<Failure>, del: Box<Error> },
    #[error("CAP_ARGS is no JSON object")]
    CapabilityArgs(#[source] serde_json::Error),
    #[error("find the working directory")]
    CurrentDir(#[source] io::Error),
    #[error("plugin {kind:?} does not support cniVersion {version} of network {network:?}")]
    Version { network: String, version: cni::Version, kind: String },
}
