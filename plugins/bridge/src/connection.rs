//! The bridge, and the pod's veth pair with one end as its port: what does not depend on addresses,
//! and can be made while IPAM looks for them.

use std::fs::{self, File};
use std::io::Read;

use attach::{
    HostEnd, Pod, VethOptions, VethPair, ignore_router_advertisements, undo_unless_refused,
};
use cni::{Call, Mac, Undo};
use kernel::rtnl::{self, BridgePort, Link, LinkChange};
use kernel::{Rtnl, sysctl};

use crate::config::Config;
use crate::error::{Error, missing};
use crate::vlans::{self, Vlans};

/// What is noted about a bridge that this plugin made. Slashes would make the owner of a pod's link of it.
const ALIAS: &str = "made by podwire";

/// A pod that is connected, its interface still down.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The bridge.
    pub(crate) bridge: Link,
    /// The pair.
    pub(crate) pair: VethPair,
}

impl Connection {
    /// Connects the pod, and makes the bridge if it is not there.
    pub(crate) fn make<'a>(
        call: &'a Call<Config>,
        node: &'a Rtnl,
        pod: &Pod,
        mac: Option<Mac>,
        undo: &mut Undo<'a>,
    ) -> Result<Self, Error> {
        let config = call.config();
        let mut bridge = ensure_bridge(config, node, undo)?;
        keep_mac(node, &mut bridge)?;
        let options = VethOptions {
            mtu: config.mtu(),
            mac: mac.map(|mac| mac.0),
            master: Some(bridge.index),
        };
        let pair = VethPair::create(&HostEnd::of(call), node, pod, options, undo)?;
        let port = port(config);
        if port != BridgePort::default() {
            let change = LinkChange { port: Some(port), ..LinkChange::default() };
            node.set_link(pair.host.index, change)?;
        }
        if let Some(vlans) = Vlans::of_pods(config) {
            vlans.give(node, &pair.host, &bridge)?;
        }
        if pair.host.mtu != bridge.mtu {
            // A bridge whose MTU nobody has set takes the lowest of its ports'.
            bridge = find_bridge(node, config.bridge())?.ok_or_else(|| no_bridge(config))?;
        }
        Ok(Self { bridge, pair })
    }
}

/// How the node's end is set as the bridge's port.
pub(crate) fn port(config: &Config) -> BridgePort {
    BridgePort { hairpin: config.hairpin_mode, isolated: config.port_isolation }
}

/// Sets a bridge up as its configuration wants it. Of a bridge that somebody else made, nothing changes that
/// the configuration does not ask for.
pub(crate) fn set_up_bridge(config: &Config, node: &Rtnl, bridge: &Link) -> Result<(), Error> {
    if is_ours(bridge) {
        // Also if it was there: who made it may have been stopped halfway.
        ignore_router_advertisements(&bridge.name)?;
        if config.gateway() {
            skip_dad(&bridge.name)?;
        }
    }
    let mut change = LinkChange::default();
    if !bridge.up {
        change.up = Some(true);
    }
    if config.promisc_mode && !bridge.promisc {
        change.promisc = Some(true);
    }
    if change != LinkChange::default() {
        node.set_link(bridge.index, change)?;
    }
    Ok(())
}

/// The bridge, made if it is not there; one that is there is not touched yet.
fn ensure_bridge<'a>(
    config: &'a Config,
    node: &'a Rtnl,
    undo: &mut Undo<'a>,
) -> Result<Link, Error> {
    let name = config.bridge();
    if let Some(bridge) = find_bridge(node, name)? {
        return Ok(bridge);
    }
    let bridge = rtnl::Bridge {
        name,
        mac: random_mac()?,
        mtu: config.mtu(),
        promisc: config.promisc_mode,
        vlan_filtering: vlans::are_wanted(config),
        alias: Some(ALIAS),
    };
    let undo_it = || Ok(delete_unused_bridge(node, name)?);
    match undo_unless_refused(undo, node.create_bridge(&bridge), "delete the bridge", undo_it) {
        // Another pod's ADD was faster.
        Err(error) if error.is_exists() => {}
        created => created?,
    }
    find_bridge(node, name)?.ok_or_else(|| no_bridge(config))
}

