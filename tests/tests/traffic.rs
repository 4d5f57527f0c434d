//! Packets through what the plugins made, from every side of the node.
//!
//! ```text
//! outside 192.0.2.2 ── 192.0.2.1 node cni0 10.88.0.1 ──┬── pod-a
//!         2001:db8::2   2001:db8::1      fd00:88::1     └── pod-b
//! ```

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::ExitCode;

use serde_json::{Value, json};
use tests::configs::{POD_SUBNET, POD_SUBNET6, bridge, port, portmap, portmap_by, ptp, with};
use tests::{Chain, Known, NODE, Needs, Plugins, Pod, Suite, TcpEcho, UdpEcho, UdpStream, World};
use tests::{answers, fetch, fetch_udp, fetch_udp_at_last};

const ALL: [&str; 4] = ["bridge", "host-local", "portmap", "ptp"];

fn main() -> ExitCode {
    let mut suite = Suite::new();
    let needs = |plugins: &Plugins| Needs::plugins(plugins, &ALL).tools(&["iptables"]);
    let cases: [(&str, Test, Option<Known>); 10] = [
        ("host_port_answers_from_everywhere", host_port_answers_from_everywhere, None),
        ("host_port_answers_over_ipv6", host_port_answers_over_ipv6, None),
        ("host_port_answers_neighbours", host_port_answers_neighbours, Some(NEIGHBOURS)),
        ("host_port_on_one_address_only", host_port_on_one_address_only, None),
        ("without_snat_only_others_are_served", without_snat_only_others_are_served, None),
        ("kube_proxy_comes_first", kube_proxy_comes_first, Some(LAST_COMES_FIRST)),
        ("a_dead_pods_port_is_dead", a_dead_pods_port_is_dead, None),
        ("a_successor_gets_the_port", a_successor_gets_the_port, None),
        ("udp_flows_follow_to_the_successor", udp_flows_follow_to_the_successor, None),
        ("udp_flows_begun_too_early_are_served", udp_flows_begun_too_early_are_served, None),
    ];
    for (name, test, go_fails) in cases {
        for backend in ["iptables", "nftables"] {
            let go_fails = go_fails.filter(|_| backend == "nftables");
            let test = move |plugins: &Plugins| test(plugins, backend);
            suite.both(&format!("{name}::{backend}"), go_fails, needs, test);
        }
    }
    for (network, family, backend) in streams() {
        let name = format!("a_udp_stream_follows_at_once::{network}::ipv{family}::{backend}");
        let go_fails = LINKS_ARE_TENTATIVE.filter(|_| (network, family) == ("ptp", 6));
        suite.both(&name, go_fails, needs, move |plugins| {
            a_udp_stream_follows_at_once(plugins, network, family, backend);
        });
    }
    let mut both = |name, go_fails, test: fn(&Plugins)| suite.both(name, go_fails, needs, test);
    both("kube_proxys_table_comes_first", Some(LAST_COMES_FIRST), kube_proxys_table_comes_first);
    both("pods_speak_with_their_own_addresses", None, pods_speak_with_their_own_addresses);
    both("pods_are_masqueraded_outside", None, pods_are_masqueraded_outside);
    suite.run()
}

/// A case of portmap, for one of its backends.
type Test = fn(&Plugins, &str);

/// The plugin that connects the pod, the address family, and portmap's backend.
fn streams() -> impl Iterator<Item = (&'static str, u8, &'static str)> {
    let networks = ["bridge", "ptp"].into_iter();
    let of_families = networks.flat_map(|network| [4, 6].map(|family| (network, family)));
    of_families.flat_map(|(network, family)| {
        ["iptables", "nftables"].map(|backend| (network, family, backend))
    })
}

