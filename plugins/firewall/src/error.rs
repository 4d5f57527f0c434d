//! The errors, and their codes.

use attach::code_of;
use cni::Code;

use crate::firewalld::bus::BusError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The kernel refused an operation.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// firewalld refused a call, or the call failed.
    #[error(transparent)]
    Firewalld(#[from] BusError),
    #[error(
        "key \"firewalldZone\": firewalld has no zone {zone:?}; use one that firewall-cmd --get-zones shows"
    )]
    NoZone { zone: String, source: BusError },
    #[error(
        "firewalld does not answer on the D-Bus system bus; start it, or set key \"backend\" to \"iptables\" \
         or \"nftables\" (if firewalld's rules stay in the kernel, first add the network's addresses to its \
         zone trusted: firewall-cmd --permanent --zone=trusted --add-source=NETWORK && firewall-cmd --reload)"
    )]
    NoFirewalld(#[source] BusError),
    /// Chains of other programs drop the packets of pods.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; also: "))]
    Dropped(Vec<Dropped>),
    #[error(
        "key \"ingressPolicy\" is {policy:?}, but the first interface of \"prevResult\" is not an interface \
         of the node; put firewall after bridge, or leave the key out"
    )]
    NoBridge { policy: &'static str },
    /// CHECK found that a rule, a set, an element or a source is missing, or that a rule comes too late.
    #[error("{what} {how}: {command}")]
    Missing {
        what: &'static str,
        /// What is wrong with it.
        how: &'static str,
        /// The command that adds it.
        command: String,
    },
}

/// A chain that drops all new connections of pods.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "chain {chain} drops all new connections of pods that the node forwards, by {how}, and no rule in \
     another chain can change that; to accept the network's addresses: {commands}"
)]
pub(crate) struct Dropped {
    /// Its family, table and name.
    pub(crate) chain: String,
    /// What in the chain drops them.
    pub(crate) how: &'static str,
    /// The commands that add rules for the network's addresses.
    pub(crate) commands: String,
}

impl Error {
    pub(crate) fn missing(what: &'static str, command: String) -> Self {
        Self::Missing { what, how: "is missing", command }
    }
}

impl From<Error> for cni::Error {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Kernel(error) => code_of(error),
            Error::Firewalld(error) if error.is_about("ZONE_CONFLICT") => Code::Conflict,
            Error::Firewalld(_) => Code::Kernel,
            Error::NoFirewalld(_) | Error::Dropped(_) => Code::NotAvailable,
            Error::NoBridge { .. } | Error::NoZone { .. } => Code::InvalidConfig,
            Error::Missing { .. } => Code::Changed,
        };
        Self::from_source(code, &error)
    }
}