/// Whether a bridge was made by this plugin. Those of the reference plugins, and of this one before it noted
/// that, count as somebody else's: what a new bridge needs was done when they were made.
pub(crate) fn is_ours(bridge: &Link) -> bool {
    bridge.alias == ALIAS
}

/// Sees to it that a bridge keeps its hardware address. One that was made without takes the lowest of its
/// ports', so that it would change with the pods, and be zero after the last one. Once an address is set, it
/// stays, even if it is the same.
///
/// It is not set again if it has been: whenever an address is set, the kernel forgets all neighbours on the
/// link, also those that somebody has entered for good.
fn keep_mac(node: &Rtnl, bridge: &mut Link) -> Result<(), Error> {
    if is_ours(bridge) || has_fixed_mac(bridge) {
        return Ok(());
    }
    let mac = match bridge.mac {
        Some(mac) if mac != [0; 6] => mac,
        _ => random_mac()?,
    };
    bridge.mac = Some(mac);
    Ok(node.set_link(bridge.index, LinkChange { mac: bridge.mac, ..LinkChange::default() })?)
}

/// Whether somebody has set a bridge's hardware address, as far as `/sys` tells: netlink does not. What is
/// mounted there may belong to another network namespace, where the name is another link's.
fn has_fixed_mac(bridge: &Link) -> bool {
    /// `NET_ADDR_SET` of `include/uapi/linux/netdevice.h`.
    const SET: &str = "3";
    let attribute = |name| fs::read_to_string(format!("/sys/class/net/{}/{name}", bridge.name));
    let is = |name, value: &str| attribute(name).is_ok_and(|text| text.trim_end() == value);
    let Some(mac) = bridge.mac else { return false };
    is("addr_assign_type", SET) && is("address", &Mac(mac).to_string())
}

/// A router asks for its neighbours by its link-local address. Until that had been probed for
/// duplicates, no pod could be reached by IPv6 from elsewhere, for a second or two. The address
/// of a new bridge, or VLAN, is random, and nobody is there yet who could have the same.
pub(crate) fn skip_dad(link: &str) -> Result<(), Error> {
    Ok(sysctl::write_if_possible(&["ipv6", "conf", link, "accept_dad"], "0")?)
}

fn no_bridge(config: &Config) -> Error {
    missing(format!("bridge {}", config.bridge()))
}

/// The bridge of a name; `None` if the name is free.
///
/// Errors: the name is taken by something else.
pub(crate) fn find_bridge(node: &Rtnl, name: &str) -> Result<Option<Link>, Error> {
    let Some(link) = node.link_by_name(name)? else {
        return Ok(None);
    };
    if link.kind.as_deref() == Some("bridge") {
        return Ok(Some(link));
    }
    let kind = link.kind.unwrap_or_else(|| "a device".to_owned());
    Err(Error::NotABridge { name: link.name, kind })
}

/// Unless another pod has been connected to it meanwhile.
fn delete_unused_bridge(node: &Rtnl, name: &str) -> Result<(), Error> {
    let Some(bridge) = find_bridge(node, name)?.filter(is_ours) else {
        return Ok(());
    };
    if node.links()?.iter().any(|link| link.master == Some(bridge.index)) {
        return Ok(());
    }
    Ok(node.delete_link(bridge.index)?)
}

/// A locally administered address of a single machine (IEEE 802).
fn random_mac() -> Result<[u8; 6], Error> {
    let mut mac = [0; 6];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut mac))
        .map_err(Error::Random)?;
    mac[0] = (mac[0] | 0b10) & !0b1;
    Ok(mac)
}
