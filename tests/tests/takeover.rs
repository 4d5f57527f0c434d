//! A node that changes from the Go plugins to ours, or back, while pods run.
//!
//! Debian's version 1.1.1 stands for an installed one, 1.10.0 for the newest.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::thread;

use serde_json::{Value, json};
use tests::configs::{
    POD_SUBNET, POD_SUBNET6, bandwidth, bridge, firewall, host_local, port, portmap, ptp, tuning,
    with,
};
use tests::{Chain, NODE, Needs, Plugins, Pod, Suite, World, call, differences, netns_path};

const BOTH_FAMILIES: [&str; 2] = [POD_SUBNET, POD_SUBNET6];
const ALL: [&str; 7] =
    ["bandwidth", "bridge", "firewall", "host-local", "loopback", "portmap", "ptp"];

fn main() -> ExitCode {
    let ours = Plugins::ours();
    let mut suite = Suite::new();
    // Debian's version has only one backend.
    let backends =
        [(Plugins::debian(), &["iptables"][..]), (Plugins::go(), &["iptables", "nftables"])];
    for (theirs, backends) in backends {
        let needs = Needs::plugins(&ours, &ALL).and(&theirs, &ALL).tools(&["iptables"]);
        let attaching = [bridge(&BOTH_FAMILIES), ptp(&BOTH_FAMILIES)];
        let by = |backend: &&str| {
            let with_backend = |it: &Value| with(it.clone(), &json!({"ipMasqBackend": backend}));
            attaching.iter().map(with_backend).collect::<Vec<_>>()
        };
        for first in backends.iter().flat_map(by) {
            let mut case_of = |backend: &str, name: &str, test: Test| {
                let portmap = with(portmap(), &json!({"backend": backend}));
                // These bursts are not a whole number of microseconds, and both must round them alike.
                let network = [first.clone(), portmap, bandwidth(3, 7)];
                let (ours, theirs) = (ours.clone(), theirs.clone());
                let (kind, masquerade) = (&first["type"], &first["ipMasqBackend"]);
                let name = format!("{}::{kind}::{masquerade}::{backend}::{name}", theirs.label);
                suite.case(&name.replace('"', ""), &needs, move || test(&network, &ours, &theirs));
            };
            // Each has its own table; theirs is emptied by the DEL of its pods.
            if first["ipMasqBackend"] == "nftables" {
                let mut case = |name, test| case_of("nftables", name, test);
                case("we_delete_what_they_added", |it, ours, theirs| hand_over(it, theirs, ours));
                case("we_delete_by_names_what_they_added", we_delete_by_names_what_they_added);
            }
            let mut case = |name, test| case_of("iptables", name, test);
            case("they_delete_what_we_added", hand_over);
            case("we_delete_what_they_added", |it, ours, theirs| hand_over(it, theirs, ours));
            case("they_check_what_we_added", check);
            case("we_check_what_they_added", |it, ours, theirs| check(it, theirs, ours));
            case("we_delete_by_names_what_they_added", we_delete_by_names_what_they_added);
        }
        for (name, test) in FIREWALL {
            let network = [bridge(&BOTH_FAMILIES), portmap(), firewall()];
            let (ours, theirs) = (ours.clone(), theirs.clone());
            let name = format!("{}::firewall::{name}", theirs.label);
            suite.case(&name, &needs, move || test(&network, &ours, &theirs));
        }
        let mut case = |name: &str, needs: &Needs, test: fn(&Plugins, &Plugins)| {
            let (ours, theirs) = (ours.clone(), theirs.clone());
            suite.case(&format!("{}::{name}", theirs.label), needs, move || test(&ours, &theirs));
        };
        case("both_share_a_directory", &needs, both_share_a_directory);
        case("bandwidth::they_check_long_bursts_of_ours", &needs, long_bursts);
        let by_us = |ours: &Plugins, theirs: &Plugins| long_bursts(theirs, ours);
        case("bandwidth::we_check_long_bursts_of_theirs", &needs, by_us);
        let needs = Needs::plugins(&ours, &["tuning"]).and(&theirs, &["tuning"]);
        case("tuning::they_put_back_what_we_changed", &needs, put_back);
        case("tuning::we_put_back_what_they_changed", &needs, |it, theirs| put_back(theirs, it));
        case("tuning::we_forget_what_they_remember", &needs, forget);
    }
    suite.run()
}

