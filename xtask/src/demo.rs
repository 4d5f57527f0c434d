//! `cargo xtask demo`: attaches a pod to a network, visits its hostPort and detaches it again.
//!
//! Network namespaces stand for three machines: one outside, a node, and a pod on it. On the node, the
//! built programs run the chain of an example network, as a container runtime does. The demonstration
//! changes nothing on this machine and needs only its kernel. With `--kind` it sets up a kind cluster
//! ([`kind`]).

pub(crate) mod error;
mod evidence;
mod kind;
pub(crate) mod machine;
mod page;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use cni::Success;
use conflist::{Attachment, Network, Runtime};
use ipnetwork::IpNetwork;
use kernel::rtnl::{AddressOptions, Kind, LinkChange, NewLink, VethPeer};
use kernel::{Netns, Rtnl};
use serde_json::{Value, json};

use crate::build;
use crate::command::Failure;
use crate::paths::{dist, root};
use error::DemoError;
use evidence::Evidence;
use machine::{Machine, Workplace};

const EXAMPLE: &str = "conflist/examples/node.conflist";
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const LINK: &str = "uplink";
const HOST_PORT: u16 = 8080;
const POD_PORT: u16 = 80;
const PAGE: &str = "hello from the pod";

/// The options of the task.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Set up a kind cluster instead: localhost:8080 of Docker's host, the hostPort of an ingress
    /// controller, kube-proxy's rules. Needs Debian's packages conntrack, iproute2, iptables,
    /// nftables and nginx
    #[arg(long)]
    kind: bool,
}

/// The task.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    println!("Building the plugins");
    build::build_all()?;
    machine::become_root()?;
    let workplace = Workplace::new()?;
    Ok(if options.kind { kind::demonstrate() } else { demonstrate(&workplace) }?)
}

fn demonstrate(workplace: &Workplace) -> Result<(), DemoError> {
    let (outside, node, pod) =
        (Machine::new("outside")?, Machine::new("node")?, Machine::new("pod")?);
    join(&outside, &node)?;
    let evidence = Evidence::collect(&node, &pod, workplace)?;

    let runtime = runtime(workplace);
    let network = example(workplace)?;
    let attachment = attachment(&pod);

    println!("\nADD: the chain {}, hostPort {HOST_PORT} -> {POD_PORT}", chain_of(&network));
    let chain = (&runtime, &network, &attachment);
    let result = on(&node, chain, "ADD", Runtime::add)?;
    println!("{}", shown(&result, &network)?);
    on(&node, chain, "CHECK", Runtime::check)?;

    println!("\nThe page, fetched through the hostPort:");
    page::serve(&pod, POD_PORT, PAGE)?;
    let by_node: SocketAddr = (NODE, HOST_PORT).into();
    let by_loopback: SocketAddr = (Ipv4Addr::LOCALHOST, HOST_PORT).into();
    timed("from outside, by the node's address", || {
        page::fetch(&outside, by_node, PAGE, "from outside the node")
    })?;
    timed("from the node, by 127.0.0.1", || {
        page::fetch(&node, by_loopback, PAGE, "from the node through 127.0.0.1")
    })?;
    timed("from the pod, by its own hostPort", || {
        page::fetch(&pod, by_node, PAGE, "from the pod through its own hostPort")
    })?;

    println!("\nThe chains and rules that the packet passes, read from the kernel:");
    let addresses: Vec<IpAddr> = result.ips.iter().map(|ip| ip.address.ip()).collect();
    evidence::show_path(&node, HOST_PORT, &addresses)?;

    println!("\nDEL");
    on(&node, chain, "DEL", Runtime::del)?;
    page::no_answer(&outside, by_node)?;
    page::no_answer(&node, by_loopback)?;
    println!("  port {HOST_PORT} of the node no longer answers");
    evidence.nothing_is_left(&node, &pod, workplace, &addresses)?;
    println!("\nAll checks passed.");
    Ok(())
}

