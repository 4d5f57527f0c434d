//! The gateway of the pods: addresses that the bridge has, or the interface of a VLAN, and forwarding.

mod addresses;
mod link;

pub(crate) use addresses::complete;

use attach::{Families, forwarding, undo_unless_refused};
use cni::{Cidr, IpConfig, Undo};
use ipnetwork::IpNetwork;
use kernel::Rtnl;
use kernel::rtnl::{AddressOptions, Link};

use crate::config::Config;
use crate::error::{Error, missing};
use addresses::AddressPlan;

/// The gateway of one pod's networks. It has no addresses if the configuration asks for no gateway.
#[derive(Debug)]
pub(crate) struct Gateway<'a> {
    config: &'a Config,
    addresses: Vec<Cidr>,
}

impl<'a> Gateway<'a> {
    /// The gateway for a pod's addresses.
    pub(crate) fn of(config: &'a Config, ips: &[IpConfig]) -> Self {
        let addresses = if config.gateway() { addresses::of(ips) } else { Vec::new() };
        Self { config, addresses }
    }

    /// Which addresses must be added and deleted.
    ///
    /// Errors: another address excludes one of the gateway's, and `forceAddress` is not set.
    pub(crate) fn plan(&self, node: &Rtnl, bridge: &Link) -> Result<AddressPlan, Error> {
        if self.addresses.is_empty() {
            return Ok(AddressPlan::default());
        }
        let present = match link::find(self.config, node, bridge)? {
            Some(link) => node.addresses(link.index, None)?,
            None => Vec::new(),
        };
        let present: Vec<_> = present.into_iter().map(|address| address.network).collect();
        let (link, force) = (self.config.gateway_link(), self.config.force_address);
        addresses::plan(&link, &present, &self.addresses, force)
    }

    /// Adds the addresses and switches forwarding on. ADD does this late, because other pods use the
    /// addresses at once: little can fail after it, and forwarding stays on. Returns the interface of the
    /// VLAN, if that is the gateway.
    pub(crate) fn make(
        &self,
        node: &'a Rtnl,
        bridge: &Link,
        pod_port: &Link,
        plan: &AddressPlan,
        undo: &mut Undo<'a>,
    ) -> Result<Option<Link>, Error> {
        if self.addresses.is_empty() {
            return Ok(None);
        }
        let link = link::ensure(self.config, node, bridge, pod_port, undo)?;
        let is_bridge = link.index == bridge.index;
        for &address in &plan.delete {
            delete_other(node, link.index, address, undo)?;
        }
        for &address in &plan.add {
            add(node, link.index, address, undo)?;
        }
        forwarding::enable(node, self.families())?;
        Ok(Some(link).filter(|_| !is_bridge))
    }

    /// Finds what is missing or was changed.
    pub(crate) fn compare(&self, node: &Rtnl, bridge: &Link) -> Result<(), Error> {
        if self.addresses.is_empty() {
            return Ok(());
        }
        let link = link::compare(self.config, node, bridge)?;
        let present = node.addresses(link.index, None)?;
        for address in &self.addresses {
            if !present.iter().any(|it| it.network == (*address).into()) {
                let kind = if link.index == bridge.index { "bridge" } else { "link" };
                return Err(missing(format!("address {address} of {kind} {}", link.name)));
            }
        }
        Ok(forwarding::check(self.families())?)
    }

    fn families(&self) -> Families {
        let has = |ipv4| self.addresses.iter().any(|address| address.is_ipv4() == ipv4);
        Families { ipv4: has(true), ipv6: has(false) }
    }
}

/// Deletes an address that excludes one of the gateway's.
fn delete_other<'a>(
    node: &'a Rtnl,
    link: u32,
    address: IpNetwork,
    undo: &mut Undo<'a>,
) -> Result<(), Error> {
    let deleted = node.delete_address(link, address);
    let what = "add the other address of the gateway's link again";
    undo_unless_refused(undo, deleted, what, move || match add_address(node, link, address) {
        Err(error) if !error.is_exists() => Err(Error::from(error)),
        _ => Ok(()),
    })?;
    Ok(())
}

fn add<'a>(
    node: &'a Rtnl,
    link: u32,
    address: IpNetwork,
    undo: &mut Undo<'a>,
) -> Result<(), Error> {
    let added = add_address(node, link, address);
    let what = "delete the gateway's address";
    match undo_unless_refused(undo, added, what, move || delete(node, link, address)) {
        // Another pod's ADD has added it in the meantime.
        Err(error) if error.is_exists() => Ok(()),
        added => Ok(added?),
    }
}

/// Adds an address.
///
/// Errors: EEXIST if the link has it.
fn add_address(node: &Rtnl, link: u32, address: IpNetwork) -> kernel::Result<()> {
    // No other machine has the gateway's address. With detection, it would answer a second later.
    let options = AddressOptions { nodad: true, ..AddressOptions::default() };
    node.add_address(link, address, options)
}

/// Deletes an address, if the link has it.
fn delete(node: &Rtnl, link: u32, address: IpNetwork) -> Result<(), Error> {
    if node.addresses(link, None)?.iter().any(|it| it.network == address) {
        node.delete_address(link, address)?;
    }
    Ok(())
}
