//! Packets of pods, from the moment that ADD has returned. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod common;

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use common::Call;
use serde_json::json;
use testbed::{Namespace, on_a_node, serve, sh};

/// Which server answers, and which client address it sees.
#[track_caller]
fn ask(to: &str) -> String {
    let to: SocketAddr = to.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// The addresses of pods' links that wait for the end of duplicate address detection, link-local
/// ones included.
const TENTATIVE: &str = "ip -6 -o addr show tentative | grep -E 'veth|eth0' || true";

/// A machine outside that has no routes to pods: 192.0.2.1 and `2001:db8::1`.
fn outside() -> Namespace {
    let outside = Namespace::create();
    sh(&format!("ip link add uplink type veth peer name eth0 netns {}", outside.path()));
    sh("ip addr add 192.0.2.10/24 dev uplink; ip addr add 2001:db8::10/64 dev uplink nodad
        ip link set uplink up");
    outside.sh("sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.eth0.accept_dad=0
        ip addr add 192.0.2.1/24 dev eth0; ip addr add 2001:db8::1/64 dev eth0 nodad
        ip link set eth0 up");
    outside
}

#[test]
fn pods_node_and_outside() {
    on_a_node(|| {
        let (a, b, outside) = (Namespace::create(), Namespace::create(), outside());
        Call::new("c1", &a).run("ADD").unwrap();
        Call::new("c2", &b).run("ADD").unwrap();
        // The node must deliver the first packet to pod b.
        for to in ["fd00:88::3", "10.88.0.3"] {
            a.sh(&format!("ping -c 3 -i 0.2 -W 1 {to}"));
        }
        for tentative in [sh(TENTATIVE), a.sh(TENTATIVE), b.sh(TENTATIVE)] {
            assert_eq!(tentative, "");
        }

        b.enter(|| serve("[::]:80", "b"));
        serve("[::]:80", "node");
        outside.enter(|| serve("[::]:80", "outside"));
        for (to, answer) in [
            ("10.88.0.3:80", "b 10.88.0.2"),
            ("[fd00:88::3]:80", "b fd00:88::2"),
            ("10.88.0.1:80", "node 10.88.0.2"),
            ("[fd00:88::1]:80", "node fd00:88::2"),
            ("192.0.2.1:80", "outside 192.0.2.10"),
            ("[2001:db8::1]:80", "outside 2001:db8::10"),
        ] {
            assert_eq!(a.enter(|| ask(to)), answer, "from pod a to {to}");
        }
        assert_eq!(ask("10.88.0.3:80"), "b 10.88.0.1");
        assert_eq!(ask("[fd00:88::3]:80"), "b fd00:88::1");
    });
}

/// The routes of kind's pods, as `ip route` shows those that the reference plugin makes.
#[test]
fn routes_and_mtu() {
    on_a_node(|| {
        let pod = Namespace::create();
        let call = Call::new("c1", &pod).with("mtu", json!(1400));
        call.run("ADD").unwrap();
        let routes = pod.sh("ip -4 route; ip -6 route | grep -v fe80:");
        assert_eq!(
            routes.lines().map(str::trim_end).collect::<Vec<_>>(),
            [
                "default via 10.88.0.1 dev eth0",
                "10.88.0.0/24 via 10.88.0.1 dev eth0 src 10.88.0.2",
                "10.88.0.1 dev eth0 scope link src 10.88.0.2",
                "fd00:88::1 dev eth0 src fd00:88::2 metric 1024 pref medium",
                "fd00:88::/64 via fd00:88::1 dev eth0 src fd00:88::2 metric 1024 pref medium",
                "default via fd00:88::1 dev eth0 metric 1024 pref medium",
            ]
        );
        let host = sh("ip -4 route show 10.88.0.2");
        assert!(host.contains("scope host"), "{host}");
        for link in [sh("ip link"), pod.sh("ip link")] {
            assert!(link.contains("mtu 1400"), "{link}");
        }
    });
}

/// A pod that vanished without a DEL left routes, and another pod has got its addresses.
#[test]
fn routes_that_another_pod_left_are_replaced() {
    on_a_node(|| {
        sh("ip link add stale type veth peer name other; ip link set stale up; ip link set other up
            ip route add 10.88.0.2 dev stale scope host; ip route add fd00:88::2 dev stale");
        let pod = Namespace::create();
        Call::new("c1", &pod).run("ADD").unwrap();
        sh("ping -c 3 -i 0.2 -W 1 10.88.0.2; ping -c 3 -i 0.2 -W 1 fd00:88::2");
        assert!(!sh("ip -4 route; ip -6 route").contains("88::2 dev stale"));
    });
}

/// Container engines make namespaces without IPv6 and expect the network plugin to enable it.
#[test]
fn a_pod_without_ipv6_gets_it() {
    on_a_node(|| {
        let pod = Namespace::create();
        pod.sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
        Call::new("c1", &pod).run("ADD").unwrap();
        pod.sh("ping -c 3 -i 0.2 -W 1 fd00:88::1");
    });
}
