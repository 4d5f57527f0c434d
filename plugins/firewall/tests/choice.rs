//! The choice of the backend. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{config, count, firewall, firewall_at, names, rules};
use serde_json::json;
use testbed::routed::on_a_node;
use testbed::sh;

/// A directory without programs.
const NOWHERE: &str = "/nowhere";

fn is_by_nftables() -> bool {
    sh("nft list ruleset").contains("10.88.0.2 comment")
}

fn is_by_iptables() -> bool {
    count(&sh("nft list ruleset"), "ip saddr 10.88.0.2 counter") == 1
}

#[test]
fn a_node_without_iptables_gets_a_table_of_our_own() {
    on_a_node(|| {
        let config = config(&json!({"backend": ""}));
        firewall_at(NOWHERE, "STATUS", "", "", &names()).unwrap();
        firewall_at(NOWHERE, "ADD", "pod-a", "/x", &config).unwrap();
        assert!(is_by_nftables() && !is_by_iptables());
        firewall_at(NOWHERE, "CHECK", "pod-a", "/x", &config).unwrap();
        firewall_at(NOWHERE, "DEL", "pod-a", "", &names()).unwrap();
        assert!(!is_by_nftables());
    });
}

#[test]
fn a_node_with_iptables_gets_its_rules() {
    let config = || config(&json!({}));
    on_a_node(move || {
        firewall("ADD", "pod-a", "/x", &config()).unwrap();
        assert!(is_by_iptables() && !is_by_nftables());
    });
    for made in [
        "iptables -A FORWARD",
        "ip6tables -P FORWARD DROP",
        "iptables -t mangle -N KUBE-IPTABLES-HINT",
    ] {
        on_a_node(move || {
            sh(made);
            firewall_at(NOWHERE, "ADD", "pod-a", "/x", &config()).unwrap();
            assert!(is_by_iptables(), "{made}");
        });
    }
}

#[test]
fn a_node_may_change_to_another_backend() {
    on_a_node(|| {
        let config = config(&json!({"ingressPolicy": "same-bridge"}));
        firewall_at(NOWHERE, "ADD", "pod-a", "/x", &config).unwrap();
        firewall("CHECK", "pod-a", "/x", &config).expect("it is found where ADD put it");
        sh("nft flush set inet podwire_firewall pods4");
        let error = firewall("CHECK", "pod-a", "/x", &config).unwrap_err();
        let msg = error["msg"].as_str().unwrap();
        assert!(msg.contains("iptables -A"), "where an ADD would put it now: {msg}");

        firewall("ADD", "pod-b", "/x", &config).unwrap();
        firewall("DEL", "pod-a", "", &names()).unwrap();
        assert_eq!(count(&rules(), "10.88.0.2/32"), 2);
        firewall_at(NOWHERE, "DEL", "pod-b", "", &names()).unwrap();
        let left = sh("nft list ruleset");
        assert_eq!(count(&left, "10.88.0.2") + count(&left, "fd00:88::2"), 0, "{left}");
    });
}

#[test]
fn a_chain_that_drops_everything_is_reported() {
    on_a_node(|| {
        let config = config(&json!({"backend": "nftables"}));
        let status = json!({"backend": "nftables", "cniVersion": "1.1.0", "name": "testnet"});
        sh("nft 'table inet site { chain forward { type filter hook forward priority 0; policy drop; }; }
            add rule inet site forward ct state established,related accept
            add rule inet site forward ct state invalid counter log drop'");
        let before = sh("nft list ruleset");
        let error = firewall("ADD", "pod-a", "/x", &config).unwrap_err();
        assert_eq!(error["code"], 50);
        let msg = error["msg"].as_str().unwrap();
        assert!(msg.contains("nft insert rule inet site forward ip saddr"), "{msg}");
        assert_eq!(sh("nft list ruleset"), before);
        assert_eq!(firewall("STATUS", "", "", &status).unwrap_err()["code"], 50);

        // A chain that may accept packets of pods is not reported.
        sh("nft add rule inet site forward ip saddr 10.88.0.0/16 accept");
        firewall("STATUS", "", "", &status).unwrap();
        firewall("ADD", "pod-a", "/x", &config).unwrap();
    });
    on_a_node(|| {
        let config = config(&json!({"backend": "nftables"}));
        sh(
            "nft 'table ip6 site { chain forward { type filter hook forward priority 0; policy drop; }; }'",
        );
        firewall("ADD", "pod-a", "/x", &config).expect("by IPv4, it is reached");
    });
}
