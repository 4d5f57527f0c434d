//! Chains of other programs that drop what our rules accept. Needs root.
//!
//! The reference plugin (1.10.0) does not look for them: its ADD, CHECK and STATUS succeed in all of these
//! cases.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod common;

use std::io::Write;
use std::process::Stdio;

use common::{config, firewall, reaches};
use serde_json::{Value, json};
use testbed::routed::{client, on_a_node, pod};
use testbed::{cni_command, sh};

const BACKENDS: [&str; 2] = ["iptables", "nftables"];

fn status(backend: &str) -> Value {
    json!({"backend": backend, "cniVersion": "1.1.0", "name": "testnet"})
}

/// Rules that drop all new connections, and the name of the chain in the error.
const CLOSED: [(&str, &str); 7] = [
    (
        "nft 'table inet site { chain transit { type filter hook forward priority 0; policy drop; }; }'",
        "inet site transit",
    ),
    (
        "nft 'table inet site { chain transit {
            type filter hook forward priority 5; reject with icmpx type admin-prohibited; }; }'",
        "inet site transit",
    ),
    (
        "nft 'table ip site { chain transit {
            type filter hook forward priority -5;
            ct state vmap { established : accept, related : accept, invalid : drop }
            counter log drop; }; }'",
        "ip site transit",
    ),
    (
        "nft 'table inet site {
        chain answers { ct state { established, related } accept; }
        chain transit { type filter hook forward priority 0; policy drop; jump answers; }; }'",
        "inet site transit",
    ),
    (
        "nft 'table ip site { chain late {
            type filter hook postrouting priority 0; ct state new drop; drop; }; }'",
        "ip site late",
    ),
    (
        "iptables-legacy -A FORWARD -m state --state RELATED,ESTABLISHED -j ACCEPT
      iptables-legacy -P FORWARD DROP; iptables -A INPUT; iptables -A INPUT",
        "FORWARD of iptables-legacy -t filter",
    ),
    (
        "iptables -t mangle -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
      iptables -t mangle -A FORWARD -j DROP",
        "ip mangle FORWARD",
    ),
];

#[test]
fn a_chain_that_drops_everything_is_named() {
    for (made, chain) in CLOSED {
        for backend in BACKENDS {
            on_a_node(move || {
                sh(made);
                let before = sh("nft list ruleset");
                let error = firewall("STATUS", "", "", &status(backend)).unwrap_err();
                assert_eq!(error["code"], 50, "{backend}: {made}");
                let msg = error["msg"].as_str().unwrap();
                assert!(msg.contains(&format!("chain {chain} drops")), "{backend}: {made}: {msg}");
                let mut config = config(&json!({"backend": backend}));
                config["prevResult"]["ips"].as_array_mut().unwrap().truncate(1);
                if backend == "iptables" {
                    // An ADD that works with the reference plugin also works here.
                    let said = stderr_of_add(&config);
                    assert!(said.contains(&format!("chain {chain} drops")), "{made}: {said}");
                    assert_eq!(stderr_of_add(&config), "", "only the first pod's ADD looks");
                } else {
                    let error = firewall("ADD", "pod-a", "/x", &config).unwrap_err();
                    assert_eq!(error["code"], 50, "{made}");
                    assert_eq!(sh("nft list ruleset"), before, "{made}");
                }
            });
        }
    }
}

/// What a successful ADD writes to stderr.
fn stderr_of_add(config: &Value) -> String {
    let mut add = cni_command(env!("CARGO_BIN_EXE_firewall"), "ADD", "pod-a", "/x");
    let mut child = add
        .env("PATH", "/usr/sbin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", ended.status);
    String::from_utf8(ended.stderr).unwrap()
}

#[test]
fn the_chains_of_both_families_are_named() {
    for backend in BACKENDS {
        on_a_node(move || {
            for family in ["ip", "ip6"] {
                sh(&format!(
                    "nft 'table {family} site {{ chain transit {{
                        type filter hook forward priority 0; policy drop; }}; }}'"
                ));
            }
            let config = config(&json!({"backend": backend}));
            let said = if backend == "iptables" {
                stderr_of_add(&config)
            } else {
                firewall("ADD", "pod-a", "/x", &config).unwrap_err()["msg"].to_string()
            };
            for chain in ["chain ip site transit drops", "chain ip6 site transit drops"] {
                assert!(said.contains(chain), "{backend}: {said}");
            }
        });
    }
}

/// A pod works if one of its families does.
#[test]
fn a_chain_of_one_family_does_not_stop_a_pod_with_both() {
    for family in ["ip", "ip6"] {
        for backend in BACKENDS {
            on_a_node(move || {
                sh(&format!(
                    "nft 'table {family} site {{ chain transit {{
                        type filter hook forward priority 0; policy drop; }}; }}'"
                ));
                firewall("ADD", "pod-a", "/x", &config(&json!({"backend": backend}))).unwrap();
            });
        }
    }
}

