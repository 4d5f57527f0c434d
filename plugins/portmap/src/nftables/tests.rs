//! The elements and rules of mappings, without a kernel.

use cni::Attachment;
use kernel::Family;
use serde_json::{Value, json};

use super::elements::{FamilyElements, owner, owner_prefix, show};
use super::read_conditions;
use crate::plan::Plan;

fn elements(config: &Value, pod: &[&str]) -> Vec<FamilyElements> {
    let settings = cni::json::read::<crate::Config>(config).unwrap().settings().unwrap();
    let plan = Plan::of_pod("testnet", "pod-a", &settings, pod);
    Family::ALL.into_iter().filter_map(|family| FamilyElements::new(&plan, family)).collect()
}

fn shown(family: &FamilyElements) -> Vec<String> {
    let elements = family.elements.iter().map(|(set, element)| show(family.family, set, element));
    let rules = family.rules.iter().map(|one| format!("{} {}", one.chain, one.rule.text));
    elements.chain(rules).map(|text| text.replace(" podwire_hostport", "")).collect()
}

#[test]
fn both_families_and_host_addresses() {
    let mappings = json!([
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "192.0.2.10"},
        {"hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "::"},
    ]);
    let config = json!({"backend": "nftables", "runtimeConfig": {"portMappings": mappings}});
    let families = elements(&config, &["10.88.0.2/16", "fd00:88::2/64"]);
    assert_eq!(
        shown(&families[0]),
        [
            "add element ip host_ports { tcp . 8080 : 10.88.0.2 . 80 }",
            "add element ip host_ip_ports { 192.0.2.10 . udp . 53 : 10.88.0.2 . 5353 }",
            "add element ip masquerade_16 { 10.88.0.0 . 10.88.0.2 }",
            "add element ip masquerade_32 { 127.0.0.1 . 10.88.0.2 }",
        ]
    );
    assert_eq!(
        shown(&families[1]),
        [
            "add element ip6 host_ports { tcp . 8080 : fd00:88::2 . 80 }",
            "add element ip6 host_ports { udp . 53 : fd00:88::2 . 5353 }",
            "add element ip6 masquerade_64 { fd00:88:: . fd00:88::2 }",
        ]
    );
    let comments = families.iter().flat_map(|family| &family.elements);
    let owner = Some("dnat name: testnet id: pod-a");
    assert!(comments.into_iter().all(|(_, element)| element.comment.as_deref() == owner));
}

#[test]
fn mappings_with_conditions_have_rules() {
    let mappings = json!([
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 8080, "containerPort": 81, "protocol": "tcp", "hostIP": "192.0.2.10"},
    ]);
    let config = json!({
        "backend": "nftables", "snat": false, "conditionsV4": ["iifname", "eth*", "meta mark 0x10"],
        "runtimeConfig": {"portMappings": mappings},
    });
    let families = elements(&config, &["10.88.0.2/24"]);
    // Each is added before those that are there, so the one with an address comes last.
    assert_eq!(
        shown(&families[0]),
        [
            "tcp_8080 tcp dport 8080 iifname eth* meta mark 0x10 meta mark set meta mark | 0x00001000 dnat \
             to 10.88.0.2:80",
            "tcp_8080 tcp dport 8080 ip daddr 192.0.2.10 iifname eth* meta mark 0x10 meta mark set meta mark \
             | 0x00001000 dnat to 10.88.0.2:81",
        ]
    );
}

#[test]
fn all_is_masqueraded() {
    let mapping = json!({"hostPort": 80, "containerPort": 80, "protocol": "tcp"});
    let config = json!({
        "backend": "nftables", "masqAll": true, "runtimeConfig": {"portMappings": [mapping]},
    });
    let families = elements(&config, &["fd00:88::2/64"]);
    assert_eq!(shown(&families[0])[1], "add element ip6 masquerade_0 { :: . fd00:88::2 }");
}

