//! What an ADD that fails, a DEL and a GC leave on the node. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::fs;

use common::{bridge, bridge_command, in_namespaces, network, network_with, node, rules};
use serde_json::json;
use testbed::sh;

/// The gateway's last address is refused after the first one was added, and after an address of an
/// administrator was deleted. Both changes are undone.
#[test]
fn a_refused_gateway_address_undoes_the_others() {
    in_namespaces(|pod| {
        sh("ip link add cni0 address c2:00:00:00:00:01 up type bridge");
        sh("ip addr add 192.0.2.1/24 brd + dev cni0");
        fs::write("/proc/sys/net/ipv6/conf/cni0/disable_ipv6", "1").unwrap();
        let before = node();

        let error = bridge("ADD", &pod.path(), &network()).unwrap_err();
        assert!(error.to_string().contains("add address fd00:88::1/64"), "{error}");
        assert_eq!(node(), before);
        // Programs of iptables make their tables, too. Only this plugin makes this one.
        assert!(!sh("nft list tables").contains("bridge nat"));
        assert_eq!(rules(), Vec::<String>::new());
        assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), "0\n");

        // The same ADD succeeds as soon as the reason is removed.
        fs::write("/proc/sys/net/ipv6/conf/cni0/disable_ipv6", "0").unwrap();
        bridge("ADD", &pod.path(), &network()).unwrap();
        let after = node();
        for address in ["10.88.0.1/24 brd 10.88.0.255", "fd00:88::1/64"] {
            assert!(after.contains(address), "{after}");
        }
    });
}

#[test]
fn del_and_gc_remove_the_rules_with_the_link() {
    in_namespaces(|pod| {
        for command in ["DEL", "GC"] {
            bridge("ADD", &pod.path(), &network()).unwrap();
            let made = rules().join("\n");
            for expected in
                ["jump cni-br-iface-c1-eth0", "ip saddr 10.88.0.2", "ip6 saddr fd00:88::2"]
            {
                assert!(made.contains(expected), "{made}");
            }
            assert!(node().contains("veth"));
            bridge(command, &pod.path(), &network()).unwrap();
            assert_eq!(rules(), Vec::<String>::new(), "after {command}");
            assert!(!node().contains("veth"), "after {command}: {}", node());
        }
        // A second DEL has nothing to do. This is not an error.
        bridge("DEL", "/run/netns/it-has-vanished", &network()).unwrap();
    });
}

/// DEL and GC find rules by the names, whatever backend the configuration has now.
#[test]
fn del_and_gc_remove_the_rules_of_the_other_backend() {
    let other = network_with("ipMasqBackend", "nftables".into());
    for (before, now) in [(&other, &network()), (&network(), &other)] {
        in_namespaces(|pod| {
            for command in ["DEL", "GC"] {
                bridge("ADD", &pod.path(), before).unwrap();
                let of_pod = || sh("nft list ruleset").matches("10.88.0.2").count();
                assert_eq!(of_pod(), 1);
                bridge(command, &pod.path(), now).unwrap();
                assert_eq!(of_pod(), 0, "after {command}");
                assert_eq!(rules(), Vec::<String>::new(), "after {command}");
            }
            bridge("STATUS", &pod.path(), now).unwrap();
        });
    }
}

#[test]
fn check_misses_the_rules() {
    for (family, chain, expected) in
        [("bridge", "PREROUTING", "macspoofchk-c1-eth0"), ("ip", "POSTROUTING", "-s 10.88.0.2")]
    {
        in_namespaces(|pod| {
            let result = bridge("ADD", &pod.path(), &network()).unwrap();
            let network = network_with("prevResult", result);
            bridge("CHECK", &pod.path(), &network).unwrap();
            sh(&format!("nft flush chain {family} nat {chain}"));
            let error = bridge("CHECK", &pod.path(), &network).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        });
    }
}

/// A rule of an administrator jumps to a chain of this plugin, so the kernel refuses to delete the chain.
#[test]
fn the_other_steps_run_after_one_has_failed() {
    for command in ["DEL", "GC"] {
        in_namespaces(|pod| {
            bridge("ADD", &pod.path(), &network()).unwrap();
            sh("nft add chain bridge nat theirs");
            sh("nft add rule bridge nat theirs jump cni-br-iface-c1-eth0");

            let error = bridge(command, &pod.path(), &network()).unwrap_err();
            assert!(error.to_string().contains("cni-br-iface-c1-eth0"), "{command}: {error}");
            let left = rules();
            assert!(!left.iter().any(|line| line.contains("CNI-")), "after {command}: {left:?}");
            assert!(!node().contains("veth"), "after {command}: {}", node());
        });
    }
}

/// The chain's name has no room for these names, and the result contains a name that is not valid.
#[test]
fn del_and_gc_take_names_of_any_length() {
    in_namespaces(|pod| {
        let long = "c".repeat(300);
        let result = json!({
            "cniVersion": "1.1.0",
            "interfaces": [{"name": "a-name-that-is-longer-than-those-of-links"}],
        });
        for command in ["ADD", "DEL", "DEL"] {
            let network = match command {
                "DEL" => network_with("prevResult", result.clone()),
                _ => network(),
            };
            let mut call = bridge_command(command, &pod.path());
            call.env("CNI_CONTAINERID", &long).env("CNI_IFNAME", "fifteen-letters");
            testbed::run(&mut call, &network).unwrap();
            let chains = sh("nft list ruleset").matches("chain cni-br-iface-").count();
            assert_eq!(chains, if command == "ADD" { 2 } else { 0 });
        }
        assert!(!node().contains("veth"));
    });
}

/// The node removes the rules whatever a pod does in its own namespace.
#[test]
fn a_pod_cannot_keep_rules_of_the_node() {
    for backend in ["iptables", "nftables"] {
        for trick in [
            "ip addr add 10.88.0.2/32 dev lo",
            "ip link set eth0 down; ip link set eth0 name eth9",
            "ip link del eth0; ip link add eth0 type bridge; ip addr add 10.88.0.2/24 dev lo",
        ] {
            in_namespaces(|pod| {
                let network = network_with("ipMasqBackend", backend.into());
                let result = bridge("ADD", &pod.path(), &network).unwrap();
                pod.sh(trick);
                let with_result = network_with("prevResult", result);
                bridge("DEL", &pod.path(), &with_result).unwrap();
                assert_eq!(rules(), Vec::<String>::new(), "{backend}: {trick}");
                assert!(!sh("nft list ruleset").contains("10.88.0.2"), "{backend}: {trick}");
            });
        }
    }
}
