//! What the backend `nftables` leaves in the kernel, seen by `nft`. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod common;

use std::thread;

use common::{config, names, of, portmap, tcp};
use serde_json::{Value, json};
use testbed::routed::{on_a_node, pod};
use testbed::sh;

/// A configuration of this backend with these mappings.
fn nft(mappings: &Value) -> Value {
    of("nftables", config(mappings))
}

/// All rules, sets and elements of all tables, the latter in order.
fn ruleset() -> Value {
    fn sort(value: &mut Value) {
        match value {
            Value::Array(items) => {
                items.iter_mut().for_each(sort);
                items.sort_by_key(Value::to_string);
            }
            Value::Object(fields) => {
                fields.remove("handle");
                fields.values_mut().for_each(sort);
            }
            _ => {}
        }
    }
    let mut all = serde_json::from_str(&sh("nft -j list ruleset")).unwrap();
    sort(&mut all);
    all
}

/// Whether the listing names the container.
fn has(id: &str) -> bool {
    ruleset().to_string().contains(&format!("id: {id}\""))
}

/// How many elements a set or map of the table has.
fn count(family: &str, set: &str) -> usize {
    let kind = if set.starts_with("masquerade") { "set" } else { "map" };
    let listed = sh(&format!("nft -j list {kind} {family} podwire_hostport {set}"));
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let all = listed["nftables"].as_array().unwrap().iter();
    all.filter_map(|object| object[kind]["elem"].as_array().map(Vec::len)).sum()
}

