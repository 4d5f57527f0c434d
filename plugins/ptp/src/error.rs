//! The errors of `ptp`, and their codes.

use cni::{Cidr, Code};

/// Why a pod could not be connected to the node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An error that every plugin has that connects a pod.
    #[error(transparent)]
    Attach(#[from] attach::Error),
    /// An address of the pod has no gateway.
    #[error(
        "the IPAM plugin gave {address} without a gateway of its family; ptp needs one, because the \
         gateway is the address of the node's end"
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
