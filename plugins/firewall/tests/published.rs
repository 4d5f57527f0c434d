//! Published ports: only connections with a DNAT are accepted. Needs root.
//!
//! The reference plugin (1.10.0) has no such key: with a policy of DROP, or across bridges with an
//! `ingressPolicy`, such packets are dropped.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{config, count, firewall, names, reaches, rules};
use serde_json::{Value, json};
use testbed::routed::{client, on_a_node, pod};
use testbed::{Namespace, sh};

/// Maps one address of the node, of either family, to the pod, as portmap maps ports.
fn publish() {
    sh("ip addr add 192.0.2.99/24 dev uplink; ip addr add 2001:db8::99/64 dev uplink nodad
        nft 'table inet published {
            chain prerouting {
                type nat hook prerouting priority dstnat;
                ip daddr 192.0.2.99 dnat ip to 10.88.0.2
                ip6 daddr 2001:db8::99 dnat ip6 to fd00:88::2
            }
        }'");
}

fn reaches_published(client: &Namespace) -> [bool; 2] {
    ["192.0.2.99", "2001:db8::99"].map(|address| reaches(client, address))
}

fn reaches_directly(client: &Namespace) -> [bool; 2] {
    ["10.88.0.2", "fd00:88::2"].map(|address| reaches(client, address))
}

fn with(backend: &str, more: &Value) -> Value {
    let mut config = config(&json!({"backend": backend}));
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

fn are_accepted_despite_a_policy_of_drop(backend: &'static str, drop_all: &'static str) {
    on_a_node(move || {
        let (pod, client) = (pod(), client());
        publish();
        sh(drop_all);
        firewall("ADD", "pod-a", &pod.path(), &with(backend, &json!({}))).unwrap();
        assert_eq!(reaches_published(&client), [false; 2], "as in the reference plugin");
        let open = with(backend, &json!({"allowPublishedPorts": true}));
        firewall("ADD", "pod-a", &pod.path(), &open).unwrap();
        assert_eq!(reaches_published(&client), [true; 2]);
        assert_eq!(reaches_directly(&client), [false; 2]);
        firewall("CHECK", "pod-a", &pod.path(), &open).unwrap();
        let admin = if backend == "iptables" {
            ["iptables -A CNI-ADMIN -s 192.0.2.1 -j DROP", "iptables -F CNI-ADMIN"]
        } else {
            [
                "nft add rule inet podwire_firewall admin ip saddr 192.0.2.1 drop",
                "nft flush chain inet podwire_firewall admin",
            ]
        };
        sh(admin[0]);
        assert!(!reaches(&client, "192.0.2.99"), "the administrator's rules come first");
        sh(admin[1]);
        // After an ADD without the key, and after a DEL, nothing of it is left.
        firewall("ADD", "pod-a", &pod.path(), &with(backend, &json!({}))).unwrap();
        assert_eq!(reaches_published(&client), [false; 2]);
        firewall("ADD", "pod-a", &pod.path(), &open).unwrap();
        firewall("DEL", "pod-a", "", &names()).unwrap();
        assert_eq!(reaches_published(&client), [false; 2]);
        let left = [rules(), sh("nft list table inet podwire_firewall || true")].concat();
        assert_eq!(count(&left, "10.88.0.2") + count(&left, "fd00:88::2"), 0, "{left}");
    });
}

#[test]
fn a_policy_of_iptables_lets_published_ports_in() {
    are_accepted_despite_a_policy_of_drop(
        "iptables",
        "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP
        nft 'table inet podwire_firewall { }'",
    );
}

#[test]
fn a_policy_of_our_own_table_lets_published_ports_in() {
    are_accepted_despite_a_policy_of_drop(
        "nftables",
        "nft 'table inet podwire_firewall {
            chain forward { type filter hook forward priority 0; policy drop; };
        }'",
    );
}

