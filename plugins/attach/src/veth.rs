//! The veth pair that connects a pod to the node: ADD makes it, CHECK finds it again.

mod host_end;
mod reference;

pub use host_end::{HostEnd, collect_garbage, veth_name};

use host_end::delete_by_name;

use std::time::Duration;

use cni::Undo;
use kernel::Rtnl;
use kernel::rtnl::{Kind, Link, NewLink, VethPeer};

use crate::error::Error;
use crate::link::{ignore_router_advertisements, other_end};
use crate::names::alias_that_fits;
use crate::pod::Pod;
use crate::undo::undo_unless_refused;

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
    /// Makes the pair, the node's end up, the pod's end down.
    pub fn create<'a>(
        end: &HostEnd,
        node: &'a Rtnl,
        pod: &Pod,
        options: VethOptions,
        undo: &mut Undo<'a>,
    ) -> Result<Self, Error> {
        let VethOptions { mtu, mac, master } = options;
        let peer = VethPeer { name: end.ifname(), mac, netns: &pod.netns };
        let alias = end.attachment.to_string();
        let alias = alias_that_fits(&alias);
        let new = NewLink::new(&end.name, Kind::Veth(peer));
        let created = node.create_link(&NewLink { mtu, up: true, master, alias, ..new });
        let name = end.name.clone();
        undo_unless_refused(undo, created, "delete the veth pair", move || {
            delete_by_name(node, &name).map(drop)
        })?;

        let host = node.link_by_name(&end.name)?;
        let host = host.ok_or_else(|| Error::missing(format!("link {}", end.name)))?;
        let inside = pod.interface(end.ifname())?;
        ignore_router_advertisements(&end.name)?;
        Ok(Self { host, inside })
    }

    /// Waits until packets can go through, after the pod's end was set up. Otherwise a pod's first packets
    /// would be lost, and sent again a second later.
    pub fn wait_until_operational(&self, node: &Rtnl) -> Result<(), Error> {
        // As long as the reference plugins wait for a bridge's port.
        const LIMIT: Duration = Duration::from_millis(2550);
        Ok(node.wait_until_operational(self.host.index, LIMIT)?)
    }

    /// Finds the pair by the name of the pod's end, whatever program made it.
    ///
    /// Errors: [`Error::Changed`] if an end is missing.
    pub fn find(node: &Rtnl, pod: &Pod, ifname: &str) -> Result<Self, Error> {
        let inside = pod.interface(ifname)?;
        let host = other_end(node, &inside)?;
        let host = host.ok_or_else(|| Error::missing(format!("the node's end of {ifname}")))?;
        Ok(Self { host, inside })
    }
}