#[test]
fn status_looks_at_the_family_that_the_node_forwards() {
    on_a_node(|| {
        sh(
            "nft 'table ip site { chain transit { type filter hook forward priority 0; policy drop; }; }'",
        );
        assert_eq!(firewall("STATUS", "", "", &status("nftables")).unwrap_err()["code"], 50);
        sh("sysctl -qw net.ipv4.ip_forward=0");
        firewall("STATUS", "", "", &status("nftables")).unwrap();
        sh("nft delete table ip site");
        sh(
            "nft 'table ip6 site { chain transit { type filter hook forward priority 0; policy drop; }; }'",
        );
        assert_eq!(firewall("STATUS", "", "", &status("nftables")).unwrap_err()["code"], 50);
    });
}

#[test]
fn the_commands_in_the_error_help() {
    on_a_node(|| {
        let (pod, _client) = (pod(), client());
        sh(
            "nft 'table inet site { chain transit { type filter hook forward priority 0; reject; }; }'",
        );
        let error = firewall("STATUS", "", "", &status("nftables")).unwrap_err();
        let (_, commands) = error["msg"].as_str().unwrap().split_once("addresses: ").unwrap();
        sh(&commands.replace("NETWORK", "10.88.0.0/24"));
        firewall("STATUS", "", "", &status("nftables")).unwrap();
        firewall("ADD", "pod-a", &pod.path(), &config(&json!({"backend": "nftables"}))).unwrap();
        assert!(reaches(&pod, "192.0.2.1"));
    });
}

#[test]
fn chains_that_may_accept_packets_of_pods_are_not_reported() {
    for made in [
        "nft 'table inet site { chain transit {
            type filter hook forward priority 0; policy drop; iifname \"virbr0\" accept; }; }'",
        "nft 'table inet site { chain transit {
            type filter hook forward priority 0; policy drop;
            ct state vmap { established : accept, new : accept }; }; }'",
        "nft 'table inet site { chain mine { type filter hook input priority 0; policy drop; }; }'",
        "nft 'table inet site { flags dormant; chain transit {
            type filter hook forward priority 0; policy drop; }; }'",
        "nft 'table bridge site { chain transit { type filter hook forward priority 0; policy drop; }; }'",
        "nft 'table ip6 site { chain transit { type filter hook forward priority 0; policy drop; }; }'",
    ] {
        for backend in BACKENDS {
            on_a_node(move || {
                sh(made);
                firewall("STATUS", "", "", &status(backend)).expect(made);
                firewall("ADD", "pod-a", "/x", &config(&json!({"backend": backend}))).expect(made);
            });
        }
    }
}

#[test]
fn chains_where_our_rules_come_first_are_not_reported() {
    on_a_node(|| {
        sh("iptables -P FORWARD DROP; ip6tables -P FORWARD DROP; iptables -A FORWARD -j REJECT");
        let config = config(&json!({"backend": "iptables"}));
        firewall("STATUS", "", "", &status("iptables")).unwrap();
        firewall("ADD", "pod-a", "/x", &config).unwrap();
        firewall("CHECK", "pod-a", "/x", &config).unwrap();
        sh("iptables -I FORWARD -j DROP");
        let error = firewall("CHECK", "pod-a", "/x", &config).unwrap_err();
        assert_eq!(error["code"], 101, "{error}");
    });
}

#[test]
fn check_compares_conditions_with_the_pod() {
    for backend in BACKENDS {
        on_a_node(move || {
            let (pod, _client) = (pod(), client());
            let config = config(&json!({"backend": backend}));
            firewall("ADD", "pod-a", &pod.path(), &config).unwrap();
            let check = || firewall("CHECK", "pod-a", &pod.path(), &config);
            check().unwrap();
            // As Docker writes them to the legacy variant. Our rules are in the other variant.
            sh("iptables-legacy -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
                iptables-legacy -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
                iptables-legacy -P FORWARD DROP; for n in 1 2 3 4; do iptables -A INPUT; done");
            assert!(!reaches(&pod, "192.0.2.1"));
            let error = check().unwrap_err();
            assert_eq!(error["code"], 101, "{error}");
            let msg = error["msg"].as_str().unwrap();
            assert!(msg.contains("iptables-legacy -t filter -I FORWARD -s NETWORK"), "{msg}");
            sh("iptables-legacy -I FORWARD -i vethpod -j ACCEPT
                iptables-legacy -I FORWARD -o vethpod -j ACCEPT");
            assert!(reaches(&pod, "192.0.2.1"));
            check().unwrap();
            sh("nft 'table inet site { chain transit { type filter hook forward priority 0; policy drop;
                ip saddr 10.89.0.0/16 accept; ip6 saddr ::/0 accept; }; }'");
            assert_eq!(check().unwrap_err()["code"], 101);
            sh("nft add rule inet site transit ip saddr 10.88.0.0/16 accept");
            check().unwrap();
        });
    }
}
