//! What can go wrong, and the codes for it.

use attach::code_of;
use cni::Code;
use ipnetwork::IpNetwork;

use crate::firewalld::bus::BusError;

/// Why packets could not be let through, or why not all is there that does that.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused something.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// firewalld did not do what it was asked for.
    #[error(transparent)]
    Firewalld(#[from] BusError),
    /// The zone is none of firewalld's.
    #[error(
        "key \"firewalldZone\": firewalld has no zone {zone:?}; name one that firewall-cmd --get-zones shows"
    )]
    NoZone {
        /// The zone.
        zone: String,
        /// What firewalld says.
        source: BusError,
    },
    /// firewalld is to let packets through, and nobody answers by that name.
    #[error(
        "firewalld does not answer on the system's bus; start it, or set key \"backend\" to \"iptables\" \
         or \"nftables\" (if its rules stay in the kernel, after the network's addresses have become a \
         source of its zone trusted: firewall-cmd --permanent --zone=trusted --add-source=NETWORK && \
         firewall-cmd --reload)"
    )]
    NoFirewalld(#[source] BusError),
    /// What our rules accept is dropped by another chain.
    #[error(
        "chain {chain} drops all new connections of pods that the node forwards, by {how}, and no rule in \
         another chain can change that; let the network's addresses through: {commands}"
    )]
    Dropped {
        /// Family, table and name.
        chain: String,
        /// By what.
        how: &'static str,
        /// What lets the packets through.
        commands: String,
    },
    /// The result names no bridge that could be kept apart from others.
    #[error(
        "key \"ingressPolicy\" is {policy:?}, but the first interface of \"prevResult\" is no interface \
         of the node; put firewall behind bridge, or leave the key out"
    )]
    NoBridge {
        /// The policy.
        policy: &'static str,
    },
    /// CHECK found that a rule is not there.
    #[error("rule is missing: {program} -A {chain} {rule}")]
    Missing {
        /// `iptables` or `ip6tables`.
        program: &'static str,
        /// The chain it should be in.
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
    /// CHECK found that an address is no source of the zone.
    #[error("source is missing: firewall-cmd --zone={zone} --add-source={source_address}")]
    MissingSource {
        /// The zone.
        zone: String,
        /// The address.
        source_address: IpNetwork,
    },
}

impl From<Error> for cni::Error {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Kernel(error) => code_of(error),
            Error::Firewalld(error) if error.is_about("ZONE_CONFLICT") => Code::Conflict,
            Error::Firewalld(_) => Code::Kernel,
            Error::NoFirewalld(_) | Error::Dropped { .. } => Code::NotAvailable,
            Error::NoBridge { .. } | Error::NoZone { .. } => Code::InvalidConfig,
            Error::Missing { .. } | Error::MissingInTable { .. } | Error::MissingSource { .. } => {
                Code::Changed
            }
        };
        Self::from_source(code, &error)
    }
}
