//! What DEL and GC remove if parts of a pod no longer exist, and what STATUS reports. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use cni::{Args, Call, Command, Environment, Network, Plugin, Version};
use common::Pod;
use serde_json::{Value, json};
use testbed::in_new_netns;
use tuning::Tuning;
use tuning::wanted::Wanted;

#[test]
fn del_without_a_namespace_removes_the_backup() {
    let pod = Pod::new();
    let call = pod.call().with("mtu", 1420);
    for netns in ["", "/run/netns/tuning-nobody", "/proc/self/status"] {
        call.run("ADD").unwrap();
        assert_eq!(pod.files(), ["c1_eth0.json"]);
        let del = common::Call { netns: netns.into(), ..pod.call() };
        del.run("DEL").unwrap();
        assert!(pod.files().is_empty(), "{netns}");
        del.run("DEL").unwrap();
    }
}

#[test]
fn del_after_the_interface_was_deleted() {
    let pod = Pod::new();
    let sysctl = json!({"net.core.somaxconn": "500", "net.ipv4.conf.IFNAME.arp_notify": "1"});
    let call = pod.call().with("mtu", 1420).with("sysctl", sysctl);
    call.run("ADD").unwrap();
    pod.sh("ip link del eth0");
    call.run("DEL").unwrap();
    assert_eq!(pod.sh("cat /proc/sys/net/core/somaxconn"), "4096");
    assert!(pod.files().is_empty());
}

/// An ADD was killed after the backup, before or during the changes.
#[test]
fn del_after_half_an_add() {
    let pod = Pod::new();
    let call = pod.call().with("mtu", 1420).with("sysctl", json!({"net.core.somaxconn": "500"}));
    call.run("ADD").unwrap();
    pod.sh("ip link set eth0 mtu 1500");
    fs::write(pod.dir.join(".n:c1:eth0.new"), "{").unwrap();
    call.run("DEL").unwrap();
    assert_eq!(pod.link(), "02:00:00:00:00:01 mtu 1500 qlen 1000");
    assert_eq!(pod.sh("cat /proc/sys/net/core/somaxconn"), "4096");
    assert!(pod.files().is_empty());
}

/// Names that are too long for the file that is being written, or for the backup itself.
#[test]
fn long_names() {
    let pod = Pod::new();
    let call = pod.call().with("mtu", 1420).with("name", "n".repeat(250));
    call.run("DEL").unwrap();
    call.run("ADD").unwrap();
    assert_eq!(pod.files(), ["c1_eth0.json"]);
    call.run("CHECK").unwrap();
    call.run("DEL").unwrap();
    assert!(pod.files().is_empty());

    let container_id = "c".repeat(250).leak();
    let call = common::Call { container_id, ..pod.call().with("mtu", 1420) };
    call.refused("ADD", 5, "too long");
    assert_eq!(pod.link(), "02:00:00:00:00:01 mtu 1500 qlen 1000");
    call.run("DEL").unwrap();
    assert!(pod.files().is_empty());
}

#[test]
fn only_root_can_write_to_the_directory() {
    let pod = Pod::new();
    pod.call().with("mtu", 1420).run("ADD").unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(pod.dir.clone()), 0o755);
    assert_eq!(mode(pod.dir.join("c1_eth0.json")), 0o600);
}

#[test]
fn gc_removes_what_is_known_to_be_garbage() {
    let pod = Pod::new();
    for (network, container_id) in [("n", "dead"), ("n", "live"), ("other", "their-own")] {
        let call = common::Call { container_id, ..pod.call().with("mtu", 1420) };
        call.with("name", network).run("ADD").unwrap();
        pod.sh("ip link set eth0 mtu 1500");
    }
    // A file that a killed plugin was writing, one of the reference plugin, and one without an owner.
    for (name, text) in [
        (".n:dead:eth0.new", ""),
        (".n:live:eth0.new", ""),
        (".other:dead:eth0.new", ""),
        ("go_eth0.json", "{\n \"mtu\": 1500\n}"),
        ("broken.json", "{"),
        ("README", "hands off"),
    ] {
        fs::write(pod.dir.join(name), text).unwrap();
    }
    fs::create_dir(pod.dir.join("dir.json")).unwrap();
    let valid = json!([{"containerID": "live", "ifname": "eth0"}]);
    let gc = pod.call().with("cni.dev/valid-attachments", valid);
    gc.run("GC").unwrap();
    assert_eq!(
        pod.files(),
        [
            ".n:live:eth0.new",
            ".other:dead:eth0.new",
            "README",
            "broken.json",
            "dir.json",
            "go_eth0.json",
            "live_eth0.json",
            "their-own_eth0.json",
        ]
    );
    let nowhere = gc.with("dataDir", "/run/tuning-nowhere");
    nowhere.run("GC").unwrap();
}

