//! The link that has the gateway's addresses: the bridge, or an interface of the VLAN's own.
//!
//! The latter is one end of a veth pair whose other end is a port of the bridge, as a pod's is. It
//! belongs to the bridge and not to a pod, and stays as the bridge does.

use attach::{VethPair, ignore_router_advertisements, undo_unless_refused, veth_name};
use cni::Undo;
use kernel::rtnl::{Link, LinkChange, Veth, VethPeer};
use kernel::{Netns, Rtnl};

use crate::config::Config;
use crate::connection::skip_dad;
use crate::error::{Error, changed, missing};
use crate::vlans::Vlans;

/// Finds it; `None` if it is not there yet.
pub(crate) fn find(config: &Config, node: &Rtnl, bridge: &Link) -> Result<Option<Link>, Error> {
    if Vlans::of_gateway(config).is_none() {
        return Ok(Some(bridge.clone()));
    }
    Ok(node.link_by_name(&config.gateway_link())?)
}

/// Finds it, or makes it; up, and a port of the bridge where it needs one. `pod_port` is the port that this
/// ADD has made.
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
    let let_go = |is_new: bool| {
        let (name, vlans, bridge) = (name.clone(), vlans.clone(), bridge.clone());
        let pod_port = pod_port.index;
        move || Ok(let_go_unused((&name, is_new), node, &vlans, &bridge, pod_port)?)
    };
    let found = find(config, node, bridge)?;
    let is_new = found.is_none() && {
        let created = create(&name, node, bridge)?;
        match undo_unless_refused(undo, created, "delete the VLAN's interface", let_go(true)) {
            // Another pod's ADD was faster.
            Err(error) if error.is_exists() => false,
            created => created.map(|()| true)?,
        }
    };
    let link = found.map_or_else(|| find(config, node, bridge), |link| Ok(Some(link)))?;
    let link = link.ok_or_else(|| missing(format!("link {name}")))?;
    if !is_new && let Some(change) = bring_back(&link, node, bridge)? {
        undo_unless_refused(undo, change, "let go of the VLAN's interface", let_go(false))?;
    }
    let port = port(&link, node, bridge)?;
    if let Some(port) = &port {
        if port.name == veth_name(&name) {
            // Also if it was there: who made it may have been stopped halfway.
            skip_dad(&name)?;
            ignore_router_advertisements(&name)?;
            ignore_router_advertisements(&port.name)?;
        }
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

/// Finds what is missing or was changed, addresses aside.
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

/// Makes the pair.
fn create(name: &str, node: &Rtnl, bridge: &Link) -> Result<kernel::Result<()>, Error> {
    let netns = Netns::current()?;
    let pair = Veth {
        name: &veth_name(name),
        mtu: Some(bridge.mtu),
        master: Some(bridge.index),
        alias: None,
        peer: VethPeer { name, mac: None, netns: &netns },
    };
    Ok(node.create_veth(&pair))
}

/// The bridge's port that it is the other end of. None if somebody else has made it as something else.
fn port(link: &Link, node: &Rtnl, bridge: &Link) -> Result<Option<Link>, Error> {
    Ok(other_end(link, node)?.filter(|it| it.master == Some(bridge.index)))
}

/// Makes the other end a port again if it is none: it outlives a bridge that somebody deletes. None if there
/// was nothing to do.
fn bring_back(
    link: &Link,
    node: &Rtnl,
    bridge: &Link,
) -> Result<Option<kernel::Result<()>>, Error> {
    let Some(lost) = other_end(link, node)?.filter(|it| it.master.is_none()) else {
        return Ok(None);
    };
    let change = LinkChange { master: Some(bridge.index), up: Some(true), ..LinkChange::default() };
    Ok(Some(node.set_link(lost.index, change)))
}

/// The other end of its veth pair, if that is on the node.
fn other_end(link: &Link, node: &Rtnl) -> Result<Option<Link>, Error> {
    let other_end = link.peer.map_or(Ok(None), |index| node.link_by_index(index))?;
    Ok(other_end.filter(|it| it.peer == Some(link.index)))
}

/// Deletes it if it is new, and otherwise takes its port from the bridge; unless another port has come into
/// the VLAN meanwhile.
fn let_go_unused(
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
    if is_used {
        return Ok(());
    }
    if is_new {
        return Ok(node.delete_link(link.index)?);
    }
    Ok(node.set_link(port.index, LinkChange { master: Some(0), ..LinkChange::default() })?)
}
