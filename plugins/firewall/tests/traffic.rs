//! The effect of the rules on packets. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{config, firewall, names, reaches};
use serde_json::json;
use testbed::routed::{client, on_a_node, pod};
use testbed::{Namespace, sh};

#[test]
fn packets_of_a_pod_are_accepted_despite_a_policy_of_drop() {
    on_a_node(|| {
        let (pod, client) = (pod(), client());
        sh("iptables -P FORWARD DROP; ip6tables -P FORWARD DROP");
        assert!(!reaches(&pod, "192.0.2.1") && !reaches(&pod, "2001:db8::1"));
        let config = config(&json!({}));
        firewall("ADD", "pod-a", &pod.path(), &config).unwrap();
        assert!(reaches(&pod, "192.0.2.1") && reaches(&pod, "2001:db8::1"));
        assert!(!reaches(&client, "10.88.0.2"), "who may come in is for other rules to say");
        sh("iptables -A CNI-ADMIN -d 192.0.2.1 -j DROP");
        assert!(!reaches(&pod, "192.0.2.1"), "the administrator's rules come first");
        sh("iptables -F CNI-ADMIN");
        assert!(reaches(&pod, "192.0.2.1"));
        firewall("DEL", "pod-a", "", &config).unwrap();
        assert!(!reaches(&pod, "192.0.2.1") && !reaches(&pod, "2001:db8::1"));
    });
}

#[test]
fn packets_of_a_pod_are_accepted_by_our_own_table() {
    on_a_node(|| {
        let (pod, client) = (pod(), client());
        sh("nft 'table inet podwire_firewall {
                chain forward { type filter hook forward priority 0; policy drop; };
            }'");
        assert!(!reaches(&pod, "192.0.2.1") && !reaches(&pod, "2001:db8::1"));
        let config = config(&json!({"backend": "nftables"}));
        firewall("ADD", "pod-a", &pod.path(), &config).unwrap();
        assert!(reaches(&pod, "192.0.2.1") && reaches(&pod, "2001:db8::1"));
        assert!(!reaches(&client, "10.88.0.2"), "who may come in is for other rules to say");
        sh("nft add rule inet podwire_firewall admin ip daddr 192.0.2.1 drop");
        assert!(!reaches(&pod, "192.0.2.1"), "the administrator's rules come first");
        assert!(reaches(&pod, "2001:db8::1"));
        sh("nft flush chain inet podwire_firewall admin");
        firewall("DEL", "pod-a", "", &names()).unwrap();
        assert!(!reaches(&pod, "192.0.2.1") && !reaches(&pod, "2001:db8::1"));
    });
}

#[test]
fn bridges_are_isolated_by_iptables() {
    on_a_node(|| isolates_bridges("iptables"));
}

#[test]
fn bridges_are_isolated_by_nftables() {
    on_a_node(|| isolates_bridges("nftables"));
}

fn isolates_bridges(backend: &str) {
    // Both veth ends are used as bridges.
    let (pod, other) = (pod(), client());
    let open = config(&json!({"backend": backend, "ingressPolicy": "open"}));
    firewall("ADD", "pod-a", &pod.path(), &open).unwrap();
    let first = config(&json!({"backend": backend, "ingressPolicy": "same-bridge"}));
    firewall("ADD", "pod-a", &pod.path(), &first).unwrap();
    assert!(reaches(&pod, "192.0.2.1") && reaches(&other, "10.88.0.2"));

    let policy = json!({"backend": backend, "ingressPolicy": "isolated", "name": "second"});
    let mut second = config(&policy);
    second["prevResult"]["interfaces"][0]["name"] = "uplink".into();
    second["prevResult"]["ips"] = json!([
        {"address": "192.0.2.1/24", "interface": 1}, {"address": "2001:db8::1/64", "interface": 1}
    ]);
    firewall("ADD", "pod-b", &other.path(), &second).unwrap();
    assert!(!reaches(&pod, "192.0.2.1") && !reaches(&other, "10.88.0.2"));
    assert!(!reaches(&pod, "2001:db8::1") && !reaches(&other, "fd00:88::2"));
}

#[test]
fn pods_of_a_bridge_are_isolated_by_iptables() {
    on_a_node(|| isolates_pods("iptables"));
}

#[test]
fn pods_of_a_bridge_are_isolated_by_nftables() {
    on_a_node(|| isolates_pods("nftables"));
}

fn isolates_pods(backend: &str) {
    // Pods whose packets to each other are routed by the node.
    sh("sysctl -qw net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0
        ip link add cni0 type bridge; ip addr add 10.88.0.10/24 dev cni0; ip link set cni0 up");
    let pods = [2, 3].map(|last| {
        let (pod, link) = (Namespace::create(), format!("veth{last}"));
        sh(&format!(
            "ip link add {link} type veth peer name eth0 netns {}; ip link set {link} up master cni0",
            pod.path()
        ));
        pod.sh(&format!(
            "ip link set eth0 up; ip addr add 10.88.0.{last}/32 dev eth0
            ip route add 10.88.0.10 dev eth0; ip route add default via 10.88.0.10"
        ));
        pod
    });
    let add = |policy: &str| {
        let mut config = config(&json!({"backend": backend, "ingressPolicy": policy}));
        config["prevResult"]["interfaces"][0]["name"] = "cni0".into();
        firewall("ADD", "pod-a", &pods[0].path(), &config).unwrap();
    };
    add("same-bridge");
    assert!(reaches(&pods[0], "10.88.0.3") && reaches(&pods[1], "10.88.0.2"));
    add("isolated");
    assert!(!reaches(&pods[0], "10.88.0.3") && !reaches(&pods[1], "10.88.0.2"));
    assert!(reaches(&pods[0], "10.88.0.10"), "the node itself is another matter");
}
