//! The rules of mappings, without a kernel.

use std::fmt::Write;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::config::Config;

fn rules(config: &Value, pod: &[&str]) -> Vec<FamilyRules> {
    let settings = cni::json::read::<Config>(config).unwrap().settings().unwrap();
    let plan = Plan::of_pod("testnet", "pod-a", &settings, pod);
    Family::ALL.into_iter().filter_map(|family| FamilyRules::new(&plan, family)).collect()
}

fn check(config: &Value, pod: &[&str], expected: &Expect) {
    let mut text = String::new();
    for family in rules(config, pod) {
        let program = if family.family == Family::V6 { "ip6tables" } else { "iptables" };
        let mut line = |how: &str, chain: &str, rule: &Rule| {
            writeln!(text, "{program} {how} {chain} {rule}").unwrap();
        };
        for shared in &family.shared {
            let how = if shared.place == Place::First { "-I" } else { "-A" };
            line(how, shared.chain, &shared.rule);
        }
        family.entries.iter().for_each(|rule| line("-A", DNAT_CHAIN, rule));
        family.rules.iter().for_each(|rule| line("-A", &family.own_chain, rule));
    }
    expected.assert_eq(&text);
}

fn mapping(host_port: u16, container_port: u16, protocol: &str, host_ip: &str) -> Value {
    json!({"hostPort": host_port, "containerPort": container_port, "protocol": protocol, "hostIP": host_ip})
}

