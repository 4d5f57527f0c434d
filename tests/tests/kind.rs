//! The case for which this project was started: on a kind cluster, a request to port 8080 of the host
//! reaches the ingress controller by its hostPort; kube-proxy's rules do not take it.
//!
//! ```text
//! 127.0.0.1:8080 → Docker → node:80 → CNI-DN-… → 10.244.0.5:80 nginx → Service → backend
//! ```

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::process::ExitCode;

use tests::kind::{CONTROL_PLANE, CONTROLLER, CONTROLLER_ADDRESS, HOST, HOST_PORTS, SYSTEM};
use tests::kind::{Cluster, Family, Kind, WEB_0, WEB_1, WORKER};
use tests::{Known, Plugins, Suite, TcpEcho, answers, fetch, request};

/// kube-proxy's mode and portmap's backend.
const KINDS: [(&str, &str); 4] = [
    ("iptables", "iptables"),
    ("nftables", "iptables"),
    ("iptables", "nftables"),
    ("nftables", "nftables"),
];

/// Why the Go plugins fail.
const GO_KEEPS_TCP: Option<Known> =
    Some(Known::new("its DEL forgets UDP flows only", r#"left: ["tcp "#));
const GO_COMES_FIRST: Option<Known> = Some(Known::new(
    "its nftables chain has kube-proxy's priority, and the younger of the two comes first",
    r#"body: "thief "#,
));

fn main() -> ExitCode {
    let mut suite = Suite::new();
    for (kube_proxy, backend) in KINDS {
        let kind = Kind { kube_proxy, backend, dual_stack: false };
        let mut both = |name, go_fails, test: fn(Kind, &Plugins)| {
            let name = format!("{kube_proxy}::{backend}::{name}");
            suite.both(&name, go_fails, Kind::needs, move |plugins| test(kind, plugins));
        };
        both(
            "the_host_port_passes_by_the_node_ports",
            None,
            the_host_port_passes_by_the_node_ports,
        );
        both("without_a_rule_nginx_says_404", None, without_a_rule_nginx_says_404);
        both("a_new_controller_takes_over", None, a_new_controller_takes_over);
        both(
            "connections_of_the_dead_are_forgotten",
            GO_KEEPS_TCP,
            connections_of_the_dead_are_forgotten,
        );
        both("everybody_reaches_everybody", None, everybody_reaches_everybody);
        both("everybody_reaches_everybody_over_ipv6", None, everybody_reaches_everybody_over_ipv6);
        both("services_are_not_taken", None, services_are_not_taken);
        let go_fails = GO_COMES_FIRST.filter(|_| backend == "nftables");
        if (kube_proxy, backend) == ("nftables", "iptables") {
            both("node_ports_are_taken", None, node_ports_are_taken);
        } else {
            both("node_ports_are_not_taken", go_fails, node_ports_are_not_taken);
        }
        both("passing_packets_are_not_taken", None, passing_packets_are_not_taken);
    }
    suite.run()
}

/// A cluster whose backend serves on both nodes.
fn cluster(kind: Kind, plugins: &Plugins) -> (Cluster, [TcpEcho; 2]) {
    let cluster = Cluster::with_pods(kind, plugins);
    let web = [WEB_0, WEB_1].map(|pod| TcpEcho::start(&cluster.world, pod, "[::]:80", pod));
    (cluster, web)
}

/// Requests the page of the backend by the host name of the Ingress rule, and returns the pod that
/// answered; its client must have been the controller.
#[track_caller]
fn page(cluster: &Cluster, netns: &str, address: &str, controller: &str) -> String {
    let answer = request(&cluster.world, netns, address, "localhost");
    let answer = answer.unwrap_or_else(|error| panic!("{address} from {netns}: {error}"));
    let pod = answer.body.strip_suffix(&format!(" {controller}"));
    let pod = pod.unwrap_or_else(|| panic!("{address} from {netns}: {answer:?}"));
    assert!([WEB_0, WEB_1].contains(&pod), "{address} from {netns}: {answer:?}");
    pod.to_owned()
}

fn status(cluster: &Cluster, host: &str) -> u16 {
    request(&cluster.world, HOST, "127.0.0.1:8080", host).unwrap().status
}

fn the_host_port_passes_by_the_node_ports(kind: Kind, plugins: &Plugins) {
    let (cluster, _web) = cluster(kind, plugins);
    let _nginx = cluster.ingress(CONTROLLER, Family::V4);
    let passed = || (cluster.by_host_port(), cluster.by_node_port());
    assert_eq!(passed(), (0, 0));

    page(&cluster, HOST, "127.0.0.1:8080", CONTROLLER_ADDRESS);
    assert_eq!(passed(), (1, 0), "by host port and by node port");
    for node_port in ["172.18.0.2:31290", "172.18.0.2:30946"] {
        page(&cluster, HOST, node_port, CONTROLLER_ADDRESS);
    }
    assert_eq!(passed(), (1, 2), "by host port and by node port");
}

fn without_a_rule_nginx_says_404(kind: Kind, plugins: &Plugins) {
    let (cluster, _web) = cluster(kind, plugins);
    let nginx = cluster.ingress(CONTROLLER, Family::V4);
    let before = cluster.world.snapshot();
    assert_eq!(status(&cluster, "localhost"), 200);
    assert_eq!(status(&cluster, "example.com"), 404);

    nginx.delete_rule();
    assert_eq!(status(&cluster, "localhost"), 404);
    assert_eq!(before, cluster.world.snapshot());
    assert_eq!(cluster.by_host_port(), 3, "all of them came by the host port");
}

fn a_new_controller_takes_over(kind: Kind, plugins: &Plugins) {
    let (cluster, _web) = cluster(kind, plugins);
    let successor = "ingress-nginx-2";
    {
        let _nginx = cluster.ingress(CONTROLLER, Family::V4);
        page(&cluster, HOST, "127.0.0.1:8080", CONTROLLER_ADDRESS);
    }
    let pairs_before = pairs(&cluster);
    cluster.detach(CONTROL_PLANE, CONTROLLER, &HOST_PORTS);
    assert!(request(&cluster.world, HOST, "127.0.0.1:8080", "localhost").is_err());
    assert!(!answers(&cluster.world, HOST, "172.18.0.2:80"));
    assert_eq!(pairs(&cluster), pairs_before - 1);

    let address = cluster.attach(CONTROL_PLANE, successor, &HOST_PORTS);
    assert_ne!(address, CONTROLLER_ADDRESS);
    let _nginx = cluster.ingress(successor, Family::V4);
    page(&cluster, HOST, "127.0.0.1:8080", &address);

    cluster.move_service(&address);
    page(&cluster, HOST, "172.18.0.2:31290", &address);
    // Rules contain the pod's address, and its ID, which ends with an escaped quotation mark.
    let state = format!("{:#}", cluster.world.snapshot());
    let mentions = |what: &str| state.lines().filter(|l| l.contains(what)).collect::<Vec<_>>();
    for (old, new) in [(CONTROLLER_ADDRESS, &*address), ("ingress-nginx\\", "ingress-nginx-2\\")] {
        assert_eq!(mentions(old), Vec::<&str>::new());
        assert!(!mentions(new).is_empty(), "nothing names {new}");
    }
    let leases = cluster.leases(CONTROL_PLANE);
    assert!(!leases.contains(&CONTROLLER_ADDRESS.to_owned()), "{leases:?}");
    assert!(leases.contains(&address), "{leases:?}");
    assert_eq!(pairs(&cluster), pairs_before);
}

/// The veth interfaces of the control plane's pods on the node.
fn pairs(cluster: &Cluster) -> usize {
    cluster.world.sh(CONTROL_PLANE, "ip -o link show type veth").lines().count()
}

fn connections_of_the_dead_are_forgotten(kind: Kind, plugins: &Plugins) {
    let (cluster, _web) = cluster(kind, plugins);
    let _nginx = cluster.ingress(CONTROLLER, Family::V4);
    page(&cluster, HOST, "127.0.0.1:8080", CONTROLLER_ADDRESS);
    let to_controller = || {
        let mut flows =
            cluster.flows(CONTROL_PLANE, Family::V4, &format!("src={CONTROLLER_ADDRESS} "));
        flows.retain(|flow| flow.contains("dst=172.18.0.2 "));
        flows
    };
    assert_eq!(to_controller().len(), 1);
    let to_web =
        cluster.flows(CONTROL_PLANE, Family::V4, &format!("src={CONTROLLER_ADDRESS} dst=10.96."));
    assert!(!to_web.is_empty());
    cluster.detach(CONTROL_PLANE, CONTROLLER, &HOST_PORTS);
    assert_eq!(to_controller(), Vec::<String>::new());
    // The connections that it opened to the pods behind the Service are gone, too.
    assert_eq!(cluster.flows(CONTROL_PLANE, Family::V4, CONTROLLER_ADDRESS), Vec::<String>::new());
}

fn everybody_reaches_everybody(kind: Kind, plugins: &Plugins) {
    let (cluster, _web) = cluster(kind, plugins);
    let _nginx = cluster.ingress(CONTROLLER, Family::V4);
    let fetch = |netns, address| fetch(&cluster.world, netns, address).unwrap();
    // A pod sees another pod's own address as the client.
    assert_eq!(fetch(SYSTEM[0], "10.244.0.6:80"), "web-0 10.244.0.2");
    assert_eq!(fetch(WEB_0, "10.244.1.2:80"), "web-1 10.244.0.6");
    assert_eq!(fetch(WEB_1, "10.244.0.6:80"), "web-0 10.244.1.2");
    // The hostPort from everywhere, including the controller's own pod.
    for netns in [CONTROLLER, WEB_0, WEB_1, CONTROL_PLANE, WORKER, HOST] {
        page(&cluster, netns, "172.18.0.2:80", CONTROLLER_ADDRESS);
    }
    page(&cluster, CONTROL_PLANE, "127.0.0.1:80", CONTROLLER_ADDRESS);
    // kube-proxy chooses either pod of the backend.
    let some = (0..64).map(|_| page(&cluster, HOST, "127.0.0.1:8080", CONTROLLER_ADDRESS));
    assert_eq!(some.collect::<BTreeSet<_>>().len(), 2);
}

fn everybody_reaches_everybody_over_ipv6(kind: Kind, plugins: &Plugins) {
    let controller = "fd00:10:244::5";
    let (cluster, _web) = cluster(kind.dual_stack(), plugins);
    let _nginx = cluster.ingress(CONTROLLER, Family::V6);
    let fetch = |netns, address| fetch(&cluster.world, netns, address).unwrap();
    assert_eq!(fetch(SYSTEM[0], "[fd00:10:244::6]:80"), "web-0 fd00:10:244::2");
    assert_eq!(fetch(WEB_0, "[fd00:10:244:1::2]:80"), "web-1 fd00:10:244::6");
    assert_eq!(fetch(WEB_1, "[fd00:10:244::6]:80"), "web-0 fd00:10:244:1::2");

    // Docker's proxy listens on ::1 of the host; nothing listens on ::1 of the node.
    page(&cluster, HOST, "[::1]:8080", controller);
    assert_eq!((cluster.by_host_port(), cluster.by_node_port()), (1, 0));
    assert!(!answers(&cluster.world, CONTROL_PLANE, "[::1]:80"));
    for netns in [CONTROLLER, WEB_0, WEB_1, CONTROL_PLANE, WORKER, HOST] {
        page(&cluster, netns, "[fc00:f853:ccd:e793::2]:80", controller);
    }
    page(&cluster, HOST, "[fc00:f853:ccd:e793::2]:31290", controller);
    assert_eq!(cluster.by_node_port(), 1);
}

/// CVE-2019-9946: a Service keeps its port 80, though the controller has port 80 of all addresses of
/// the node.
fn services_are_not_taken(kind: Kind, plugins: &Plugins) {
    let (cluster, _web) = cluster(kind, plugins);
    let _nginx = cluster.ingress(CONTROLLER, Family::V4);
    for netns in [CONTROL_PLANE, SYSTEM[0], HOST] {
        if netns == HOST {
            cluster.world.sh(HOST, "ip route add 10.96.0.0/16 via 172.18.0.2");
        }
        let answer = fetch(&cluster.world, netns, Family::V4.web()).unwrap();
        let is_backend = [WEB_0, WEB_1].iter().any(|pod| answer.starts_with(pod));
        assert!(is_backend, "{answer} to {netns}");
    }
    assert_eq!(cluster.by_host_port(), 0);
}

/// CVE-2019-9946: a pod does not get the port of a Service by requesting it as hostPort.
fn node_ports_are_not_taken(kind: Kind, plugins: &Plugins) {
    let (cluster, _web) = cluster(kind, plugins);
    let _nginx = cluster.ingress(CONTROLLER, Family::V4);
    cluster.attach(CONTROL_PLANE, "thief", &[(31290, 80), (8081, 80)]);
    let _thief = TcpEcho::start(&cluster.world, "thief", "[::]:80", "thief");
    for netns in [HOST, WORKER, CONTROL_PLANE, WEB_0] {
        page(&cluster, netns, "172.18.0.2:31290", CONTROLLER_ADDRESS);
    }
    let thief = fetch(&cluster.world, HOST, "172.18.0.2:8081").unwrap();
    assert_eq!(thief, "thief 172.18.0.1", "a port that is free can be had");
}

/// iptables rules beside a kube-proxy that uses nftables: the chains of both have the same priority,
/// which iptables cannot change, and the newer chain runs first.
fn node_ports_are_taken(kind: Kind, plugins: &Plugins) {
    let (cluster, _web) = cluster(kind, plugins);
    let _nginx = cluster.ingress(CONTROLLER, Family::V4);
    cluster.attach(CONTROL_PLANE, "thief", &[(31290, 80)]);
    let _thief = TcpEcho::start(&cluster.world, "thief", "[::]:80", "thief");
    for netns in [HOST, WORKER, CONTROL_PLANE, WEB_0] {
        let answer = fetch(&cluster.world, netns, "172.18.0.2:31290").unwrap();
        assert!(answer.starts_with("thief "), "{answer} to {netns}");
    }
    assert_eq!(cluster.by_node_port(), 0);
    page(&cluster, HOST, "172.18.0.2:30946", CONTROLLER_ADDRESS);
    assert_eq!(cluster.by_node_port(), 1, "another node port is the Service's");
}

/// CVE-2025-67499: packets to port 80 of another machine go there.
fn passing_packets_are_not_taken(kind: Kind, plugins: &Plugins) {
    let (cluster, _web) = cluster(kind, plugins);
    let _nginx = cluster.ingress(CONTROLLER, Family::V4);
    let _elsewhere = TcpEcho::start(&cluster.world, HOST, "[::]:80", "elsewhere");
    cluster.world.sh(HOST, "ip route add 10.244.0.0/24 via 172.18.0.2");

    let fetch = |netns, address| fetch(&cluster.world, netns, address).unwrap();
    // kindnet masquerades packets that leave the pod network.
    assert_eq!(fetch(WEB_0, "172.18.0.1:80"), "elsewhere 172.18.0.2");
    assert_eq!(fetch(CONTROL_PLANE, "172.18.0.1:80"), "elsewhere 172.18.0.2");
    assert_eq!(fetch(HOST, "10.244.0.6:80"), "web-0 172.18.0.1");
    assert_eq!(fetch(WEB_1, "10.244.0.6:80"), "web-0 10.244.1.2");
    assert_eq!(cluster.by_host_port(), 0);
}
