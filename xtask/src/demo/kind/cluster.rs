//! Docker's host and two nodes, without pods; attaches and detaches pods.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use conflist::{Network, Runtime};
use ipnetwork::IpNetwork;
use kernel::conntrack::Filter;
use kernel::nft::Family;
use kernel::rtnl::{AddressOptions, Bridge, LinkChange, Route, Veth, VethPeer};
use kernel::{Netns, Nfnetlink, Rtnl, sysctl};
use serde_json::json;

use super::{data, docker, programs};
use crate::demo::evidence::{self, Texts};
use crate::demo::machine::{Machine, Workplace};
use crate::demo::{DemoError, attachment, example, runtime};

const EXAMPLE: &str = "conflist/examples/kind.conflist";
/// The network that Docker creates for kind.
const HOST: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 1);
const CONTROL_PLANE: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 2);
const WORKER: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 3);
/// The pod subnets of the nodes.
const CONTROL_PLANES_PODS: &str = "10.244.0.0/24";
const WORKERS_PODS: &str = "10.244.1.0/24";
/// The controller's address in kube-proxy's file: kind's own three pods are created before it.
const CONTROLLER: &str = "10.244.0.5";
const BRIDGE: &str = "kind";

/// All machines except for the pods.
#[derive(Debug)]
pub(super) struct Cluster<'a> {
    pub(super) host: Machine,
    pub(super) control_plane: Node,
    pub(super) worker: Node,
    runtime: Runtime,
    workplace: &'a Workplace,
}

/// A node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) machine: Machine,
    pub(super) address: Ipv4Addr,
    network: Network,
}

/// An attached pod.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) machine: Machine,
    pub(super) address: IpAddr,
    name: &'static str,
    ports: &'static [(u16, u16)],
    /// The links of the node to the pod.
    links: Texts,
}

impl<'a> Cluster<'a> {
    /// Creates the machines; port 8080 of the host leads to port 80 of the control plane.
    pub(super) fn new(workplace: &'a Workplace) -> Result<Self, DemoError> {
        let host = Machine::new("host")?;
        host.run(|| -> Result<(), kernel::Error> {
            let rtnl = Rtnl::open()?;
            let mac = [0x02, 0x42, 0xac, 0x12, 0, 1];
            let bridge = Bridge {
                name: BRIDGE,
                mac,
                mtu: None,
                promisc: false,
                vlan_filtering: false,
                alias: None,
            };
            rtnl.create_bridge(&bridge)?;
            bring_up("lo", None)?;
            bring_up(BRIDGE, Some(HOST))
        })?;
        let control_plane = Node::new(
            &host,
            ("control-plane", CONTROL_PLANE),
            (CONTROL_PLANES_PODS, "leases"),
            workplace,
        )?;
        let worker =
            Node::new(&host, ("worker", WORKER), (WORKERS_PODS, "leases-worker"), workplace)?;
        for (node, other, pods) in
            [(&control_plane, WORKER, WORKERS_PODS), (&worker, CONTROL_PLANE, CONTROL_PLANES_PODS)]
        {
            node.machine.run(move || add_route(pods, other))?;
            programs::restore(&node.machine, data("kindnet.iptables")?)?;
            programs::restore(&node.machine, data("kube-proxy.iptables")?)?;
        }
        docker::publish(&host, 8080, (CONTROL_PLANE, 80).into())?;
        Ok(Self { host, control_plane, worker, runtime: runtime(workplace), workplace })
    }

    /// Attaches a new pod, as the node's runtime does.
    pub(super) fn attach(
        &self,
        node: &Node,
        name: &'static str,
        ports: &'static [(u16, u16)],
    ) -> Result<Pod, DemoError> {
        let machine = Machine::new(name)?;
        let before = evidence::links(&node.machine)?;
        let (runtime, network) = (self.runtime.clone(), node.network.clone());
        let pod = attachment(name, &machine, ports);
        let began = Instant::now();
        let added = node.machine.run(move || runtime.add(&network, &pod));
        let took = began.elapsed().as_secs_f64() * 1000.0;
        let result = added.map_err(|error| DemoError::Chain("ADD", Box::new(error)))?;
        let address = result.ips.first().map(|ip| ip.address.ip());
        let address = address.ok_or_else(|| DemoError::Evidence(format!("{name}: no address")))?;
        let links = evidence::links(&node.machine)?.difference(&before).cloned().collect();
        let by_host = ports.iter().map(|(host, _)| format!(", hostPort {host}"));
        let by_host: Vec<String> = by_host.collect();
        println!(
            "  ADD {name} on {}: {address}{}, {took:.1} ms",
            node.machine.name(),
            by_host.concat()
        );
        Ok(Pod { machine, address, name, ports, links })
    }