const NEIGHBOURS: Known = Known::new(
    "only the pod's own packets get the node's address, not those of its neighbours on the bridge, \
     which are answered directly",
    "connection timed out",
);
const LINKS_ARE_TENTATIVE: Option<Known> = Some(Known::new(
    "the node asks for a pod by its own address on their link, which is in duplicate address \
     detection for a second or two",
    "the new pod is never asked",
));
const LAST_COMES_FIRST: Known = Known::new(
    "its chains have the priority of kube-proxy's, so that the ones that were made last come first",
    r#"left: "host port "#,
);

fn world() -> World {
    let world = World::new(&["outside", "pod-a", "pod-b"]);
    world.connect(
        (NODE, "uplink", &["192.0.2.1/24", "192.0.2.10/24", "2001:db8::1/64"]),
        ("outside", "eth0", &["192.0.2.2/24", "2001:db8::2/64"]),
    );
    world
}

fn chain<'a>(world: &'a World, plugins: &Plugins, backend: &str, ports: &Value) -> Chain<'a> {
    let portmap = with(portmap(), &json!({"backend": backend}));
    let configs = [bridge(&[POD_SUBNET, POD_SUBNET6]), portmap];
    Chain::new(world, plugins, &configs).ports(ports)
}

fn host_port_answers_from_everywhere(plugins: &Plugins, backend: &str) {
    let world = world();
    let chain =
        chain(&world, plugins, backend, &json!([port("tcp", 8080, 80), port("udp", 5353, 53)]));
    chain.add(&Pod::new("pod-a"));
    let _web = TcpEcho::start(&world, "pod-a", "[::]:80", "page");
    let _dns = UdpEcho::start(&world, "pod-a", "[::]:53", "name");

    assert_eq!(fetch(&world, "outside", "192.0.2.1:8080").unwrap(), "page 192.0.2.2");
    assert_eq!(fetch(&world, NODE, "127.0.0.1:8080").unwrap(), "page 10.88.0.1");
    assert_eq!(fetch(&world, NODE, "192.0.2.1:8080").unwrap(), "page 192.0.2.1");
    // The pod's own hostPort: the source of the packets that return must not be the pod's own address.
    assert_eq!(fetch(&world, "pod-a", "192.0.2.1:8080").unwrap(), "page 10.88.0.1");
    assert_eq!(fetch(&world, "pod-a", "10.88.0.1:8080").unwrap(), "page 10.88.0.1");
    assert_eq!(fetch_udp(&world, "outside", "192.0.2.1:5353", 4000).unwrap(), "name 192.0.2.2");
    assert_eq!(fetch_udp(&world, NODE, "127.0.0.1:5353", 4000).unwrap(), "name 10.88.0.1");
    assert_eq!(fetch_udp(&world, "pod-a", "192.0.2.1:5353", 4000).unwrap(), "name 10.88.0.1");
    assert!(!answers(&world, "outside", "192.0.2.1:80"), "port 80 is the pod's, not the node's");
}

fn host_port_answers_over_ipv6(plugins: &Plugins, backend: &str) {
    let world = world();
    let chain =
        chain(&world, plugins, backend, &json!([port("tcp", 8080, 80), port("udp", 5353, 53)]));
    chain.add(&Pod::new("pod-a"));
    let _web = TcpEcho::start(&world, "pod-a", "[::]:80", "page");
    let _dns = UdpEcho::start(&world, "pod-a", "[::]:53", "name");

    assert_eq!(fetch(&world, "outside", "[2001:db8::1]:8080").unwrap(), "page 2001:db8::2");
    assert_eq!(fetch(&world, "pod-a", "[2001:db8::1]:8080").unwrap(), "page fd00:88::1");
    let answer = fetch_udp(&world, "outside", "[2001:db8::1]:5353", 4000);
    assert_eq!(answer.unwrap(), "name 2001:db8::2");
}

