//! A node with many pods that have a hostPort each, a machine outside that connects to them, and one
//! machine that has the addresses of all pods.

use std::iter;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use kernel::Family;
use kernel::conntrack::Filter;
use kernel::rtnl::{AddressOptions, Kind, LinkChange, NewLink, Route, VethPeer};
use kernel::{Netns, Nfnetlink, Rtnl, sysctl};
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::{Value, json};

use super::config::portmap_of;
use super::error::BenchError;
use super::scenario::Step;
use super::{Contender, Place};
use crate::command::Failure;
use crate::machine::Machine;

const CONNECTIONS: u16 = 1000;
/// Time for the kernel to free what was deleted last, so that it does not disturb the next round.
const PAUSE: Duration = Duration::from_millis(100);
const POD_PORT: u16 = 80;
/// The hostPort of pod 0, if it existed.
const FIRST_PORT: u16 = 20_000;
/// The link between the node and the machine outside.
const UPLINK: &str = "uplink";
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The link between the node and the pods.
const LINK: &str = "pods";
const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 99, 255, 254);
const PODS: Ipv4Addr = Ipv4Addr::new(10, 99, 255, 253);

/// The node of a contender, with all pods but the last.
pub(super) struct Site {
    contender: Contender,
    outside: Machine,
    pods: Machine,
    backend: &'static str,
    size: u16,
    /// The figures of each round, in milliseconds or connections a second.
    pub measured: [Vec<f64>; 3],
}

