//! What a pod and the bridge must have after the IPAM plugin has answered. ADD makes it, and CHECK compares
//! it. ADD makes the bridge and the veth pair before that ([`Connection`]).

use attach::{Dad, Pod, PodInterface, Rules, VethPair, link};
use cni::{Call, Success, Undo};
use kernel::Rtnl;
use kernel::rtnl::Link;

use crate::config::Config;
use crate::device;
use crate::error::{Error, changed};
use crate::gateway::{self, Gateway};
use crate::port::{self, Connection};
use crate::vlans::{self, Vlans};

/// The pod's part of the network, and the bridge's.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    call: &'a Call<Config>,
    /// Addresses, routes and name resolution. ADD adds the interfaces.
    result: Success,
    gateway: Gateway<'a>,
}

/// The index of the pod's interface in the result, after the bridge and the node's end.
pub(crate) const POD_INTERFACE: usize = 2;

impl<'a> Wanted<'a> {
    /// What an ADD must make for a result of the IPAM plugin.
    pub(crate) fn new(call: &'a Call<Config>, mut result: Success) -> Self {
        let config = call.config();
        if config.gateway() {
            gateway::complete(&mut result, config.is_default_gateway);
        }
        result.dns = result.dns.overridden_by(&config.dns);
        Self::of(call, &result)
    }

    /// What an ADD made that had this result.
    pub(crate) fn of(call: &'a Call<Config>, result: &Success) -> Self {
        // Plugins after this one in the chain may have added interfaces.
        let ips: Vec<_> = result.ips_of(call.ifname().as_str()).cloned().collect();
        let gateway = Gateway::of(call.config(), &ips);
        Self { call, result: Success { ips, ..result.clone() }, gateway }
    }

    /// Makes what is wanted. First come the steps that can fail for reasons of this pod; last those that
    /// other pods notice.
    pub(crate) fn make(
        self,
        node: &'a Rtnl,
        pod: &'a Pod,
        rules: &'a Rules<'a, Config>,
        connection: Connection,
        undo: &mut Undo<'a>,
    ) -> Result<Success, Error> {
        let Connection { bridge, pair } = connection;
        let VethPair { host, inside } = &pair;
        let config = self.config();
        let plan = self.gateway.plan(node, &bridge)?;
        device::set_up(config, node, &bridge)?;
        undo.on_error("remove the rules", || rules.undo(pod));
        rules.add_mac_check(&host.name, inside.mac)?;
        if !config.disable_container_interface {
            self.pod_interface().configure(pod, inside.index)?;
        }
        rules.add_masquerading(&self.result)?;
        let vlan_interface = self.gateway.make(node, &bridge, host, &plan, undo)?;
        if !config.disable_container_interface {
            pair.wait_until_operational(node)?;
        }
        vlans::filter(config, node, &bridge)?;
        if !config.disable_container_interface {
            self.pod_interface().announce(pod, inside)?;
        }
        // The order must agree with [`POD_INTERFACE`].
        let mut interfaces = vec![
            link::describe(&bridge, None),
            link::describe(host, None),
            link::describe(inside, Some(pod)),
        ];
        interfaces.extend(vlan_interface.map(|link| link::describe(&link, None)));
        Ok(Success { interfaces, ..self.result })
    }

    /// Finds what is missing or was changed.
    pub(crate) fn compare(
        &self,
        node: &Rtnl,
        pod: &Pod,
        rules: &Rules<'_, Config>,
    ) -> Result<(), Error> {
        let bridge = self.compare_bridge(node)?;
        let VethPair { host, inside } = VethPair::find(node, pod, self.ifname())?;
        link::compare(&self.result, &inside, Some(pod))?;
        port::compare(self.config(), node, &bridge, &host)?;
        rules.compare(&host.name, inside.mac, &self.result)?;
        if self.config().disable_container_interface {
            return Ok(());
        }
        Ok(self.pod_interface().compare(pod, &inside)?)
    }

    fn compare_bridge(&self, node: &Rtnl) -> Result<Link, Error> {
        let config = self.config();
        let bridge = device::require(node, config.bridge())?;
        let changed = |how| Err(changed(format!("bridge {}", bridge.name), how));
        if config.gateway() && Vlans::of_gateway(config).is_none() {
            // The hardware address of a bridge that is not the gateway may follow its ports.
            link::compare(&self.result, &bridge, None)?;
        }
        if !bridge.up {
            return changed("is down");
        }
        if config.promisc_mode && !bridge.promisc {
            return changed("is not promiscuous");
        }
        if vlans::are_wanted(config) && !bridge.vlans.unwrap_or_default().filtering {
            return changed("does not filter VLANs");
        }
        self.gateway.compare(node, &bridge)?;
        Ok(bridge)
    }

    fn pod_interface(&self) -> PodInterface<'_> {
        let dad = if self.config().enabledad { Dad::Wait } else { Dad::Skip };
        // A pod that gets IPv6 addresses from IPAM gets its routes from there, too.
        let has_ipv6 = self.result.ips.iter().any(|ip| !ip.address.is_ipv4());
        let accepts_ra = self.config().accept_ra.or(has_ipv6.then_some(false));
        PodInterface { dad, accepts_ra, ..PodInterface::of(self.ifname(), &self.result) }
    }

    fn config(&self) -> &'a Config {
        self.call.config()
    }

    fn ifname(&self) -> &'a str {
        self.call.ifname().as_str()
    }
}