#[test]
fn one_port() {
    let config = json!({"runtimeConfig": {"portMappings": [mapping(8080, 80, "tcp", "")]}});
    check(
        &config,
        &["10.88.0.2/24"],
        &expect![[r#"
        iptables -A CNI-HOSTPORT-SETMARK -m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark 0x2000/0x2000
        iptables -A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
        iptables -I POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ
        iptables -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
        iptables -A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
        iptables -A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"testnet\" id: \"pod-a\"" -m multiport --dports 8080 -j CNI-DN-9b8cc9dd5d53e36658bb0
        iptables -A CNI-DN-9b8cc9dd5d53e36658bb0 -s 10.88.0.0/24 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK
        iptables -A CNI-DN-9b8cc9dd5d53e36658bb0 -s 127.0.0.1/32 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK
        iptables -A CNI-DN-9b8cc9dd5d53e36658bb0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.88.0.2:80
    "#]],
    );
}

#[test]
fn both_families_and_host_addresses() {
    let mappings = [
        mapping(8080, 80, "tcp", "192.0.2.10"),
        mapping(8080, 80, "tcp", "2001:db8::10"),
        mapping(53, 53, "udp", "::"),
        mapping(9899, 9899, "SCTP", "0.0.0.0"),
    ];
    let config = json!({"snat": false, "runtimeConfig": {"portMappings": mappings}});
    check(
        &config,
        &["10.88.0.2/24", "fd00:88::2/64"],
        &expect![[r#"
        iptables -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
        iptables -A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
        iptables -A CNI-HOSTPORT-DNAT -p sctp -m comment --comment "dnat name: \"testnet\" id: \"pod-a\"" -m multiport --dports 9899 -j CNI-DN-9b8cc9dd5d53e36658bb0
        iptables -A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"testnet\" id: \"pod-a\"" -m multiport --dports 8080,8080 -j CNI-DN-9b8cc9dd5d53e36658bb0
        iptables -A CNI-HOSTPORT-DNAT -p udp -m comment --comment "dnat name: \"testnet\" id: \"pod-a\"" -m multiport --dports 53 -j CNI-DN-9b8cc9dd5d53e36658bb0
        iptables -A CNI-DN-9b8cc9dd5d53e36658bb0 -d 192.0.2.10/32 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.88.0.2:80
        iptables -A CNI-DN-9b8cc9dd5d53e36658bb0 -p sctp -m sctp --dport 9899 -j DNAT --to-destination 10.88.0.2:9899
        ip6tables -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
        ip6tables -A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
        ip6tables -A CNI-HOSTPORT-DNAT -p sctp -m comment --comment "dnat name: \"testnet\" id: \"pod-a\"" -m multiport --dports 9899 -j CNI-DN-9b8cc9dd5d53e36658bb0
        ip6tables -A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"testnet\" id: \"pod-a\"" -m multiport --dports 8080,8080 -j CNI-DN-9b8cc9dd5d53e36658bb0
        ip6tables -A CNI-HOSTPORT-DNAT -p udp -m comment --comment "dnat name: \"testnet\" id: \"pod-a\"" -m multiport --dports 53 -j CNI-DN-9b8cc9dd5d53e36658bb0
        ip6tables -A CNI-DN-9b8cc9dd5d53e36658bb0 -d 2001:db8::10/128 -p tcp -m tcp --dport 8080 -j DNAT --to-destination [fd00:88::2]:80
        ip6tables -A CNI-DN-9b8cc9dd5d53e36658bb0 -p udp -m udp --dport 53 -j DNAT --to-destination [fd00:88::2]:53
    "#]],
    );
}

#[test]
fn all_is_marked_elsewhere() {
    let config = json!({
        "masqAll": true, "externalSetMarkChain": "KUBE-MARK-MASQ",
        "conditionsV4": ["!", "-s", "192.0.2.0/24", "-i", "eth+"],
        "conditionsV6": ["-m", "mark", "--mark", "0x1/0x3"],
        "runtimeConfig": {"portMappings": [mapping(8080, 80, "tcp", "")]},
    });
    check(
        &config,
        &["10.88.0.2/24", "fd00:88::2/64"],
        &expect![[r#"
        iptables -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
        iptables -A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
        iptables -A CNI-HOSTPORT-DNAT ! -s 192.0.2.0/24 -i eth+ -p tcp -m comment --comment "dnat name: \"testnet\" id: \"pod-a\"" -m multiport --dports 8080 -j CNI-DN-9b8cc9dd5d53e36658bb0
        iptables -A CNI-DN-9b8cc9dd5d53e36658bb0 -p tcp -m tcp --dport 8080 -j KUBE-MARK-MASQ
        iptables -A CNI-DN-9b8cc9dd5d53e36658bb0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.88.0.2:80
        ip6tables -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
        ip6tables -A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
        ip6tables -A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"testnet\" id: \"pod-a\"" -m multiport --dports 8080 -m mark --mark 0x1/0x3 -j CNI-DN-9b8cc9dd5d53e36658bb0
        ip6tables -A CNI-DN-9b8cc9dd5d53e36658bb0 -p tcp -m tcp --dport 8080 -j KUBE-MARK-MASQ
        ip6tables -A CNI-DN-9b8cc9dd5d53e36658bb0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination [fd00:88::2]:80
    "#]],
    );
}

#[test]
fn sixteen_ports_are_two_entries() {
    let mappings: Vec<Value> = (9000..9016).map(|port| mapping(port, port, "tcp", "")).collect();
    let config = json!({"snat": false, "runtimeConfig": {"portMappings": mappings}});
    let entries = &rules(&config, &["10.88.0.2/24"])[0].entries;
    assert_eq!(entries.len(), 2);
    assert!(entries[0].to_string().contains("--dports 9000,9001,"), "{}", entries[0]);
    assert!(entries[1].to_string().contains("--dports 9015 "), "{}", entries[1]);
}

#[test]
fn addresses_of_their_own_go_first() {
    let mappings =
        [mapping(80, 1, "tcp", ""), mapping(81, 2, "tcp", ""), mapping(80, 3, "tcp", "192.0.2.10")];
    let config = json!({"snat": false, "runtimeConfig": {"portMappings": mappings}});
    let rules = rules(&config, &["10.88.0.2/24"]);
    let ports = rules[0].rules.iter().map(|rule| match rule.target {
        Some(Target::Dnat { port, .. }) => port,
        _ => None,
    });
    assert_eq!(ports.collect::<Vec<_>>(), [Some(3), Some(1), Some(2)]);
}

#[test]
fn nothing_to_map() {
    check(&json!({}), &["10.88.0.2/24"], &expect![[""]]);
    let config = json!({"runtimeConfig": {"portMappings": [mapping(8080, 80, "tcp", "")]}});
    check(&config, &[], &expect![[""]]);
}
