//! The errors, and their codes.

use attach::code_of;
use cni::Code;
use ipnetwork::IpNetwork;

use crate::firewalld::bus::BusError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused an operation.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// firewalld refused a call, or the call failed.
    #[error(transparent)]
    Firewalld(#[from] BusError),
    /// firewalld has no zone of this name.
    #[error(
        "key \"firewalldZone\": firewalld has no zone {zone:?}; use one that firewall-cmd --get-zones shows"
    )]
    NoZone {
        /// The zone.
        zone: String,
        /// What firewalld says.
        source: BusError,
    },
    /// The backend is firewalld, and firewalld does not answer.
    #[error(
        "firewalld does not answer on the D-Bus system bus; start it, or set key \"backend\" to \"iptables\" \
         or \"nftables\" (if firewalld's rules stay in the kernel, first add the network's addresses to its \
         zone trusted: firewall-cmd --permanent --zone=trusted --add-source=NETWORK && firewall-cmd --reload)"
    )]
    NoFirewalld(#[source] BusError),
    /// Chains of other programs drop what the pods send.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; also: "))]
    Dropped(Vec<Dropped>),
    /// The result has no bridge to isolate.
    #[error(
        "key \"ingressPolicy\" is {policy:?}, but the first interface of \"prevResult\" is not an interface \
         of the node; put firewall after bridge, or leave the key out"
    )]
    NoBridge {
        /// The policy.
        policy: &'static str,
    },
    /// CHECK did not find a rule.
    #[error("rule is missing: {program} -A {chain} {rule}")]
    Missing {
        /// `iptables` or `ip6tables`.
        program: &'static str,
        /// The chain that should have it.
        chain: String,
        /// The rule, as `iptables -S` would show it.
        rule: String,
    },
    /// CHECK found that something is not in our table, or is a rule that comes too late.
    #[error("{what} {how}: nft {command}")]
    MissingInTable {
        /// A set, a rule or an element.
        what: &'static str,
        /// What is wrong with it.
        how: &'static str,
        /// How the program `nft` would add it.
        command: String,
    },
    /// CHECK found that an address is not a source of the zone.
    #[error("source is missing: firewall-cmd --zone={zone} --add-source={source_address}")]
    MissingSource {
        /// The zone.
        zone: String,
        /// The address.
        source_address: IpNetwork,
    },
}

/// A chain that drops all new connections of pods.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "chain {chain} drops all new connections of pods that the node forwards, by {how}, and no rule in \
     another chain can change that; to accept the network's addresses: {commands}"
)]
pub struct Dropped {
    /// Its family, table and name.
    pub(crate) chain: String,
    /// What in the chain drops them.
    pub(crate) how: &'static str,
    /// The commands that add rules for the network's addresses.
    pub(crate) commands: String,
}

impl From<Error> for cni::Error {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Kernel(error) => code_of(error),
            Error::Firewalld(error) if error.is_about("ZONE_CONFLICT") => Code::Conflict,
            Error::Firewalld(_) => Code::Kernel,
            Error::NoFirewalld(_) | Error::Dropped(_) => Code::NotAvailable,
            Error::NoBridge { .. } | Error::NoZone { .. } => Code::InvalidConfig,
            Error::Missing { .. } | Error::MissingInTable { .. } | Error::MissingSource { .. } => {
                Code::Changed
            }
        };
        Self::from_source(code, &error)
    }
}
