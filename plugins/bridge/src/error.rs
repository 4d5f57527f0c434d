//! The errors of `bridge`, and their codes.

use std::io;

use cni::Code;
use ipnetwork::IpNetwork;

/// Why a pod could not be connected to the bridge.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An error that every plugin has that connects a pod.
    #[error(transparent)]
    Attach(#[from] attach::Error),
    /// Another link has the name of the bridge.
    #[error("link {name} is a {kind}, not a bridge; choose another name for \"bridge\"")]
    NotABridge {
        /// The name.
        name: String,
        /// Its kind.
        kind: String,
    },
    /// The bridge has an address that excludes the gateway's.
    #[error(
        "bridge {bridge} has the address {other}, so it cannot have the gateway's address {gateway}; \
         delete {other}, or set \"forceAddress\""
    )]
    OtherAddress {
        /// The bridge.
        bridge: String,
        /// The address that it has.
        other: IpNetwork,
        /// The address that it must have.
        gateway: IpNetwork,
    },
    /// The kernel was built without VLANs of bridges.
    #[error(
        "keys \"vlan\" and \"vlanTrunk\" need a kernel whose bridges support VLANs: \
         CONFIG_BRIDGE_VLAN_FILTERING is not set in this one"
    )]
    NoVlans,
    /// Random bytes for a hardware address could not be read.
    #[error("read /dev/urandom for the bridge's hardware address")]
    Random(#[source] io::Error),
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
            Error::NotABridge { .. } | Error::OtherAddress { .. } => Code::Conflict,
            Error::NoVlans => Code::UnsupportedField,
            Error::Random(_) => Code::Io,
        };
        Self::from_source(code, &error)
    }
}

/// CHECK found that something is missing.
pub(crate) fn missing(object: impl Into<String>) -> Error {
    attach::Error::missing(object).into()
}

/// CHECK found that something is not as ADD made it.
pub(crate) fn changed(object: impl Into<String>, how: &str) -> Error {
    attach::Error::changed(object, how).into()
}
