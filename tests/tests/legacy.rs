//! A node that uses the legacy variant of iptables, according to `iptables` and to the kubelet's hint.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::ExitCode;

use serde_json::{Value, json};
use tests::configs::{POD_SUBNET, POD_SUBNET6, bridge, port, portmap, ptp};
use tests::{Chain, NODE, Needs, Plugins, Pod, Suite, TcpEcho, UdpEcho, World};
use tests::{answers, fetch, fetch_udp};

const ALL: [&str; 4] = ["bridge", "host-local", "portmap", "ptp"];
const TOOLS: [&str; 3] = ["iptables-legacy", "iptables-nft", "ip6tables-legacy"];

fn main() -> ExitCode {
    let (ours, go) = (Plugins::ours(), Plugins::go());
    let mut suite = Suite::new();
    for first in [bridge(&[POD_SUBNET, POD_SUBNET6]), ptp(&[POD_SUBNET, POD_SUBNET6])] {
        let kind = first["type"].as_str().unwrap_or_default();
        let needs = |plugins: &Plugins| Needs::plugins(plugins, &ALL).tools(&TOOLS);
        let of_life = first.clone();
        suite.both(&format!("{kind}::a_pods_whole_life"), None, needs, move |plugins| {
            a_pods_whole_life(&of_life, plugins);
        });
        let both = needs(&ours).and(&go, &ALL);
        for (name, adder, deleter) in
            [("they_delete_what_we_added", &ours, &go), ("we_delete_what_they_added", &go, &ours)]
        {
            let (first, adder, deleter) = (first.clone(), adder.clone(), deleter.clone());
            let test = move || hand_over(&first, &adder, &deleter);
            suite.case(&format!("{kind}::{name}"), &both, test);
        }
        let ours_alone = ours.clone();
        suite.case(&format!("ours::{kind}::a_hint_in_nf_tables"), &needs(&ours), move || {
            a_hint_in_nf_tables(&first, &ours_alone);
        });
    }
    suite.run()
}

/// A node with an uplink to `outside`.
fn world() -> World {
    let world = World::new(&["outside", "pod-a", "pod-b"]);
    world.connect(
        (NODE, "uplink", &["192.0.2.1/24", "2001:db8::1/64"]),
        ("outside", "eth0", &["192.0.2.2/24", "2001:db8::2/64"]),
    );
    world
}

/// The programs `iptables` and `ip6tables` of this world are the legacy ones. The kubelet's hint and
/// kube-proxy's first rules exist.
fn legacy_world() -> World {
    let world = world();
    world.sh(
        NODE,
        "mount --bind $(readlink -f $(command -v iptables-legacy)) $(readlink -f $(command -v iptables-nft))
         for program in iptables ip6tables; do
             $program --version | grep -q legacy
             $program -t mangle -N KUBE-IPTABLES-HINT
             $program -t nat -N KUBE-SERVICES
             $program -t nat -A PREROUTING -j KUBE-SERVICES
             $program -t nat -A OUTPUT -j KUBE-SERVICES
         done",
    );
    world
}

fn chain<'a>(first: &Value, world: &'a World, plugins: &Plugins, host_port: u16) -> Chain<'a> {
    let ports = json!([port("tcp", host_port, 80), port("udp", host_port, 53)]);
    Chain::new(world, plugins, &[first.clone(), portmap()]).ports(&ports)
}

/// The tables `nat`, sorted: a chain that is created again may be listed elsewhere.
fn rules(world: &World) -> Vec<String> {
    let listed = world.sh(NODE, "iptables-legacy -t nat -S; ip6tables-legacy -t nat -S");
    let mut lines: Vec<String> = listed.lines().map(ToOwned::to_owned).collect();
    lines.sort();
    lines
}

#[track_caller]
fn nothing_in_nf_tables(world: &World) {
    assert_eq!(world.sh(NODE, "nft list ruleset"), "");
}

