//! Masquerading (`ipMasq`): packets of a pod that leave for elsewhere than its own network get the node's
//! address.
//!
//! ADD writes with the backend that the configuration names; DEL and GC remove what either one made, for
//! the key may have been another one then.

mod iptables;
mod nftables;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cni::{Attachment, Call, Cidr, NetworkName, Success, ValidAttachments};
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

/// What masquerading is written with: the key `ipMasqBackend`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum MasqueradeBackend {
    /// Rules that `iptables` shows.
    #[default]
    Iptables,
    /// Rules of a table of its own.
    Nftables,
}

/// What a DEL has to know to leave the rules of other interfaces that the container has in the same network.
///
/// Nothing of this is asked of the pod's namespace if the node knows it: a pod may give its addresses to
/// other interfaces, and rename or replace its own one, to keep rules of the node beyond its end.
pub struct Kept<'a> {
    /// The addresses of the interface itself, as far as they are known. Their rules go.
    own: Vec<IpAddr>,
    /// Whether the container has other interfaces in the network. If so, rules for other addresses stay until
    /// the last one's DEL.
    has_siblings: Box<dyn Fn() -> Result<bool, Error> + 'a>,
}

impl MasqueradeBackend {
    /// Finds out whether rules could be made now.
    pub fn status(self, netlink: &Nfnetlink) -> Result<(), Error> {
        match self {
            Self::Iptables => iptables::try_out(&Iptables::of_node(netlink)?),
            Self::Nftables => nftables::try_out(netlink),
        }
    }
}

impl<'a> Kept<'a> {
    /// What the DEL of an interface with these addresses leaves to others, if there are others.
    pub fn new(own: Vec<IpAddr>, has_siblings: impl Fn() -> Result<bool, Error> + 'a) -> Self {
        Self { own, has_siblings: Box::new(has_siblings) }
    }

    /// What this command leaves. The interface's addresses are those of ADD's result; where a runtime has
    /// none, those that the pod has. Other interfaces are known by their ends on the node.
    pub fn of<C>(call: &'a Call<C>, pod: Option<&Pod>) -> Self {
        let result = call.network.prev_result.as_ref();
        let mut own: Vec<_> =
            result.iter().flat_map(|it| &it.ips).map(|ip| ip.address.ip()).collect();
        if own.is_empty() {
            // Without them, the rules stay until the last interface's DEL.
            let found = pod.and_then(|pod| pod.addresses_of(call.ifname().as_str()).ok());
            own = found.unwrap_or_default();
        }
        Self::new(own, || HostEnd::of(call.attachment()).has_siblings(&Rtnl::open()?))
    }

    /// Whether a rule stays whose packets come from this network, or from this address. The node's links are
    /// only listed if the rule is not one for an address of the interface itself.
    fn has(&self, source: IpNetwork) -> Result<bool, Error> {
        // Old versions of the reference plugins gave the network.
        if self.own.iter().any(|address| source == IpNetwork::from(*address)) {
            return Ok(false);
        }
        (self.has_siblings)()
    }
}

impl Masquerade {
    /// What an ADD with this result should have.
    #[must_use]
    pub fn of<C>(call: &Call<C>, backend: MasqueradeBackend, result: &Success) -> Self {
        let addresses = result.ips.iter().map(|ip| ip.address).collect();
        Self::wanted(backend, &call.attachment(), addresses)
    }

    /// What an attachment with these addresses, each with its network's prefix, should have.
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

    /// Makes the rules. Nothing but additions, so that nobody has to wait for a disposal.
    pub fn add(&self, netlink: &Nfnetlink) -> Result<(), Error> {
        match &self.0 {
            Rules::Iptables(rules) => rules.add(&Iptables::of_node(netlink)?),
            Rules::Nftables(rules) => rules.add(netlink),
        }
    }

    /// Finds a rule that is missing, or behind one that leaves it nothing to do.
    pub fn check(&self, netlink: &Nfnetlink) -> Result<(), Error> {
        match &self.0 {
            Rules::Iptables(rules) => Iptables::check(netlink, |iptables| rules.check(iptables)),
            Rules::Nftables(rules) => rules.check(netlink),
        }
    }
}

/// Finds the rules of an ADD, which may have had another configuration: none where the kernel has no
/// `nf_tables`, and the configuration needs none.
pub fn open_to_remove(needed: bool) -> Result<Option<Nfnetlink>, Error> {
    let netlink = Nfnetlink::open()?;
    let is_there = needed || netlink.generation().is_ok();
    Ok(is_there.then_some(netlink))
}

/// Removes an attachment's rules, those that the reference plugins made too, by its names alone.
///
/// The caller closes the socket after it has deleted the pod's link: then the kernel disposes of both at a
/// time.
pub fn remove(netlink: &Nfnetlink, owner: &Attachment, kept: &Kept<'_>) -> Result<(), Error> {
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
) -> Result<(), Error> {
    remove_all(
        netlink,
        |iptables| iptables::collect_garbage(iptables, network, valid),
        |batch| Ok(nftables::collect_garbage(netlink, batch, network, valid)?),
    )
}

/// Removes what was made for any network, by either backend; in a dry run, only looks. Returns the chains of
/// iptables and the table of nftables.
pub(crate) fn purge(netlink: &Nfnetlink, is_dry_run: bool) -> Result<Vec<String>, Error> {
    let mut found = Vec::new();
    for iptables in &Iptables::all(netlink)? {
        let before = found.len();
        let build = || -> Result<Changes, Error> {
            found.truncate(before);
            iptables::remove_all(iptables, &mut found)
        };
        commit(is_dry_run, build, |build| iptables.transaction(build))?;
    }
    if netlink.has_nf_tables()? {
        let before = found.len();
        let build = || -> Result<Batch, Error> {
            found.truncate(before);
            Ok(nftables::remove_all(netlink, &mut found)?)
        };
        commit(is_dry_run, build, |mut build| netlink.transaction(|_| build()))?;
    }
    Ok(found)
}

/// Builds changes and commits them, which may take several tries, or only builds them in a dry run.
fn commit<T, B: FnMut() -> Result<T, Error>>(
    is_dry_run: bool,
    mut build: B,
    commit: impl FnOnce(B) -> Result<(), Error>,
) -> Result<(), Error> {
    if is_dry_run { build().map(drop) } else { commit(build) }
}

/// Removes what both backends have made: in `nf_tables` in one batch, and in the legacy tables too if there
/// are some, because a node may have changed over.
fn remove_all(
    netlink: &Nfnetlink,
    of_iptables: impl Fn(&Iptables<'_>) -> Result<Changes, Error>,
    of_nftables: impl Fn(&mut Batch) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut result = Ok(());
    for iptables in &Iptables::all(netlink)? {
        let removed = if iptables.is_legacy() {
            iptables.transaction(|| of_iptables(iptables))
        } else {
            netlink.transaction(|_| {
                let mut batch = of_iptables(iptables)?.batch();
                of_nftables(&mut batch)?;
                Ok(batch)
            })
        };
        result = result.and(removed);
    }
    result
}

/// Groups that pods on the same network may talk to among themselves.
fn multicast(family: Family) -> IpNetwork {
    const V4: Ipv4Network = Ipv4Network::new_checked(Ipv4Addr::new(224, 0, 0, 0), 4).unwrap();
    const V6: Ipv6Network =
        Ipv6Network::new_checked(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8).unwrap();
    match family {
        Family::V4 => V4.into(),
        Family::V6 => V6.into(),
    }
}
