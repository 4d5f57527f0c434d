//! The backend `nftables`, observed with `nft`. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod common;

use std::thread;

use common::{config, firewall, names};
use serde_json::{Value, json};
use testbed::routed::on_a_node;
use testbed::sh;

fn by_nftables() -> Value {
    config(&json!({"backend": "nftables"}))
}

fn with_policy(policy: &str) -> Value {
    config(&json!({"backend": "nftables", "ingressPolicy": policy}))
}

fn at(mut config: Value, address: &str) -> Value {
    config["prevResult"]["ips"] = json!([{"address": address, "interface": 1}]);
    config
}

fn table() -> String {
    sh("nft list table inet podwire_firewall")
}

/// The elements of a set or map as JSON.
fn elements(kind: &str, name: &str) -> Vec<Value> {
    let listed = sh(&format!("nft -j list {kind} inet podwire_firewall {name}"));
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let all = &listed["nftables"][1][kind]["elem"];
    all.as_array().cloned().unwrap_or_default()
}

/// The addresses of one family, each with its owner.
fn pods(name: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let of = |it: &Value| (text(&it["elem"]["val"]), text(&it["elem"]["comment"]));
    elements("set", name).iter().map(of).collect()
}

fn pod(address: &str, owner: &str) -> (String, String) {
    (address.to_owned(), owner.to_owned())
}

#[test]
fn a_del_needs_only_the_names() {
    on_a_node(|| {
        let second = at(by_nftables(), "10.88.0.3/24");
        firewall("ADD", "pod-b", "/x", &second).unwrap();
        let before = sh("nft list ruleset");
        firewall("ADD", "pod-a", "/x", &by_nftables()).unwrap();
        assert_eq!(pods("pods6"), [pod("fd00:88::2", "testnet pod-a eth0")]);
        assert!(pods("pods4").contains(&pod("10.88.0.2", "testnet pod-a eth0")));
        assert_eq!(common::rules().matches("-A").count(), 0, "nothing in iptables");
        firewall("DEL", "pod-a", "", &names()).unwrap();
        assert_eq!(sh("nft list ruleset"), before);
        firewall("DEL", "pod-a", "", &names()).expect("a second DEL finds nothing and succeeds");
        firewall("CHECK", "pod-b", "/x", &second).unwrap();
    });
}

#[test]
fn an_add_again_changes_nothing() {
    on_a_node(|| {
        firewall("ADD", "pod-a", "/x", &with_policy("same-bridge")).unwrap();
        let before = sh("nft -a list ruleset");
        firewall("ADD", "pod-a", "/x", &with_policy("same-bridge")).unwrap();
        assert_eq!(sh("nft -a list ruleset"), before);
        firewall("ADD", "pod-a", "/x", &at(by_nftables(), "10.88.0.9/24")).unwrap();
        assert_eq!(pods("pods4"), [pod("10.88.0.9", "testnet pod-a eth0")]);
        assert_eq!(pods("pods6"), []);
    });
}

