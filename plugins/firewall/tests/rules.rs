//! The backend `iptables`, observed with `iptables`. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod common;

use std::thread;

use common::{config, count, firewall, names, rules};
use serde_json::{Value, json};
use testbed::routed::on_a_node;
use testbed::sh;

fn by_iptables() -> Value {
    config(&json!({"backend": "iptables"}))
}

#[test]
fn a_del_needs_only_the_names() {
    on_a_node(|| {
        firewall("ADD", "pod-b", "/x", &by_iptables()).unwrap();
        let before = rules();
        firewall("ADD", "pod-a", "/x", &by_iptables()).unwrap();
        assert_eq!(count(&rules(), "10.88.0.2/32"), 4, "of either pod, though the same is said");
        firewall("DEL", "pod-a", "", &names()).unwrap();
        assert_eq!(rules(), before);
        firewall("DEL", "pod-a", "", &names()).expect("a second DEL finds nothing and succeeds");
        firewall("CHECK", "pod-b", "/x", &by_iptables()).unwrap();
    });
}

#[test]
fn an_add_again_changes_nothing() {
    on_a_node(|| {
        firewall("ADD", "pod-a", "/x", &by_iptables()).unwrap();
        let before = sh("nft -a list ruleset");
        firewall("ADD", "pod-a", "/x", &by_iptables()).unwrap();
        assert_eq!(sh("nft -a list ruleset"), before);
        // An ADD with other addresses removes the rules of the first ones.
        let mut moved = by_iptables();
        moved["prevResult"]["ips"] = json!([{"address": "10.88.0.9/24", "interface": 1}]);
        firewall("ADD", "pod-a", "/x", &moved).unwrap();
        let rules = rules();
        assert_eq!((count(&rules, "10.88.0.9/32"), count(&rules, "10.88.0.2/32")), (2, 0));
        assert_eq!(count(&rules, "fd00:88::2"), 0);
    });
}

#[test]
fn the_policy_of_the_node_stays() {
    on_a_node(|| {
        sh("iptables -P FORWARD DROP; iptables -A FORWARD -j REJECT");
        firewall("ADD", "pod-a", "/x", &by_iptables()).unwrap();
        let listed = sh("iptables -S FORWARD");
        let lines: Vec<_> = listed.lines().collect();
        assert_eq!(lines[0], "-P FORWARD DROP");
        assert!(lines[1].ends_with("-j CNI-FORWARD"), "{listed}");
        assert!(lines[2].starts_with("-A FORWARD -j REJECT"), "{listed}");
    });
}

#[test]
fn check_names_the_rule_that_is_missing() {
    on_a_node(|| {
        let config = config(&json!({"backend": "iptables", "ingressPolicy": "isolated"}));
        firewall("ADD", "pod-a", "/x", &config).unwrap();
        for (program, chain) in [
            ("iptables", "FORWARD"),
            ("ip6tables", "CNI-FORWARD"),
            ("iptables", "CNI-ISOLATION-STAGE-1"),
            ("ip6tables", "CNI-ISOLATION-STAGE-2"),
        ] {
            let count = sh(&format!("{program} -S {chain}")).matches("-A ").count();
            for number in 1..=count {
                sh(&format!("{program} -D {chain} {number}"));
                let error = firewall("CHECK", "pod-a", "/x", &config).unwrap_err();
                assert_eq!(error["code"], 101);
                let msg = error["msg"].as_str().unwrap();
                let start = format!("rule is missing: {program} -A {chain} ");
                assert!(msg.starts_with(&start), "{msg}");
                firewall("ADD", "pod-a", "/x", &config).expect("ADD makes what is missing");
                firewall("CHECK", "pod-a", "/x", &config).unwrap();
            }
        }
        sh("iptables -I CNI-FORWARD -j RETURN; iptables -A CNI-ADMIN -j RETURN");
        firewall("CHECK", "pod-a", "/x", &config).expect("what others add is no business of ours");
    });
}

#[test]
fn the_isolation_of_bridges_comes_first() {
    on_a_node(|| {
        let config = config(&json!({"backend": "iptables", "ingressPolicy": "same-bridge"}));
        firewall("ADD", "pod-a", "/x", &config).unwrap();
        let before = sh("iptables -S FORWARD");
        sh("iptables -D FORWARD 2");
        firewall("ADD", "pod-a", "/x", &config).unwrap();
        assert_eq!(sh("iptables -S FORWARD"), before);
        // Another program has changed their order.
        sh("iptables -I FORWARD -j CNI-FORWARD");
        firewall("CHECK", "pod-a", "/x", &config).unwrap_err();
    });
}

