//! A hostPort whose pod has vanished without a DEL, and the next pod with that hostPort.
//!
//! The rules of a crashed pod look like those of a running one; the latest ADD gets the port.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::ExitCode;

use serde_json::{Value, json};
use tests::configs::{POD_SUBNET, POD_SUBNET6, PORTMAP_BACKENDS, kind, port};
use tests::{Chain, Known, Mirror, NODE, Needs, Plugins, Pod, Suite, TcpEcho, UdpEcho, World};
use tests::{differences, fetch, fetch_udp, while_visited};

const ALL: [&str; 3] = ["host-local", "portmap", "ptp"];

/// Each address of a hostPort, and from where it can be reached.
const WAYS: [(&str, &str); 4] = [
    ("outside", "192.0.2.1:8080"),
    ("outside", "[2001:db8::1]:8080"),
    (NODE, "127.0.0.1:8080"),
    (NODE, "192.0.2.1:8080"),
];

/// Therefore no connection starts before GC, and the case fails before it gets to what GC leaves.
const FIRST_COMES_FIRST: Option<Known> = Some(Known::new(
    "rules are appended, and those of the vanished pod stand before its successor's",
    "Network is unreachable",
));

fn main() -> ExitCode {
    let mut suite = Suite::new();
    for &backend in PORTMAP_BACKENDS {
        let mut both = |name: &str, go_fails, test: fn(&Plugins, &str)| {
            let needs = |it: &Plugins| Needs::plugins(it, &ALL).tools(&["iptables", "conntrack"]);
            suite.both(&format!("{backend}::{name}"), go_fails, needs, move |it| test(it, backend));
        };
        both("the_successor_gets_the_port", FIRST_COMES_FIRST, the_successor_gets_the_port);
        both("a_late_del_leaves_the_successor", FIRST_COMES_FIRST, a_late_del_leaves_the_successor);
        both("gc_removes_the_claim", FIRST_COMES_FIRST, gc_removes_the_claim);
    }
    suite.run()
}

/// A node on which `vanished` had the ports 8080 (TCP) and 5353 (UDP).
struct Node {
    world: World,
    vanished: Pod,
    successor: Pod,
}

impl Node {
    fn new(plugins: &Plugins, backend: &str) -> Self {
        let world = World::new(&["outside", "vanished", "successor"]);
        world.connect(
            (NODE, "uplink", &["192.0.2.1/24", "2001:db8::1/64"]),
            ("outside", "eth0", &["192.0.2.2/24", "2001:db8::2/64"]),
        );
        let [vanished, successor] = ["vanished", "successor"].map(Pod::new);
        let node = Self { world, vanished, successor };
        node.chain(plugins, backend).add(&node.vanished);
        let old = UdpEcho::start(&node.world, "vanished", "[::]:53", "old");
        assert_eq!(node.ask_udp(), "old 192.0.2.2");
        drop(old);
        node.world.remove_netns("vanished");
        node
    }

    /// As a runtime that has lost its state.
    fn chain(&self, plugins: &Plugins, backend: &str) -> Chain<'_> {
        let ports = json!([port("tcp", 8080, 80), port("udp", 5353, 53)]);
        let configs = kind(&[POD_SUBNET, POD_SUBNET6], backend);
        Chain::new(&self.world, plugins, &configs).network("testnet", "1.1.0").ports(&ports)
    }

    /// Always the same flow, which conntrack knows from the first time.
    fn ask_udp(&self) -> String {
        fetch_udp(&self.world, "outside", "192.0.2.1:5353", 4000).unwrap()
    }

    #[track_caller]
    fn assert_served_by_successor(&self) {
        let _web = TcpEcho::start(&self.world, "successor", "[::]:80", "successor");
        let _dns = UdpEcho::start(&self.world, "successor", "[::]:53", "new");
        for (netns, address) in WAYS {
            let page = fetch(&self.world, netns, address);
            let page = page.unwrap_or_else(|error| format!("no page: {error}"));
            assert!(page.starts_with("successor "), "{address} from {netns}: {page}");
        }
        assert_eq!(self.ask_udp(), "new 192.0.2.2");
    }

    fn rules(&self) -> Value {
        let node = &self.world.snapshot()["node"];
        json!({"iptables": node["iptables"], "nft": node["nft"]})
    }
}

fn the_successor_gets_the_port(plugins: &Plugins, backend: &str) {
    let node = Node::new(plugins, backend);
    let chain = node.chain(plugins, backend);
    chain.add(&node.successor);
    node.assert_served_by_successor();
    chain.check(&node.successor);
}

/// The runtime has restarted and deletes the pods that it knows.
fn a_late_del_leaves_the_successor(plugins: &Plugins, backend: &str) {
    let node = Node::new(plugins, backend);
    let chain = node.chain(plugins, backend);
    chain.add(&node.successor);
    let web = Mirror::start(&node.world, "successor", "[::]:80");
    for (_, address) in &WAYS[..2] {
        while_visited(&node.world, "outside", address, || {
            chain.del_by_names(&node.vanished.without_netns());
        });
    }
    drop(web);
    node.assert_served_by_successor();
    chain.check(&node.successor);
}

/// What is left belongs to the successor alone.
fn gc_removes_the_claim(plugins: &Plugins, backend: &str) {
    let node = Node::new(plugins, backend);
    let chain = node.chain(plugins, backend);
    chain.add(&node.successor);
    let web = Mirror::start(&node.world, "successor", "[::]:80");
    for (_, address) in &WAYS[..2] {
        while_visited(&node.world, "outside", address, || chain.gc(&[&node.successor]));
    }
    drop(web);
    node.assert_served_by_successor();
    chain.check(&node.successor);

    let undisturbed = Node::new(plugins, backend);
    let chain = undisturbed.chain(plugins, backend);
    chain.del_by_names(&undisturbed.vanished.without_netns());
    chain.add(&undisturbed.successor);
    let found = differences(&undisturbed.rules(), &node.rules());
    let found: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}
