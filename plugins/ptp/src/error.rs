//! What can go wrong in `ptp`, and the codes for it.

use cni::{Cidr, Code};

/// Why a pod could not be connected to the node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// As in every plugin that attaches a pod.
    #[error(transparent)]
    Attach(#[from] attach::Error),
    /// There is nothing that the pod's packets could be sent to.
    #[error(
        "the IPAM plugin gave {address} without a gateway of its family, which the node's end of \
         the link needs as its address"
    )]
    NoGateway {
        /// The pod's address.
        address: Cidr,
    },
}

impl From<kernel::Error> for Error {
    fn from(error: kernel::Error) -> Self {
        Self::Attach(error.into())
    }
}

impl From<Error> for cni::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Attach(error) => error.into(),
            Error::NoGateway { .. } => Self::from_source(Code::Delegate, &error),
        }
    }
}