/// Runs a command of the chain on the node, as its runtime does.
fn on<T: Send + 'static>(
    node: &Machine,
    (runtime, network, pod): (&Runtime, &Network, &Attachment),
    name: &'static str,
    command: fn(&Runtime, &Network, &Attachment) -> Result<T, conflist::Error>,
) -> Result<T, DemoError> {
    let (runtime, network, pod) = (runtime.clone(), network.clone(), pod.clone());
    timed(name, || {
        let done = node.run(move || command(&runtime, &network, &pod));
        done.map_err(|error| DemoError::Chain(name, Box::new(error)))
    })
}

/// Connects the machine outside and the node by a veth pair, brings up `lo` and adds addresses.
pub(crate) fn join(outside: &Machine, node: &Machine) -> Result<(), DemoError> {
    let up = LinkChange { up: Some(true), ..LinkChange::default() };
    let configure = move |name: &str, address: Ipv4Addr| -> Result<(), kernel::Error> {
        let rtnl = Rtnl::open()?;
        for name in ["lo", name] {
            if let Some(link) = rtnl.link_by_name(name)? {
                rtnl.set_link(link.index, up)?;
                if name != "lo" {
                    let network =
                        IpNetwork::new(address.into(), 24).unwrap_or(IpAddr::from(address).into());
                    rtnl.add_address(link.index, network, AddressOptions::default())?;
                }
            }
        }
        Ok(())
    };
    let path = node.netns();
    outside.run(move || -> Result<(), kernel::Error> {
        let netns = Netns::open(&path)?;
        let peer = VethPeer { name: LINK, mac: None, netns: &netns };
        Rtnl::open()?.create_link(&NewLink::new(LINK, Kind::Veth(peer)))?;
        configure(LINK, OUTSIDE)
    })?;
    Ok(node.run(move || configure(LINK, NODE))?)
}

/// The runtime of a node. It keeps its files in the workplace.
fn runtime(workplace: &Workplace) -> Runtime {
    Runtime {
        net_dir: workplace.path().to_owned(),
        plugin_path: vec![dist()],
        cache_dir: workplace.path().join("cache"),
    }
}

/// The example network, with leases in the workplace and not in `/var`.
fn example(workplace: &Workplace) -> Result<Network, DemoError> {
    let path = root().join(EXAMPLE);
    let text = fs::read(&path).map_err(|error| DemoError::File("read", path, error))?;
    let mut list: Value =
        serde_json::from_slice(&text).map_err(|error| DemoError::Example(error.to_string()))?;
    for plugin in list["plugins"].as_array_mut().into_iter().flatten() {
        if let Some(ipam) = plugin.get_mut("ipam") {
            ipam["dataDir"] = json!(workplace.leases());
        }
    }
    Network::from_list(list.to_string().as_bytes())
        .map_err(|error| DemoError::Example(error.to_string()))
}

/// The pod, with a hostPort.
fn attachment(pod: &Machine) -> Attachment {
    let (id, ifname) = (machine::identifier("demo-pod"), machine::identifier("eth0"));
    let mut attachment = Attachment::new(id, ifname, Some(pod.netns()));
    let mapping = json!({"hostPort": HOST_PORT, "containerPort": POD_PORT, "protocol": "tcp"});
    attachment.capability_args.insert("portMappings".to_owned(), json!([mapping]));
    attachment
}

fn chain_of(network: &Network) -> String {
    let types: Vec<&str> = network.plugins.iter().map(|plugin| plugin.kind.as_str()).collect();
    types.join(" + ")
}

fn shown(result: &Success, network: &Network) -> Result<String, DemoError> {
    let value =
        result.to_json(network.version).map_err(|error| DemoError::Example(error.to_string()))?;
    Ok(format!("{value:#}"))
}

fn timed<T>(what: &str, step: impl FnOnce() -> Result<T, DemoError>) -> Result<T, DemoError> {
    let began = Instant::now();
    let done = step()?;
    println!("  {what}: {:.1} ms", began.elapsed().as_secs_f64() * 1000.0);
    Ok(done)
}