fn host_port_answers_neighbours(plugins: &Plugins, backend: &str) {
    let world = world();
    // If it is on, the node tracks packets between pods, as Kubernetes requires. Not all nodes have it on.
    world.sh(NODE, "sysctl -qw net.bridge.bridge-nf-call-iptables=0 2>/dev/null || :");
    let ports = json!([port("tcp", 8080, 80)]);
    chain(&world, plugins, backend, &ports).add(&Pod::new("pod-a"));
    chain(&world, plugins, backend, &json!([])).add(&Pod::new("pod-b"));
    let _web = TcpEcho::start(&world, "pod-a", "[::]:80", "page");

    assert_eq!(fetch(&world, "pod-b", "192.0.2.1:8080").unwrap(), "page 10.88.0.1");
    assert_eq!(fetch(&world, "pod-b", "[2001:db8::1]:8080").unwrap(), "page fd00:88::1");
    assert_eq!(fetch(&world, "pod-b", "10.88.0.2:80").unwrap(), "page 10.88.0.3");
}

fn host_port_on_one_address_only(plugins: &Plugins, backend: &str) {
    let world = world();
    let mapping = with(port("tcp", 8080, 80), &json!({"hostIP": "192.0.2.10"}));
    chain(&world, plugins, backend, &json!([mapping])).add(&Pod::new("pod-a"));
    let _web = TcpEcho::start(&world, "pod-a", "[::]:80", "page");

    assert_eq!(fetch(&world, "outside", "192.0.2.10:8080").unwrap(), "page 192.0.2.2");
    assert!(!answers(&world, "outside", "192.0.2.1:8080"));
    assert!(!answers(&world, NODE, "127.0.0.1:8080"));
}

fn without_snat_only_others_are_served(plugins: &Plugins, backend: &str) {
    let world = world();
    let portmap = with(portmap(), &json!({"backend": backend, "snat": false}));
    let chain = Chain::new(&world, plugins, &[bridge(&[POD_SUBNET]), portmap]);
    chain.ports(&json!([port("tcp", 8080, 80)])).add(&Pod::new("pod-a"));
    let _web = TcpEcho::start(&world, "pod-a", "0.0.0.0:80", "page");

    assert_eq!(fetch(&world, "outside", "192.0.2.1:8080").unwrap(), "page 192.0.2.2");
    assert!(!answers(&world, NODE, "127.0.0.1:8080"), "needs its source address changed");
}