    /// Detaches a pod, removes its namespace and checks that nothing of it is left: no link of the
    /// node, lease, rule or connection by its hostPorts.
    pub(super) fn detach(&self, node: &Node, pod: Pod) -> Result<(), DemoError> {
        let Pod { machine, address, name, ports, links } = pod;
        let (runtime, network) = (self.runtime.clone(), node.network.clone());
        let attachment = attachment(name, &machine, ports);
        let began = Instant::now();
        let deleted = node.machine.run(move || runtime.del(&network, &attachment));
        let took = began.elapsed().as_secs_f64() * 1000.0;
        deleted.map_err(|error| DemoError::Chain("DEL", Box::new(error)))?;
        println!("  DEL {} on {}: {took:.1} ms", name, node.machine.name());

        let present = evidence::links(&node.machine)?;
        let links: Vec<&String> = present.intersection(&links).collect();
        let leases = evidence::leases(self.workplace)?;
        let lease = leases.get(&address.to_string());
        let host = node.address;
        let (rules, flows) = node.machine.run(move || -> Result<_, kernel::Error> {
            let rules = evidence::rules_naming(&[address])?;
            let to_pod = Filter { reply_source: Some(address), ..Filter::default() };
            let mut flows = Nfnetlink::open()?.flows(Family::Ipv4, &to_pod)?;
            // Connections by kube-proxy's rules are not checked.
            flows.retain(|flow| {
                let (to, port) = (flow.original.destination, flow.original.destination_port);
                to == host && ports.iter().any(|(host_port, _)| *host_port == port)
            });
            Ok((rules, flows))
        })?;
        if links.is_empty() && lease.is_none() && rules.is_empty() && flows.is_empty() {
            return Ok(());
        }
        let left = format!("links {links:?}, lease {lease:?}, rules {rules:?}, flows {flows:?}");
        Err(DemoError::Evidence(format!("left of {name}: {left}")))
    }

    /// Changes kube-proxy's rules to another address of the controller.
    pub(super) fn move_service(&self, controller: IpAddr) -> Result<(), DemoError> {
        let rules = data("kube-proxy.iptables")?.replace(CONTROLLER, &controller.to_string());
        // The jumps exist already.
        let rules: Vec<&str> = rules.lines().filter(|line| !line.starts_with("-I ")).collect();
        let rules = format!("{}\n", rules.join("\n"));
        programs::restore(&self.control_plane.machine, rules.clone())?;
        programs::restore(&self.worker.machine, rules)
    }
}

impl Node {
    /// Creates a container of Docker's, connected to the host's bridge and configured as by kind and
    /// kube-proxy.
    fn new(
        host: &Machine,
        (name, address): (&'static str, Ipv4Addr),
        (pods, leases): (&str, &str),
        workplace: &Workplace,
    ) -> Result<Self, DemoError> {
        let machine = Machine::new(name)?;
        let path = machine.netns();
        host.run(move || -> Result<(), kernel::Error> {
            let (netns, rtnl) = (Netns::open(&path)?, Rtnl::open()?);
            let master = rtnl.link_by_name(BRIDGE)?.map(|bridge| bridge.index);
            let peer = VethPeer { name: "eth0", mac: None, netns: &netns };
            rtnl.create_veth(&Veth { name, mtu: None, master, alias: None, peer })
        })?;
        machine.run(move || -> Result<(), kernel::Error> {
            sysctl::write(&["ipv4", "ip_forward"], "1")?;
            sysctl::write(&["ipv4", "conf", "all", "route_localnet"], "1")?;
            bring_up("lo", None)?;
            bring_up("eth0", Some(address))?;
            add_route("0.0.0.0/0", HOST)
        })?;
        let network = example(EXAMPLE, |ipam| {
            ipam["dataDir"] = json!(workplace.path().join(leases));
            ipam["ranges"] = json!([[{"subnet": pods}]]);
        })?;
        Ok(Self { machine, address, network })
    }

    /// A port of the node.
    pub(super) fn at(&self, port: u16) -> SocketAddr {
        (self.address, port).into()
    }
}

fn bring_up(link: &str, address: Option<Ipv4Addr>) -> Result<(), kernel::Error> {
    let rtnl = Rtnl::open()?;
    let Some(link) = rtnl.link_by_name(link)? else { return Ok(()) };
    rtnl.set_link(link.index, up())?;
    let Some(address) = address else { return Ok(()) };
    let network = IpNetwork::new(address.into(), 16).unwrap_or(IpAddr::from(address).into());
    rtnl.add_address(link.index, network, AddressOptions::default())
}

fn add_route(destination: &str, gateway: Ipv4Addr) -> Result<(), kernel::Error> {
    let rtnl = Rtnl::open()?;
    let Some(link) = rtnl.link_by_name("eth0")? else { return Ok(()) };
    let Ok(destination) = destination.parse() else { return Ok(()) };
    let gateway = Some(gateway.into());
    rtnl.add_route(&Route { gateway, ..Route::new(destination, link.index) })
}

fn up() -> LinkChange<'static> {
    LinkChange { up: Some(true), ..LinkChange::default() }
}
