//! The link that has the gateway's addresses: the bridge, or the interface of a VLAN.
//!
//! The interface of a VLAN is one end of a veth pair whose other end is a port of the bridge, like that of a
//! pod. It belongs to the bridge and not to a pod, and stays like the bridge.

use attach::link::{ignore_router_advertisements, other_end, skip_dad};
use attach::{VethPair, undo_unless_refused, veth_name};
use cni::Undo;
use kernel::rtnl::{Kind, Link, LinkChange, NewLink, VethPeer};
use kernel::{Netns, Rtnl};

use crate::config::Config;
use crate::error::{Error, changed, missing};
use crate::vlans::Vlans;

/// Finds the link; `None` if it is not there yet.
pub(crate) fn find(config: &Config, node: &Rtnl, bridge: &Link) -> Result<Option<Link>, Error> {
    if Vlans::of_gateway(config).is_none() {
        return Ok(Some(bridge.clone()));
    }
    Ok(node.link_by_name(&config.gateway_link())?)
}

/// Finds the link or makes it, sets it up, and makes its other end a port of the bridge if it has one.
/// `pod_port` is the port that this ADD has made.
pub(crate) fn ensure<'a>(
    config: &Config,
    node: &'a Rtnl,
    bridge: &Link,
    pod_port: &Link,
    undo: &mut Undo<'a>,
) -> Result<Link, Error> {
    let Some(vlans) = Vlans::of_gateway(config) else {
        return Ok(bridge.clone());
    };
    let name = config.gateway_link();
    let undo_if_unused = |is_new: bool| {
        let (name, vlans, bridge) = (name.clone(), vlans.clone(), bridge.clone());
        let pod_port = pod_port.index;
        move || undo_if_unused((&name, is_new), node, &vlans, &bridge, pod_port)
    };
    let found = find(config, node, bridge)?;
    let is_new = found.is_none() && create(&name, node, bridge, undo, undo_if_unused(true))?;
    let link = found.map_or_else(|| find(config, node, bridge), |link| Ok(Some(link)))?;
    let link = link.ok_or_else(|| missing(format!("link {name}")))?;
    if !is_new {
        reconnect(&link, node, bridge, undo, undo_if_unused(false))?;
    }
    let port = port(&link, node, bridge)?;
    if let Some(port) = &port {
        prepare(&link, port)?;
        vlans.give(node, port, bridge)?;
    }
    if !link.up {
        node.set_link(link.index, LinkChange { up: Some(true), ..LinkChange::default() })?;
    }
    if let Some(host) = port.filter(|_| is_new) {
        VethPair { host, inside: link.clone() }.wait_until_operational(node)?;
    }
    Ok(link)
}

/// Finds what is missing or was changed, except addresses.
pub(crate) fn compare(config: &Config, node: &Rtnl, bridge: &Link) -> Result<Link, Error> {
    let Some(vlans) = Vlans::of_gateway(config) else {
        return Ok(bridge.clone());
    };
    let name = config.gateway_link();
    let link = find(config, node, bridge)?.ok_or_else(|| missing(format!("link {name}")))?;
    if !link.up {
        return Err(changed(format!("link {name}"), "is down"));
    }
    if link.kind.as_deref() == Some("veth") {
        let port = port(&link, node, bridge)?;
        let port = port.ok_or_else(|| missing(format!("port of {} for {name}", bridge.name)))?;
        vlans.compare(node, &port)?;
    }
    Ok(link)
}

/// Makes the pair. Returns false if another pod's ADD has made it in the meantime.
fn create<'a>(
    name: &str,
    node: &Rtnl,
    bridge: &Link,
    undo: &mut Undo<'a>,
    undo_it: impl FnOnce() -> Result<(), Error> + 'a,
) -> Result<bool, Error> {
    let (host_end, netns) = (veth_name(name), Netns::current()?);
    let created = node.create_link(&NewLink {
        mtu: Some(bridge.mtu),
        up: true,
        master: Some(bridge.index),
        ..NewLink::new(&host_end, Kind::Veth(VethPeer { name, mac: None, netns: &netns }))
    });
    match undo_unless_refused(undo, created, "delete the VLAN's interface", undo_it) {
        Err(error) if error.is_exists() => Ok(false),
        created => Ok(created.map(|()| true)?),
    }
}

/// The bridge's port that is the other end of the link. `None` if another program made the link differently.
fn port(link: &Link, node: &Rtnl, bridge: &Link) -> Result<Option<Link>, Error> {
    Ok(other_end(node, link)?.filter(|it| it.master == Some(bridge.index)))
}

/// Writes the sysctls of a pair that this plugin made, also in an earlier ADD, which may have been killed
/// before this.
fn prepare(link: &Link, port: &Link) -> Result<(), Error> {
    if port.name == veth_name(&link.name) {
        skip_dad(&link.name)?;
        ignore_router_advertisements(&link.name)?;
        ignore_router_advertisements(&port.name)?;
    }
    Ok(())
}

/// Makes the other end a port of the bridge if it is not a port: the pair stays when a bridge is deleted.
fn reconnect<'a>(
    link: &Link,
    node: &Rtnl,
    bridge: &Link,
    undo: &mut Undo<'a>,
    undo_it: impl FnOnce() -> Result<(), Error> + 'a,
) -> Result<(), Error> {
    if let Some(port) = other_end(node, link)?.filter(|it| it.master.is_none()) {
        let (master, up) = (Some(bridge.index), Some(true));
        let changed = node.set_link(port.index, LinkChange { master, up, ..LinkChange::default() });
        let what = "take the port of the VLAN's interface from the bridge";
        undo_unless_refused(undo, changed, what, undo_it)?;
    }
    Ok(())
}

/// Deletes the interface of the VLAN if it is new, and otherwise takes its port from the bridge. Does neither
/// if another port has been added to the VLAN in the meantime.
fn undo_if_unused(
    (name, is_new): (&str, bool),
    node: &Rtnl,
    vlans: &Vlans,
    bridge: &Link,
    pod_port: u32,
) -> Result<(), Error> {
    let Some(link) = node.link_by_name(name)? else {
        return Ok(());
    };
    let Some(port) = port(&link, node, bridge)? else {
        return Ok(());
    };
    let of_this_add = [bridge.index, pod_port, port.index];
    let is_used = node.port_vlans()?.iter().any(|it| {
        it.bridge == Some(bridge.index)
            && !of_this_add.contains(&it.port)
            && vlans.is_native_of(&it.ranges)
    });
    match (is_used, is_new) {
        (true, _) => Ok(()),
        (false, true) => Ok(node.delete_link(link.index)?),
        (false, false) => {
            Ok(node.set_link(port.index, LinkChange { master: Some(0), ..LinkChange::default() })?)
        }
    }
}
