//! Masquerading (`ipMasq`): packets from a pod to destinations outside its network get the node's address as
//! their source.
//!
//! ADD uses the backend of the configuration. DEL and GC remove the rules of both backends, because the
//! configuration may have changed.

mod iptables;
mod nftables;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cni::{Attachment, Call, Cidr, Failures, NetworkName, Success, ValidAttachments};
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use kernel::iptables::{Changes, Iptables};
use kernel::{Batch, Family, Nfnetlink, Rtnl};
use serde::Deserialize;

use crate::error::Error;
use crate::pod::Pod;
use crate::veth::HostEnd;

/// The rules that one attachment should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masquerade(Rules);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rules {
    Iptables(iptables::Rules),
    Nftables(nftables::Rules),
}

/// The key `ipMasqBackend`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum MasqueradeBackend {
    /// Rules that `iptables` shows.
    #[default]
    Iptables,
    /// Rules in an nftables table of its own.
    Nftables,
}

/// The rules that a DEL must leave, because they belong to other interfaces of the container in the network.
///
/// The pod is asked only if the node does not know: it could move its addresses to other interfaces, so that
/// rules would stay on the node.
pub struct Kept<'a> {
    /// The known addresses of the interface itself. Their rules are removed.
    own: Vec<IpAddr>,
    /// Whether the container has other interfaces in the network. Then rules for other addresses stay until
    /// the DEL of the last interface.
    has_siblings: Box<dyn Fn() -> Result<bool, Error> + 'a>,
}

impl MasqueradeBackend {
    /// Checks that the rules can be made.
    pub fn status(self, netlink: &Nfnetlink) -> Result<(), Error> {
        match self {
            Self::Iptables => iptables::try_out(&Iptables::of_node(netlink)?),
            Self::Nftables => nftables::try_out(netlink),
        }
    }
}

impl<'a> Kept<'a> {
    /// What the DEL of an interface with these addresses leaves.
    pub fn new(own: Vec<IpAddr>, has_siblings: impl Fn() -> Result<bool, Error> + 'a) -> Self {
        Self { own, has_siblings: Box::new(has_siblings) }
    }

    /// What this command leaves. The interface's addresses are those of ADD's result, or those in the pod if
    /// the runtime sends no result. Other interfaces are found by their ends on the node.
    pub fn of<C>(call: &'a Call<C>, pod: Option<&Pod>) -> Self {
        let result = call.network.prev_result.as_ref();
        let mut own: Vec<_> =
            result.iter().flat_map(|it| &it.ips).map(|ip| ip.address.ip()).collect();
        if own.is_empty() {
            // If these are not known either, the rules stay until the DEL of the last interface.
            let found = pod.and_then(|pod| pod.addresses_of(call.ifname().as_str()).ok());
            own = found.unwrap_or_default();
        }
        Self::new(own, || HostEnd::of(call.attachment()).has_siblings(&Rtnl::open()?))
    }

    /// Whether a rule for packets from this address or network stays. The node's links are only listed if the
    /// address is not one of the interface itself.
    fn has(&self, source: IpNetwork) -> Result<bool, Error> {
        // Old versions of the reference plugins wrote the network, which is never the address of one
        // interface.
        if self.own.iter().any(|address| source == IpNetwork::from(*address)) {
            return Ok(false);
        }
        (self.has_siblings)()
    }
}

impl Masquerade {
    /// The rules for an ADD with this result.
    #[must_use]
    pub fn of<C>(call: &Call<C>, backend: MasqueradeBackend, result: &Success) -> Self {
        let addresses = result.ips.iter().map(|ip| ip.address).collect();
        Self::wanted(backend, &call.attachment(), addresses)
    }

    /// The rules for an attachment with these addresses, each with the prefix of its network.
    #[must_use]
    pub fn wanted(backend: MasqueradeBackend, owner: &Attachment, addresses: Vec<Cidr>) -> Self {
        Self(match backend {
            MasqueradeBackend::Iptables => {
                Rules::Iptables(iptables::Rules::wanted(owner, addresses))
            }
            MasqueradeBackend::Nftables => {
                Rules::Nftables(nftables::Rules::wanted(owner, addresses))
            }
        })
    }

