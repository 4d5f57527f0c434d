//! A node with many pods that have a hostPort each, a machine outside that connects to them, and one
//! machine that has the addresses of all pods.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::{Value, json};
use tests::{NODE, World};

use super::config::portmap_of;
use super::error::BenchError;
use super::scenario::Step;
use super::{Contender, Place};
use crate::command::Failure;

const CONNECTIONS: u16 = 1000;
/// Time for the kernel to free what was deleted last, so that it does not disturb the next round.
const PAUSE: Duration = Duration::from_millis(100);
const POD_PORT: u16 = 80;
/// The hostPort of pod 0, if it existed.
const FIRST_PORT: u16 = 20_000;
/// The namespace of the machine outside.
const OUTSIDE: &str = "outside";
/// The namespace that has the addresses of all pods.
const PODS: &str = "pods";
const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);

/// The node of a contender, with all pods but the last.
pub(super) struct Site {
    contender: Contender,
    backend: &'static str,
    size: u16,
    /// The figures of each round, in milliseconds or connections a second.
    pub measured: [Vec<f64>; 3],
}

impl Site {
    /// The names of the figures, in the order of `measured`.
    pub(super) const FIGURES: [&'static str; 3] =
        ["ADD of portmap, ms", "connections/s, one pod", "connections/s, all pods"];

    pub(super) fn new(place: &Place, backend: &'static str, size: u16) -> Result<Self, Failure> {
        let contender = Contender::new(place);
        connect(&contender.world, size);
        let new = Self { contender, backend, size, measured: Default::default() };
        for pod in 1..size {
            new.call("ADD", pod)?;
        }
        Ok(new)
    }

    /// Adds the last pod, connects to it, connects to all pods in turn, and deletes the last pod.
    pub(super) fn round(&mut self) -> Result<(), Failure> {
        let last = self.size;
        let took = self.call("ADD", last)?;
        let one = self.visit(&[last])?;
        let all = self.visit(&(1..=last).collect::<Vec<_>>())?;
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
        let (request, id) = (portmap.request(&result), format!("pod-{pod}"));
        self.contender.call(command, &portmap, &request, &id, PODS).map(|(took, _)| took)
    }

    /// The number of connections a second to the hostPorts of these pods in turn, one after the other.
    ///
    /// Each run starts in the same state: entries of earlier ones are removed from the connection
    /// tracking table, and each connection is reset, so that its port can be used again at once.
    /// Otherwise the state that grows with each run would be measured.
    fn visit(&self, pods: &[u16]) -> Result<f64, BenchError> {
        let world = &self.contender.world;
        world.sh(NODE, "conntrack -F");
        thread::sleep(PAUSE);
        let listener = world.inside(PODS, || TcpListener::bind(("0.0.0.0", POD_PORT)));
        let listener = listener.map_err(BenchError::Visit)?;
        let server =
            thread::spawn(move || (0..CONNECTIONS).try_for_each(|_| listener.accept().map(drop)));
        let visits = world.inside(OUTSIDE, || {
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
    let address = SocketAddr::from((NODE_ADDRESS, port));
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
fn connect(world: &World, size: u16) {
    world.add_netns(OUTSIDE);
    world.add_netns(PODS);
    let node = format!("{NODE_ADDRESS}/24");
    world.connect((NODE, "uplink", &[&node]), (OUTSIDE, "uplink", &["192.0.2.1/24"]));
    world.connect((NODE, "pods", &["10.99.255.254/30"]), (PODS, "pods", &["10.99.255.253/30"]));
    world.sh(NODE, "ip route add 10.99.0.0/16 via 10.99.255.253; sysctl -qw net.ipv4.ip_forward=1");
    world.sh(PODS, "ip route add default via 10.99.255.254");
    let add = |pod| format!("addr add {}/32 dev pods\n", address(pod));
    let all: String = (1..=size).map(add).collect();
    world.sh(PODS, &format!("ip -batch - <<'END'\n{all}END"));
}
