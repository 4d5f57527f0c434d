//! What ADD changes, CHECK compares and DEL restores. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod common;

use std::fs;

use common::{MAC, Pod};
use serde_json::json;

const UNTOUCHED: &str = "02:00:00:00:00:01 mtu 1500 qlen 1000";
const SOMAXCONN: &str = "cat /proc/sys/net/core/somaxconn";
const PORTS: &str = "cat /proc/sys/net/ipv4/ip_local_port_range";

fn everything(pod: &Pod) -> common::Call {
    pod.call()
        .with("mac", "c2:11:22:33:44:55")
        .with("mtu", 1420)
        .with("promisc", true)
        .with("allmulti", true)
        .with("txQLen", 333)
        .with(
            "sysctl",
            json!({
                "net.core.somaxconn": "500",
                "net/ipv4/conf/IFNAME/arp_notify": "1",
                "net.ipv4.ip_local_port_range": "20000 30000",
                "net.ipv4.ip_local_reserved_ports": "8081,8080",
                "net.ipv4.route.flush": "1",
            }),
        )
}

#[test]
fn everything_is_changed_and_restored() {
    let pod = Pod::new();
    let call = everything(&pod);
    let ports = pod.sh(PORTS);
    let result = call.run("ADD").unwrap();
    let interface = &result["interfaces"][0];
    assert_eq!((&interface["mac"], &interface["mtu"]), (&json!("c2:11:22:33:44:55"), &json!(1420)));
    assert_eq!(pod.link(), "c2:11:22:33:44:55 mtu 1420 qlen 333 promisc allmulti");
    assert_eq!(pod.sh(SOMAXCONN), "500");
    assert_eq!(pod.sh(PORTS), "20000\t30000");
    assert_eq!(pod.sh("cat /proc/sys/net/ipv4/conf/eth0/arp_notify"), "1");
    assert_eq!(pod.sh("cat /proc/sys/net/ipv4/ip_local_reserved_ports"), "8080-8081");
    assert_eq!(pod.files(), ["c1_eth0.json"]);
    call.run("CHECK").unwrap();

    // A DEL with the names only.
    let mut del = pod.call();
    del.network["prevResult"].take();
    del.run("DEL").unwrap();
    assert_eq!(pod.link(), UNTOUCHED);
    assert_eq!(pod.sh(SOMAXCONN), "4096");
    assert_eq!(pod.sh(PORTS), ports);
    assert_eq!(pod.sh("cat /proc/sys/net/ipv4/conf/eth0/arp_notify"), "0");
    assert_eq!(pod.sh("cat /proc/sys/net/ipv4/ip_local_reserved_ports"), "");
    assert!(pod.files().is_empty());
    del.run("DEL").unwrap();
}

#[test]
fn values_that_are_already_set_need_no_backup() {
    let pod = Pod::new();
    let sysctl = json!({"net.core.somaxconn": "4096", "net.ipv4.route.flush": "1"});
    let call = pod.call().with("sysctl", sysctl);
    for command in ["ADD", "CHECK", "DEL"] {
        call.run(command).unwrap();
        assert!(!pod.dir.exists());
    }
}

#[test]
fn an_empty_configuration_changes_nothing() {
    let pod = Pod::new();
    let call = common::Call { netns: "/run/netns/tuning-nobody".into(), ..pod.call() };
    let result = call.run("ADD").unwrap();
    assert_eq!(result["interfaces"][0]["mac"], MAC);
    call.run("CHECK").unwrap();
    call.run("DEL").unwrap();
    assert!(!pod.dir.exists());
}

#[test]
fn check_names_what_has_changed() {
    let pod = Pod::new();
    let call = everything(&pod);
    call.run("ADD").unwrap();
    for (spoil, mentions, repair) in [
        ("ip link set eth0 mtu 1400", "has mtu 1400, not mtu 1420", "ip link set eth0 mtu 1420"),
        ("ip link set eth0 promisc off", "promisc off, not", "ip link set eth0 promisc on"),
        ("ip link set eth0 allmulticast off", "allmulticast", "ip link set eth0 allmulticast on"),
        ("ip link set eth0 txqueuelen 5", "txqueuelen 5", "ip link set eth0 txqueuelen 333"),
        (
            "ip link set eth0 address 02:00:00:00:00:09",
            "address",
            "ip link set eth0 address c2:11:22:33:44:55",
        ),
        (
            "echo 501 > /proc/sys/net/core/somaxconn",
            r#"net/core/somaxconn is \"501\", not \"500\""#,
            "echo 500 > /proc/sys/net/core/somaxconn",
        ),
        ("ip link set eth0 name eth9", "missing", "ip link set eth9 name eth0"),
    ] {
        pod.sh(spoil);
        if spoil.ends_with("eth9") {
            // A sysctl of the interface is also missing, and is compared first.
            call.with("sysctl", json!({})).refused("CHECK", 101, mentions);
            call.refused("CHECK", 101, "arp_notify is missing");
        } else {
            call.refused("CHECK", 101, mentions);
        }
        pod.sh(repair);
        call.run("CHECK").unwrap();
    }
    // Other values are not compared.
    pod.call().run("CHECK").unwrap();
    pod.call().with("promisc", false).run("CHECK").unwrap();
}

