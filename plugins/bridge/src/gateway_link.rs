//! The link that has the gateway's addresses: the bridge, or an interface of the VLAN's own.
//!
//! The latter is one end of a veth pair whose other end is a port of the bridge, as a pod's is. It
//! belongs to the bridge and not to a pod, and stays as the bridge does.

use attach::{VethPair, ignore_router_advertisements, veth_name};
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
    let is_new = find(config, node, bridge)?.is_none() && create(&name, node, bridge)?;
    let link = find(config, node, bridge)?.ok_or_else(|| missing(format!("link {name}")))?;
    let is_back = !is_new && bring_back(&link, node, bridge)?;
    let port = port(&link, node, bridge)?;
    if let Some(port) = port.as_ref().filter(|_| is_new || is_back) {
        let of_this_add = [bridge.index, pod_port.index, port.index];
        undo.on_error("let go of the interface of the VLAN", {
            let (vlans, index) = (vlans.clone(), link.index);
            move || Ok(let_go_unused(index, is_new, node, &vlans, of_this_add)?)
        });
    }
    // Also if they were there: who made them may have been stopped halfway.
    skip_dad(&name)?;
    ignore_router_advertisements(&name)?;
    if let Some(port) = &port {
        ignore_router_advertisements(&port.name)?;
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

/// Makes the pair; false if another pod's ADD was faster.
fn create(name: &str, node: &Rtnl, bridge: &Link) -> Result<bool, Error> {
    let netns = Netns::current()?;
    let pair = Veth {
        name: &veth_name(name),
        mtu: Some(bridge.mtu),
        master: Some(bridge.index),
        alias: None,
        peer: VethPeer { name, mac: None, netns: &netns },
    };
    match node.create_veth(&pair) {
        Err(error) if error.is_exists() => Ok(false),
        created => Ok(created.map(|()| true)?),
    }
}

/// The bridge's port that it is the other end of. None if somebody else has made it as something else.
fn port(link: &Link, node: &Rtnl, bridge: &Link) -> Result<Option<Link>, Error> {
    Ok(other_end(link, node)?.filter(|it| it.master == Some(bridge.index)))
}

/// Makes the other end a port again if it is none: it outlives a bridge that somebody deletes. Whether it was
/// so.
fn bring_back(link: &Link, node: &Rtnl, bridge: &Link) -> Result<bool, Error> {
    let Some(lost) = other_end(link, node)?.filter(|it| it.master.is_none()) else {
        return Ok(false);
    };
    let master = Some(bridge.index);
    node.set_link(lost.index, LinkChange { master, up: Some(true), ..LinkChange::default() })?;
    Ok(true)
}

/// The other end of its veth pair, if that is on the node.
fn other_end(link: &Link, node: &Rtnl) -> Result<Option<Link>, Error> {
    let other_end = link.peer.map_or(Ok(None), |index| node.link_by_index(index))?;
    Ok(other_end.filter(|it| it.peer == Some(link.index)))
}

/// Deletes it if it is new, and otherwise takes its port from the bridge; unless another port has come into
/// the VLAN meanwhile.
fn let_go_unused(
    index: u32,
    is_new: bool,
    node: &Rtnl,
    vlans: &Vlans,
    of_this_add @ [bridge, _, port]: [u32; 3],
) -> Result<(), Error> {
    let is_used = node.port_vlans()?.iter().any(|it| {
        it.bridge == Some(bridge)
            && !of_this_add.contains(&it.port)
            && vlans.is_native_of(&it.ranges)
    });
    if is_used {
        return Ok(());
    }
    if is_new {
        return Ok(node.delete_link(index)?);
    }
    Ok(node.set_link(port, LinkChange { master: Some(0), ..LinkChange::default() })?)
}