#[test]
fn owners_fit_and_differ() {
    let long = |letter: &str| letter.repeat(240);
    let owner =
        |network: &str, id: &str| owner(&Attachment::from_names(network, id, "eth0").unwrap());
    let prefix = |network: &str| owner_prefix(&network.parse().unwrap());
    assert_eq!(owner("testnet", "pod-a"), "dnat name: testnet id: pod-a");
    let all = [
        owner(&long("n"), &long("a")),
        owner(&long("n"), &long("b")),
        owner(&long("m"), &long("a")),
        owner(&"n".repeat(39), &"a".repeat(73)),
        owner(&"n".repeat(39), &"a".repeat(74)),
        owner(&"n".repeat(40), &"a".repeat(73)),
    ];
    for (index, one) in all.iter().enumerate() {
        assert!(one.len() <= 128 && !one.contains('"'), "{one}");
        assert!(!all[..index].contains(one), "{one}");
    }
    assert!(all[0].starts_with(&prefix(&long("n"))));
    assert!(!owner("testnet2", "x").starts_with(&prefix("testnet")));
}

#[test]
fn conditions() {
    let accepted = |family, texts: &[&str]| {
        let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
        read_conditions(family, &texts)
    };
    for texts in [
        &["ip", "saddr", "192.0.2.0/24"][..],
        &["ip saddr != 192.0.2.1", "ip daddr == 192.0.2.128/25"],
        &["iifname", "!=", "\"eth0\""],
        &["meta oifname lo", "meta mark != 0x10"],
    ] {
        assert_eq!(accepted(Family::V4, texts).unwrap().len(), 1);
    }
    assert_eq!(accepted(Family::V4, &[]).unwrap(), super::Conditions::new());
    for (texts, expected) in [
        (
            &["ip", "daddr", "!=", "{ 127.0.0.0/8, 192.0.2.11 }"][..],
            &["ip daddr != 127.0.0.0/8 ip daddr != 192.0.2.11"][..],
        ),
        (&["ip saddr 192.0.2.1-192.0.2.50"], &["ip saddr 192.0.2.1-192.0.2.50"]),
        (
            &["iifname", "{\"eth0\",\"eth*\" ,eth0}", "meta mark {1}"],
            &[
                "iifname \"eth0\" meta mark 1",
                "iifname \"eth*\" meta mark 1",
                "iifname eth0 meta mark 1",
            ],
        ),
    ] {
        let ways = accepted(Family::V4, texts).unwrap();
        let shown = |way: &Vec<super::conditions::Condition>| {
            way.iter().map(|one| one.text.clone()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(ways.iter().map(shown).collect::<Vec<_>>(), expected);
    }
    let numbers = |last: u32| (0..=last).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    let long = format!("meta mark {{ {} }}", numbers(256));
    let many = format!("{{ {} }}", numbers(16));
    let many = format!("meta mark {many} meta mark {many}");
    for (texts, expected) in [
        (&["ip6", "saddr", "::1"][..], "\"ip6\" is of the other family"),
        (&["ip saddr ::1"], "\"ip saddr ::1\": an address or network of this family expected"),
        (&["ip saddr { }"], "\"ip saddr { }\": at least one value expected"),
        (&["ip saddr { 192.0.2.1"], "\"ip saddr { 192.0.2.1\" lacks its end"),
        (&["ip saddr { 192.0.2.1 192.0.2.2 }"], "a comma expected before \"192.0.2.2\""),
        (&["ip saddr 192.0.2.1,192.0.2.2"], "\",\" is not supported; supported are"),
        (
            &["ip saddr 192.0.2.2-192.0.2.1"],
            "a range of addresses of this family, FIRST-LAST, expected",
        ),
        (&["iifname { eth0, $uplinks }"], "the name of an interface expected"),
        (&[&many], "more than 256 members or combinations"),
        (&[&long], "more than 256 members or combinations"),
        (&["iifname { , }"], "the name of an interface expected"),
        (&["ip", "saddr"], "\"ip saddr\" lacks its end"),
        (&["ip", "saddr", "!="], "\"ip saddr !=\" lacks its end"),
        (&["ip ttl 3"], "\"ttl\" is not supported; supported are"),
        (&["iifname abcdefghijklmnop"], "the name of an interface expected"),
        (&["iifname *"], "the name of an interface expected"),
        (&["meta mark 0x100000000"], "a number of 32 bits expected"),
        (&["tcp sport 1024"], "\"tcp\" is not supported"),
        (&["ip saddr 192.0.2.1 accept"], "\"accept\" is not supported"),
    ] {
        let why = accepted(Family::V4, texts).unwrap_err();
        assert!(why.contains(expected), "{why}");
    }
}
