//! Packets that go the way of the rules. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod common;

use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use common::{ask, config, names, of, portmap, tcp, with_both_backends};
use serde_json::{Value, json};
use testbed::routed::{client, on_a_node, pod};
use testbed::{Namespace, cni_command, serve, sh};

#[track_caller]
fn check(from: &Namespace, to: &str, answer: &str) {
    assert_eq!(ask(from, to).as_deref(), Some(answer), "{to}");
}

#[test]
fn tcp_from_everywhere() {
    with_both_backends(|backend| {
        let (pod, outside) = (pod(), client());
        let node = Namespace::current();
        pod.enter(|| serve("[::]:80", "web"));
        pod.enter(|| serve("[::]:8080", "direct"));
        assert_eq!(ask(&outside, "192.0.2.10:8080"), None);

        let config = of(backend, config(&json!([tcp(8080, 80)])));
        portmap("ADD", "pod-a", &pod.path(), &config).unwrap();
        check(&outside, "192.0.2.10:8080", "web 192.0.2.1");
        check(&outside, "[2001:db8::10]:8080", "web 2001:db8::1");
        check(&node, "127.0.0.1:8080", "web 10.88.0.10");
        check(&node, "192.0.2.10:8080", "web 192.0.2.10");
        check(&node, "[2001:db8::10]:8080", "web 2001:db8::10");
        check(&pod, "192.0.2.10:8080", "web 10.88.0.10");
        check(&pod, "[2001:db8::10]:8080", "web fd00:88::10");
        // Only what is meant for the node itself is taken (CVE-2025-67499).
        check(&outside, "10.88.0.2:8080", "direct 192.0.2.1");
        check(&outside, "[fd00:88::2]:8080", "direct 2001:db8::1");
        portmap("CHECK", "pod-a", &pod.path(), &config).unwrap();

        portmap("DEL", "pod-a", "", &names()).unwrap();
        for (from, to) in [
            (&outside, "192.0.2.10:8080"),
            (&outside, "[2001:db8::10]:8080"),
            (&node, "127.0.0.1:8080"),
            (&pod, "192.0.2.10:8080"),
        ] {
            assert_eq!(ask(from, to), None, "{to} still answers");
        }
        let flows = sh("conntrack -L; conntrack -L -f ipv6");
        assert!(!flows.contains("sport=80 "), "{flows}");
    });
}

#[test]
fn host_addresses() {
    with_both_backends(|backend| {
        let (pod, outside) = (pod(), client());
        let node = Namespace::current();
        pod.enter(|| serve("[::]:80", "web"));
        let mappings = json!([
            {"hostPort": 8081, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1"},
            {"hostPort": 8082, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.10"},
            {"hostPort": 8083, "containerPort": 80, "protocol": "tcp", "hostIP": "2001:db8::10"},
        ]);
        portmap("ADD", "pod-a", &pod.path(), &of(backend, config(&mappings))).unwrap();
        check(&node, "127.0.0.1:8081", "web 10.88.0.10");
        assert_eq!(ask(&outside, "192.0.2.10:8081"), None);
        check(&outside, "192.0.2.10:8082", "web 192.0.2.1");
        assert_eq!(ask(&node, "127.0.0.1:8082"), None);
        check(&outside, "[2001:db8::10]:8083", "web 2001:db8::1");
        assert_eq!(ask(&outside, "192.0.2.10:8083"), None);
    });
}

#[test]
fn a_port_goes_to_the_newest_pod_and_stays_with_it() {
    with_both_backends(|backend| {
        let (pod, outside) = (pod(), client());
        pod.enter(|| serve("[::]:80", "old"));
        pod.enter(|| serve("[::]:81", "new"));
        portmap("ADD", "pod-a", &pod.path(), &of(backend, config(&json!([tcp(8080, 80)]))))
            .unwrap();
        let mut second = of(backend, config(&json!([tcp(9090, 81), tcp(8080, 81)])));
        second["onConflict"] = "error".into();
        let refused = portmap("ADD", "pod-b", &pod.path(), &second).unwrap_err();
        assert_eq!(refused["code"], 102);
        let msg = refused["msg"].as_str().unwrap();
        let msg = msg.replace('"', "");
        assert!(msg.contains("8080/tcp is taken by dnat name: testnet id: pod-a"), "{msg}");
        check(&outside, "192.0.2.10:8080", "old 192.0.2.1");
        assert_eq!(ask(&outside, "192.0.2.10:9090"), None);

        second["onConflict"] = json!(null);
        portmap("ADD", "pod-b", &pod.path(), &second).unwrap();
        check(&outside, "192.0.2.10:8080", "new 192.0.2.1");
        portmap("DEL", "pod-a", "", &names()).unwrap();
        check(&outside, "192.0.2.10:8080", "new 192.0.2.1");
        portmap("DEL", "pod-b", "", &names()).unwrap();
        assert_eq!(ask(&outside, "192.0.2.10:8080"), None);
    });
}

/// Sends a datagram and waits for its answer.
fn exchange(socket: &UdpSocket, to: &str) -> Option<String> {
    let mut buffer = [0; 64];
    for _ in 0..3 {
        socket.send_to(b"ping", to).unwrap();
        // An answer, or the refusal of the datagram before.
        if let Ok((len, _)) = socket.recv_from(&mut buffer) {
            return Some(String::from_utf8_lossy(&buffer[..len]).into_owned());
        }
    }
    None
}

fn udp(port: u16) -> Value {
    json!({"hostPort": port, "containerPort": port, "protocol": "udp"})
}

fn echo(pod: &Namespace, address: &str) {
    let socket = pod.enter(|| UdpSocket::bind(address)).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(b"pong", from);
        }
    });
}

