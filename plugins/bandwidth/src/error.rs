//! What can go wrong while a pod is limited, and the codes for it.

use cni::Code;

/// Why a pod could not be limited, checked or let go.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// As in every plugin that has to do with a pod's interface.
    #[error(transparent)]
    Attach(#[from] attach::Error),
    /// The command came without what it needs.
    #[error(transparent)]
    Call(#[from] cni::Error),
    /// The pod's interface is not one end of a veth pair whose other end is on the node.
    #[error(
        "the pod is not connected by a veth pair, on whose node's end limits are put; let \"bridge\" \
         or \"ptp\" go before \"bandwidth\""
    )]
    NoVeth {
        /// What is missing.
        source: attach::Error,
    },
    /// The result of the plugins before does not tell of the node's end.
    #[error(
        "key \"prevResult\" does not tell of {name}, the node's end of the pod's interface {ifname}"
    )]
    NotTold {
        /// The node's end.
        name: String,
        /// The pod's.
        ifname: String,
    },
    /// The pod's ifb device is there already: one name serves all interfaces that the container has
    /// in the network.
    #[error(
        "link {name} is there already{}; a container can have one interface of each network whose \
         egress is limited: is it attached twice?",
        Owner(owner)
    )]
    Attached {
        /// The link.
        name: String,
        /// Whose it is, as `NETWORK/CONTAINER/IFNAME`; empty if nobody noted that.
        owner: String,
    },
}

impl Error {
    /// What CHECK finds missing, ADD was never given.
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
            Error::NoVeth { .. } | Error::NotTold { .. } => Code::InvalidConfig,
            Error::Attached { .. } => Code::Conflict,
        };
        Self::from_source(code, &error)
    }
}

/// Set off by a comma, where there is one.
struct Owner<'a>(&'a str);

impl std::fmt::Display for Owner<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ", of {}", self.0) }
    }
}
