//! What should be there for one pod: computed before anything is touched, made by ADD, compared
//! by CHECK.

use attach::{
    Dad, Families, Pod, PodInterface, VethPair, forwarding, interfaces, undo_unless_refused,
};
use cni::{Call, Cidr, Success, Undo};
use ipnetwork::IpNetwork;
use kernel::Rtnl;
use kernel::rtnl::{AddressOptions, Link};

use crate::config::Config;
use crate::connection::{self, Connection, find_bridge, set_up_bridge};
use crate::error::{Error, changed, missing};
use crate::rules::Rules;
use crate::vlans::{self, Vlans};
use crate::{gateway, gateway_link};

/// The pod's part of the network, and the bridge's.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    call: &'a Call<Config>,
    /// Addresses, routes and name resolution; the interfaces are known when they are made.
    result: Success,
    /// The addresses that the bridge has to have, or the interface of the VLAN.
    gateways: Vec<Cidr>,
}

/// The index of the pod's interface in the result: behind the bridge and the node's end.
const POD_INTERFACE: usize = 2;

impl<'a> Wanted<'a> {
    /// What an ADD has to make for what IPAM gave.
    pub(crate) fn new(call: &'a Call<Config>, lease: Success) -> Result<Self, Error> {
        let config = call.config();
        if call.network.ipam.is_some() && lease.ips.is_empty() {
            return Err(attach::Error::NoAddress.into());
        }
        let mut result = Success { interfaces: Vec::new(), ..lease };
        if config.gateway() {
            gateway::complete(&mut result, config.is_default_gateway);
        }
        for ip in &mut result.ips {
            ip.interface = Some(POD_INTERFACE);
        }
        result.dns = result.dns.overridden_by(&config.dns);
        Ok(Self::of(call, &result))
    }

    /// What an ADD made that had this result.
    pub(crate) fn of(call: &'a Call<Config>, result: &Success) -> Self {
        // Plugins further down the chain may have made interfaces of their own.
        let ips: Vec<_> = result.ips_of(call.ifname().as_str()).cloned().collect();
        let gateways = if call.config().gateway() { gateway::addresses(&ips) } else { Vec::new() };
        Self { call, result: Success { ips, ..result.clone() }, gateways }
    }

    /// Makes it so.
    pub(crate) fn make(
        self,
        node: &'a Rtnl,
        pod: &'a Pod,
        rules: &'a Rules<'a>,
        connection: Connection,
        undo: &mut Undo<'a>,
    ) -> Result<Success, Error> {
        let Connection { bridge, pair } = connection;
        let VethPair { host, inside } = &pair;
        let addresses = self.plan_gateway(node, &bridge)?;
        set_up_bridge(self.config(), node, &bridge)?;
        undo.on_error("remove the rules", || rules.undo(Some(pod)));
        rules.check_mac(&host.name, inside.mac)?;
        if !self.config().disable_container_interface {
            self.pod_interface().configure(pod, inside.index)?;
        }
        rules.masquerade(&self.result)?;
        let vlan_interface = self.become_gateway(node, &bridge, host, &addresses, undo)?;
        if !self.config().disable_container_interface {
            pair.wait_until_operational(node)?;
        }
        // Last, because other pods come to rely on it, too.
        vlans::filter(self.config(), node, &bridge)?;
        if !self.config().disable_container_interface {
            self.pod_interface().announce(pod, inside)?;
        }
        // In the order that [`POD_INTERFACE`] counts on.
        let mut interfaces = vec![
            interfaces::describe(&bridge, None),
            interfaces::describe(host, None),
            interfaces::describe(inside, Some(pod)),
        ];
        interfaces.extend(vlan_interface.map(|link| interfaces::describe(&link, None)));
        Ok(Success { interfaces, ..self.result })
    }

    /// Finds what is missing or was changed.
    pub(crate) fn compare(&self, node: &Rtnl, pod: &Pod, rules: &Rules<'_>) -> Result<(), Error> {
        let bridge = self.compare_bridge(node)?;
        let VethPair { host, inside } = VethPair::find(node, pod, self.ifname())?;
        interfaces::compare(&self.result, &inside, Some(pod))?;
        self.compare_port(&host, node, &bridge)?;
        rules.compare(&host.name, inside.mac, &self.result)?;
        if self.config().disable_container_interface {
            return Ok(());
        }
        Ok(self.pod_interface().compare(pod, &inside)?)
    }