/// The directions of the change. The rules of the Go plugin do not name their owners.
const FIREWALL: [(&str, Test); 4] = [
    ("they_delete_what_we_added", hand_over),
    ("we_delete_what_they_added", |it, ours, theirs| hand_over(it, theirs, ours)),
    ("they_check_what_we_added", check),
    ("we_check_what_they_added", |it, ours, theirs| check(it, theirs, ours)),
];

/// A case for a network with the plugins of both.
type Test = fn(&[Value; 3], &Plugins, &Plugins);

fn chain<'a>(network: &[Value; 3], world: &'a World, plugins: &Plugins) -> Chain<'a> {
    let ports = json!([port("tcp", 8080, 80), port("udp", 5353, 53)]);
    Chain::new(world, plugins, network).ports(&ports)
}

/// One adds two pods and the other deletes one: the node is as if the first had done both.
fn hand_over(network: &[Value; 3], adder: &Plugins, deleter: &Plugins) {
    let (pod, other) = (Pod::new("pod-a"), Pod::new("pod-b"));
    let after_del_by = |deleter: &Plugins| {
        let world = World::new(&["pod-a", "pod-b"]);
        let chain = chain(network, &world, adder);
        chain.add(&pod);
        chain.add(&other);
        chain.with(deleter).del(&pod);
        world.snapshot()
    };
    let [before, after] = [adder, deleter].map(|deleter| without_guard(after_del_by(deleter)));
    assert_same(&before, &after);
}

/// A snapshot without the containers' rules in portmap's guard of 127.0.0.0/8: DEL of the reference
/// plugin leaves them, and our next GC removes them.
fn without_guard(mut snapshot: Value) -> Value {
    if let Some(Value::Array(lines)) = snapshot.pointer_mut("/node/iptables/v4/mangle") {
        lines.retain(|line| !line.to_string().starts_with("\"-A CNI-HOSTPORT-GUARD "));
    }
    snapshot
}

/// One adds a pod; CHECK by the other one succeeds until something is removed.
///
/// Without portmap if Debian's plugins check: 1.1.1 fails for its own pods, because it expects rules
/// of both families in each of them.
fn check(network: &[Value; 3], adder: &Plugins, checker: &Plugins) {
    let world = World::new(&["pod-a"]);
    let chain = if checker == &Plugins::debian() {
        Chain::new(&world, adder, &network[..1])
    } else {
        chain(network, &world, adder)
    };
    let pod = Pod::new("pod-a");
    chain.add(&pod);
    let chain = chain.with(checker);
    chain.check(&pod);
    world.sh("pod-a", "ip route del default");
    assert!(chain.try_check(&pod).is_err(), "CHECK does not miss the default route");
}

/// One adds a pod with the burst that runtimes send by default; CHECK by the other one succeeds.
fn long_bursts(adder: &Plugins, checker: &Plugins) {
    for (ingress, egress) in [(10_000_000, 100_000), (4_999_999, 15_900_001)] {
        let limits = json!({
            "type": "bandwidth", "ingressRate": ingress, "ingressBurst": u32::MAX,
            "egressRate": egress, "egressBurst": u32::MAX,
        });
        let world = World::new(&["pod-a"]);
        let chain = Chain::new(&world, adder, &[bridge(&BOTH_FAMILIES), limits]);
        let pod = Pod::new("pod-a");
        chain.add(&pod);
        chain.check(&pod);
        chain.with(checker).check(&pod);
    }
}

/// They add a pod, its namespace vanishes, and our DEL gets only the names.
fn we_delete_by_names_what_they_added(network: &[Value; 3], ours: &Plugins, theirs: &Plugins) {
    let (pod, other) = (Pod::new("pod-a"), Pod::new("pod-b"));
    let undisturbed = World::new(&["pod-a", "pod-b"]);
    let chain_of_theirs = chain(network, &undisturbed, theirs);
    chain_of_theirs.add(&pod);
    chain_of_theirs.add(&other);
    chain_of_theirs.del(&pod);

    let world = World::new(&["pod-a", "pod-b"]);
    let chain = chain(network, &world, theirs);
    chain.add(&pod);
    chain.add(&other);
    world.remove_netns("pod-a");
    chain.with(ours).del_by_names(&pod.without_netns());
    assert_same(&undisturbed.snapshot(), &world.snapshot());
}