#[test]
fn udp_flows_from_before_find_the_pod() {
    with_both_backends(|backend| {
        let (pod, outside) = (pod(), client());
        echo(&pod, "10.88.0.2:53");
        echo(&pod, "[fd00:88::2]:53");
        for (local, to) in
            [("192.0.2.1:4242", "192.0.2.10:5353"), ("[2001:db8::1]:4242", "[2001:db8::10]:5353")]
        {
            let socket = outside.enter(|| UdpSocket::bind(local)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            assert_eq!(exchange(&socket, to), None);
            let mapping = json!({"hostPort": 5353, "containerPort": 53, "protocol": "UDP"});
            portmap("ADD", "pod-a", &pod.path(), &of(backend, config(&json!([mapping])))).unwrap();
            assert_eq!(exchange(&socket, to).as_deref(), Some("pong"), "{to}");
            portmap("DEL", "pod-a", "", &names()).unwrap();
            assert_eq!(exchange(&socket, to), None, "{to} still answers");
        }
    });
}

#[test]
fn udp_flows_to_elsewhere_are_left_alone() {
    with_both_backends(|backend| {
        let pod = pod();
        for ports in [vec![udp(53)], (50..60).map(udp).collect()] {
            sh("conntrack -I -t 600 -p udp -s 10.88.0.7 -d 198.51.100.8 --sport 4242 --dport 53
                conntrack -I -t 600 -p udp -s 10.88.0.7 -d 10.88.0.10 --sport 4243 --dport 53
                conntrack -I -t 600 -p udp -s 127.0.0.1 -d 127.0.0.5 --sport 4244 --dport 53
                conntrack -I -t 600 -p udp -s 10.88.0.7 -d 10.88.0.10 --sport 4245 --dport 61");
            let config = of(backend, config(&json!(ports)));
            portmap("ADD", "pod-a", &pod.path(), &config).unwrap();
            let flows = sh("conntrack -L -p udp");
            let is_there = |port: u16| flows.contains(&format!("sport={port} "));
            let left = [4242, 4243, 4244, 4245].map(is_there);
            assert_eq!(left, [true, false, false, true], "{flows}");
            portmap("DEL", "pod-a", "", &names()).unwrap();
            sh("conntrack -F");
        }
    });
}

/// The kernel looks at all connections for each question about them.
#[test]
fn many_udp_ports_take_no_more_questions() {
    with_both_backends(|backend| {
        let pod = pod();
        let trace = std::env::temp_dir().join(format!("portmap-trace-{}", std::process::id()));
        let questions = |count: u16| {
            let ports: Vec<_> = (1000..1000 + count).map(udp).collect();
            let mut add = cni_command("strace", "ADD", "pod-a", &pod.path());
            add.args(["-qq", "-e", "trace=sendto,sendmsg", "-o"]).arg(&trace);
            add.arg(env!("CARGO_BIN_EXE_portmap"));
            testbed::run(&mut add, &of(backend, config(&json!(ports)))).unwrap();
            portmap("DEL", "pod-a", "", &names()).unwrap();
            std::fs::read_to_string(&trace).unwrap().lines().count()
        };
        // The first one makes what all share.
        let (_, some, many) = (questions(1), questions(10), questions(100));
        std::fs::remove_file(&trace).unwrap();
        assert_eq!(some, many);
    });
}

/// Makes connections that the pod opened, as the kernel remembers them, and a neighbour of it.
fn remember_clients() {
    sh("conntrack -I -t 600 -p udp -s 10.88.0.2 -d 198.51.100.8 --sport 4242 --dport 53
        conntrack -I -t 600 -p udp -s fd00:88::2 -d 2001:db8::8 --sport 4243 --dport 53
        conntrack -I -t 600 -p udp -s 10.88.0.3 -d 198.51.100.8 --sport 4244 --dport 53
        conntrack -I -t 600 -p udp -s fd00:88::3 -d 2001:db8::8 --sport 4245 --dport 53");
}

/// Which of them it still remembers.
fn remembered_clients() -> [bool; 4] {
    let flows = sh("conntrack -L -p udp --dport 53; conntrack -L -f ipv6 -p udp --dport 53");
    ["4242", "4243", "4244", "4245"].map(|port| flows.contains(&format!("sport={port}")))
}

#[test]
fn connections_that_a_deleted_pod_opened_are_forgotten() {
    with_both_backends(|backend| {
        let pod = pod();
        remember_clients();
        let config = of(backend, config(&json!([tcp(8080, 80)])));
        portmap("ADD", "pod-a", &pod.path(), &config).unwrap();
        assert_eq!(remembered_clients(), [true; 4], "a pod that lives goes on with them");
        portmap("DEL", "pod-a", &pod.path(), &names()).unwrap();
        assert_eq!(remembered_clients(), [false, false, true, true]);
    });
}

#[test]
fn a_late_del_leaves_the_connections_of_who_may_have_the_address_by_now() {
    with_both_backends(|backend| {
        let pod = pod();
        let config = of(backend, config(&json!([tcp(8080, 80)])));
        for netns in ["", "/run/netns/vanished", "/dev/null"] {
            portmap("ADD", "pod-a", &pod.path(), &config).unwrap();
            remember_clients();
            portmap("DEL", "pod-a", netns, &names()).unwrap();
            assert_eq!(remembered_clients(), [true; 4], "{netns:?}");
            sh("conntrack -F");
        }
    });
}

#[test]
fn conditions_are_those_of_one_container() {
    with_both_backends(|backend| {
        let (pod, outside) = (pod(), client());
        let node = Namespace::current();
        pod.enter(|| serve("[::]:80", "some"));
        pod.enter(|| serve("[::]:81", "others"));
        let mut config = of(backend, config(&json!([tcp(8080, 80)])));
        let is_nft = backend == "nftables";
        config["conditionsV4"] = if is_nft {
            json!(["ip saddr", "192.0.2.0/28"])
        } else {
            json!(["-s", "192.0.2.0/28"])
        };
        config["conditionsV6"] = if is_nft { json!(["iifname lo"]) } else { json!(["-i", "lo"]) };
        portmap("ADD", "pod-a", &pod.path(), &config).unwrap();
        portmap("CHECK", "pod-a", &pod.path(), &config).unwrap();
        check(&outside, "192.0.2.10:8080", "some 192.0.2.1");
        assert_eq!(ask(&node, "127.0.0.1:8080"), None);
        assert_eq!(ask(&outside, "[2001:db8::10]:8080"), None);

        // Who does not fulfil them goes on to the next that has the port.
        let mut others = of(backend, common::config(&json!([tcp(8080, 81)])));
        others["conditionsV4"] = if is_nft {
            json!(["ip saddr != 198.51.100.0/24"])
        } else {
            json!(["!", "-s", "198.51.100.0/24"])
        };
        portmap("ADD", "pod-b", &pod.path(), &others).unwrap();
        portmap("ADD", "pod-a", &pod.path(), &config).unwrap();
        portmap("DEL", "pod-b", "", &names()).unwrap();
        check(&outside, "192.0.2.10:8080", "some 192.0.2.1");
        portmap("DEL", "pod-a", "", &names()).unwrap();
        assert_eq!(ask(&outside, "192.0.2.10:8080"), None);
    });
}

#[test]
fn conditions_are_about_the_mark_as_it_came() {
    on_a_node(|| {
        let (pod, outside) = (pod(), client());
        pod.enter(|| serve("[::]:80", "marked"));
        sh("nft -f - <<E
            table ip marks {
                chain prerouting {
                    type filter hook prerouting priority -150;
                    tcp dport 8080 meta mark set 0x1005
                }
            }\nE");
        for (mark, answer) in [("0x1005", Some("marked 192.0.2.1")), ("0x5", None)] {
            let mut config = of("nftables", config(&json!([tcp(8080, 80)])));
            config["conditionsV4"] = json!(["meta mark", mark]);
            portmap("ADD", "pod-a", &pod.path(), &config).unwrap();
            assert_eq!(ask(&outside, "192.0.2.10:8080").as_deref(), answer, "{mark}");
        }
    });
}

#[test]
fn a_node_changes_over() {
    with_both_backends(|backend| {
        let (pod, outside) = (pod(), client());
        pod.enter(|| serve("[::]:80", "old"));
        pod.enter(|| serve("[::]:81", "new"));
        let before = if backend == "nftables" { "iptables" } else { "nftables" };
        let mappings = json!([tcp(8080, 80), tcp(9090, 80)]);
        portmap("ADD", "pod-a", &pod.path(), &of(before, config(&mappings))).unwrap();
        check(&outside, "192.0.2.10:8080", "old 192.0.2.1");
        // The old pod crashed, say, and a new one gets its port.
        portmap("ADD", "pod-b", &pod.path(), &of(backend, config(&json!([tcp(8080, 81)]))))
            .unwrap();
        check(&outside, "192.0.2.10:8080", "new 192.0.2.1");
        check(&outside, "[2001:db8::10]:8080", "new 2001:db8::1");
        check(&outside, "192.0.2.10:9090", "old 192.0.2.1");
        portmap("DEL", "pod-a", "", &names()).unwrap();
        check(&outside, "192.0.2.10:8080", "new 192.0.2.1");
        assert_eq!(ask(&outside, "192.0.2.10:9090"), None);
        portmap("DEL", "pod-b", "", &names()).unwrap();
        assert_eq!(ask(&outside, "192.0.2.10:8080"), None);
    });
}

#[test]
fn the_newest_gets_all_addresses_that_it_asks_for() {
    with_both_backends(|backend| {
        let (pod, outside) = (pod(), client());
        pod.enter(|| serve("[::]:80", "one"));
        pod.enter(|| serve("[::]:81", "all"));
        let one = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.10"}]);
        let one = of(backend, config(&one));
        let all = of(backend, config(&json!([tcp(8080, 81)])));
        portmap("ADD", "pod-a", &pod.path(), &all).unwrap();
        portmap("ADD", "pod-b", &pod.path(), &one).unwrap();
        check(&outside, "192.0.2.10:8080", "one 192.0.2.1");
        check(&outside, "[2001:db8::10]:8080", "all 2001:db8::1");
        portmap("DEL", "pod-a", "", &names()).unwrap();
        let mut refused = all.clone();
        refused["onConflict"] = "error".into();
        assert_eq!(portmap("ADD", "pod-a", &pod.path(), &refused).unwrap_err()["code"], 102);
        portmap("ADD", "pod-a", &pod.path(), &all).unwrap();
        check(&outside, "192.0.2.10:8080", "all 192.0.2.1");
    });
}
