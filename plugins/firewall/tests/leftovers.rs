//! What is removed, and what stays. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{config, count, firewall, names, rules};
use serde_json::{Value, json};
use testbed::routed::on_a_node;
use testbed::{Ended, Namespace, cni_command, sh};

const BACKENDS: [&str; 2] = ["iptables", "nftables"];

/// An ADD that loses the kernel's answer of this number.
fn add_with_loss(number: u32, config: &Value) -> Ended {
    let mut call = cni_command("/usr/bin/strace", "ADD", "pod-a", "/x");
    let inject = format!("inject=recvfrom:error=EIO:when={number}");
    let arguments = ["-o", "/dev/null", "-e", "trace=recvfrom", "-e", &inject];
    call.args(arguments).arg(env!("CARGO_BIN_EXE_firewall")).env("PATH", "/usr/sbin:/usr/bin");
    testbed::run(&mut call, config)
}

#[test]
fn an_add_whose_answer_is_lost_leaves_nothing() {
    for backend in BACKENDS {
        on_a_node(move || {
            let keys = json!({"backend": backend, "allowPublishedPorts": true});
            let config = config(&keys);
            // Another pod has had the same address.
            firewall("ADD", "pod-b", "/x", &config).unwrap();
            let before = sh("nft list ruleset");
            let mut lost = 0;
            while add_with_loss(lost + 1, &config).is_err() {
                lost += 1;
                assert_eq!(sh("nft list ruleset"), before, "{backend}: answer {lost}");
                assert!(lost < 100);
            }
            assert!(lost >= 3, "{backend}: {lost}");
            assert_ne!(sh("nft list ruleset"), before);
        });
    }
}

#[test]
fn a_del_ignores_values_that_are_not_valid() {
    for keys in [
        json!({"backend": "ufw"}),
        json!({"backend": 5}),
        json!({"iptablesAdminChainName": "two words"}),
        json!({"iptablesAdminChainName": "a-name-that-is-longer-than-any-chain"}),
        json!({"ingressPolicy": "closed"}),
        json!({"firewalldZone": "a\0b"}),
        json!({"allowPublishedPorts": "yes"}),
        json!({"prevResult": 7}),
    ] {
        on_a_node(move || {
            firewall("ADD", "pod-a", "/x", &config(&json!({"backend": "iptables"}))).unwrap();
            let mut del = names();
            del.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
            firewall("ADD", "pod-b", "/x", &del).expect_err("an ADD refuses it");
            firewall("DEL", "pod-a", "", &del).unwrap();
            assert_eq!(count(&rules(), "10.88.0.2"), 0);
            del["cni.dev/valid-attachments"] = json!([]);
            firewall("GC", "", "", &del).unwrap();
        });
    }
}

#[test]
fn the_longest_names_are_found_again() {
    for backend in BACKENDS {
        on_a_node(move || {
            let mut config = config(&json!({"backend": backend}));
            let (network, id) = ("n".repeat(200), "c".repeat(200));
            config["name"] = network.clone().into();
            firewall("ADD", &id, "/x", &config).unwrap();
            let all = || sh("nft list ruleset");
            assert!(count(&all(), "10.88.0.2") > 0);
            let mut del = names();
            del["name"] = network.into();
            firewall("DEL", &id, "", &del).unwrap();
            assert_eq!(count(&all(), "10.88.0.2"), 0);
        });
    }
}

/// The reference plugin (1.10.0) makes these rules too.
#[test]
fn every_address_of_the_result_gets_rules() {
    for backend in BACKENDS {
        on_a_node(move || {
            let mut config = config(&json!({"backend": backend}));
            config["prevResult"]["interfaces"] =
                json!([{"name": "tap0"}, {"name": "net7", "sandbox": "/x"}]);
            config["prevResult"]["ips"] = json!([
                {"address": "10.88.0.2/24", "interface": 0}, {"address": "10.88.0.3/24", "interface": 1},
                {"address": "10.88.0.4/24"}
            ]);
            firewall("ADD", "pod-a", "/x", &config).unwrap();
            let all = sh("nft list ruleset");
            for address in ["10.88.0.2", "10.88.0.3", "10.88.0.4"] {
                assert!(count(&all, address) > 0, "{backend}: {address} is not in {all}");
            }
            firewall("DEL", "pod-a", "", &names()).unwrap();
            assert_eq!(count(&sh("nft list ruleset"), "10.88.0."), 0);
        });
    }
}

/// A pod that is a port of the bridge, without an entry in the tables of neighbours.
fn pod_at(address: &str, link: &str) -> Namespace {
    let pod = Namespace::create();
    sh(&format!(
        "ip link add {link} type veth peer name eth0 netns {}; ip link set {link} up master cni0",
        pod.path()
    ));
    pod.sh(&format!("ip link set eth0 up; ip addr add {address}/24 dev eth0"));
    pod
}