    /// Makes the rules. It deletes nothing, so that it does not wait for a grace period of the kernel.
    pub fn add(&self, netlink: &Nfnetlink) -> Result<(), Error> {
        match &self.0 {
            Rules::Iptables(rules) => rules.add(&Iptables::of_node(netlink)?),
            Rules::Nftables(rules) => rules.add(netlink),
        }
    }

    /// Finds a rule that is missing, or comes after one that takes its packets.
    pub fn check(&self, netlink: &Nfnetlink) -> Result<(), Error> {
        match &self.0 {
            Rules::Iptables(rules) => Iptables::check(netlink, |iptables| rules.check(iptables)),
            Rules::Nftables(rules) => rules.check(netlink),
        }
    }
}

/// Opens a socket to remove rules. The ADD may have had another configuration, so this is `None` only if
/// the rules are not `needed` by this configuration and the kernel has no `nf_tables`.
pub fn open_to_remove(needed: bool) -> Result<Option<Nfnetlink>, Error> {
    let netlink = Nfnetlink::open()?;
    let is_there = needed || netlink.generation().is_ok();
    Ok(is_there.then_some(netlink))
}

/// Removes an attachment's rules, also those that the reference plugins made, found by its names.
///
/// The caller should close the socket after it has deleted the pod's link: then the kernel disposes of both
/// at the same time.
pub fn remove(netlink: &Nfnetlink, owner: &Attachment, kept: &Kept<'_>) -> Result<(), cni::Error> {
    remove_all(
        netlink,
        |iptables| iptables::remove(iptables, owner, kept),
        |batch| Ok(nftables::remove(netlink, batch, owner)?),
    )
}

/// Removes the rules of a network's attachments that are not valid.
pub fn collect_garbage(
    netlink: &Nfnetlink,
    network: &NetworkName,
    valid: &ValidAttachments,
) -> Result<(), cni::Error> {
    remove_all(
        netlink,
        |iptables| iptables::collect_garbage(iptables, network, valid),
        |batch| Ok(nftables::collect_garbage(netlink, batch, network, valid)?),
    )
}

/// Removes the rules of all networks and both backends. A dry run changes nothing. Returns the chains of
/// iptables and the table of nftables that are removed.
pub(crate) fn purge(netlink: &Nfnetlink, is_dry_run: bool) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    for iptables in &Iptables::all(netlink)? {
        let before = found.len();
        iptables.transaction(|| -> Result<Changes, Error> {
            found.truncate(before);
            let changes = iptables::remove_all(iptables, &mut found)?;
            Ok(if is_dry_run { Changes::new() } else { changes })
        })?;
    }
    if netlink.has_nf_tables()? {
        let before = found.len();
        netlink.transaction(|_| -> Result<Batch, Error> {
            found.truncate(before);
            let batch = nftables::remove_all(netlink, &mut found)?;
            Ok(if is_dry_run { Batch::new() } else { batch })
        })?;
    }
    Ok(found)
}

/// Removes the rules of both backends: those in `nf_tables` in one batch. Also looks at the legacy tables if
/// there are any, because the node may have changed from one variant of iptables to the other.
fn remove_all(
    netlink: &Nfnetlink,
    of_iptables: impl Fn(&Iptables<'_>) -> Result<Changes, Error>,
    of_nftables: impl Fn(&mut Batch) -> Result<(), Error>,
) -> Result<(), cni::Error> {
    let mut failures = Failures::new();
    for iptables in &Iptables::all(netlink).map_err(Error::from)? {
        failures.try_to(iptables.variant(), || {
            if iptables.is_legacy() {
                return iptables.transaction(|| of_iptables(iptables));
            }
            netlink.transaction(|_| {
                let mut batch = of_iptables(iptables)?.batch();
                of_nftables(&mut batch)?;
                Ok(batch)
            })
        });
    }
    failures.into_result()
}

/// The multicast groups.
fn multicast(family: Family) -> IpNetwork {
    const V4: Ipv4Network = Ipv4Network::new_checked(Ipv4Addr::new(224, 0, 0, 0), 4).unwrap();
    const V6: Ipv6Network =
        Ipv6Network::new_checked(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8).unwrap();
    match family {
        Family::V4 => V4.into(),
        Family::V6 => V6.into(),
    }
}
