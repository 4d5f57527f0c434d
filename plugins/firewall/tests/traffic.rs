//! What the rules do to packets. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod common;

use std::process::Command;

use common::{Namespace, client, config, firewall, on_a_node, pod, sh};
use serde_json::json;

/// Whether an address answers, once at least: neighbours have to be found first.
fn reaches(from: &Namespace, to: &str) -> bool {
    let pid = from.pid().to_string();
    let arguments = ["-t", pid.as_str(), "-n", "ping", "-q", "-c", "4", "-i", "0.3", "-W", "2", to];
    Command::new("nsenter").args(arguments).output().unwrap().status.success()
}

#[test]
fn a_pod_gets_through_where_everything_else_is_dropped() {
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
fn bridges_with_a_policy_are_kept_apart() {
    on_a_node(|| {
        // Either veth end stands for a bridge.
        let (pod, other) = (pod(), client());
        let open = config(&json!({"ingressPolicy": "open"}));
        firewall("ADD", "pod-a", &pod.path(), &open).unwrap();
        let first = config(&json!({"ingressPolicy": "same-bridge"}));
        firewall("ADD", "pod-a", &pod.path(), &first).unwrap();
        assert!(reaches(&pod, "192.0.2.1") && reaches(&other, "10.88.0.2"));

        let mut second = config(&json!({"ingressPolicy": "isolated", "name": "second"}));
        second["prevResult"]["interfaces"][0]["name"] = "uplink".into();
        second["prevResult"]["ips"] = json!([
            {"address": "192.0.2.1/24", "interface": 1}, {"address": "2001:db8::1/64", "interface": 1}
        ]);
        firewall("ADD", "pod-b", &other.path(), &second).unwrap();
        assert!(!reaches(&pod, "192.0.2.1") && !reaches(&other, "10.88.0.2"));
        assert!(!reaches(&pod, "2001:db8::1") && !reaches(&other, "fd00:88::2"));
    });
}
