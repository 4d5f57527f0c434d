//! What an ADD that fails, a CHECK, a DEL and a GC find and leave on the node. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod common;

use std::process::Command;
use std::{env, fs, process};

use common::{Call, leftovers};
use serde_json::{Value, json};
use testbed::{Ended, Namespace, on_a_node, sh};

/// The settings of forwarding.
fn forwards() -> String {
    sh("cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding")
}

/// Checks that an ADD fails and leaves nothing, and that the reservation is released.
#[track_caller]
fn refused(call: &Call, code: u32, mentions: &str) {
    let log = env::temp_dir().join(format!("ptp-{}-{code}", process::id()));
    let call = Call { ipam_log: log.clone(), ..call.clone() };
    let error = call.run("ADD").unwrap_err();
    assert_eq!(error["code"], code, "{error}");
    assert!(error["msg"].as_str().unwrap().contains(mentions), "{error}");
    assert_eq!(leftovers(), Vec::<String>::new());
    assert_eq!(forwards(), "0\n0\n");
    let asked = fs::read_to_string(&log).unwrap();
    fs::remove_file(&log).unwrap();
    assert_eq!(asked, "ADD\nDEL\n");
}

#[test]
fn a_node_without_ipv6() {
    on_a_node(|| {
        sh("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
        let pod = Namespace::create();
        let call = Call::new("c1", &pod);
        refused(&call, 100, "add address fd00:88::1/128");
        assert_eq!(pod.sh("ip -o link | grep eth0 || true"), "");
        // The next ADD succeeds.
        sh("sysctl -qw net.ipv6.conf.default.disable_ipv6=0");
        call.run("ADD").unwrap();
    });
}

#[test]
fn an_address_without_a_gateway() {
    on_a_node(|| {
        let pod = Namespace::create();
        let call = Call::new("c1", &pod).with("ipam", json!({"type": "no-gateway"}));
        refused(&call, 103, "10.88.0.2/24 without a gateway");
    });
}

#[test]
fn a_second_add_leaves_the_first_alone() {
    on_a_node(|| {
        let pod = Namespace::create();
        Call::new("c1", &pod).run("ADD").unwrap();
        let before = leftovers();
        let error = Call::new("c2", &pod).run("ADD").unwrap_err();
        assert_eq!(error["code"], 102, "{error}");
        assert_eq!(leftovers(), before);
    });
}

#[test]
fn del_needs_the_names_only() {
    on_a_node(|| {
        let pod = Namespace::create();
        let call = Call::new("c1", &pod);
        for lost in ["nothing", "namespace", "ipam"] {
            call.run("ADD").unwrap();
            assert!(!leftovers().is_empty());
            let del = match lost {
                "namespace" => Call { netns: String::new(), ..call.clone() },
                "ipam" => call.with("ipam", Value::Null),
                _ => call.clone(),
            };
            del.run("DEL").unwrap();
            assert_eq!(leftovers(), Vec::<String>::new(), "lost: {lost}");
            del.run("DEL").unwrap();
        }
    });
}

#[test]
fn del_after_the_pod_has_vanished() {
    on_a_node(|| {
        let pod = Namespace::create();
        let call = Call::new("c1", &pod);
        call.run("ADD").unwrap();
        drop(pod);
        call.run("DEL").unwrap();
        assert_eq!(leftovers(), Vec::<String>::new());
    });
}

/// The reference plugin gives the node's end a random name, which only its result contains.
#[test]
fn del_of_a_pod_that_the_reference_plugin_made() {
    on_a_node(|| {
        let pod = Namespace::create();
        let call = Call::new("c1", &pod);
        for by_result in [true, false] {
            let mut result = call.run("ADD").unwrap();
            let name = result["interfaces"][0]["name"].as_str().unwrap();
            sh(&format!("ip link set {name} alias ''; ip link set {name} name veth0a1b2c3d"));
            let del = if by_result {
                result["interfaces"][0]["name"] = "veth0a1b2c3d".into();
                Call { netns: String::new(), ..call.with("prevResult", result) }
            } else {
                call.clone()
            };
            del.run("DEL").unwrap();
            assert_eq!(leftovers(), Vec::<String>::new());
        }
    });
}

#[test]
fn interfaces_of_one_pod_are_deleted_separately() {
    for backend in ["iptables", "nftables"] {
        on_a_node(move || {
            let pod = Namespace::create();
            let (first, second) = two_interfaces(&pod, backend);
            first.run("ADD").unwrap();
            second.run("ADD").unwrap();
            first.run("DEL").unwrap();
            assert_eq!(masqueraded(), ["10.88.0.4"]);
            second.run("DEL").unwrap();
            assert_eq!(leftovers(), Vec::<String>::new());
        });
    }
}

/// The kernel joins IPv6 routes of both interfaces that have the same destination.
#[test]
fn interfaces_of_one_pod_pass_check() {
    on_a_node(|| {
        let pod = Namespace::create();
        let (first, second) = two_interfaces(&pod, "nftables");
        let checks = [first, second].map(|call| {
            let result = call.run("ADD").unwrap();
            call.with("prevResult", result)
        });
        for check in &checks {
            check.run("CHECK").unwrap();
        }
        pod.sh("ip -6 route del fd00:88::/64 via fd00:88::1 dev eth1");
        checks[0].run("CHECK").unwrap();
        let error = checks[1].run("CHECK").unwrap_err();
        assert!(error["msg"].as_str().unwrap().contains("fd00:88::/64 via fd00:88::1 by eth1"));
    });
}

/// The pod's namespace is not known, so DEL uses the ends on the node and the result.
#[test]
fn interfaces_of_one_pod_are_found_by_their_names() {
    for (backend, has_result, left) in [
        ("iptables", true, &["10.88.0.4"][..]),
        ("iptables", false, &["10.88.0.2", "10.88.0.4"]),
        ("nftables", true, &["10.88.0.4"]),
        ("nftables", false, &["10.88.0.4"]),
    ] {
        on_a_node(move || {
            let pod = Namespace::create();
            let (first, second) = two_interfaces(&pod, backend);
            let result = first.run("ADD").unwrap();
            second.run("ADD").unwrap();
            let first = if has_result { first.with("prevResult", result) } else { first };
            Call { netns: String::new(), ..first }.run("DEL").unwrap();
            assert_eq!(masqueraded(), left, "{backend}, {has_result}");
            Call { netns: String::new(), ..second }.run("DEL").unwrap();
            assert_eq!(leftovers(), Vec::<String>::new());
        });
    }
}

fn two_interfaces(pod: &Namespace, backend: &str) -> (Call, Call) {
    let first = Call::new("c1", pod).with("ipMasqBackend", backend.into());
    let second = Call { ifname: "eth1", ..first.clone() };
    (first, second)
}

/// The IPv4 addresses that rules of the node masquerade.
fn masqueraded() -> Vec<String> {
    let rules = leftovers();
    let sources = rules.iter().filter_map(|line| line.split("ip saddr ").nth(1));
    sources.filter_map(|rest| rest.split(' ').next()).map(str::to_owned).collect()
}

/// Keys of the configuration may have changed since ADD.
#[test]
fn del_and_gc_do_not_depend_on_the_backend() {
    for (key, value) in [
        ("ipMasqBackend", json!("iptables")),
        ("ipMasqBackend", json!("nftables")),
        ("ipMasq", json!(false)),
    ] {
        for command in ["DEL", "GC"] {
            for backend in ["iptables", "nftables"] {
                let value = value.clone();
                on_a_node(move || {
                    let pod = Namespace::create();
                    let call = Call::new("c1", &pod);
                    call.with("ipMasqBackend", backend.into()).run("ADD").unwrap();
                    assert_eq!(masqueraded(), ["10.88.0.2"]);
                    let now = call.with("cni.dev/valid-attachments", json!([]));
                    now.with(key, value).run(command).unwrap();
                    assert_eq!(leftovers(), Vec::<String>::new(), "{command}");
                });
            }
        }
    }
}

#[test]
fn gc_keeps_what_is_valid() {
    on_a_node(|| {
        let (a, b) = (Namespace::create(), Namespace::create());
        let (first, second) = (Call::new("c1", &a), Call::new("c2", &b));
        second.run("ADD").unwrap();
        let one = leftovers();
        first.run("ADD").unwrap();
        let valid = |list: Value| first.with("cni.dev/valid-attachments", list);
        valid(json!([{"containerID": "c2", "ifname": "eth0"}])).run("GC").unwrap();
        assert_eq!(leftovers(), one);
        valid(json!([])).run("GC").unwrap();
        assert_eq!(leftovers(), Vec::<String>::new());
    });
}

#[test]
fn check_finds_what_was_changed() {
    for (place, broken, mentions) in [
        ("pod", "ip route del default", "route 0.0.0.0/0 via 10.88.0.1 by eth0 is missing"),
        ("pod", "ip route del 10.88.0.1", "route 10.88.0.1/32 by eth0 is missing"),
        ("pod", "ip -6 route del fd00:88::/64", "route fd00:88::/64 via fd00:88::1 by eth0"),
        ("pod", "ip addr del fd00:88::2/64 dev eth0", "address fd00:88::2/64 of eth0"),
        ("pod", "ip link set eth0 down", "is down"),
        ("pod", "ip link set eth0 address c2:00:00:00:00:09", "has the hardware address"),
        ("pod", "ip link del eth0", "interface eth0 of the pod is missing"),
        ("node", "ip route del 10.88.0.2", "route 10.88.0.2/32 by veth"),
        ("node", "ip -6 route del fd00:88::2", "route fd00:88::2/128 by veth"),
        ("node", "ip -6 addr flush to fd00:88::1", "fd00:88::1/128"),
        ("node", "iptables -t nat -F POSTROUTING", "-s 10.88.0.2"),
        (
            "nftables",
            "nft flush chain inet cni_plugins_masquerade masq_checks",
            "nft rule inet cni_plugins_masquerade masq_checks ip saddr 10.88.0.2",
        ),
    ] {
        on_a_node(move || {
            let pod = Namespace::create();
            let backend = if place == "nftables" { place } else { "iptables" };
            let call = Call::new("c1", &pod).with("ipMasqBackend", backend.into());
            let result = call.run("ADD").unwrap();
            let check = call.with("prevResult", result);
            check.run("CHECK").unwrap();
            if place == "pod" {
                pod.sh(broken)
            } else {
                sh(broken)
            };
            let error = check.run("CHECK").unwrap_err();
            assert!(error["msg"].as_str().unwrap().contains(mentions), "{broken}: {error}");
        });
    }
}

#[test]
fn status() {
    on_a_node(|| {
        let call = Call::new("c1", &Namespace::create());
        for backend in ["iptables", "nftables"] {
            call.with("ipMasqBackend", backend.into()).run("STATUS").unwrap();
            assert_eq!(sh("nft list ruleset"), "");
        }
        let error = call.with("ipam", json!({"type": "not-there"})).run("STATUS").unwrap_err();
        assert!(error["msg"].as_str().unwrap().contains("not-there"), "{error}");
        let error = call.with("ipam", Value::Null).run("STATUS").unwrap_err();
        assert_eq!(error["code"], 7, "{error}");
    });
}

/// Runs a command where `/proc/sys` is mounted read-only, as in a container that runs containers.
fn where_sysctls_are_read_only(call: &Call, command: &str) -> Ended {
    let program = call.command(command);
    let script =
        "mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys; exec \"$0\"";
    let mut shell = Command::new("unshare");
    shell.args(["-m", "sh", "-c", script]).arg(program.get_program()).env_clear();
    shell.envs(program.get_envs().filter_map(|(key, value)| Some((key, value?))));
    testbed::run(&mut shell, &call.network)
}

/// If the node forwards already, no sysctl must be written; the reference plugin 1.10.0 fails nevertheless.
#[test]
fn status_agrees_with_add() {
    let ranges = json!([[{"subnet": "10.88.0.0/24"}], [{"subnet": "fd00:88::/64"}]]);
    let agree = |is_ok: bool, run: &dyn Fn(&str) -> Ended| {
        let (status, add) = (run("STATUS"), run("ADD"));
        assert_eq!((status.is_ok(), add.is_ok()), (is_ok, is_ok), "{status:?} {add:?}");
        if let Err(error) = status {
            assert_eq!(error["code"], 50, "{error}");
        }
    };
    on_a_node(|| {
        let pod = Namespace::create();
        let call =
            Call::new("c1", &pod).with("ipam", json!({"type": "dual-stack", "ranges": ranges}));
        agree(false, &|command| where_sysctls_are_read_only(&call, command));
        sh("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
        agree(false, &|command| call.run(command));
        sh("sysctl -qw net.ipv6.conf.default.disable_ipv6=0");
        sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        agree(true, &|command| where_sysctls_are_read_only(&call, command));
    });
}