#[test]
fn a_saved_table_can_be_loaded() {
    on_a_node(|| {
        firewall("ADD", "pod-a", "/x", &with_policy("isolated")).unwrap();
        let before = table();
        sh("nft list ruleset > /tmp/podwire-firewall-$$; nft flush ruleset
            nft -f /tmp/podwire-firewall-$$; rm /tmp/podwire-firewall-$$");
        assert_eq!(table(), before);
        firewall("CHECK", "pod-a", "/x", &with_policy("isolated")).unwrap();
    });
}

#[test]
fn check_names_what_is_missing() {
    on_a_node(|| {
        let config = with_policy("isolated");
        firewall("ADD", "pod-a", "/x", &config).unwrap();
        let whole = table();
        let of = "inet podwire_firewall";
        let elements = [
            "pods4 { 10.88.0.2 }",
            "pods6 { fd00:88::2 }",
            "bridges { \"vethpod\" }",
            "within_bridges { \"vethpod\" . \"vethpod\" }",
        ];
        let check = |delete: &str, what: &str| {
            sh(&format!("nft 'delete {what} {of} {delete}'"));
            let error = firewall("CHECK", "pod-a", "/x", &config).unwrap_err();
            assert_eq!(error["code"], 101, "{delete}");
            let msg = error["msg"].as_str().unwrap();
            let start = format!("{what} is missing: nft add {what} {of} ");
            assert!(msg.starts_with(&start), "{delete}: {msg}");
            firewall("ADD", "pod-a", "/x", &config).expect("ADD makes what is missing");
            assert_eq!(table(), whole, "{delete}");
        };
        for element in elements {
            check(element, "element");
        }
        for (chain, count) in [("isolation", 2), ("forward", 6)] {
            for index in 0..count {
                let all = handles(chain);
                assert_eq!(all.len(), count);
                check(&format!("{chain} handle {}", all[index]), "rule");
            }
        }
        sh("nft add rule inet podwire_firewall admin counter
            nft insert rule inet podwire_firewall forward counter
            nft add rule inet podwire_firewall forward drop
            nft 'add element inet podwire_firewall bridges { \"cni7\" }'");
        firewall("CHECK", "pod-a", "/x", &config).expect("what others add is no business of ours");
    });
}

fn handles(chain: &str) -> Vec<u64> {
    let listed = sh(&format!("nft -j list chain inet podwire_firewall {chain}"));
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let rules = listed["nftables"].as_array().unwrap().iter();
    rules.filter_map(|it| it["rule"]["handle"].as_u64()).collect()
}

#[test]
fn the_rules_order_is_kept() {
    on_a_node(|| {
        firewall("ADD", "pod-a", "/x", &by_nftables()).unwrap();
        let whole = table();
        // The isolation of bridges comes first.
        let first = handles("forward")[0];
        sh(&format!(
            "nft delete rule inet podwire_firewall forward handle {first}
            nft add rule inet podwire_firewall forward jump isolation"
        ));
        let error = firewall("CHECK", "pod-a", "/x", &by_nftables()).unwrap_err();
        assert_eq!(error["code"], 101);
        firewall("ADD", "pod-a", "/x", &by_nftables()).unwrap();
        assert_eq!(table(), whole);
    });
}

#[test]
fn policy_and_rules_of_the_administrator_stay() {
    on_a_node(|| {
        // Before the first pod.
        sh("nft 'table inet podwire_firewall { chain admin { ip daddr 192.0.2.7 drop; }; }
            table inet podwire_firewall {
                chain forward {
                    type filter hook forward priority 0; policy drop; ip saddr 192.0.2.8 accept;
                };
            }'");
        firewall("ADD", "pod-a", "/x", &by_nftables()).unwrap();
        firewall("CHECK", "pod-a", "/x", &by_nftables()).unwrap();
        let listed = table();
        assert!(listed.contains("policy drop"), "{listed}");
        assert!(listed.contains("192.0.2.7 drop"), "{listed}");
        let last = "ip6 saddr @pods6 accept\n\t\tip saddr 192.0.2.8 accept\n\t}";
        assert!(listed.contains(last), "{listed}");
        firewall("DEL", "pod-a", "", &names()).unwrap();
        assert!(table().contains("policy drop"));
    });
}

#[test]
fn an_address_belongs_to_the_newest_pod() {
    on_a_node(|| {
        let both = by_nftables();
        firewall("ADD", "pod-a", "/x", &both).unwrap();
        firewall("ADD", "pod-b", "/x", &both).unwrap();
        assert_eq!(pods("pods4"), [pod("10.88.0.2", "testnet pod-b eth0")]);
        firewall("CHECK", "pod-a", "/x", &both).expect("its packets get through");
        firewall("DEL", "pod-a", "", &both).unwrap();
        assert_eq!(pods("pods4"), [pod("10.88.0.2", "testnet pod-b eth0")]);
        firewall("DEL", "pod-b", "", &both).unwrap();
        assert_eq!(pods("pods4"), []);
    });
}

#[test]
fn the_stricter_policy_of_a_bridge_stays() {
    on_a_node(|| {
        let verdict = || {
            let all = elements("map", "within_bridges");
            assert_eq!(all.len(), 1);
            all[0][1].as_object().unwrap().keys().next().unwrap().clone()
        };
        for (policy, expected) in
            [("same-bridge", "return"), ("isolated", "drop"), ("same-bridge", "drop")]
        {
            firewall("ADD", "pod-a", "/x", &with_policy(policy)).unwrap();
            assert_eq!(verdict(), expected);
            firewall("CHECK", "pod-a", "/x", &with_policy(policy)).unwrap();
        }
        assert_eq!(elements("set", "bridges"), ["vethpod"]);
    });
}

#[test]
fn garbage_is_what_belongs_to_no_valid_attachment_of_the_network() {
    on_a_node(|| {
        let mut other = at(by_nftables(), "10.99.0.2/24");
        other["name"] = "other".into();
        firewall("ADD", "pod-a", "/x", &other).unwrap();
        firewall("ADD", "pod-b", "/x", &at(by_nftables(), "10.88.0.3/24")).unwrap();
        let before = table();
        for (id, address) in [("pod-c", "10.88.0.4/24"), ("pod-d", "fd00:88::5/64")] {
            firewall("ADD", id, "/x", &at(by_nftables(), address)).unwrap();
        }
        let mut gc = names();
        gc["cni.dev/valid-attachments"] = json!([{"containerID": "pod-b", "ifname": "eth0"}]);
        firewall("GC", "", "", &gc).unwrap();
        assert_eq!(table(), before);
    });
}

#[test]
fn sixteen_adds_at_once_and_as_many_dels() {
    on_a_node(|| {
        let all_at_once = |command: &'static str| {
            let calls: Vec<_> = (0..16)
                .map(|n| {
                    thread::spawn(move || {
                        let address = format!("10.88.0.{}/24", n + 10);
                        let config = at(with_policy("isolated"), &address);
                        firewall(command, &format!("pod-{n}"), "/x", &config)
                    })
                })
                .collect();
            for call in calls {
                call.join().unwrap().unwrap();
            }
        };
        all_at_once("ADD");
        assert_eq!(pods("pods4").len(), 16);
        assert_eq!((handles("isolation").len(), handles("forward").len()), (2, 6));
        assert_eq!(elements("set", "bridges"), ["vethpod"]);
        all_at_once("DEL");
        assert_eq!(pods("pods4"), []);
    });
}

#[test]
fn a_refused_add_leaves_nothing() {
    on_a_node(|| {
        let mut nowhere = with_policy("isolated");
        nowhere["prevResult"]["interfaces"][0]["sandbox"] = "/run/netns/pod".into();
        assert_eq!(firewall("ADD", "pod-a", "/x", &nowhere).unwrap_err()["code"], 7);
        assert_eq!(sh("nft list ruleset"), "");
        let mut none = by_nftables();
        none["prevResult"]["ips"] = json!([]);
        firewall("ADD", "pod-a", "/x", &none).unwrap();
        assert_eq!(sh("nft list ruleset"), "", "nothing to let through");
        firewall("DEL", "pod-a", "", &names()).unwrap();
    });
}

#[test]
fn status_leaves_nothing() {
    on_a_node(|| {
        firewall("STATUS", "", "", &by_nftables()).unwrap();
        assert_eq!(sh("nft list ruleset"), "");
    });
}
