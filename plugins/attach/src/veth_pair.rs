//! A pod's veth pair as the kernel has it: made by ADD, found again by CHECK.

use std::time::Duration;

use cni::Undo;
use kernel::rtnl::{Link, Veth, VethPeer};
use kernel::{Rtnl, sysctl};

use crate::changes::undo_unless_refused;
use crate::error::Error;
use crate::host_end::HostEnd;
use crate::pod::Pod;

/// Both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VethPair {
    /// The node's.
    pub host: Link,
    /// The pod's.
    pub inside: Link,
}

/// How a pair is to be made, beside its names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VethOptions {
    /// Both ends' MTU in bytes; `None` for the kernel's default.
    pub mtu: Option<u32>,
    /// The hardware address of the pod's end; `None` for a random one.
    pub mac: Option<[u8; 6]>,
    /// The index of the bridge that the node's end becomes a port of.
    pub master: Option<u32>,
}

impl VethPair {
    /// Makes it, the node's end up, the pod's end down.
    pub fn create<'a>(
        end: &HostEnd,
        node: &'a Rtnl,
        pod: &Pod,
        options: VethOptions,
        undo: &mut Undo<'a>,
    ) -> Result<Self, Error> {
        let VethOptions { mtu, mac, master } = options;
        let peer = VethPeer { name: end.ifname(), mac, netns: &pod.netns };
        let alias = end.alias_that_fits();
        let created = node.create_veth(&Veth { name: &end.name, mtu, master, alias, peer });
        let made = end.clone();
        undo_unless_refused(undo, created, "delete the veth pair", move || {
            Ok(made.delete(node, None, None, None)?)
        })?;

        let missing = |name: &str| Error::missing(format!("link {name}"));
        let host = node.link_by_name(&end.name)?.ok_or_else(|| missing(&end.name))?;
        let inside = pod.rtnl.link_by_name(end.ifname())?;
        let inside = inside.ok_or_else(|| missing(end.ifname()))?;
        ignore_router_advertisements(&end.name)?;
        Ok(Self { host, inside })
    }

    /// Waits until packets can go through, the pod's end being up: a pod's first ones would get
    /// lost otherwise, and be repeated a second later.
    pub fn wait_until_operational(&self, node: &Rtnl) -> Result<(), Error> {
        // As long as the reference plugins wait for a bridge's port.
        const LIMIT: Duration = Duration::from_millis(2550);
        Ok(node.wait_until_operational(self.host.index, LIMIT)?)
    }

    /// Finds it by the name of the pod's end, whoever made it.
    pub fn find(node: &Rtnl, pod: &Pod, ifname: &str) -> Result<Self, Error> {
        let inside = pod.rtnl.link_by_name(ifname)?;
        let inside =
            inside.ok_or_else(|| Error::missing(format!("interface {ifname} of the pod")))?;
        let host = inside.peer.map_or(Ok(None), |index| node.link_by_index(index))?;
        let host = host.filter(|host| host.peer == Some(inside.index));
        let host = host.ok_or_else(|| Error::missing(format!("the node's end of {ifname}")))?;
        Ok(Self { host, inside })
    }
}

/// A pod must not be able to make itself the node's router (CVE-2020-10749).
pub fn ignore_router_advertisements(link: &str) -> Result<(), Error> {
    Ok(sysctl::write_if_possible(&["ipv6", "conf", link, "accept_ra"], "0")?)
}