#[test]
fn names_alone_remove_everything() {
    on_a_node(|| {
        let pod = pod();
        portmap("ADD", "pod-b", &pod.path(), &nft(&json!([tcp(8081, 81)]))).unwrap();
        let mut third = nft(&json!([tcp(8082, 82)]));
        third["prevResult"]["ips"][0]["address"] = "10.88.0.4/24".into();
        portmap("ADD", "pod-c", &pod.path(), &third).unwrap();
        portmap("DEL", "pod-c", "", &names()).unwrap();
        let all = json!([
            tcp(8080, 80),
            {"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "192.0.2.10"},
            {"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "2001:db8::10"},
            {"hostPort": 9899, "containerPort": 9899, "protocol": "sctp"},
        ]);
        let mut other = nft(&all);
        other["prevResult"]["ips"][0]["address"] = "10.88.0.3/24".into();
        other["prevResult"]["ips"][1]["address"] = "fd00:88::3/64".into();
        let before = ruleset();
        portmap("ADD", "pod-a", &pod.path(), &other).unwrap();
        portmap("CHECK", "pod-a", &pod.path(), &other).unwrap();
        assert_eq!((count("ip", "host_ports"), count("ip", "host_ip_ports")), (3, 1));
        assert_eq!((count("ip6", "host_ports"), count("ip6", "host_ip_ports")), (3, 1));
        portmap("DEL", "pod-a", "", &names()).unwrap();
        assert_eq!(ruleset(), before);
        portmap("DEL", "pod-a", "", &names()).expect("a second DEL finds nothing and succeeds");
        assert_eq!(sh("sysctl -n net.ipv4.conf.vethpod.route_localnet"), "1\n");
    });
}

#[test]
fn one_pod() {
    on_a_node(|| {
        let pod = pod();
        let mut config = nft(&json!([tcp(8080, 80)]));
        portmap("ADD", "pod-a", &pod.path(), &config).unwrap();
        let listed = sh("nft -s list table ip podwire_hostport");
        for line in [
            "tcp . 8080 comment \"dnat name: testnet id: pod-a\" : 10.88.0.2 . 80",
            "10.88.0.0 . 10.88.0.2 comment \"dnat name: testnet id: pod-a\"",
            "127.0.0.1 . 10.88.0.2 comment \"dnat name: testnet id: pod-a\"",
            "type nat hook prerouting priority dstnat + 1; policy accept;",
            "type nat hook output priority -99; policy accept;",
            "type nat hook postrouting priority srcnat - 1; policy accept;",
            "fib daddr type local jump host_ports",
            "meta l4proto . th dport vmap @conditional_ports",
            "dnat ip to ip daddr . meta l4proto . th dport map @host_ip_ports",
            "dnat ip to meta l4proto . th dport map @host_ports",
            "ip saddr & 255.255.255.0 . ip daddr @masquerade_24 masquerade",
        ] {
            assert!(listed.contains(line), "{line} is not in\n{listed}");
        }
        config["masqAll"] = true.into();
        portmap("ADD", "pod-a", &pod.path(), &config).unwrap();
        assert_eq!((count("ip", "masquerade_0"), count("ip", "masquerade_24")), (1, 0));
        config["snat"] = false.into();
        portmap("ADD", "pod-a", &pod.path(), &config).unwrap();
        assert_eq!((count("ip", "masquerade_0"), count("ip", "masquerade_32")), (0, 0));
        assert_eq!(count("ip", "host_ports"), 1);
    });
}

#[test]
fn check_names_what_is_missing() {
    on_a_node(|| {
        let pod = pod();
        let config = nft(&json!([tcp(8080, 80)]));
        let v6 = "ip6 podwire_hostport";
        let v4 = "ip podwire_hostport";
        for (break_it, missing) in [
            (
                format!("flush chain {v4} output"),
                format!("rule is missing: nft add rule {v4} output fib"),
            ),
            (
                format!("delete element {v4} host_ports {{ tcp . 8080 }}"),
                format!(
                    "element is missing: nft add element {v4} host_ports {{ tcp . 8080 : 10.88.0.2 . 80 }}"
                ),
            ),
            (
                format!("delete element {v6} masquerade_64 {{ fd00:88:: . fd00:88::2 }}"),
                format!(
                    "element is missing: nft add element {v6} masquerade_64 {{ fd00:88:: . fd00:88::2 }}"
                ),
            ),
            (
                format!("flush chain {v6} host_ports"),
                format!("add rule {v6} host_ports meta l4proto . th dport vmap"),
            ),
            (format!("delete table {v6}"), format!("map is missing: nft add map {v6} host_ports")),
        ] {
            portmap("ADD", "pod-a", &pod.path(), &config).expect("ADD makes what is missing");
            portmap("CHECK", "pod-a", &pod.path(), &config).unwrap();
            sh(&format!("nft '{break_it}'"));
            let error = portmap("CHECK", "pod-a", &pod.path(), &config).unwrap_err();
            assert_eq!(error["code"], 101);
            let msg = error["msg"].as_str().unwrap();
            assert!(msg.contains(&missing), "{msg}");
        }
        // What others add is no business of ours; the order of our rules is.
        portmap("ADD", "pod-a", &pod.path(), &config).unwrap();
        sh(&format!("nft 'insert rule {v4} host_ports tcp dport 1 return'"));
        portmap("CHECK", "pod-a", &pod.path(), &config).unwrap();
        let handle =
            "nft -a list chain ip podwire_hostport host_ports | sed -n '/vmap/s/.*handle //p'";
        sh(&format!("nft delete rule {v4} host_ports handle $({handle})"));
        portmap("ADD", "pod-a", &pod.path(), &config).unwrap();
        let listed = sh("nft -s list chain ip podwire_hostport host_ports");
        let at = |text| listed.find(text).unwrap();
        assert!(
            at("vmap") < at("mark |")
                && at("mark |") < at("@host_ports")
                && at("@host_ports") < at("mark &")
        );
    });
}

#[test]
fn a_refused_add_leaves_nothing() {
    on_a_node(|| {
        let pod = pod();
        let before = ruleset();
        let bad = nft(&json!([tcp(8080, 80), tcp(8080, 81)]));
        assert_eq!(portmap("ADD", "pod-a", &pod.path(), &bad).unwrap_err()["code"], 7);
        for (key, value, why) in [
            ("conditionsV4", json!(["ip", "saddr", "300.0.0.1"]), "an address or network expected"),
            ("conditionsV4", json!(["ip6 saddr ::1"]), "\"ip6\" is of the other family"),
            ("conditionsV6", json!(["tcp", "flags", "syn"]), "\"tcp\" is not supported"),
            ("conditionsV6", json!(["ip6 daddr"]), "\"ip6 daddr\" lacks its end"),
            ("conditionsV4", json!(["-s", "192.0.2.1"]), "\"-s\" is not supported"),
            ("externalSetMarkChain", json!("KUBE-MARK-MASQ"), "chains of iptables cannot be used"),
        ] {
            let mut config = nft(&json!([tcp(8080, 80)]));
            config[key] = value;
            let error = portmap("ADD", "pod-a", &pod.path(), &config).unwrap_err();
            assert_eq!(error["code"], 7, "{error}");
            let msg = error["msg"].as_str().unwrap();
            assert!(msg.contains(key) && msg.contains(why), "{msg}");
        }
        assert_eq!(ruleset(), before);
        portmap("STATUS", "", "", &of("nftables", names())).unwrap();
        assert_eq!(ruleset(), before, "STATUS makes nothing");
    });
}

#[test]
fn garbage_is_what_belongs_to_no_valid_attachment_of_the_network() {
    on_a_node(|| {
        let pod = pod();
        let long = |letter: &str| letter.repeat(240);
        let add = |network: &str, id: &str, port: u16| {
            let mut config = nft(&json!([tcp(port, 80)]));
            config["name"] = network.into();
            config["prevResult"]["ips"][0]["address"] =
                format!("10.88.{}.2/16", port - 8080).into();
            config["prevResult"]["ips"][1]["address"] = format!("fd00:88::{port}/64").into();
            portmap("ADD", id, &pod.path(), &config).unwrap();
        };
        add("othernet", "pod-a", 8081);
        add("testnet2", "pod-a", 8082);
        add("testnet", "pod-b", 8083);
        add("testnet", &long("b"), 8084);
        let before = ruleset();
        add("testnet", "pod-a", 8085);
        add("testnet", &long("a"), 8086);
        assert!(has("pod-a"));
        let mut gc = names();
        let of = |id: &str| json!({"containerID": id, "ifname": "eth0"});
        gc["cni.dev/valid-attachments"] = json!([of("pod-b"), of(&long("b"))]);
        portmap("GC", "", "", &gc).unwrap();
        assert_eq!(ruleset(), before);
        portmap("DEL", &long("b"), "", &names()).unwrap();
        assert_eq!(count("ip", "host_ports"), 3);
    });
}

#[test]
fn an_add_replaces_all_that_an_add_before_made() {
    on_a_node(|| {
        let pod = pod();
        portmap("ADD", "pod-b", &pod.path(), &nft(&json!([tcp(8081, 81)]))).unwrap();
        portmap("DEL", "pod-b", "", &names()).unwrap();
        let before = ruleset();
        let mut again = nft(&json!([tcp(8080, 80), tcp(9090, 80)]));
        portmap("ADD", "pod-a", &pod.path(), &again).unwrap();
        again["runtimeConfig"]["portMappings"] = json!([tcp(8080, 81)]);
        again["prevResult"]["ips"].as_array_mut().unwrap().pop();
        portmap("ADD", "pod-a", &pod.path(), &again).unwrap();
        let listed = sh("nft list map ip podwire_hostport host_ports");
        assert!(listed.contains(": 10.88.0.2 . 81") && !listed.contains("9090"), "{listed}");
        assert_eq!(count("ip6", "host_ports"), 0, "the pod has no IPv6 address any more");
        portmap("ADD", "pod-a", &pod.path(), &nft(&json!([]))).unwrap();
        assert_eq!(ruleset(), before);
    });
}

#[test]
fn parallel_adds_and_dels() {
    on_a_node(|| {
        let pod = pod();
        let each = |work: &(dyn Fn(u16) + Sync)| {
            thread::scope(|scope| {
                for number in 1..=16 {
                    scope.spawn(move || work(number));
                }
            });
        };
        let of_pod = |number: u16| {
            // Every second one wants a port that its neighbour wants, too.
            let mut config = nft(&json!([tcp(8000 + number / 2, 80), tcp(9000 + number, 80)]));
            if number.is_multiple_of(3) {
                config["conditionsV4"] = json!(["iifname", "uplink"]);
            }
            config["prevResult"]["ips"][0]["address"] = format!("10.88.0.{number}/24").into();
            config["prevResult"]["ips"][1]["address"] = format!("fd00:88::{number:x}/64").into();
            config
        };
        each(&|number| {
            let id = format!("pod-{number}");
            portmap("ADD", &id, &pod.path(), &of_pod(number)).unwrap();
        });
        let listed = sh("nft list table ip podwire_hostport");
        assert_eq!(listed.matches("jump host_ports").count(), 2, "{listed}");
        assert_eq!(listed.matches("@host_ports").count(), 1, "{listed}");
        // Half of them go while the others come again, and are the ones that are valid.
        let stay = |number: u16| json!({"containerID": format!("pod-{number}"), "ifname": "eth0"});
        let mut gc = names();
        gc["cni.dev/valid-attachments"] = (1..=16).step_by(2).map(stay).collect();
        each(&|number| {
            let id = format!("pod-{number}");
            if number.is_multiple_of(2) {
                portmap("DEL", &id, "", &names()).unwrap();
            } else {
                portmap("ADD", &id, &pod.path(), &of_pod(number)).unwrap();
                portmap("GC", "", "", &gc).unwrap();
            }
        });
        for number in (1..=16).step_by(2) {
            portmap("CHECK", &format!("pod-{number}"), &pod.path(), &of_pod(number)).unwrap();
        }
        each(&|number| drop(portmap("DEL", &format!("pod-{number}"), "", &names()).unwrap()));
        let left = ruleset().to_string();
        assert!(!left.contains("id: pod-") && !left.contains("tcp_"), "{left}");
    });
}

#[test]
fn a_saved_ruleset_can_be_loaded_again() {
    on_a_node(|| {
        let pod = pod();
        let mut config = nft(&json!([tcp(8080, 80)]));
        config["conditionsV4"] =
            json!(["ip saddr != 192.0.2.0/24", "meta mark != 0x10", "iifname \"up*\""]);
        portmap("ADD", &"a".repeat(240), &pod.path(), &config).unwrap();
        portmap("ADD", "pod-b", &pod.path(), &nft(&json!([tcp(8081, 80)]))).unwrap();
        let before = ruleset();
        sh("saved=$(nft list ruleset); nft flush ruleset; echo \"$saved\" | nft -f -");
        assert_eq!(ruleset(), before);
        portmap("CHECK", "pod-b", &pod.path(), &nft(&json!([tcp(8081, 80)]))).unwrap();
        portmap("DEL", &"a".repeat(240), "", &names()).unwrap();
        portmap("DEL", "pod-b", "", &names()).unwrap();
        assert_eq!((count("ip", "host_ports"), count("ip", "conditional_ports")), (0, 0));
    });
}

#[test]
fn rules_of_the_reference_plugins_are_removed() {
    on_a_node(|| {
        // As their backend `nftables` writes them.
        sh("nft -f - <<E
            table ip cni_hostport {
                chain hostports {
                    tcp dport 8080 dnat to 10.88.0.2:80 comment \"pod-a\"
                    ip daddr 192.0.2.10 tcp dport 8080 dnat to 10.88.0.2:80 comment \"pod-a\"
                    tcp dport 8081 dnat to 10.88.0.3:80 comment \"pod-b\"
                }
                chain masquerading {
                    type nat hook postrouting priority srcnat; policy accept;
                    ip saddr 10.88.0.2 ip daddr 10.88.0.2 masquerade comment \"pod-a\"
                }
                chain others { counter comment \"pod-a\"; }
            }\nE
            conntrack -I -t 600 -p tcp -s 192.0.2.1 -d 192.0.2.10 --sport 4242 --dport 8080 --dst-nat \
            10.88.0.2:80 --state ESTABLISHED");
        portmap("DEL", "pod-a", "", &names()).unwrap();
        let listed = sh("nft list table ip cni_hostport");
        assert!(!listed.contains("10.88.0.2"), "{listed}");
        assert!(listed.contains("pod-b") && listed.contains("others"), "{listed}");
        assert!(!sh("conntrack -L").contains("4242"));
    });
}

#[test]
fn ports_of_the_reference_plugins_are_taken() {
    for backend in ["iptables", "nftables"] {
        on_a_node(|| {
            let pod = pod();
            sh("nft -f - <<E
                table ip cni_hostport {
                    chain hostports {
                        tcp dport 8080 dnat to 10.88.0.3:80 comment \"pod-b\"
                        tcp dport 8081 dnat to 10.88.0.3:81 comment \"pod-b\"
                        tcp dport 8082 dnat to 10.88.0.2:82 comment \"pod-a\"
                    }
                    chain hostip_hostports {
                        ip daddr 192.0.2.10 tcp dport 8080 dnat to 10.88.0.3:80 comment \"pod-b\"
                    }
                }\nE");
            let before = sh("nft list table ip cni_hostport");
            let mut config = of(backend, config(&json!([tcp(8080, 80)])));
            config["onConflict"] = "error".into();
            let error = portmap("ADD", "pod-a", &pod.path(), &config).unwrap_err();
            assert_eq!(error["code"], 102, "{error}");
            assert_eq!(sh("nft list table ip cni_hostport"), before);

            config["onConflict"] = "replace".into();
            portmap("ADD", "pod-a", &pod.path(), &config).unwrap();
            let left = sh("nft list table ip cni_hostport");
            assert!(!left.contains("8080") && !left.contains("pod-a"), "{left}");
            assert!(left.contains("8081"), "{left}");
        });
    }
}

#[test]
fn a_refused_add_loses_nothing() {
    on_a_node(|| {
        let pod = pod();
        portmap("ADD", "pod-b", &pod.path(), &nft(&json!([tcp(8081, 80)]))).unwrap();
        for backend in ["iptables", "nftables"] {
            let first = of(backend, config(&json!([tcp(8080, 80)])));
            portmap("ADD", "pod-a", &pod.path(), &first).unwrap();
            let before = (sh("iptables -t nat -S"), ruleset());
            let mut more = nft(&json!([tcp(8080, 80), tcp(8081, 81)]));
            more["onConflict"] = "error".into();
            let error = portmap("ADD", "pod-a", &pod.path(), &more).unwrap_err();
            assert_eq!(error["code"], 102, "{error}");
            assert_eq!((sh("iptables -t nat -S"), ruleset()), before);
        }
    });
}

#[test]
fn conditional_rules_are_made_anew_in_their_order() {
    on_a_node(|| {
        let pod = pod();
        let mut at_one = tcp(8080, 81);
        at_one["hostIP"] = "192.0.2.10".into();
        let conditional = |mappings: &Value| {
            let mut config = nft(mappings);
            config["conditionsV4"] = json!(["iifname", "uplink"]);
            config
        };
        portmap("ADD", "pod-a", &pod.path(), &conditional(&json!([at_one]))).unwrap();
        let both = conditional(&json!([at_one, tcp(8080, 80)]));
        portmap("ADD", "pod-a", &pod.path(), &both).unwrap();
        let chain = sh("nft list chain ip podwire_hostport tcp_8080");
        let place = |text: &str| chain.find(text).unwrap_or_else(|| panic!("{text}: {chain}"));
        assert!(place("10.88.0.2:81") < place("10.88.0.2:80"), "{chain}");

        sh("nft flush map ip podwire_hostport conditional_ports");
        portmap("CHECK", "pod-a", &pod.path(), &both).unwrap_err();
        portmap("ADD", "pod-a", &pod.path(), &both).unwrap();
        portmap("CHECK", "pod-a", &pod.path(), &both).unwrap();
    });
}

#[test]
fn a_node_changes_over() {
    on_a_node(|| {
        let pod = pod();
        let iptables = config(&json!([tcp(8080, 80)]));
        let before = sh("iptables -t nat -S; ip6tables -t nat -S");
        assert!(!before.contains("CNI-DN-"));
        for (first, second) in [
            (&iptables, nft(&json!([tcp(8080, 80)]))),
            (&nft(&json!([tcp(8080, 80)])), iptables.clone()),
        ] {
            // The same container again, by the other backend.
            portmap("ADD", "pod-a", &pod.path(), first).unwrap();
            portmap("ADD", "pod-a", &pod.path(), &second).unwrap();
            assert_ne!(sh("iptables -t nat -S").contains("CNI-DN-"), has("pod-a"));
            portmap("CHECK", "pod-a", &pod.path(), &second).unwrap();
            // Another one, whose port it is already.
            let mut refused = first.clone();
            refused["onConflict"] = "error".into();
            let error = portmap("ADD", "pod-b", &pod.path(), &refused).unwrap_err();
            assert_eq!(error["code"], 102, "{error}");
            let mut del = names();
            del["backend"] = first["backend"].clone();
            portmap("DEL", "pod-a", "", &del).unwrap();
            assert!(
                !has("pod-a") && !sh("iptables -t nat -S; ip6tables -t nat -S").contains("CNI-DN-")
            );
        }
        portmap("ADD", "pod-a", &pod.path(), &nft(&json!([tcp(8080, 80)]))).unwrap();
        let mut gc = names();
        gc["cni.dev/valid-attachments"] = json!([]);
        portmap("GC", "", "", &gc).unwrap();
        assert!(!has("pod-a"));
    });
}
