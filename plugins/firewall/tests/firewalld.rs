//! The backend `firewalld`, with firewalld on a bus of each test. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use common::{config, firewall, names, reaches};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use testbed::routed::{client, on_a_node, pod};
use testbed::{Ended, cni_command, sh};

/// A bus and firewalld. Dropping this ends both.
struct Firewalld(Vec<Child>);

const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
    "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
    <type>system</type>
    <listen>unix:path=/run/dbus/system_bus_socket</listen>
    <auth>EXTERNAL</auth>
    <policy context="default">
        <allow user="*"/> <allow own="*"/> <allow eavesdrop="true"/>
        <allow send_destination="*" eavesdrop="true"/>
    </policy>
</busconfig>"#;

impl Firewalld {
    fn start() -> Self {
        let mut all = Self(Vec::new());
        all.run("dbus-daemon --config-file=/run/bus.conf --nofork --nopidfile");
        await_success("test -S /run/dbus/system_bus_socket");
        all.run("firewalld --nofork --nopid");
        await_success("firewall-cmd --state");
        all
    }

    fn run(&mut self, command: &str) {
        let words: Vec<&str> = command.split(' ').collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).stdout(Stdio::null()).stderr(Stdio::null());
        self.0.push(command.spawn().unwrap());
    }

    /// Ends firewalld with a signal.
    fn stop(&mut self, signal: &str) {
        let mut firewalld = self.0.pop().unwrap();
        sh(&format!("kill -{signal} {}", firewalld.id()));
        firewalld.wait().unwrap();
    }
}