#[test]
fn rules_without_an_owner_are_removed_by_their_address() {
    on_a_node(|| {
        firewall("ADD", "pod-b", "/x", &by_iptables()).unwrap();
        let before = rules();
        // As the reference plugin makes them.
        sh("iptables -A CNI-FORWARD -d 10.88.0.2/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
            iptables -A CNI-FORWARD -s 10.88.0.2/32 -j ACCEPT
            iptables -A CNI-FORWARD -s 10.88.0.3/32 -j ACCEPT");
        firewall("DEL", "pod-a", "", &by_iptables()).unwrap();
        let third = "-A CNI-FORWARD -s 10.88.0.3/32 -j ACCEPT\n";
        assert_eq!(rules().replace(third, ""), before, "those of pod-b stay");
        assert!(rules().contains(third));
    });
}

#[test]
fn garbage_is_what_belongs_to_no_valid_attachment_of_the_network() {
    on_a_node(|| {
        let mut other = by_iptables();
        other["name"] = "other".into();
        firewall("ADD", "pod-a", "/x", &other).unwrap();
        firewall("ADD", "pod-b", "/x", &by_iptables()).unwrap();
        let before = rules();
        for id in ["pod-c", "pod-d"] {
            firewall("ADD", id, "/x", &by_iptables()).unwrap();
        }
        let mut gc = names();
        gc["cni.dev/valid-attachments"] = json!([{"containerID": "pod-b", "ifname": "eth0"}]);
        firewall("GC", "", "", &gc).unwrap();
        assert_eq!(rules(), before);
    });
}

#[test]
fn sixteen_adds_at_once() {
    on_a_node(|| {
        let adds: Vec<_> = (0..16)
            .map(|n| {
                thread::spawn(move || {
                    let keys = json!({"backend": "iptables", "ingressPolicy": "isolated"});
                    let mut config = config(&keys);
                    let address = format!("10.88.0.{}/24", n + 10);
                    config["prevResult"]["ips"][0]["address"] = address.into();
                    firewall("ADD", &format!("pod-{n}"), "/x", &config)
                })
            })
            .collect();
        for add in adds {
            add.join().unwrap().unwrap();
        }
        let rules = rules();
        assert_eq!(count(&rules, "10.88.0."), 32);
        for (shared, expected) in [
            ("-A FORWARD", 2),
            ("-j CNI-ADMIN", 1),
            ("-A CNI-ISOLATION-STAGE-1", 3),
            ("-A CNI-ISOLATION-STAGE-2", 2),
            ("-A CNI-FORWARD -d fd00:88::2/128", 16),
        ] {
            let program = if shared.contains("fd00") { "ip6tables" } else { "iptables" };
            assert_eq!(count(&sh(&format!("{program} -S")), shared), expected, "{rules}");
        }
    });
}

#[test]
fn a_refused_add_leaves_nothing() {
    on_a_node(|| {
        let before = rules();
        let mut nowhere = config(&json!({"backend": "iptables", "ingressPolicy": "isolated"}));
        nowhere["prevResult"]["interfaces"][0]["sandbox"] = "/run/netns/pod".into();
        let error = firewall("ADD", "pod-a", "/x", &nowhere).unwrap_err();
        assert_eq!(error["code"], 7);
        assert!(error["msg"].as_str().unwrap().contains("ingressPolicy"), "{error}");
        assert_eq!(rules(), before);
    });
}

#[test]
fn a_node_of_legacy_iptables_gets_legacy_rules() {
    on_a_node(|| {
        sh("iptables-legacy -t mangle -N KUBE-IPTABLES-HINT; iptables-legacy -P FORWARD DROP");
        let legacy = || sh("iptables-legacy -S; ip6tables-legacy -S");
        let config = config(&json!({"ingressPolicy": "isolated"}));
        firewall("ADD", "pod-a", "/x", &config).unwrap();
        let before = legacy();
        assert_eq!(count(&before, "10.88.0.2/32"), 2, "{before}");
        assert_eq!(count(&before, "fd00:88::2/128"), 2, "{before}");
        assert_eq!(count(&before, "-P FORWARD DROP"), 1, "{before}");
        assert_eq!(count(&sh("nft list ruleset"), "CNI"), 0);
        firewall("ADD", "pod-a", "/x", &config).unwrap();
        assert_eq!(legacy(), before);
        firewall("CHECK", "pod-a", "/x", &config).unwrap();
        firewall("DEL", "pod-a", "", &names()).expect("names say nothing there");
        assert_eq!(legacy(), before);
        firewall("DEL", "pod-a", "", &config).unwrap();
        let after = legacy();
        assert_eq!(count(&after, "10.88.0.2") + count(&after, "fd00:88::2"), 0, "{after}");
    });
}