/// The reference plugin (1.10.0) has no GC: without a DEL, its rules stay forever.
fn collects_rules_of_unused_addresses(variant: &'static str) {
    on_a_node(move || {
        sh("ip link add cni0 type bridge; ip addr add 10.88.0.1/24 dev cni0; ip link set cni0 up
            ip link add cni1 type bridge; ip addr add 10.77.0.1/24 dev cni1; ip link set cni1 up
            ip link add tap7 type veth peer name tap8; ip link set tap7 up master cni1; ip link set tap8 up
            ip link add lan type veth peer name lan2; ip link set lan2 up
            ip addr add 192.0.2.10/24 dev lan; ip link set lan up");
        let alive = pod_at("10.88.0.3", "veth3");
        firewall("ADD", "pod-b", "/x", &{
            let mut owned = config(&json!({"backend": "nftables"}));
            owned["prevResult"]["ips"] = json!([{"address": "10.88.0.6/24"}]);
            owned["name"] = "other".into();
            owned
        })
        .unwrap();
        let iptables = if variant == "legacy" { "iptables-legacy" } else { "iptables" };
        sh(&format!("{iptables} -N CNI-FORWARD"));
        // Rules as the reference plugin makes them: for a running pod, a pod of another network, deleted
        // pods, machines that may be behind other links than veths; and a rule that the plugin would not
        // make.
        let stay = ["10.88.0.3", "10.88.0.6", "10.77.0.9", "192.0.2.20"];
        let go = ["10.88.0.4", "10.99.0.5"];
        for address in stay.iter().chain(&go) {
            sh(&format!(
                "{iptables} -A CNI-FORWARD -d {address}/32 -m conntrack \
                    --ctstate RELATED,ESTABLISHED -j ACCEPT
                {iptables} -A CNI-FORWARD -s {address}/32 -j ACCEPT"
            ));
        }
        sh(&format!("{iptables} -A CNI-FORWARD -s 10.99.0.7/32 -p tcp -j ACCEPT"));
        let mut gc = names();
        gc["cni.dev/valid-attachments"] = json!([]);
        firewall("GC", "", "", &gc).unwrap();
        let left = sh(&format!("{iptables} -S CNI-FORWARD"));
        for address in stay {
            assert_eq!(count(&left, &format!("{address}/32")), 2, "{address}: {left}");
        }
        for address in go {
            assert_eq!(count(&left, &format!("{address}/32")), 0, "{address}: {left}");
        }
        assert_eq!(count(&left, "10.99.0.7"), 1);
        drop(alive);
    });
}

#[test]
fn garbage_without_an_owner_is_removed() {
    collects_rules_of_unused_addresses("nf_tables");
}

#[test]
fn garbage_without_an_owner_is_removed_from_legacy_tables() {
    collects_rules_of_unused_addresses("legacy");
}

#[test]
fn restored_rules_have_lost_their_owner() {
    on_a_node(|| {
        sh("ip link add cni0 type bridge; ip addr add 10.88.0.1/24 dev cni0; ip link set cni0 up");
        firewall("ADD", "pod-a", "/x", &config(&json!({"backend": "iptables"}))).unwrap();
        sh("iptables-save > /tmp/podwire-$$; iptables -F
            iptables-restore < /tmp/podwire-$$; rm /tmp/podwire-$$");
        assert_eq!(count(&rules(), "10.88.0.2/32"), 2);
        let mut gc = names();
        gc["cni.dev/valid-attachments"] = json!([]);
        firewall("GC", "", "", &gc).unwrap();
        assert_eq!(count(&rules(), "10.88.0.2/32"), 0);
    });
}

fn everything() -> String {
    sh("nft list ruleset; iptables-legacy-save | sed '/^#/d'; ip6tables-legacy-save | sed '/^#/d'")
}

#[test]
fn a_purge_removes_only_what_the_plugin_made() {
    on_a_node(|| {
        sh("iptables -P FORWARD DROP; iptables -A FORWARD -i lo -j ACCEPT; iptables -N SITE
            ip6tables -A FORWARD -i lo -j ACCEPT; iptables-legacy -t filter -S; ip6tables-legacy -t filter -S
            nft add table inet site");
        let without_counters = |text: String| text.replace("packets 0 bytes 0", "");
        let before = without_counters(everything());
        for (id, backend) in [("pod-a", "iptables"), ("pod-b", "nftables")] {
            let keys = json!({"backend": backend, "ingressPolicy": "isolated", "allowPublishedPorts": true});
            firewall("ADD", id, "/x", &config(&keys)).unwrap();
        }
        sh("iptables-legacy -N CNI-FORWARD; iptables-legacy -A FORWARD -j CNI-FORWARD
            iptables-legacy -A CNI-FORWARD -s 10.88.0.9/32 -j ACCEPT");
        let full = everything();
        let said = firewall::purge(true).unwrap();
        assert_eq!(everything(), full, "a dry run changes nothing");
        assert_eq!(firewall::purge(false).unwrap(), said);
        assert_eq!(without_counters(everything()), before);
        for line in [
            "ip6tables (nf_tables): chain CNI-PUBLISHED",
            "iptables (legacy): chain CNI-FORWARD",
            "nft: table inet podwire_firewall",
            "iptables (nf_tables): chain CNI-ADMIN without rules",
        ] {
            assert!(said.iter().any(|it| it.starts_with(line)), "{line}: {said:?}");
        }
        assert_eq!(firewall::purge(false).unwrap(), Vec::<String>::new());
    });
}

#[test]
fn a_purge_leaves_what_the_administrator_has_made() {
    on_a_node(|| {
        sh("nft 'table inet podwire_firewall {
                chain forward { type filter hook forward priority 0; policy drop; };
                chain admin { ip daddr 192.0.2.7 drop; };
            }'");
        for backend in ["nftables", "iptables"] {
            firewall("ADD", "pod-a", "/x", &config(&json!({"backend": backend}))).unwrap();
        }
        sh("iptables -A CNI-ADMIN -d 192.0.2.8 -j DROP");
        firewall::purge(false).unwrap();
        let left = everything();
        assert!(left.contains("policy drop") && left.contains("192.0.2.7 drop"), "{left}");
        assert!(sh("iptables -S CNI-ADMIN").contains("192.0.2.8"));
        for ours in ["10.88.0.2", "pods4", "isolation", "CNI-FORWARD"] {
            assert_eq!(count(&left, ours), 0, "{ours}: {left}");
        }
    });
}
