//! What an ADD that fails, a DEL and a GC leave on the node. In namespaces of the tests' own; needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;

use serde_json::{Value, json};
use testbed::{Ended, Namespace, cni_command, in_new_netns, sh};

/// The directory of an IPAM plugin that gives out the same two addresses always.
const IPAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ipam");

fn network() -> Value {
    json!({
        "cniVersion": "1.1.0", "name": "n", "type": "bridge", "isGateway": true, "forceAddress": true,
        "ipMasq": true, "macspoofchk": true, "ipam": {"type": "dual-stack"},
        "cni.dev/valid-attachments": [],
    })
}

/// The same with another key.
fn network_with(key: &str, value: Value) -> Value {
    let mut network = network();
    network[key] = value;
    network
}

/// Runs a test in a node namespace of its own, with a second one for a pod.
fn in_namespaces(test: impl FnOnce(&Namespace) + Send) {
    in_new_netns(|| test(&Namespace::create()));
}

/// The names of the node's links, and its addresses, as `ip` shows them. Not the links' states, which
/// follow their carrier some time later.
fn node() -> String {
    let links = sh("ip -o link show");
    let names: Vec<_> = links.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    names.join("\n") + "\n" + &sh("ip -o -4 addr show; ip -o -6 addr show scope global")
}

/// The lines of all rules and chains that belong to the pod, as `nft` shows them.
fn rules() -> Vec<String> {
    let text = sh("nft list ruleset");
    let of_pod = |line: &&str| line.contains("cni-br-iface-") || line.contains("CNI-");
    text.lines().filter(of_pod).map(str::to_owned).collect()
}

fn bridge(command: &str, netns: &str, network: &Value) -> Ended {
    let mut call = cni_command(env!("CARGO_BIN_EXE_bridge"), command, "c1", netns);
    testbed::run(call.env("CNI_PATH", IPAM), network)
}

/// The gateway's last address is refused after the first one was added, and after a foreign one
/// was taken away: all of it comes back.
#[test]
fn a_refused_gateway_address_takes_the_others_back() {
    in_namespaces(|pod| {
        sh("ip link add cni0 address c2:00:00:00:00:01 up type bridge");
        sh("ip addr add 192.0.2.1/24 brd + dev cni0");
        fs::write("/proc/sys/net/ipv6/conf/cni0/disable_ipv6", "1").unwrap();
        let before = node();

        let error = bridge("ADD", &pod.path(), &network()).unwrap_err();
        assert!(error.to_string().contains("add address fd00:88::1/64"), "{error}");
        assert_eq!(node(), before);
        assert_eq!(rules(), Vec::<String>::new());
        assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), "0\n");

        // The same ADD works as soon as the reason has gone, so nothing else was in its way.
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
        // Once more: there is nothing left to do, which is no error.
        bridge("DEL", "/run/netns/it-has-vanished", &network()).unwrap();
    });
}

/// By the names, whatever masquerades now.
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

/// Somebody's own rule needs a chain of ours, so that the kernel refuses to delete it.
#[test]
fn a_step_that_fails_does_not_keep_the_others() {
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
