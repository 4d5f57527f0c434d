//! Conditions that people write, with the kernel's and iptables' own eyes. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{ask, config, names, of, portmap, tcp};
use serde_json::{Value, json};
use testbed::routed::{client, on_a_node, pod};
use testbed::{Namespace, serve, sh};

/// A packet from 192.0.2.1 to 192.0.2.10 by `uplink` fulfils the first conditions and not the second.
const CASES: [(&str, &str, &str); 9] = [
    (
        "nftables",
        "ip daddr != { 127.0.0.0/8, 192.0.2.11 }",
        "ip daddr != { 127.0.0.0/8, 192.0.2.10 }",
    ),
    ("nftables", "ip saddr 192.0.2.1-192.0.2.50", "ip saddr 192.0.2.2-192.0.2.50"),
    ("nftables", "ip saddr != 192.0.2.2-192.0.2.50", "ip saddr != 192.0.2.1-192.0.2.50"),
    ("nftables", "iifname { \"eth0\", \"uplink\" }", "iifname { \"eth0\", \"eth1\" }"),
    (
        "nftables",
        "ip saddr {198.51.100.0/24,192.0.2.1}",
        "ip saddr {198.51.100.0/24,192.0.2.2-192.0.2.9}",
    ),
    ("iptables", "-s 192.0.2.0/28,198.51.100.0/24", "-s 192.0.2.32/28,198.51.100.0/24"),
    (
        "iptables",
        "-m iprange --src-range 192.0.2.1-192.0.2.9",
        "-m iprange --src-range 192.0.2.2-192.0.2.9",
    ),
    (
        "iptables",
        "-m iprange ! --dst-range 192.0.2.11-192.0.2.12",
        "-m iprange ! --dst-range 192.0.2.1-192.0.2.12",
    ),
    ("iptables", "! -i eth+ -d 192.0.2.10,192.0.2.11", "! -i up+ -d 192.0.2.10,192.0.2.11"),
];

#[test]
fn they_are_about_the_right_packets() {
    on_a_node(|| {
        let (pod, outside) = (pod(), client());
        pod.enter(|| serve("[::]:80", "web"));
        for (backend, fulfilled, other) in CASES {
            for (conditions, answer) in [(fulfilled, Some("web 192.0.2.1")), (other, None)] {
                let config = with_conditions(backend, &[conditions]);
                add(&pod, &config);
                let answered = ask(&outside, "192.0.2.10:8080");
                assert_eq!(answered.as_deref(), answer, "{backend} {conditions}");
                portmap("DEL", "pod-a", "", &names()).unwrap();
            }
        }
        let left = sh("nft list map ip podwire_hostport conditional_ports; nft list ruleset");
        assert!(!left.contains("jump tcp_8080") && !left.contains("CNI-DN-"), "{left}");
    });
}

/// What `iptables` itself makes of the same arguments is what is there.
#[test]
fn iptables_knows_them() {
    on_a_node(|| {
        let pod = pod();
        for (_, fulfilled, other) in
            CASES.into_iter().filter(|(backend, ..)| *backend == "iptables")
        {
            for conditions in [fulfilled, other] {
                add(&pod, &with_conditions("iptables", &[conditions]));
                let chain = "CNI-DN-9b8cc9dd5d53e36658bb0";
                sh(&format!(
                    "iptables -t nat -C CNI-HOSTPORT-DNAT -p tcp -m comment \
                        --comment 'dnat name: \"testnet\" id: \"pod-a\"' \
                        -m multiport --dports 8080 {conditions} -j {chain}"
                ));
                portmap("DEL", "pod-a", "", &names()).unwrap();
            }
        }
    });
}

#[test]
fn what_is_not_understood_is_refused_with_what_to_change() {
    on_a_node(|| {
        let pod = pod();
        for (backend, conditions, expected) in [
            ("nftables", "ip saddr 192.0.2.1,192.0.2.2", "\",\" is not supported"),
            ("nftables", "tcp sport { 1, 2 }", "\"tcp\" is not supported"),
            ("nftables", "ip saddr 192.0.2.9-192.0.2.1", "FIRST-LAST, expected"),
            ("iptables", "! -s 192.0.2.1,192.0.2.2", "does not accept \"!\" before a list"),
            ("iptables", "-m iprange --src-range 192.0.2.9-192.0.2.1", "a range FIRST-LAST"),
            ("iptables", "-m set --match-set lan src", "\"-m set\" is not supported"),
        ] {
            let config = with_conditions(backend, &[conditions]);
            let error = portmap("ADD", "pod-a", &pod.path(), &config).unwrap_err();
            assert_eq!(error["code"], 7);
            let msg = error["msg"].as_str().unwrap();
            assert!(msg.contains("conditionsV4") && msg.contains(expected), "{msg}");
        }
    });
}

fn with_conditions(backend: &str, texts: &[&str]) -> Value {
    let mut config = of(backend, config(&json!([tcp(8080, 80)])));
    let words = texts.iter().flat_map(|text| text.split(' '));
    config["conditionsV4"] = words.collect();
    config
}

#[track_caller]
fn add(pod: &Namespace, config: &Value) {
    portmap("ADD", "pod-a", &pod.path(), config).unwrap();
    portmap("CHECK", "pod-a", &pod.path(), config).unwrap();
}
