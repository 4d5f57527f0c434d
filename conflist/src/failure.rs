//! Why a command of the program failed.

use std::io;

use conflist::{Error, with_causes};

/// Why a command was not started, or failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Network(#[from] Error),
    #[error("container ID")]
    ContainerId(#[source] cni::name::InvalidName),
    #[error("CNI_IFNAME")]
    IfName(#[source] cni::name::InvalidName),
    #[error("NETNS must not be empty (only del allows that, with --container-id)")]
    NoNetns,
    #[error(transparent)]
    Args(cni::Error),
    #[error(transparent)]
    Result(cni::Error),
    #[error(
        "a purge removes the network of all pods and must be confirmed: use --yes without a terminal"
    )]
    NoTerminal,
    #[error("read the answer")]
    Answer(#[source] io::Error),
    #[error("print on stdout")]
    Print(#[source] io::Error),
    #[error("{add}; undoing it failed, too: {del}", add = with_causes(add), del = with_causes(&**del))]
    NotUndone { add: Box<Failure>, del: Box<Error> },
    #[error("CAP_ARGS must be a JSON object")]
    CapabilityArgs(#[source] serde_json::Error),
    #[error("find the working directory")]
    CurrentDir(#[source] io::Error),
    #[error("plugin {kind:?} does not support cniVersion {version} of network {network:?}")]
    Version { network: String, version: cni::Version, kind: String },
}