impl Site {
    /// The names of the figures, in the order of `measured`.
    pub(super) const FIGURES: [&'static str; 3] =
        ["ADD of portmap, ms", "connections/s, one pod", "connections/s, all pods"];

    pub(super) fn new(
        place: &Place,
        workplace: &Path,
        backend: &'static str,
        size: u16,
    ) -> Result<Self, Failure> {
        let contender = Contender::new(place, workplace)?;
        let (outside, pods) = (Machine::new("outside")?, Machine::new("pods")?);
        connect(&outside, &contender.node, &pods, size).map_err(BenchError::Kernel)?;
        let measured = Default::default();
        let new = Self { contender, outside, pods, backend, size, measured };
        for pod in 1..size {
            new.call("ADD", pod)?;
        }
        Ok(new)
    }

    /// Adds the last pod, connects to it, connects to all pods in turn, and deletes the last pod.
    pub(super) fn round(&mut self) -> Result<(), Failure> {
        let last = self.size;
        let took = self.call("ADD", last)?;
        let one = self.visit(vec![last])?;
        let all = self.visit((1..=last).collect())?;
        self.call("DEL", last)?;
        for (list, value) in self.measured.iter_mut().zip([took.as_secs_f64() * 1000.0, one, all]) {
            list.push(value);
        }
        Ok(())
    }

    /// Runs a command of portmap.
    fn call(&self, command: &str, pod: u16) -> Result<Duration, BenchError> {
        let portmap = Step::of(portmap_of(self.backend, &[(FIRST_PORT + pod, POD_PORT)]));
        let result: Value = json!({"ips": [{"address": format!("{}/16", address(pod))}]});
        let (request, netns) = (portmap.request(&result), self.pods.netns());
        let id = format!("pod-{pod}");
        self.contender.call(command, &portmap, &request, &id, &netns).map(|(took, _)| took)
    }

    /// The number of connections a second to the hostPorts of these pods in turn, one after the other.
    ///
    /// Each run starts in the same state: entries of earlier ones are removed from the connection
    /// tracking table, and each connection is reset, so that its port can be used again at once.
    /// Otherwise the state that grows with each run would be measured.
    fn visit(&self, pods: Vec<u16>) -> Result<f64, BenchError> {
        let forget = || Nfnetlink::open()?.delete_flows(Family::V4, &Filter::default()).map(drop);
        self.contender.node.run(forget)?;
        thread::sleep(PAUSE);
        let listener = self.pods.run(|| TcpListener::bind(("0.0.0.0", POD_PORT)));
        let listener = listener.map_err(BenchError::Visit)?;
        let server =
            thread::spawn(move || (0..CONNECTIONS).try_for_each(|_| listener.accept().map(drop)));
        let visits = self.outside.run(move || {
            let begin = Instant::now();
            let mut turn = pods.iter().cycle().take(CONNECTIONS.into());
            turn.try_for_each(|pod| connect_once(FIRST_PORT + pod)).map(|()| begin.elapsed())
        });
        let took = visits.map_err(BenchError::Visit)?;
        // It has accepted all connections, otherwise one of them had failed.
        let _ = server.join();
        Ok(f64::from(CONNECTIONS) / took.as_secs_f64())
    }
}

/// Connects to a port of the node and resets the connection.
fn connect_once(port: u16) -> std::io::Result<()> {
    let address = SocketAddr::from((NODE, port));
    let connection = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    let at_once = linger { l_onoff: 1, l_linger: 0 };
    Ok(setsockopt(&connection, sockopt::Linger, &at_once)?)
}

fn address(pod: u16) -> Ipv4Addr {
    let [high, low] = pod.to_be_bytes();
    Ipv4Addr::new(10, 99, high, low)
}

/// Connects the node, which routes, to the machine outside and to the one that has the addresses of the pods.
///
/// All pods are behind one neighbour, because the kernel keeps at most 1024 neighbours by default, for
/// all namespaces together.
fn connect(
    outside: &Machine,
    node: &Machine,
    pods: &Machine,
    size: u16,
) -> Result<(), kernel::Error> {
    join(node, outside, UPLINK)?;
    join(node, pods, LINK)?;
    outside.run(|| configure(UPLINK, [network(OUTSIDE, 24)]))?;
    node.run(|| -> Result<(), kernel::Error> {
        configure(UPLINK, [network(NODE, 24)])?;
        let link = configure(LINK, [network(ROUTER, 30)])?;
        let to_pods = Route::new(network(address(0), 16), link);
        Rtnl::open()?.add_route(&Route { gateway: Some(PODS.into()), ..to_pods })?;
        sysctl::set(&["ipv4", "ip_forward"], "1")
    })?;
    pods.run(move || -> Result<(), kernel::Error> {
        let of_pods = (1..=size).map(|pod| network(address(pod), 32));
        let link = configure(LINK, iter::once(network(PODS, 30)).chain(of_pods))?;
        let default = Route::new(network(Ipv4Addr::UNSPECIFIED, 0), link);
        Rtnl::open()?.add_route(&Route { gateway: Some(ROUTER.into()), ..default })
    })
}

/// Makes a veth pair between two machines, whose ends have the same name.
fn join(left: &Machine, right: &Machine, name: &'static str) -> Result<(), kernel::Error> {
    let path = right.netns();
    left.run(move || {
        let netns = Netns::open(&path)?;
        let peer = VethPeer { name, mac: None, netns: &netns };
        Rtnl::open()?.create_link(&NewLink::new(name, Kind::Veth(peer)))
    })
}

/// Brings up a link of this machine and adds addresses; returns its index.
fn configure(
    name: &str,
    addresses: impl IntoIterator<Item = IpNetwork>,
) -> Result<u32, kernel::Error> {
    let rtnl = Rtnl::open()?;
    let Some(link) = rtnl.link_by_name(name)? else { unreachable!("it has just been made") };
    rtnl.set_link(link.index, LinkChange { up: Some(true), ..LinkChange::default() })?;
    for address in addresses {
        rtnl.add_address(link.index, address, AddressOptions::default())?;
    }
    Ok(link.index)
}

fn network(address: Ipv4Addr, prefix: u8) -> IpNetwork {
    IpNetwork::new(address.into(), prefix).unwrap_or(IpAddr::from(address).into())
}
