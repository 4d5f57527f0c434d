//! The bridge device: found, or made if it is not there.

use std::fs::{self, File};
use std::io::Read;

use attach::link::{self, ignore_router_advertisements, skip_dad};
use attach::undo_unless_refused;
use cni::{Mac, Undo};
use kernel::Rtnl;
use kernel::rtnl::{Kind, Link, LinkChange, NewLink};

use crate::config::Config;
use crate::error::{Error, missing};
use crate::vlans;

/// The alias of a bridge that this plugin made. It must not have the form of an attachment's alias, which has
/// slashes.
const ALIAS: &str = "made by podwire";

/// Finds the bridge, or makes it. A bridge that is there is not changed yet, except that its hardware address
/// is fixed.
pub(crate) fn ensure<'a>(
    config: &'a Config,
    node: &'a Rtnl,
    undo: &mut Undo<'a>,
) -> Result<Link, Error> {
    let name = config.bridge();
    let mut bridge = match find(node, name)? {
        Some(bridge) => bridge,
        None => create(config, node, undo)?,
    };
    keep_mac(node, &mut bridge)?;
    Ok(bridge)
}

/// The bridge of a name; `None` if the name is free.
///
/// Errors: another kind of link has the name.
pub(crate) fn find(node: &Rtnl, name: &str) -> Result<Option<Link>, Error> {
    let Some(link) = node.link_by_name(name)? else {
        return Ok(None);
    };
    if link.kind.as_deref() == Some("bridge") {
        return Ok(Some(link));
    }
    let kind = link.kind.unwrap_or_else(|| "device".to_owned());
    Err(Error::NotABridge { name: link.name, kind })
}

/// The bridge of a name, which must be there.
pub(crate) fn require(node: &Rtnl, name: &str) -> Result<Link, Error> {
    find(node, name)?.ok_or_else(|| missing(format!("bridge {name}")))
}

/// Sets a bridge up as the configuration says. A bridge that another program made is changed only where the
/// configuration asks for it.
pub(crate) fn set_up(config: &Config, node: &Rtnl, bridge: &Link) -> Result<(), Error> {
    if is_ours(bridge) {
        // Also for a bridge that was there: the ADD that made it may have been killed before this.
        ignore_router_advertisements(&bridge.name)?;
        if config.gateway() {
            skip_dad(&bridge.name)?;
        }
    }
    let up = (!bridge.up).then_some(true);
    let promisc = (config.promisc_mode && !bridge.promisc).then_some(true);
    let change = LinkChange { up, promisc, ..LinkChange::default() };
    if change != LinkChange::default() {
        node.set_link(bridge.index, change)?;
    }
    Ok(())
}

/// Whether this plugin made a bridge. Bridges of the reference plugin, and of versions of this plugin before
/// the alias, count as made by another program: what a new bridge needs was done when they were made.
pub(crate) fn is_ours(bridge: &Link) -> bool {
    bridge.alias == ALIAS
}

fn create<'a>(config: &'a Config, node: &'a Rtnl, undo: &mut Undo<'a>) -> Result<Link, Error> {
    let name = config.bridge();
    let kind =
        Kind::Bridge { promisc: config.promisc_mode, vlan_filtering: vlans::are_wanted(config) };
    let created = node.create_link(&NewLink {
        mac: Some(random_mac()?),
        mtu: config.mtu(),
        up: true,
        alias: Some(ALIAS),
        ..NewLink::new(name, kind)
    });
    match undo_unless_refused(undo, created, "delete the bridge", || delete_unused(node, name)) {
        // Another pod's ADD has made it in the meantime.
        Err(error) if error.is_exists() => {}
        created => created?,
    }
    require(node, name)
}

/// Fixes the hardware address of a bridge. Without a fixed address, a bridge takes the lowest one of its
/// ports, so that it changes with the pods, and is zero after the last port has gone. An address that was set
/// stays, even if it is the same as before.
///
/// An address that was set already is not set again: whenever it is set, the kernel forgets all neighbours on
/// the link, also permanent ones.
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

/// Whether a bridge's hardware address was set, according to `/sys`: netlink does not say it. The `/sys` that
/// is mounted may belong to another network namespace, where another link has the name.
fn has_fixed_mac(bridge: &Link) -> bool {
    /// `NET_ADDR_SET` of `include/uapi/linux/netdevice.h`.
    const SET: &str = "3";
    let attribute = |name| fs::read_to_string(format!("/sys/class/net/{}/{name}", bridge.name));
    let is = |name, value: &str| attribute(name).is_ok_and(|text| text.trim_end() == value);
    let Some(mac) = bridge.mac else { return false };
    is("addr_assign_type", SET) && is("address", &Mac(mac).to_string())
}

/// Deletes a bridge that this plugin made, unless another pod has been connected to it in the meantime.
fn delete_unused(node: &Rtnl, name: &str) -> Result<(), Error> {
    let Some(bridge) = find(node, name)?.filter(is_ours) else {
        return Ok(());
    };
    if node.links()?.iter().any(|link| link.master == Some(bridge.index)) {
        return Ok(());
    }
    Ok(link::delete(node, &bridge)?)
}

/// A random, locally administered, unicast hardware address (IEEE 802).
fn random_mac() -> Result<[u8; 6], Error> {
    let mut mac = [0; 6];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut mac))
        .map_err(Error::Random)?;
    mac[0] = (mac[0] | 0b10) & !0b1;
    Ok(mac)
}