#[test]
fn a_failing_add_changes_nothing() {
    let pod = Pod::new();
    let sysctl = json!({"net.core.somaxconn": "500", "net.ipv4.tcp_syncookies": "many"});
    everything(&pod).with("sysctl", sysctl).refused("ADD", 100, "net/ipv4/tcp_syncookies");
    let unknown = json!({"net.core.somaxconn": "500", "net.ipv4.no_such": "1"});
    everything(&pod).with("sysctl", unknown).refused("ADD", 7, "sysctl.net.ipv4.no_such");
    // The kernel accepts the MTU, and then refuses an address of zeros.
    everything(&pod).with("mac", "00:00:00:00:00:00").refused("ADD", 100, "change interface eth0");
    assert_eq!((pod.link().as_str(), pod.sh(SOMAXCONN).as_str()), (UNTOUCHED, "4096"));
    assert!(pod.files().is_empty());

    pod.sh("ip link del eth0");
    let only_link = everything(&pod).with("sysctl", json!({}));
    only_link.refused("ADD", 100, "no interface eth0");
    assert!(pod.files().is_empty());
}

#[test]
fn without_a_backup_nothing_is_changed() {
    let pod = Pod::new();
    fs::write(&pod.dir, "a file").unwrap();
    everything(&pod).refused("ADD", 5, "write the backup");
    everything(&pod).run("DEL").unwrap();
    assert_eq!((pod.link().as_str(), pod.sh(SOMAXCONN).as_str()), (UNTOUCHED, "4096"));
    fs::remove_file(&pod.dir).unwrap();
}

/// The backup has the values before both.
#[test]
fn two_in_one_chain() {
    let pod = Pod::new();
    let first = pod.call().with("mtu", 1420).with("sysctl", json!({"net.core.somaxconn": "500"}));
    let second = pod
        .call()
        .with("mtu", 1410)
        .with("txQLen", 5)
        .with("sysctl", json!({"net.core.somaxconn": "600", "net.ipv4.ip_default_ttl": "32"}));
    first.run("ADD").unwrap();
    second.with("mac", "00:00:00:00:00:00").refused("ADD", 100, "eth0");
    assert_eq!(
        (pod.link().as_str(), pod.sh(SOMAXCONN).as_str()),
        ("02:00:00:00:00:01 mtu 1420 qlen 1000", "500")
    );
    second.run("ADD").unwrap();
    assert_eq!(pod.link(), "02:00:00:00:00:01 mtu 1410 qlen 5");
    assert_eq!(pod.sh("cat /proc/sys/net/ipv4/ip_default_ttl"), "32");
    second.run("DEL").unwrap();
    first.run("DEL").unwrap();
    assert_eq!((pod.link().as_str(), pod.sh(SOMAXCONN).as_str()), (UNTOUCHED, "4096"));
    assert_eq!(pod.sh("cat /proc/sys/net/ipv4/ip_default_ttl"), "64");
    assert!(pod.files().is_empty());
}

/// All networks of a pod share the sysctls, so a later change is kept.
#[test]
fn a_sysctl_that_was_changed_later_is_not_restored() {
    let pod = Pod::new();
    let call = pod.call().with("sysctl", json!({"net.core.somaxconn": "500"}));
    call.run("ADD").unwrap();
    pod.sh("echo 700 > /proc/sys/net/core/somaxconn");
    call.run("DEL").unwrap();
    assert_eq!(pod.sh(SOMAXCONN), "700");
}

/// Forwarding of the namespace sets forwarding of all interfaces; one of them is set differently.
#[test]
fn a_sysctl_that_changes_others() {
    let pod = Pod::new();
    let forwarding = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/eth0/forwarding";
    let sysctl = json!({"net.ipv4.ip_forward": "1", "net.ipv4.conf.IFNAME.forwarding": "0"});
    let call = pod.call().with("sysctl", sysctl);
    call.run("ADD").unwrap();
    assert_eq!(pod.sh(forwarding), "1\n0");
    call.run("CHECK").unwrap();
    call.run("DEL").unwrap();
    assert_eq!(pod.sh(forwarding), "0\n0");
}

/// It cannot be read before it is set, and cannot be unset.
#[test]
fn a_sysctl_without_a_value() {
    let pod = Pod::new();
    let secret = json!({"net.ipv6.conf.IFNAME.stable_secret": "2001:db8::1"});
    let call = pod.call().with("sysctl", secret).with("mtu", 1400);
    call.run("ADD").unwrap();
    let now = pod.sh("cat /proc/sys/net/ipv6/conf/eth0/stable_secret");
    assert_eq!(now, "2001:0db8:0000:0000:0000:0000:0000:0001");
    call.run("CHECK").unwrap();
    call.run("DEL").unwrap();
    assert_eq!(pod.link(), UNTOUCHED);
}

/// With an MTU below 1280 bytes, an interface has no IPv6 and no sysctls of it.
#[test]
fn a_small_mtu_removes_sysctls() {
    let pod = Pod::new();
    let sysctl = json!({"net.ipv6.conf.IFNAME.hop_limit": "9", "net.core.somaxconn": "500"});
    let call = pod.call().with("mtu", 1000).with("sysctl", sysctl);
    call.run("ADD").unwrap();
    pod.sh("test ! -e /proc/sys/net/ipv6/conf/eth0");
    call.run("DEL").unwrap();
    assert_eq!((pod.link().as_str(), pod.sh(SOMAXCONN).as_str()), (UNTOUCHED, "4096"));
    assert_eq!(pod.sh("cat /proc/sys/net/ipv6/conf/eth0/hop_limit"), "64");
}