fn a_pods_whole_life(first: &Value, plugins: &Plugins) {
    let world = legacy_world();
    let (a, b) = (Pod::new("pod-a"), Pod::new("pod-b"));
    let (chain_a, chain_b) =
        (chain(first, &world, plugins, 8080), chain(first, &world, plugins, 8081));
    chain_b.add(&b);
    let before = rules(&world);
    chain_a.add(&a);
    chain_a.check(&a);
    chain_b.check(&b);
    nothing_in_nf_tables(&world);
    let listed = world.sh(NODE, "iptables -t nat -S PREROUTING");
    let jumps: Vec<&str> =
        listed.lines().skip(1).filter_map(|line| line.split(" -j ").nth(1)).collect();
    assert_eq!(jumps, ["KUBE-SERVICES", "CNI-HOSTPORT-DNAT"], "kube-proxy goes first");

    let web = TcpEcho::start(&world, "pod-a", "[::]:80", "page");
    let _dns = UdpEcho::start(&world, "pod-a", "[::]:53", "name");
    let _outside = TcpEcho::start(&world, "outside", "[::]:80", "outside");
    assert_eq!(fetch(&world, "outside", "192.0.2.1:8080").unwrap(), "page 192.0.2.2");
    assert_eq!(fetch(&world, "outside", "[2001:db8::1]:8080").unwrap(), "page 2001:db8::2");
    assert_eq!(fetch(&world, NODE, "127.0.0.1:8080").unwrap(), "page 10.88.0.1");
    assert_eq!(fetch(&world, "pod-b", "192.0.2.1:8080").unwrap().split(' ').next(), Some("page"));
    assert_eq!(fetch_udp(&world, "outside", "192.0.2.1:8080", 4000).unwrap(), "name 192.0.2.2");
    // The machine outside has no route to the pods' own addresses.
    assert_eq!(fetch(&world, "pod-a", "192.0.2.2:80").unwrap(), "outside 192.0.2.1");
    assert_eq!(fetch(&world, "pod-a", "[2001:db8::2]:80").unwrap(), "outside 2001:db8::1");

    chain_a.del(&a);
    drop(web);
    assert_eq!(rules(&world), before);
    assert!(!answers(&world, "outside", "192.0.2.1:8080"));
    chain_b.del(&b);
    assert!(!rules(&world).iter().any(|line| line.contains("pod-")));
    nothing_in_nf_tables(&world);
}

/// One adds two pods and the other deletes one: the node is as if the first had done both.
fn hand_over(first: &Value, adder: &Plugins, deleter: &Plugins) {
    let world = legacy_world();
    let (a, b) = (Pod::new("pod-a"), Pod::new("pod-b"));
    chain(first, &world, adder, 8081).add(&b);
    let before = rules(&world);
    let chain = chain(first, &world, adder, 8080);
    chain.add(&a);
    let after = chain.with(deleter);
    after.check(&a);
    after.del(&a);
    assert_eq!(rules(&world), before);
    nothing_in_nf_tables(&world);
}

fn a_hint_in_nf_tables(first: &Value, plugins: &Plugins) {
    let world = world();
    world.sh(
        NODE,
        "for rule in 1 2 3; do iptables-legacy -t nat -A OUTPUT -d 203.0.113.$rule -j RETURN; done
         iptables-nft -t mangle -N KUBE-IPTABLES-HINT",
    );
    let before = rules(&world);
    let (pod, chain) = (Pod::new("pod-a"), chain(first, &world, plugins, 8080));
    chain.add(&pod);
    chain.check(&pod);
    assert_eq!(rules(&world), before);
    let listed = world.sh(NODE, "iptables-nft -t nat -S");
    assert!(listed.contains("name: \\\"testnet\\\" id: \\\"pod-a\\\""), "{listed}");
    let _web = TcpEcho::start(&world, "pod-a", "[::]:80", "page");
    assert_eq!(fetch(&world, "outside", "192.0.2.1:8080").unwrap(), "page 192.0.2.2");
    chain.del(&pod);
    assert_eq!(rules(&world), before);
}
