//! Packets to 127.0.0.0/8 that pods send, and the setting `route_localnet`. Needs root.
//!
//! The reference plugin 1.10.0, with either of its backends, has no guard and never switches the setting
//! off: a pod behind the link reaches what listens at 127.0.0.1 of the node, also after the DEL.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{ask, config, names, of, portmap, tcp, with_both_backends};
use serde_json::{Value, json};
use testbed::routed::{on_a_node, pod};
use testbed::{Namespace, cni_command, run_injected, serve, sh};

/// A configuration for a pod of this address behind `vethpod`.
fn at(address: &str, backend: &str) -> Value {
    let mut config = of(backend, config(&json!([tcp(8080, 80)])));
    config["prevResult"]["ips"] = json!([{"address": address, "interface": 1}]);
    config
}

fn setting() -> String {
    sh("sysctl -n net.ipv4.conf.vethpod.route_localnet").trim().to_owned()
}

/// Makes the pod send packets to 127.0.0.1 to the node, as a pod with `NET_ADMIN` can.
fn attack(pod: &Namespace) {
    pod.sh("sysctl -qw net.ipv4.conf.all.route_localnet=1; ip addr flush dev lo
        ip route flush table local 127.0.0.0/8
        ip route add 127.0.0.1 via 10.88.0.10 dev eth0 src 10.88.0.2");
}

#[test]
fn a_mapping_opens_nothing_else() {
    with_both_backends(|backend| {
        let pod = pod();
        serve("127.0.0.1:9911", "secret");
        attack(&pod);
        assert_eq!(ask(&pod, "127.0.0.1:9911"), None);
        let config = at("10.88.0.3/24", backend);
        portmap("ADD", "pod-b", "/run/netns/pod-b", &config).unwrap();
        assert_eq!(setting(), "1");
        assert_eq!(ask(&pod, "127.0.0.1:9911"), None);

        // It is the guard that does it.
        let (unguard, gone) = if backend == "iptables" {
            ("iptables -t mangle -F PREROUTING", "iptables -t mangle -A PREROUTING")
        } else {
            let chain = "ip podwire_hostport loopback_guard";
            ("nft flush chain ip podwire_hostport loopback_guard", chain)
        };
        sh(unguard);
        assert_eq!(ask(&pod, "127.0.0.1:9911").as_deref(), Some("secret 10.88.0.2"));
        let error = portmap("CHECK", "pod-b", "/run/netns/pod-b", &config).unwrap_err();
        assert!(error["msg"].as_str().unwrap().contains(gone), "{error}");
        portmap("ADD", "pod-b", "/run/netns/pod-b", &config).unwrap();
        portmap("CHECK", "pod-b", "/run/netns/pod-b", &config).unwrap();
        assert_eq!(ask(&pod, "127.0.0.1:9911"), None);

        portmap("DEL", "pod-b", "", &names()).unwrap();
        assert_eq!(setting(), "0");
        assert_eq!(ask(&pod, "127.0.0.1:9911"), None);
    });
}

#[test]
fn the_last_mapping_takes_the_setting_along() {
    with_both_backends(|backend| {
        let _pod = pod();
        let add = |id: &str, address: &str| {
            portmap("ADD", id, "/run/netns/pod", &at(address, backend)).unwrap();
        };
        add("pod-a", "10.88.0.3/24");
        add("pod-b", "10.88.0.4/24");
        add("pod-b", "10.88.0.5/24");
        portmap("DEL", "pod-a", "", &names()).unwrap();
        assert_eq!(setting(), "1");
        portmap("DEL", "pod-b", "", &names()).unwrap();
        assert_eq!(setting(), "0");

        add("pod-a", "10.88.0.3/24");
        add("pod-b", "10.88.0.4/24");
        let mut gc = names();
        gc["cni.dev/valid-attachments"] = json!([{"containerID": "pod-b", "ifname": "eth0"}]);
        portmap("GC", "", "", &gc).unwrap();
        assert_eq!(setting(), "1");
        gc["cni.dev/valid-attachments"] = json!([]);
        portmap("GC", "", "", &gc).unwrap();
        assert_eq!(setting(), "0");

        // An ADD that no longer needs it has the effect of a DEL.
        add("pod-a", "10.88.0.3/24");
        let mut without = at("10.88.0.3/24", backend);
        without["snat"] = false.into();
        portmap("ADD", "pod-a", "/run/netns/pod", &without).unwrap();
        assert_eq!(setting(), "0");
    });
}

#[test]
fn what_others_switched_on_stays() {
    with_both_backends(|backend| {
        let _pod = pod();
        sh("sysctl -qw net.ipv4.conf.vethpod.route_localnet=1");
        for id in ["pod-a", "pod-b"] {
            portmap("ADD", id, "/run/netns/pod", &at("10.88.0.3/24", backend)).unwrap();
        }
        for id in ["pod-a", "pod-b"] {
            portmap("DEL", id, "", &names()).unwrap();
        }
        assert_eq!(setting(), "1");
    });
}

#[test]
fn a_link_vanishes_with_its_pod() {
    with_both_backends(|backend| {
        let pod = pod();
        portmap("ADD", "pod-a", &pod.path(), &at("10.88.0.2/24", backend)).unwrap();
        sh("ip link del vethpod");
        portmap("DEL", "pod-a", "", &names()).unwrap();
        let left = sh("iptables -t mangle -S; nft list ruleset");
        assert!(!left.contains("vethpod"), "{left}");
    });
}

/// Pods of both backends need the setting on one link.
#[test]
fn a_node_changes_over() {
    with_both_backends(|backend| {
        let _pod = pod();
        let before = if backend == "nftables" { "iptables" } else { "nftables" };
        portmap("ADD", "pod-a", "/run/netns/pod", &at("10.88.0.3/24", before)).unwrap();
        portmap("ADD", "pod-b", "/run/netns/pod", &at("10.88.0.4/24", backend)).unwrap();
        portmap("DEL", "pod-a", "", &names()).unwrap();
        assert_eq!(setting(), "1");
        portmap("ADD", "pod-b", "/run/netns/pod", &at("10.88.0.4/24", before)).unwrap();
        assert_eq!(setting(), "1");
        portmap("DEL", "pod-b", "", &names()).unwrap();
        assert_eq!(setting(), "0");
    });
}

/// What the reference plugin 1.10.0 makes for the pod 10.88.0.4, with either of its backends.
const OF_REFERENCE: [&str; 2] = [
    "iptables -t nat -N CNI-HOSTPORT-DNAT; iptables -t nat -N CNI-DN-of-reference
    iptables -t nat -N CNI-HOSTPORT-SETMARK
    iptables -t nat -A CNI-HOSTPORT-DNAT -p tcp -m comment --comment 'dnat name: \"n\" id: \"b\"' \
        -m multiport --destination-ports 8081 -j CNI-DN-of-reference
    iptables -t nat -A CNI-DN-of-reference -s 10.88.0.4/32 -p tcp -m tcp --dport 8081 -j CNI-HOSTPORT-SETMARK
    iptables -t nat -A CNI-DN-of-reference -s 127.0.0.1/32 -p tcp -m tcp --dport 8081 -j CNI-HOSTPORT-SETMARK
    iptables -t nat -A CNI-DN-of-reference -p tcp -m tcp --dport 8081 -j DNAT --to-destination 10.88.0.4:80",
    "nft 'table ip cni_hostport {
        chain hostports { tcp dport 8081 dnat to 10.88.0.4:80 comment \"b\"; }
        chain masquerading {
            type nat hook postrouting priority srcnat;
            ip saddr 10.88.0.4 ip daddr 10.88.0.4 masquerade comment \"b\"
            ip saddr 127.0.0.1 ip daddr 10.88.0.4 masquerade comment \"b\"
        }
    }'",
];

/// Our backend `iptables` has made some of these chains.
fn make_unless_there(script: &str) {
    sh(&format!("set +e\n{script}\ntrue"));
}

/// It has no entry in the guard, and its ADD found the setting switched on by ours.
#[test]
fn a_container_of_the_reference_plugin_keeps_the_setting() {
    with_both_backends(|backend| {
        let _pod = pod();
        for made in OF_REFERENCE {
            portmap("ADD", "pod-a", "/run/netns/pod", &at("10.88.0.3/24", backend)).unwrap();
            make_unless_there(made);
            portmap("DEL", "pod-a", "", &names()).unwrap();
            assert_eq!(setting(), "1", "{backend}: {made}");

            // Behind another link, it does not count.
            sh("nft list tables | sed 's/^/flush /' | nft -f -; nft -- 'add table ip cni_hostport
                delete table ip cni_hostport'; sysctl -qw net.ipv4.conf.vethpod.route_localnet=0");
            portmap("ADD", "pod-a", "/run/netns/pod", &at("10.88.0.3/24", backend)).unwrap();
            make_unless_there(&made.replace("10.88.0.4", "192.0.2.4"));
            portmap("DEL", "pod-a", "", &names()).unwrap();
            assert_eq!(setting(), "0", "{backend}: {made}");
        }
    });
}

/// The first one has switched the setting off and is about to commit when the second one does everything.
#[test]
fn two_commands_that_remove_the_same_leave_the_setting_off() {
    with_both_backends(|backend| {
        let _pod = pod();
        let mut gc = names();
        gc["cni.dev/valid-attachments"] = json!([]);
        for n in 1..20 {
            portmap("ADD", "pod-a", "/run/netns/pod", &at("10.88.0.3/24", backend)).unwrap();
            let del = cni_command(env!("CARGO_BIN_EXE_portmap"), "DEL", "pod-a", "");
            let is_done = std::thread::scope(|scope| {
                let slow = scope
                    .spawn(|| run_injected(&del, &names(), ("sendto", "delay_enter=300000"), n));
                sh("sleep 0.15");
                portmap("GC", "", "", &gc).unwrap();
                let ended = slow.join().unwrap();
                ended.map(Result::unwrap).is_none()
            });
            assert_eq!(setting(), "0", "{backend}: at call {n}");
            if is_done {
                return;
            }
        }
    });
}

/// The reference plugin's DEL removes its chain, but knows nothing of the guard.
#[test]
fn a_container_that_the_reference_plugin_deleted_needs_nothing() {
    on_a_node(|| {
        let _pod = pod();
        for (id, address) in [("pod-a", "10.88.0.3/24"), ("pod-b", "10.88.0.4/24")] {
            portmap("ADD", id, "/run/netns/pod", &at(address, "iptables")).unwrap();
        }
        let chain = "CNI-DN-9b8cc9dd5d53e36658bb0";
        sh(&format!(
            "iptables -t nat -F CNI-HOSTPORT-DNAT; iptables -t nat -F {chain}; iptables -t nat -X {chain}"
        ));
        assert!(sh("iptables -t mangle -S").contains(chain));
        portmap("DEL", "pod-b", "", &names()).unwrap();
        assert_eq!(setting(), "0");
        assert!(!sh("iptables -t mangle -S").contains("CNI-DN-"));

        portmap("ADD", "pod-a", "/run/netns/pod", &at("10.88.0.3/24", "iptables")).unwrap();
        sh(&format!(
            "iptables -t nat -F CNI-HOSTPORT-DNAT; iptables -t nat -F {chain}; iptables -t nat -X {chain}"
        ));
        let mut gc = names();
        gc["cni.dev/valid-attachments"] = json!([]);
        portmap("GC", "", "", &gc).unwrap();
        assert_eq!(setting(), "0");
        assert!(!sh("iptables -t mangle -S").contains("CNI-DN-"));
    });
}