impl Drop for Firewalld {
    fn drop(&mut self) {
        for child in self.0.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn await_success(command: &str) {
    let succeeds = || {
        sleep(Duration::from_millis(100));
        Command::new("sh").args(["-c", command]).output().unwrap().status.success()
    };
    assert!((0..300).any(|_| succeeds()), "{command} did not succeed in time");
}

/// Runs a test on a node with its own `/run` and its own configuration of firewalld.
fn on_a_node_with_firewalld(test: impl FnOnce(Firewalld) + Send + 'static) {
    if !Path::new("/usr/sbin/firewalld").exists() {
        testbed::skip("no /usr/sbin/firewalld");
        return;
    }
    on_a_node(move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        sh("mount --make-rprivate /; mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /etc/firewalld
            mkdir -p /run/dbus /run/lock");
        std::fs::write("/run/bus.conf", BUS).unwrap();
        test(Firewalld::start());
    });
}

fn sources(zone: &str) -> String {
    let listed = sh(&format!("firewall-cmd --zone={zone} --list-sources"));
    let mut all: Vec<&str> = listed.split_whitespace().collect();
    all.sort_unstable();
    all.join(" ")
}

fn records() -> usize {
    sh("nft list table inet podwire_firewall").matches("comment").count()
}

const BOTH: &str = "10.88.0.2/32 fd00:88::2/128";

/// A configuration without a backend, for a pod with another address.
fn at(address: &str) -> Value {
    let mut config = config(&json!({}));
    config["prevResult"]["ips"] = json!([{"address": address, "interface": 1}]);
    config
}

#[test]
fn a_pod_is_a_source_of_the_zone_from_add_to_del() {
    on_a_node_with_firewalld(|_firewalld| {
        let config = || config(&json!({}));
        firewall("STATUS", "", "", &names()).unwrap();
        firewall("ADD", "pod-a", "/x", &config()).unwrap();
        assert_eq!(sources("trusted"), BOTH);
        firewall("CHECK", "pod-a", "/x", &config()).unwrap();
        firewall("ADD", "pod-a", "/x", &config()).expect("already there is success");
        sh("firewall-cmd --zone=trusted --remove-source=fd00:88::2/128");
        let error = firewall("CHECK", "pod-a", "/x", &config()).unwrap_err();
        assert_eq!(error["code"], 101);
        let msg = error["msg"].as_str().unwrap();
        assert!(msg.ends_with("firewall-cmd --zone=trusted --add-source=fd00:88::2/128"), "{msg}");
        firewall("DEL", "pod-a", "", &names()).expect("names are enough");
        assert_eq!((sources("trusted"), records()), (String::new(), 0));
        firewall("DEL", "pod-a", "", &config()).expect("a second DEL finds nothing and succeeds");
        let error = firewall("CHECK", "pod-a", "/x", &config()).unwrap_err();
        assert_eq!(error["code"], 101);
    });
}

#[test]
fn sources_of_other_pods_stay() {
    on_a_node_with_firewalld(|_firewalld| {
        sh("firewall-cmd --zone=trusted --add-source=10.88.0.0/16");
        firewall("ADD", "pod-b", "/x", &at("10.88.0.3/24")).unwrap();
        let mut other = at("10.88.0.4/24");
        other["name"] = "other".into();
        firewall("ADD", "pod-c", "/x", &other).unwrap();
        let before = sources("trusted");
        assert_eq!(before, "10.88.0.0/16 10.88.0.3/32 10.88.0.4/32");
        // As the reference plugin makes it, without an owner.
        sh("firewall-cmd --zone=trusted --add-source=10.88.0.9/32");
        firewall("CHECK", "pod-x", "/x", &at("10.88.0.9/24")).expect("nothing is missing");
        firewall("DEL", "pod-x", "", &at("10.88.0.9/24")).unwrap();
        assert_eq!(sources("trusted"), before);
        firewall("DEL", "pod-x", "", &at("10.88.0.3/24")).unwrap();
        assert_eq!(sources("trusted"), before, "the address is another's");

        firewall("ADD", "pod-a", "/x", &at("10.88.0.5/24")).unwrap();
        let mut gc = names();
        gc["cni.dev/valid-attachments"] = json!([{"containerID": "pod-b", "ifname": "eth0"}]);
        firewall("GC", "", "", &gc).unwrap();
        assert_eq!((sources("trusted"), records()), (before, 2));
    });
}

#[test]
fn an_add_that_fails_leaves_nothing() {
    on_a_node_with_firewalld(|mut firewalld| {
        let named = |zone| config(&json!({"backend": "firewalld", "firewalldZone": zone}));
        // The second address is a source of another zone.
        sh("firewall-cmd --zone=public --add-source=fd00:88::2/128");
        let error = firewall("ADD", "pod-a", "/x", &named("internal")).unwrap_err();
        assert_eq!(error["code"], 102, "{error}");
        assert_eq!((sources("internal"), records()), (String::new(), 0));
        assert_eq!(sources("public"), "fd00:88::2/128");
        sh("firewall-cmd --zone=public --remove-source=fd00:88::2/128");

        let error = firewall("ADD", "pod-a", "/x", &named("nowhere")).unwrap_err();
        assert_eq!((&error["code"], records()), (&json!(7), 0));
        assert!(error["msg"].as_str().unwrap().contains("\"firewalldZone\""), "{error}");
        assert_eq!(firewall("STATUS", "", "", &named("nowhere")).unwrap_err()["code"], 50);

        firewall("ADD", "pod-a", "/x", &named("internal")).unwrap();
        assert_eq!(sources("internal"), BOTH);
        // The configuration may have changed.
        firewall("DEL", "pod-a", "", &names()).unwrap();
        assert_eq!(sources("internal"), "");

        firewall("ADD", "pod-a", "/x", &named("internal")).unwrap();
        // Its table stays in the kernel, its sources do not.
        firewalld.stop("KILL");
        let error = firewall("ADD", "pod-b", "/x", &at("10.88.0.3/24")).unwrap_err();
        assert_eq!(error["code"], 50);
        assert!(error["msg"].as_str().unwrap().contains("does not answer"), "{error}");
        assert_eq!(records(), 2);
        firewall("DEL", "pod-a", "", &named("internal")).unwrap();
        assert_eq!(records(), 0);
    });
}

/// An ADD that loses the answer of this number, from firewalld or the kernel.
fn add_with_loss(number: u32) -> Ended {
    let mut command = cni_command("/usr/bin/strace", "ADD", "pod-a", "/x");
    let inject = format!("inject=recvfrom:error=EIO:when={number}");
    command.args(["-o", "/dev/null", "-e", "trace=recvfrom", "-e", &inject]);
    let command = command.arg(env!("CARGO_BIN_EXE_firewall")).env("PATH", "/usr/sbin:/usr/bin");
    testbed::run(command, &config(&json!({})))
}

#[test]
fn an_add_whose_answer_is_lost_leaves_nothing() {
    on_a_node_with_firewalld(|_firewalld| {
        let mut lost = 0;
        while add_with_loss(lost + 1).is_err() {
            lost += 1;
            // firewalld has a rule for each source.
            let left = sh("nft list ruleset");
            assert!(!left.contains("10.88.0.2") && !left.contains("fd00:88::2"), "{lost}: {left}");
            assert!(lost < 200);
        }
        assert!(lost > 10, "{lost}: those of firewalld are among them");
        assert_eq!(sources("trusted"), BOTH);
    });
}

#[test]
fn a_purge_removes_the_sources() {
    on_a_node_with_firewalld(|_firewalld| {
        sh("firewall-cmd --zone=trusted --add-source=10.99.0.0/16");
        firewall("ADD", "pod-a", "/x", &config(&json!({}))).unwrap();
        let said = firewall::purge(true).unwrap();
        assert!(said.contains(&"firewalld: source 10.88.0.2".to_owned()), "{said:?}");
        assert_eq!(firewall::purge(false).unwrap(), said);
        assert_eq!(sources("trusted"), "10.99.0.0/16");
        assert!(!sh("nft list tables").contains("podwire"));
    });
}

#[test]
fn an_add_that_fails_changes_no_other_pod() {
    on_a_node_with_firewalld(|_firewalld| {
        let [mut same, mut elsewhere] = [at("10.88.0.2/24"), at("10.88.0.2/24")];
        for config in [&mut same, &mut elsewhere] {
            config["name"] = "other".into();
        }
        firewall("ADD", "pod-a", "/x", &at("10.88.0.2/24")).unwrap();
        let table = || sh("nft list table inet podwire_firewall");
        let before = table();
        elsewhere["firewalldZone"] = "internal".into();
        assert_eq!(firewall("ADD", "pod-b", "/x", &elsewhere).unwrap_err()["code"], 102);
        assert_eq!((sources("trusted"), table()), ("10.88.0.2/32".into(), before));

        // The second address is a source of another zone.
        sh("firewall-cmd --zone=public --add-source=10.88.0.9/32");
        let second = json!({"address": "10.88.0.9/24", "interface": 1});
        same["prevResult"]["ips"].as_array_mut().unwrap().push(second);
        assert_eq!(firewall("ADD", "pod-b", "/x", &same).unwrap_err()["code"], 102);
        assert_eq!(sources("trusted"), "10.88.0.2/32", "it is of pod-a");
        firewall("CHECK", "pod-a", "/x", &at("10.88.0.2/24")).unwrap();

        // An earlier ADD for the pod, with another zone.
        let mut again = at("10.88.0.2/24");
        again["firewalldZone"] = "internal".into();
        assert_eq!(firewall("ADD", "pod-a", "/x", &again).unwrap_err()["code"], 102);
        firewall("DEL", "pod-a", "", &names()).unwrap();
        assert_eq!((sources("trusted"), records()), (String::new(), 0));
    });
}

#[test]
fn packets_of_a_pod_are_accepted_and_bridges_isolated() {
    on_a_node_with_firewalld(|_firewalld| {
        let (pod, client) = (pod(), client());
        // As an ADD before the start of firewalld made it.
        let before = config(&json!({"backend": "iptables"}));
        firewall("ADD", "pod-a", &pod.path(), &before).unwrap();
        assert!(!reaches(&pod, "192.0.2.1") && !reaches(&pod, "2001:db8::1"));
        let error = firewall("CHECK", "pod-a", &pod.path(), &config(&json!({}))).unwrap_err();
        assert_eq!(error["code"], 101);
        let first = config(&json!({"ingressPolicy": "same-bridge"}));
        firewall("ADD", "pod-a", &pod.path(), &first).unwrap();
        assert!(reaches(&pod, "192.0.2.1") && reaches(&pod, "2001:db8::1"));
        // The other veth end is used as a bridge, too.
        let mut second = config(&json!({"ingressPolicy": "isolated", "name": "second"}));
        second["prevResult"]["interfaces"][0]["name"] = "uplink".into();
        second["prevResult"]["ips"] = json!([{"address": "192.0.2.1/24", "interface": 1}]);
        firewall("ADD", "pod-b", &client.path(), &second).unwrap();
        assert!(!reaches(&pod, "192.0.2.1") && !reaches(&client, "10.88.0.2"));
        assert!(!reaches(&pod, "2001:db8::1"));
    });
}
