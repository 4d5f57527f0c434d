//! What can go wrong in `bridge`, and the codes for it.

use std::io;

use cni::Code;
use ipnetwork::IpNetwork;

/// Why a pod could not be connected to the bridge.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// As in every plugin that attaches a pod.
    #[error(transparent)]
    Attach(#[from] attach::Error),
    /// The name is taken by something else.
    #[error("link {name} exists and is no bridge but {kind}; choose another name for \"bridge\"")]
    NotABridge {
        /// The name.
        name: String,
        /// What it is.
        kind: String,
    },
    /// The bridge has an address that excludes the gateway's.
    #[error(
        "bridge {bridge} has the address {other}, which excludes the gateway's, {gateway}; \
         remove it, or set \"forceAddress\""
    )]
    OtherAddress {
        /// The bridge.
        bridge: String,
        /// The address that it has.
        other: IpNetwork,
        /// The address that it has to have.
        gateway: IpNetwork,
    },
    /// The kernel was built without VLANs of bridges.
    #[error(
        "this kernel's bridges have no VLANs (CONFIG_BRIDGE_VLAN_FILTERING is not set), which \
         keys \"vlan\" and \"vlanTrunk\" ask for"
    )]
    NoVlans,
    /// There is no randomness for a hardware address.
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

/// CHECK found that something has gone.
pub(crate) fn missing(object: impl Into<String>) -> Error {
    attach::Error::missing(object).into()
}

/// CHECK found that something is not as ADD made it.
pub(crate) fn changed(object: impl Into<String>, how: &str) -> Error {
    attach::Error::changed(object, how).into()
}