    fn compare_bridge(&self, node: &Rtnl) -> Result<Link, Error> {
        let name = self.config().bridge();
        let bridge = find_bridge(node, name)?.ok_or_else(|| missing(format!("bridge {name}")))?;
        if self.config().gateway() && Vlans::of_gateway(self.config()).is_none() {
            // Others' hardware addresses may follow their ports'.
            interfaces::compare(&self.result, &bridge, None)?;
        }
        if !bridge.up {
            return Err(changed(format!("bridge {name}"), "is down"));
        }
        if self.config().promisc_mode && !bridge.promisc {
            return Err(changed(format!("bridge {name}"), "is not promiscuous"));
        }
        if vlans::are_wanted(self.config()) && !bridge.vlans.unwrap_or_default().filtering {
            return Err(changed(format!("bridge {name}"), "does not filter VLANs"));
        }
        if !self.gateways.is_empty() {
            let link = gateway_link::compare(self.config(), node, &bridge)?;
            let present = node.addresses(link.index, None)?;
            for gateway in &self.gateways {
                if !present.iter().any(|address| address.network == (*gateway).into()) {
                    let kind = if link.index == bridge.index { "bridge" } else { "link" };
                    return Err(missing(format!("address {gateway} of {kind} {}", link.name)));
                }
            }
            forwarding::check(self.families())?;
        }
        Ok(bridge)
    }

    fn compare_port(&self, host: &Link, node: &Rtnl, bridge: &Link) -> Result<(), Error> {
        let link = || format!("link {}", host.name);
        if host.master != Some(bridge.index) {
            return Err(changed(link(), &format!("is no port of {}", bridge.name)));
        }
        if !host.up {
            return Err(changed(link(), "is down"));
        }
        let (wanted, port) = (connection::port(self.config()), host.port.unwrap_or_default());
        // More than was asked for may be somebody else's doing; a kubelet sets hairpin mode.
        if wanted.hairpin && !port.hairpin {
            return Err(changed(link(), "is not in hairpin mode"));
        }
        if wanted.isolated && !port.isolated {
            return Err(changed(link(), "is not isolated"));
        }
        Vlans::of_pods(self.config()).map_or(Ok(()), |vlans| vlans.compare(node, host))
    }

    /// What has to happen to the gateway's addresses; refuses what would drive another one out.
    fn plan_gateway(&self, node: &Rtnl, bridge: &Link) -> Result<gateway::AddressPlan, Error> {
        if self.gateways.is_empty() {
            return Ok(gateway::AddressPlan::default());
        }
        let present = match gateway_link::find(self.config(), node, bridge)? {
            Some(link) => node.addresses(link.index, None)?,
            None => Vec::new(),
        };
        let present: Vec<_> = present.into_iter().map(|address| address.network).collect();
        let (link, force) = (self.config().gateway_link(), self.config().force_address);
        gateway::plan(&link, &present, &self.gateways, force)
    }

    /// The addresses of the gateway, and forwarding. Last of all, because other pods come to rely
    /// on them at once: little can fail from here on, and forwarding stays on once it is. Returns
    /// the interface of the VLAN, if the gateway is one.
    fn become_gateway(
        &self,
        node: &'a Rtnl,
        bridge: &Link,
        pod_port: &Link,
        plan: &gateway::AddressPlan,
        undo: &mut Undo<'a>,
    ) -> Result<Option<Link>, Error> {
        if self.gateways.is_empty() {
            return Ok(None);
        }
        let link = gateway_link::ensure(self.config(), node, bridge, pod_port, undo)?;
        let (index, is_bridge) = (link.index, link.index == bridge.index);
        for &address in &plan.delete {
            let deleted = node.delete_address(index, address);
            undo_unless_refused(
                undo,
                deleted,
                "add the gateway's other address again",
                move || match add_gateway(node, index, address) {
                    Err(error) if !error.is_exists() => Err(Error::from(error).into()),
                    _ => Ok(()),
                },
            )?;
        }
        for &address in &plan.add {
            let added = add_gateway(node, index, address);
            let added =
                undo_unless_refused(undo, added, "delete the gateway's address", move || {
                    Ok(delete_gateway(node, index, address)?)
                });
            match added {
                // Another pod's ADD was faster.
                Err(error) if error.is_exists() => {}
                added => added?,
            }
        }
        forwarding::enable(node, self.families())?;
        Ok(Some(link).filter(|_| !is_bridge))
    }

    /// The families that the bridge is a gateway of.
    fn families(&self) -> Families {
        let has = |ipv4| self.gateways.iter().any(|gateway| gateway.is_ipv4() == ipv4);
        Families { ipv4: has(true), ipv6: has(false) }
    }

    fn pod_interface(&self) -> PodInterface<'_> {
        let dad = if self.config().enabledad { Dad::Wait } else { Dad::Skip };
        // Who gets an IPv6 address from IPAM gets routes from there, too.
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

/// Adds an address of the gateway.
///
/// Errors: EEXIST if the link has it.
fn add_gateway(node: &Rtnl, link: u32, address: IpNetwork) -> kernel::Result<()> {
    // Nobody else has the gateway's address; with detection it would answer a second late.
    let options = AddressOptions { nodad: true, ..AddressOptions::default() };
    node.add_address(link, address, options)
}

/// Deletes an address of the gateway, if the link has it.
fn delete_gateway(node: &Rtnl, link: u32, address: IpNetwork) -> Result<(), Error> {
    if node.addresses(link, None)?.iter().any(|it| it.network == address) {
        node.delete_address(link, address)?;
    }
    Ok(())
}