fn get_to_another_bridge(backend: &'static str) {
    on_a_node(move || {
        let (pod, client) = (pod(), client());
        publish();
        // Both veth ends are used as bridges.
        let mut second = with(backend, &json!({"ingressPolicy": "isolated", "name": "second"}));
        second["prevResult"]["interfaces"][0]["name"] = "uplink".into();
        second["prevResult"]["ips"] = json!([
            {"address": "192.0.2.1/24", "interface": 1}, {"address": "2001:db8::1/64", "interface": 1}
        ]);
        let closed = with(backend, &json!({"ingressPolicy": "same-bridge"}));
        let keys = json!({"ingressPolicy": "same-bridge", "allowPublishedPorts": true});
        let open = with(backend, &keys);
        // The order of the networks does not matter.
        for order in [[&second, &closed, &open], [&closed, &open, &second]] {
            for config in order {
                firewall("ADD", "pod-a", &pod.path(), config).unwrap();
            }
            assert_eq!(reaches_published(&client), [true; 2]);
            assert_eq!(reaches_directly(&client), [false; 2]);
            assert!(!reaches(&pod, "192.0.2.1") && !reaches(&pod, "2001:db8::1"));
            firewall("CHECK", "pod-a", &pod.path(), &open).unwrap();
            firewall("ADD", "pod-a", &pod.path(), &closed).unwrap();
            assert_eq!(reaches_published(&client), [false; 2]);
        }
    });
}

#[test]
fn isolation_by_iptables_accepts_published_ports() {
    get_to_another_bridge("iptables");
}

#[test]
fn isolation_by_nftables_accepts_published_ports() {
    get_to_another_bridge("nftables");
}

#[test]
fn check_finds_missing_rules() {
    on_a_node(|| {
        let iptables =
            with("iptables", &json!({"allowPublishedPorts": true, "ingressPolicy": "isolated"}));
        firewall("ADD", "pod-a", "/x", &iptables).unwrap();
        let whole = rules();
        let jumps: Vec<String> =
            sh("iptables -S FORWARD").lines().skip(1).map(Into::into).collect();
        let order = ["CNI-PUBLISHED", "CNI-ISOLATION-STAGE-1", "CNI-FORWARD"];
        assert!(jumps.iter().zip(order).all(|(rule, to)| rule.ends_with(to)), "{jumps:?}");
        for (chain, count) in [("FORWARD", 3), ("CNI-PUBLISHED", 3)] {
            for number in 1..=count {
                sh(&format!("iptables -D {chain} {number}"));
                let error = firewall("CHECK", "pod-a", "/x", &iptables).unwrap_err();
                assert_eq!(error["code"], 101, "{chain} {number}: {error}");
                firewall("ADD", "pod-a", "/x", &iptables).unwrap();
                firewall("CHECK", "pod-a", "/x", &iptables).unwrap();
            }
        }
        sh("iptables -D FORWARD 2; iptables -D FORWARD 2");
        firewall("ADD", "pod-a", "/x", &iptables).unwrap();
        assert_eq!(sh("iptables -S FORWARD").lines().skip(1).collect::<Vec<_>>(), jumps);
        firewall("DEL", "pod-a", "", &names()).unwrap();
        assert_eq!(count(&rules(), "10.88.0.2") + count(&rules(), "fd00:88::2"), 0);
        firewall("ADD", "pod-a", "/x", &iptables).unwrap();
        assert_eq!(rules().lines().count(), whole.lines().count());

        let nftables = with("nftables", &json!({"allowPublishedPorts": true}));
        // The table as it is without the key.
        firewall("ADD", "pod-b", "/x", &with("nftables", &json!({}))).unwrap();
        firewall("ADD", "pod-a", "/x", &nftables).unwrap();
        firewall("CHECK", "pod-b", "/x", &with("nftables", &json!({}))).unwrap();
        sh("nft 'delete element inet podwire_firewall published6 { fd00:88::2 }'");
        let error = firewall("CHECK", "pod-a", "/x", &nftables).unwrap_err();
        assert!(error["msg"].as_str().unwrap().contains("published6 { fd00:88::2"), "{error}");
    });
}
