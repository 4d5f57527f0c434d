//! What should be there for one pod: computed before anything is touched, made by ADD, compared
//! by CHECK.

use std::fs::File;
use std::io::Read;

use attach::{
    Dad, HostEnd, Pod, PodInterface, VethOptions, VethPair, forwarding,
    ignore_router_advertisements, interfaces,
};
use cni::{Call, Cidr, Mac, Success, Undo};
use ipnetwork::IpNetwork;
use kernel::Rtnl;
use kernel::rtnl::{self, AddressOptions, BridgePort, Link, LinkChange};

use crate::config::Config;
use crate::error::Error;
use crate::gateway;
use crate::rules::Rules;

/// The pod's part of the network, and the bridge's.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    call: &'a Call<Config>,
    host_end: HostEnd,
    /// Addresses, routes and name resolution; the interfaces are known when they are made.
    result: Success,
    /// The addresses that the bridge has to have.
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
        if !config.dns.is_empty() {
            result.dns = config.dns.clone();
        }
        Ok(Self::of(call, &result))
    }

    /// What an ADD made that had this result.
    pub(crate) fn of(call: &'a Call<Config>, result: &Success) -> Self {
        let config = call.config();
        let gateways = if config.gateway() { gateway::addresses(&result.ips) } else { Vec::new() };
        Self { call, host_end: HostEnd::of(call), result: result.clone(), gateways }
    }

    /// Makes it so.
    pub(crate) fn make(
        self,
        node: &'a Rtnl,
        pod: &'a Pod,
        rules: &'a Rules<'a>,
        mac: Option<Mac>,
        undo: &mut Undo<'a>,
    ) -> Result<Success, Error> {
        let bridge = self.ensure_bridge(node, undo)?;
        let addresses = self.plan_gateway(node, &bridge)?;
        let bridge = self.set_up_bridge(node, bridge)?;
        let VethPair { host, inside } = self.connect(node, pod, &bridge, mac, undo)?;
        undo.on_error("remove the rules", || rules.remove(Some(pod)));
        rules.check_mac(&host.name, inside.mac)?;
        if !self.config().disable_container_interface {
            self.pod_interface().configure(pod, inside.index)?;
        }
        rules.masquerade(&self.result)?;
        self.become_gateway(node, &bridge, &addresses, undo)?;
        // In the order that [`POD_INTERFACE`] counts on.
        let interfaces = vec![
            interfaces::describe(&bridge, None),
            interfaces::describe(&host, None),
            interfaces::describe(&inside, Some(pod)),
        ];
        Ok(Success { interfaces, ..self.result })
    }

    /// Finds what is missing or was changed.
    pub(crate) fn compare(&self, node: &Rtnl, pod: &Pod, rules: &Rules<'_>) -> Result<(), Error> {
        let name = self.config().bridge();
        let missing = |what: String| Error::from(attach::Error::missing(what));
        let bridge = find_bridge(node, name)?.ok_or_else(|| missing(format!("bridge {name}")))?;
        interfaces::compare(&self.result, &bridge, None)?;
        if self.config().promisc_mode && !bridge.promisc {
            return Err(changed(format!("bridge {name}"), "is not promiscuous"));
        }
        let present = node.addresses(bridge.index, None)?;
        for gateway in &self.gateways {
            if !present.iter().any(|address| address.network == (*gateway).into()) {
                return Err(missing(format!("address {gateway} of bridge {name}")));
            }
        }

        let VethPair { host, inside } = VethPair::find(node, pod, self.ifname())?;
        interfaces::compare(&self.result, &inside, Some(pod))?;
        if host.master != Some(bridge.index) {
            return Err(changed(format!("link {}", host.name), &format!("is no port of {name}")));
        }
        let (wanted, port) = (self.port(), host.port.unwrap_or_default());
        // More than was asked for may be somebody else's doing; a kubelet sets hairpin mode.
        if (wanted.hairpin && !port.hairpin) || (wanted.isolated && !port.isolated) {
            let how = format!("is set to {port:?} instead of {wanted:?}");
            return Err(changed(format!("bridge port {}", host.name), &how));
        }
        rules.compare(&host.name, inside.mac, &self.result)?;
        if self.config().disable_container_interface {
            return Ok(());
        }
        Ok(self.pod_interface().compare(pod, &inside)?)
    }

    /// The bridge, made if it is not there; one that is there is not touched yet.
    fn ensure_bridge(&self, node: &'a Rtnl, undo: &mut Undo<'a>) -> Result<Link, Error> {
        let name = self.config().bridge();
        let found = find_bridge(node, name)?;
        if found.is_none() {
            let bridge = rtnl::Bridge {
                name,
                mac: random_mac()?,
                mtu: self.config().mtu(),
                promisc: self.config().promisc_mode,
            };
            match node.create_bridge(&bridge) {
                // Another pod's ADD was faster.
                Err(error) if error.is_exists() => {}
                Err(error) => return Err(error.into()),
                Ok(()) => {
                    let name = name.to_owned();
                    undo.on_error("delete the bridge", move || {
                        Ok(delete_unused_bridge(node, &name)?)
                    });
                }
            }
        }
        let found = if found.is_none() { find_bridge(node, name)? } else { found };
        Ok(found.ok_or_else(|| attach::Error::missing(format!("bridge {name}")))?)
    }

    /// The bridge, up and as its configuration wants it.
    fn set_up_bridge(&self, node: &Rtnl, mut bridge: Link) -> Result<Link, Error> {
        ignore_router_advertisements(&bridge.name)?;

        let mut change = LinkChange::default();
        if !bridge.up {
            change.up = Some(true);
        }
        if self.config().promisc_mode && !bridge.promisc {
            change.promisc = Some(true);
        }
        if bridge.mac.is_none_or(|mac| mac == [0; 6]) {
            // The reference plugins leave such bridges, on which no address can be kept.
            bridge.mac = Some(random_mac()?);
            change.mac = bridge.mac;
        }
        if change != LinkChange::default() {
            node.set_link(bridge.index, change)?;
        }
        Ok(bridge)
    }

    /// The veth pair, with the node's end as the bridge's port.
    fn connect(
        &self,
        node: &'a Rtnl,
        pod: &Pod,
        bridge: &Link,
        mac: Option<Mac>,
        undo: &mut Undo<'a>,
    ) -> Result<VethPair, Error> {
        let mac = mac.map(|mac| mac.0);
        let options = VethOptions { mtu: self.config().mtu(), mac, master: Some(bridge.index) };
        let pair = VethPair::create(&self.host_end, node, pod, options, undo)?;
        let port = self.port();
        if port != BridgePort::default() {
            let change = LinkChange { port: Some(port), ..LinkChange::default() };
            node.set_link(pair.host.index, change)?;
        }
        Ok(pair)
    }

    /// What has to happen to the bridge's addresses; refuses before the pod is connected.
    fn plan_gateway(&self, node: &Rtnl, bridge: &Link) -> Result<gateway::AddressPlan, Error> {
        if self.gateways.is_empty() {
            return Ok(gateway::AddressPlan::default());
        }
        let present = node.addresses(bridge.index, None)?;
        let present: Vec<_> = present.into_iter().map(|address| address.network).collect();
        gateway::plan(self.config().bridge(), &present, &self.gateways, self.config().force_address)
    }

    /// The addresses of the bridge, and forwarding. Last of all, because other pods come to rely
    /// on them at once: little can fail from here on, and forwarding stays on once it is.
    fn become_gateway(
        &self,
        node: &'a Rtnl,
        bridge: &Link,
        plan: &gateway::AddressPlan,
        undo: &mut Undo<'a>,
    ) -> Result<(), Error> {
        let index = bridge.index;
        for &address in &plan.delete {
            node.delete_address(index, address)?;
            undo.on_error("add the bridge's other address again", move || {
                Ok(add_gateway(node, index, address).map(drop)?)
            });
        }
        for &address in &plan.add {
            if add_gateway(node, index, address)? {
                undo.on_error("delete the gateway's address", move || {
                    Ok(node.delete_address(index, address).map_err(Error::from)?)
                });
            }
        }
        if !plan.add.is_empty() {
            // A bridge that somebody else made may change its address with its ports.
            node.set_link(bridge.index, LinkChange { mac: bridge.mac, ..LinkChange::default() })?;
        }
        let of_family = |ipv4| self.gateways.iter().any(|gateway| gateway.is_ipv4() == ipv4);
        Ok(forwarding::enable(of_family(true), of_family(false))?)
    }

    fn pod_interface(&self) -> PodInterface<'_> {
        let dad = if self.config().enabledad { Dad::Wait } else { Dad::Skip };
        PodInterface { dad, ..PodInterface::of(self.ifname(), &self.result) }
    }

    fn config(&self) -> &'a Config {
        self.call.config()
    }

    fn ifname(&self) -> &'a str {
        self.call.ifname().as_str()
    }

    fn port(&self) -> BridgePort {
        BridgePort { hairpin: self.config().hairpin_mode, isolated: self.config().port_isolation }
    }
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

/// Whether the address was added; it was not if the bridge had it.
fn add_gateway(node: &Rtnl, bridge: u32, address: IpNetwork) -> Result<bool, Error> {
    // Nobody else has the gateway's address; with detection it would answer a second late.
    match node.add_address(
        bridge,
        address,
        AddressOptions { nodad: true, ..AddressOptions::default() },
    ) {
        Err(error) if error.is_exists() => Ok(false),
        added => Ok(added.map(|()| true)?),
    }
}

/// Unless another pod has been connected to it meanwhile.
fn delete_unused_bridge(node: &Rtnl, name: &str) -> Result<(), Error> {
    let Some(bridge) = find_bridge(node, name)? else {
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

fn changed(object: String, how: &str) -> Error {
    attach::Error::changed(object, how).into()
}