/// The interface was attached to another network before the DEL of the first one.
#[test]
fn del_leaves_another_networks_backup() {
    let pod = Pod::new();
    pod.call().with("mtu", 1420).with("name", "other").run("ADD").unwrap();
    pod.call().run("DEL").unwrap();
    assert_eq!(pod.link(), "02:00:00:00:00:01 mtu 1420 qlen 1000");
    pod.call().with("name", "other").run("DEL").unwrap();
    assert_eq!(pod.link(), "02:00:00:00:00:01 mtu 1500 qlen 1000");
    assert!(pod.files().is_empty());
}

#[test]
fn status_tests_the_directory() {
    let pod = Pod::new();
    let call = pod.call().with("mtu", 1420);
    call.run("STATUS").unwrap();
    call.with("dataDir", "/proc/sys/tuning").refused("STATUS", 50, "/proc/sys/tuning");
    pod.call().with("dataDir", "/proc/sys/tuning").run("STATUS").unwrap();
    call.with("mtu", 5).refused("STATUS", 7, "mtu");
}

/// A command that gets the settings.
type What = fn(&Tuning, &Call<tuning::Config>, &Wanted) -> Result<(), cni::Error>;

/// Uses the library, because the path of the file can be changed there.
#[test]
fn the_allowlist() {
    let pod = Pod::new();
    fs::create_dir(&pod.dir).unwrap();
    let tuning = Tuning { allowlist: pod.dir.join("allowlist.conf") };
    let sysctl = json!({"net.core.somaxconn": "500"});
    let run = |keys: Value, what: What| {
        let mut configuration = pod.call().network;
        configuration.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        let stdin = configuration.to_string().into_bytes();
        let network = Network::read(Command::Add, stdin, Version::V1_1_0, Vec::new()).unwrap();
        let environment = Environment {
            container_id: "c1".parse().unwrap(),
            ifname: "eth0".parse().unwrap(),
            netns: Some(pod.path().into()),
            args: Args::default(),
        };
        let (tuning, call) = (tuning.clone(), Call { network, environment });
        // A namespace is a path of this process's descriptors, so the plugin runs in this process.
        in_new_netns(|| {
            let wanted = tuning.settings(&call.network, Some(&call.environment))?;
            what(&tuning, &call, &wanted)
        })
    };
    let add = |tuning: &Tuning, call: &Call<_>, wanted: &Wanted| tuning.add(call, wanted).map(drop);
    let check = |tuning: &Tuning, call: &Call<_>, wanted: &Wanted| tuning.check(call, wanted);
    let status =
        |tuning: &Tuning, call: &Call<_>, wanted: &Wanted| tuning.status(&call.network, wanted);
    let write = |text: &str| fs::write(&tuning.allowlist, text).unwrap();

    write("^net\\.ipv4\\.\n");
    for what in [add, status] {
        let error = run(json!({"sysctl": sysctl}), what).unwrap_err();
        assert_eq!(u32::from(error.code), 7, "{error}");
        assert!(error.msg.contains("\"sysctl.net.core.somaxconn\""), "{error}");
        run(json!({"sysctl": {}}), what).unwrap();
    }
    assert_eq!(pod.sh("cat /proc/sys/net/core/somaxconn"), "4096");
    // CHECK does not read the allowlist.
    pod.sh("echo 500 > /proc/sys/net/core/somaxconn");
    run(json!({"sysctl": sysctl}), check).unwrap();
    pod.sh("echo 4096 > /proc/sys/net/core/somaxconn");

    write("net.ipv4.(\n");
    let error = run(json!({"sysctl": sysctl}), add).unwrap_err();
    assert!(error.to_string().contains("line 1"), "{error}");
    run(json!({"sysctl": {}}), add).unwrap();

    write("^net\\.ipv4\\.\n^net\\.core\\.somax\n");
    run(json!({"sysctl": sysctl}), add).unwrap();
    assert_eq!(pod.sh("cat /proc/sys/net/core/somaxconn"), "500");
}
