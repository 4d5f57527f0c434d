//! How an ADD affects the node, its links and its neighbours. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::process::Command;

use common::{bridge, bridge_command, in_namespaces, network, network_with};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use testbed::{Namespace, sh};

fn mac_of(link: &str) -> String {
    sh(&format!("ip -o link show {link}"))
        .split(' ')
        .skip_while(|it| *it != "link/ether")
        .nth(1)
        .unwrap()
        .to_owned()
}

/// A network without a gateway, and one with a gateway.
fn networks() -> [Value; 2] {
    [json!({"cniVersion": "1.1.0", "name": "n", "type": "bridge"}), network()]
}

/// With the reference plugin 1.10.0 and no gateway, the bridge takes the lowest address of its ports.
#[test]
fn a_bridge_of_another_program_keeps_its_hardware_address() {
    let uplink = "ip link add up0 address fe:ff:00:00:00:01 up type veth peer name up1
        ip link add cni0 up type bridge; ip link set up0 master cni0";
    for (made, known) in [
        ("ip link add cni0 up type bridge", true),
        (uplink, true),
        ("ip link add cni0 up type bridge; ip addr add 10.88.0.1/24 dev cni0", true),
        // After its last port has gone, the bridge has no address.
        (&format!("{uplink}; ip link set up0 nomaster"), false),
    ] {
        for network in networks() {
            in_namespaces(|pod| {
                sh(made);
                let before = mac_of("cni0");
                assert_eq!(before != "00:00:00:00:00:00", known, "{made}");
                let result = bridge("ADD", &pod.path(), &network).unwrap();
                let with_pod = mac_of("cni0");
                assert_eq!(result["interfaces"][0]["mac"], with_pod.as_str(), "{made}");
                assert_ne!(with_pod, "00:00:00:00:00:00");
                if known {
                    assert_eq!(with_pod, before, "{made}");
                }
                bridge("DEL", &pod.path(), &network).unwrap();
                assert_eq!(mac_of("cni0"), with_pod, "{made}");
            });
        }
    }
}