fn kube_proxy_comes_first(plugins: &Plugins, backend: &str) {
    let world = world();
    let chain = chain(&world, plugins, backend, &json!([port("tcp", 8080, 80)]));
    let service = Chain::new(&world, plugins, &[bridge(&[POD_SUBNET, POD_SUBNET6])]);
    let result = service.add(&Pod::new("pod-b"));
    let address = result["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap();
    // As kube-proxy does: its own jump in front, and a node port in the chain.
    world.sh(
        NODE,
        &format!(
            "iptables -t nat -N KUBE-SERVICES
             iptables -t nat -A KUBE-SERVICES -p tcp --dport 8080 -j DNAT --to {address}:80
             iptables -t nat -A PREROUTING -j KUBE-SERVICES
             iptables -t nat -A OUTPUT -j KUBE-SERVICES"
        ),
    );
    chain.add(&Pod::new("pod-a"));
    let _pod = TcpEcho::start(&world, "pod-a", "[::]:80", "host port");
    let _service = TcpEcho::start(&world, "pod-b", "[::]:80", "service");

    assert_eq!(fetch(&world, "outside", "192.0.2.1:8080").unwrap(), "service 192.0.2.2");
    chain.del(&Pod::new("pod-a"));
    assert_eq!(fetch(&world, "outside", "192.0.2.1:8080").unwrap(), "service 192.0.2.2");
}

fn kube_proxys_table_comes_first(plugins: &Plugins) {
    let world = world();
    let chain = chain(&world, plugins, "nftables", &json!([port("tcp", 8080, 80)]));
    let service = Chain::new(&world, plugins, &[bridge(&[POD_SUBNET, POD_SUBNET6])]);
    let result = service.add(&Pod::new("pod-b"));
    let address = result["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap();
    // As kube-proxy's mode `nftables` does, with a node port.
    world.sh(
        NODE,
        &format!(
            "nft add table ip kube-proxy
             for hook in prerouting output; do
                 nft \"add chain ip kube-proxy nat-$hook {{ type nat hook $hook priority -100; }}\"
                 nft add rule ip kube-proxy nat-$hook fib daddr type local tcp dport 8080 dnat to {address}:80
             done"
        ),
    );
    chain.add(&Pod::new("pod-a"));
    let _pod = TcpEcho::start(&world, "pod-a", "[::]:80", "host port");
    let _service = TcpEcho::start(&world, "pod-b", "[::]:80", "service");

    assert_eq!(fetch(&world, "outside", "192.0.2.1:8080").unwrap(), "service 192.0.2.2");
    assert_eq!(fetch(&world, NODE, "192.0.2.1:8080").unwrap(), "service 192.0.2.1");
}

fn pods_speak_with_their_own_addresses(plugins: &Plugins) {
    let world = world();
    let chain = Chain::new(&world, plugins, &[bridge(&[POD_SUBNET, POD_SUBNET6])]);
    chain.add(&Pod::new("pod-a"));
    chain.add(&Pod::new("pod-b"));
    let _web = TcpEcho::start(&world, "pod-b", "[::]:80", "b");

    assert_eq!(fetch(&world, "pod-a", "10.88.0.3:80").unwrap(), "b 10.88.0.2");
    assert_eq!(fetch(&world, "pod-a", "[fd00:88::3]:80").unwrap(), "b fd00:88::2");
    assert_eq!(fetch(&world, NODE, "10.88.0.3:80").unwrap(), "b 10.88.0.1");
}

fn pods_are_masqueraded_outside(plugins: &Plugins) {
    for first in [bridge(&[POD_SUBNET, POD_SUBNET6]), ptp(&[POD_SUBNET, POD_SUBNET6])] {
        for backend in ["iptables", "nftables"] {
            let world = world();
            let first = with(first.clone(), &json!({"ipMasqBackend": backend}));
            let chain = Chain::new(&world, plugins, &[first]);
            let pod = Pod::new("pod-a");
            chain.add(&pod);
            let _web = TcpEcho::start(&world, "outside", "[::]:80", "outside");

            // The machine outside has no route to the pods' own addresses.
            assert_eq!(fetch(&world, "pod-a", "192.0.2.2:80").unwrap(), "outside 192.0.2.1");
            let answer = fetch(&world, "pod-a", "[2001:db8::2]:80");
            assert_eq!(answer.unwrap(), "outside 2001:db8::1");
            chain.del(&pod);
        }
    }
}

fn a_dead_pods_port_is_dead(plugins: &Plugins, backend: &str) {
    let world = world();
    let chain = chain(&world, plugins, backend, &json!([port("tcp", 8080, 80)]));
    chain.add(&Pod::new("pod-a"));
    let web = TcpEcho::start(&world, "pod-a", "[::]:80", "page");
    assert!(answers(&world, "outside", "192.0.2.1:8080"));
    drop(web);

    world.remove_netns("pod-a");
    chain.del(&Pod::new("pod-a").without_netns());
    chain.add(&Pod::new("pod-b"));
    chain.del(&Pod::new("pod-b"));
    for (netns, address) in [("outside", "192.0.2.1:8080"), (NODE, "127.0.0.1:8080")] {
        assert!(!answers(&world, netns, address), "{address} answers in {netns}");
    }
}

fn a_successor_gets_the_port(plugins: &Plugins, backend: &str) {
    let world = world();
    let chain = chain(&world, plugins, backend, &json!([port("tcp", 8080, 80)]));
    chain.add(&Pod::new("pod-a"));
    world.remove_netns("pod-a");
    chain.del(&Pod::new("pod-a").without_netns());
    chain.add(&Pod::new("pod-b"));
    let _web = TcpEcho::start(&world, "pod-b", "[::]:80", "successor");

    assert_eq!(fetch(&world, "outside", "192.0.2.1:8080").unwrap(), "successor 192.0.2.2");
    assert_eq!(fetch(&world, NODE, "127.0.0.1:8080").unwrap(), "successor 10.88.0.1");
}

fn udp_flows_follow_to_the_successor(plugins: &Plugins, backend: &str) {
    let world = world();
    let chain = chain(&world, plugins, backend, &json!([port("udp", 5353, 53)]));
    chain.add(&Pod::new("pod-a"));
    let old = UdpEcho::start(&world, "pod-a", "[::]:53", "old");
    assert_eq!(fetch_udp(&world, "outside", "192.0.2.1:5353", 4000).unwrap(), "old 192.0.2.2");

    chain.del(&Pod::new("pod-a"));
    drop(old);
    chain.add(&Pod::new("pod-b"));
    let _new = UdpEcho::start(&world, "pod-b", "[::]:53", "new");
    assert_eq!(fetch_udp(&world, "outside", "192.0.2.1:5353", 4000).unwrap(), "new 192.0.2.2");
}

/// If a client does not stop sending, its flow never times out.
fn a_udp_stream_follows_at_once(plugins: &Plugins, network: &str, family: u8, backend: &str) {
    const FIRST_PACKETS: usize = 3;
    let world = world();
    let subnets = [POD_SUBNET, POD_SUBNET6];
    let first = if network == "ptp" { ptp(&subnets) } else { bridge(&subnets) };
    let chain = Chain::new(&world, plugins, &[first, portmap_by(backend)]);
    let chain = chain.ports(&json!([port("udp", 5353, 53)]));
    let (address, client) = match family {
        6 => ("[2001:db8::1]:5353", "2001:db8::2"),
        _ => ("192.0.2.1:5353", "192.0.2.2"),
    };
    chain.add(&Pod::new("pod-a"));
    let old = UdpEcho::start(&world, "pod-a", "[::]:53", "old");
    let _new = UdpEcho::start(&world, "pod-b", "[::]:53", "new");
    fetch_udp_at_last(&world, "outside", address, 4000).unwrap();
    let stream = UdpStream::start(&world, "outside", address);
    stream.send_more(20);

    chain.del(&Pod::new("pod-a"));
    drop(old);
    stream.send_more(20);
    chain.add(&Pod::new("pod-b"));
    let added = stream.next();
    stream.send_more(50);
    let answers = stream.end();

    assert_eq!(answers.values().next(), Some(&format!("old {client}")));
    let new = format!("new {client}");
    let first = answers.iter().find(|(_, who)| **who == new).map(|(number, _)| *number);
    let first = first.unwrap_or_else(|| panic!("the new pod is never asked: {answers:?}"));
    assert!(first < added + FIRST_PACKETS, "ADD ended at {added}, first answer to {first}");
    let lost = (added + FIRST_PACKETS..added + 40).find(|n| !answers.contains_key(n));
    assert_eq!(lost, None, "a datagram got no answer, and ADD ended at {added}");
}

fn udp_flows_begun_too_early_are_served(plugins: &Plugins, backend: &str) {
    let world = world();
    // A rule that needs connection tracking, as on every node.
    world.sh(NODE, "iptables -t nat -A POSTROUTING -s 203.0.113.1 -j MASQUERADE");
    assert!(fetch_udp(&world, "outside", "192.0.2.1:5353", 4000).is_err());

    let chain = chain(&world, plugins, backend, &json!([port("udp", 5353, 53)]));
    chain.add(&Pod::new("pod-a"));
    let _dns = UdpEcho::start(&world, "pod-a", "[::]:53", "name");
    assert_eq!(fetch_udp(&world, "outside", "192.0.2.1:5353", 4000).unwrap(), "name 192.0.2.2");
}
