//! The errors of the plugin, and their codes.

use cni::Code;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An error that all plugins have which work on a pod's interface.
    #[error(transparent)]
    Attach(#[from] attach::Error),
    /// A value that the command needs is missing.
    #[error(transparent)]
    Call(#[from] cni::Error),
    /// The pod's interface is not one end of a veth pair whose other end is on the node.
    #[error(
        "the pod's interface must be a veth pair with one end on the node; in the list of plugins, write \
         \"bridge\" or \"ptp\" before \"bandwidth\""
    )]
    NoVeth {
        /// The part that is missing.
        source: attach::Error,
    },
    /// The result of the previous plugin does not contain the node's end.
    #[error(
        "key \"prevResult\" does not contain {name}, the node's end of the pod's interface {ifname}"
    )]
    NotInResult {
        /// The name of the node's end.
        name: String,
        /// The name of the pod's end.
        ifname: String,
    },
    /// The pod's ifb device exists already. All interfaces that a container has in one network share one
    /// name.
    #[error(
        "link {name} exists already{}; a container can have one interface with limited egress in each \
         network; detach the other one first",
        Owner(owner)
    )]
    Attached {
        /// The link.
        name: String,
        /// Its owner, as `NETWORK/CONTAINER/IFNAME`; empty if it has no alias.
        owner: String,
    },
}

impl Error {
    /// The error of an ADD, for which a missing part of the veth pair is an error of the configuration.
    pub(crate) fn at_add(self) -> Self {
        match self {
            Self::Attach(source @ attach::Error::Changed { .. }) => Self::NoVeth { source },
            other => other,
        }
    }
}

impl From<kernel::Error> for Error {
    fn from(error: kernel::Error) -> Self {
        Self::Attach(error.into())
    }
}

impl From<Error> for cni::Error {
    fn from(error: Error) -> Self {
        let code = match error {
            Error::Attach(error) => return error.into(),
            Error::Call(error) => return error,
            Error::NoVeth { .. } | Error::NotInResult { .. } => Code::InvalidConfig,
            Error::Attached { .. } => Code::Conflict,
        };
        Self::from_source(code, &error)
    }
}

/// The owner after a comma; nothing if there is none.
struct Owner<'a>(&'a str);

impl std::fmt::Display for Owner<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ", of {}", self.0) }
    }
}