/// The kernel forgets neighbours whenever a hardware address is set, even to the same value. With the
/// reference plugin 1.10.0 and a gateway, they are lost.
#[test]
fn a_bridge_of_another_program_keeps_its_neighbours() {
    for network in networks() {
        in_namespaces(|pod| {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            sh("mount --make-rprivate /; mount -t sysfs sysfs /sys
                ip link add cni0 address c2:00:00:00:00:01 up type bridge
                ip addr add 10.88.0.1/24 dev cni0
                ip neigh add 10.88.0.77 lladdr c2:00:00:00:00:77 nud permanent dev cni0");
            let neighbours = || sh("ip neigh show dev cni0 nud permanent");
            let before = neighbours();
            bridge("ADD", &pod.path(), &network).unwrap();
            assert_eq!(neighbours(), before);
        });
    }
}

/// After an ADD of the reference plugin 1.10.0, such a bridge ignores router advertisements.
#[test]
fn a_bridge_of_another_program_keeps_its_settings() {
    let settings = "cd /proc/sys/net/ipv6/conf/cni0; cat accept_ra accept_dad";
    for network in networks() {
        in_namespaces(|pod| {
            sh("ip link add cni0 up type bridge");
            let before = sh(settings);
            bridge("ADD", &pod.path(), &network).unwrap();
            assert_eq!(sh(settings), before);
        });
    }
    in_namespaces(|pod| {
        bridge("ADD", &pod.path(), &network()).unwrap();
        assert_eq!(sh(settings), "0\n0\n", "of a bridge that the plugin made");
    });
}

/// Sends the advertisement of a router, which gives a default route.
const ADVERTISE: &str = "python3 -c '
import socket, struct
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58)
s.setsockopt(41, 18, 255)
i = socket.if_nametoindex(\"eth0\")
s.setsockopt(41, 17, i)
s.sendto(struct.pack(\"!BBHBBHII\", 134, 0, 0, 64, 0, 1800, 0, 0), (\"ff02::1\", 0, 0, i))'";

/// With the reference plugin 1.10.0, the node forgets the route.
#[test]
fn the_node_keeps_the_default_route_of_its_router() {
    in_namespaces(|pod| {
        let router = Namespace::create();
        sh(&format!("ip link add uplink up type veth peer name eth0 netns {}", router.path()));
        router.sh("sysctl -qw net.ipv6.conf.eth0.accept_dad=0; ip link set eth0 up");
        let learned = || sh("ip -6 route show default");
        let learn = format!(
            "for i in $(seq 100); do ip -6 addr show dev eth0 scope link |
            grep -q inet6 && break; sleep 0.05; done; {ADVERTISE}"
        );
        sh("for i in $(seq 100); do ip -6 addr show dev uplink scope link -tentative |
            grep -q inet6 && break; sleep 0.05; done");
        router.sh(&learn);
        sh(
            "for i in $(seq 100); do ip -6 route show default | grep -q uplink && break; sleep 0.05; done",
        );
        assert!(learned().contains("dev uplink proto ra"), "{}", learned());

        let default = "cat /proc/sys/net/ipv6/conf/default/accept_ra";
        let before = sh(default);
        bridge("ADD", &pod.path(), &network()).unwrap();
        assert_eq!(sh("cat /proc/sys/net/ipv6/conf/all/forwarding"), "1\n");
        assert!(learned().contains("dev uplink proto ra"), "{}", learned());
        assert_eq!(sh("cat /proc/sys/net/ipv6/conf/uplink/accept_ra"), "2\n");
        // Other links still ignore advertisements.
        assert_eq!(sh(default), before);
        let of_pods = "cd /proc/sys/net/ipv6/conf; cat veth*/accept_ra cni0/accept_ra";
        assert_eq!(sh(of_pods), "0\n0\n");
    });
}

/// A second pod gets the addresses of the first one. The node and a neighbour remember the hardware address
/// of the first pod. With the reference plugin 1.10.0, the neighbour cannot reach the second pod for some
/// seconds.
#[test]
fn an_address_that_is_given_out_again_answers_at_once() {
    for (key, value) in [
        ("isGateway", json!(true)),
        ("macspoofchk", json!(true)),
        ("portIsolation", json!(true)),
        ("enabledad", json!(true)),
    ] {
        in_namespaces(|old| {
            let network = network_with(key, value.clone());
            let (new, neighbour) = (Namespace::create(), Namespace::create());
            bridge("ADD", &old.path(), &network).unwrap();
            sh(&format!(
                "ip link add port master cni0 up type veth peer name eth0 netns {}",
                neighbour.path()
            ));
            neighbour
                .sh("ip addr add 10.88.0.9/24 dev eth0; ip addr add fd00:88::9/64 dev eth0 nodad
                ip link set eth0 up");
            let ping = |tries: u32| {
                let once = |to: &str| format!("ping -c 1 -W 1 {to} > /dev/null");
                let script = ["10.88.0.2", "fd00:88::2"].map(|to| {
                    format!("for i in $(seq {tries}); do {0} && break; done; {0}", once(to))
                });
                script.join("; ")
            };
            let both = |tries: u32| {
                sh(&format!("set -e; {}", ping(tries)));
                if key != "portIsolation" {
                    neighbour.sh(&format!("set -e; {}", ping(tries)));
                }
            };
            both(20);
            bridge("DEL", &old.path(), &network).unwrap();
            bridge("ADD", &new.path(), &network).unwrap();
            both(0);
        });
    }
}

/// With the reference plugin 1.10.0, the kernel's default 1 always stays.
#[test]
fn a_pod_accepts_advertisements_if_ipam_gives_no_ipv6_address() {
    let accept_ra = |network: &Value| {
        let mut value = String::new();
        in_namespaces(|pod| {
            bridge("ADD", &pod.path(), network).unwrap();
            value = pod.sh("cat /proc/sys/net/ipv6/conf/eth0/accept_ra");
        });
        value
    };
    assert_eq!(accept_ra(&network()), "0\n");
    assert_eq!(accept_ra(&network_with("acceptRA", false.into())), "0\n");
    assert_eq!(accept_ra(&network_with("acceptRA", true.into())), "2\n");
    assert_eq!(accept_ra(&networks()[0]), "1\n");
}

/// The reference plugin 1.10.0 calls its IPAM plugin before it deletes the interface, whatever the plugin.
#[test]
fn dhcp_can_use_the_interface() {
    in_namespaces(|pod| {
        let network = network_with("ipam", json!({"type": "dhcp"}));
        bridge("ADD", &pod.path(), &network).unwrap();
        bridge("DEL", &pod.path(), &network).unwrap();
        assert_eq!(pod.sh("ip -o link show type veth"), "");
        // A failed ADD releases the lease in the same way.
        sh("ip addr add 192.0.2.1/24 dev cni0");
        let mut network = network;
        network["forceAddress"] = false.into();
        sh("ip addr del 10.88.0.1/24 dev cni0");
        let error = bridge("ADD", &pod.path(), &network).unwrap_err();
        assert!(error["msg"].as_str().unwrap().contains("192.0.2.1"), "{error}");
        assert!(!error.to_string().contains("no interface to send by"), "{error}");
    });
}

/// The reference plugin 1.10.0 does not report it.
#[test]
fn the_result_has_the_mtu_of_interfaces() {
    in_namespaces(|pod| {
        let mut network = network_with("mtu", 1400.into());
        let result = bridge("ADD", &pod.path(), &network).unwrap();
        for interface in result["interfaces"].as_array().unwrap() {
            assert_eq!(interface["mtu"], 1400, "{result}");
        }
        bridge("DEL", &pod.path(), &network).unwrap();
        network["cniVersion"] = "1.0.0".into();
        let result = bridge("ADD", &pod.path(), &network).unwrap();
        assert!(!result.to_string().contains("mtu"), "{result}");
    });
}

/// Runs a command where `/proc/sys` is mounted read-only.
fn where_sysctls_are_read_only(command: &str, netns: &str, network: &Value) -> testbed::Ended {
    let call = bridge_command(command, netns);
    let mut shell = Command::new("unshare");
    let script =
        "mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys; exec \"$0\"";
    shell.args(["-m", "sh", "-c", script]).arg(call.get_program()).env_clear();
    shell.envs(call.get_envs().filter_map(|(key, value)| Some((key, value?))));
    testbed::run(&mut shell, network)
}

#[test]
fn status_agrees_with_add() {
    let mut network = network();
    network["ipam"]["ranges"] = json!([[{"subnet": "10.88.0.0/24"}], [{"subnet": "fd00:88::/64"}]]);
    let agree = |is_ok: bool, run: &dyn Fn(&str) -> testbed::Ended| {
        let (status, add) = (run("STATUS"), run("ADD"));
        assert_eq!((status.is_ok(), add.is_ok()), (is_ok, is_ok), "{status:?} {add:?}");
        if let Err(error) = status {
            assert_eq!(error["code"], 50, "{error}");
        }
    };
    in_namespaces(|pod| {
        let here = |command: &str| bridge(command, &pod.path(), &network);
        sh("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
        agree(false, &here);
        // The setting of an existing bridge is used.
        sh("ip link add cni0 up type bridge; sysctl -qw net.ipv6.conf.cni0.disable_ipv6=0");
        agree(true, &here);
    });
    in_namespaces(|pod| {
        agree(false, &|command| where_sysctls_are_read_only(command, &pod.path(), &network));
        sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        agree(true, &|command| where_sysctls_are_read_only(command, &pod.path(), &network));
    });
}
