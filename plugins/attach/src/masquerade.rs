//! Masquerading (`ipMasq`): packets of a pod that leave for elsewhere than its own network get the node's
//! address.

mod iptables;

use std::net::IpAddr;

use cni::{Call, Cidr, Code, NetworkName, Success, ValidAttachments};
use kernel::Nfnetlink;
use serde::Deserialize;

use crate::error::Error;

/// The rules that one attachment should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masquerade(iptables::Rules);

/// What masquerading is written with: the key `ipMasqBackend`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MasqueradeBackend {
    /// Rules that `iptables` shows.
    #[default]
    Iptables,
    /// Rules of a table of its own.
    Nftables,
}

impl MasqueradeBackend {
    /// Refuses what is not written yet.
    ///
    /// Errors: code 2, naming the key.
    pub fn validate(self) -> Result<(), cni::Error> {
        match self {
            Self::Iptables => Ok(()),
            Self::Nftables => Err(cni::Error::new(
                Code::UnsupportedField,
                "key \"ipMasqBackend\": this version masquerades with \"iptables\" only",
            )),
        }
    }
}

impl Masquerade {
    /// What an ADD with this result should have.
    #[must_use]
    pub fn of<C>(call: &Call<C>, result: &Success) -> Self {
        let addresses = result.ips.iter().map(|ip| ip.address).collect();
        Self::wanted(&call.network.name, call.container_id().as_str(), addresses)
    }

    /// What an attachment with these addresses, each with its network's prefix, should have.
    #[must_use]
    pub fn wanted(network: &NetworkName, container_id: &str, addresses: Vec<Cidr>) -> Self {
        Self(iptables::Rules::wanted(network, container_id, addresses))
    }

    /// Makes the rules. Nothing but additions, so that nobody has to wait for a disposal.
    pub fn add(&self, netlink: &Nfnetlink) -> Result<(), Error> {
        self.0.add(netlink)
    }

    /// Finds a rule that is missing.
    pub fn check(&self, netlink: &Nfnetlink) -> Result<(), Error> {
        self.0.check(netlink)
    }
}

/// Removes a container's rules, those that the reference plugins made too, by its names alone.
///
/// `in_use` are addresses that other interfaces of the container still have; what these need stays. The
/// caller closes the socket after it has deleted the pod's link: then the kernel disposes of both at a time.
pub fn remove(
    netlink: &Nfnetlink,
    network: &NetworkName,
    container_id: &str,
    in_use: &[IpAddr],
) -> Result<(), Error> {
    iptables::remove(netlink, network, container_id, in_use)
}

/// Removes the rules of a network's containers that have no valid attachment.
pub fn collect_garbage(
    netlink: &Nfnetlink,
    network: &NetworkName,
    valid: &ValidAttachments,
) -> Result<(), Error> {
    iptables::collect_garbage(netlink, network, valid)
}