/// Eight at a time request addresses from one directory, four of each implementation.
fn both_share_a_directory(ours: &Plugins, theirs: &Plugins) {
    const AT_ONCE: usize = 8;
    const EACH: usize = 8;
    let world = World::new(&["pod-a"]);
    let config = json!({
        "cniVersion": "1.0.0", "name": "testnet", "type": "bridge",
        "ipam": host_local(&[POD_SUBNET, POD_SUBNET6]),
    });
    let pod = |thread, n| Pod { id: format!("pod-{thread}-{n}"), ..Pod::new("pod-a") };
    let run = |command, thread, n| {
        let plugins = if thread % 2 == 0 { ours } else { theirs };
        let call = call(plugins, "host-local", command, &pod(thread, n), &config);
        world.run(NODE, &call).success()
    };
    let everybody = |command| {
        thread::scope(|scope| {
            let asking = |thread| {
                let run = &run;
                scope.spawn(move || (0..EACH).map(|n| run(command, thread, n)).collect::<Vec<_>>())
            };
            let threads: Vec<_> = (0..AT_ONCE).map(asking).collect();
            threads.into_iter().flat_map(|t| t.join().unwrap()).collect::<Vec<_>>()
        })
    };

    let mut given = BTreeSet::new();
    for output in everybody("ADD") {
        let result = output.json();
        for family in 0..2 {
            let address = result["ips"][family]["address"].as_str().unwrap().to_owned();
            assert!(given.insert(address.clone()), "{address} was given out twice\n{output}");
        }
    }
    assert_eq!(given.len(), AT_ONCE * EACH * 2);
    everybody("DEL");
    let state = world.snapshot();
    let leases: Vec<_> =
        state["files"].as_object().unwrap().keys().filter(|f| f.contains("/10.88")).collect();
    assert!(leases.is_empty(), "leases are left: {leases:?}");
}

/// One changes an interface; CHECK and DEL of the other one work. Sysctls stay: the Go plugin does not
/// save or restore their values.
fn put_back(adder: &Plugins, deleter: &Plugins) {
    let (world, pod, config) = tuned();
    let link = |world: &World| world.snapshot_of(&["pod-a"])["pod-a"]["links"].clone();
    let untouched = link(&world);
    let run = |plugins, command| {
        world.run(NODE, &call(plugins, "tuning", command, &pod, &config)).success()
    };
    drop(run(adder, "ADD"));
    assert_ne!(link(&world), untouched);
    drop(run(deleter, "CHECK"));
    drop(run(deleter, "DEL"));
    assert_same(&untouched, &link(&world));
    assert_same(&json!({}), &backups(&world));
    assert_eq!(world.sh("pod-a", "cat /proc/sys/net/core/somaxconn"), "500\n");
}

/// They change an interface and its namespace vanishes: they would keep the backup, we remove it.
fn forget(ours: &Plugins, theirs: &Plugins) {
    let (world, pod, config) = tuned();
    drop(world.run(NODE, &call(theirs, "tuning", "ADD", &pod, &config)).success());
    assert_eq!(backups(&world).as_object().unwrap().len(), 1);
    world.remove_netns("pod-a");
    let pod = pod.without_netns();
    drop(world.run(NODE, &call(ours, "tuning", "DEL", &pod, &config)).success());
    assert_same(&json!({}), &backups(&world));
}

/// A pod with an interface, and its tuning configuration.
fn tuned() -> (World, Pod, Value) {
    let world = World::new(&["pod-a"]);
    world.sh("pod-a", "ip link add eth0 type veth peer name peer");
    let interface = json!({"name": "eth0", "sandbox": netns_path("pod-a")});
    let more = json!({
        "cniVersion": "1.0.0", "name": "testnet",
        "prevResult": {"cniVersion": "1.0.0", "interfaces": [interface]},
    });
    (world, Pod::new("pod-a"), with(tuning(), &more))
}

fn backups(world: &World) -> Value {
    let mut state = world.snapshot_of(&[]);
    let files = state["files"].as_object_mut().unwrap();
    files.retain(|path, _| path.ends_with("_eth0.json"));
    state["files"].take()
}

#[track_caller]
fn assert_same(expected: &Value, found: &Value) {
    let differences: Vec<_> =
        differences(expected, found).iter().map(ToString::to_string).collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
