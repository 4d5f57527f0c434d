//! macvlan: what ADD makes, what CHECK finds, and what is left. The master on the node and the interface of
//! the pod are both `eth0`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::ExitCode;
use std::thread;

use serde_json::{Value, json};
use tests::configs::{POD_SUBNET, POD_SUBNET6, host_local, with};
use tests::{Chain, Known, NODE, Needs, Plugins, Pod, STATE_DIR, Suite, World};

const ALL: [&str; 3] = ["macvlan", "host-local", "static"];

fn main() -> ExitCode {
    let mut suite = Suite::new();
    let mut both = |name, go_fails, test: fn(&Plugins)| {
        suite.both(name, go_fails, |it| Needs::plugins(it, &ALL), test);
    };
    let known = |why, text| Some(Known::new(why, text));
    both("a_pod_on_the_network_of_a_link", None, a_pod_on_the_network_of_a_link);
    both("modes", None, modes);
    both("without_ipam", None, without_ipam);
    both("the_default_route_has_the_master", None, the_default_route_has_the_master);
    both("a_master_in_the_pod", None, a_master_in_the_pod);
    both("hardware_addresses", None, hardware_addresses);
    both("wrong_values_change_nothing", None, wrong_values_change_nothing);
    both(
        "an_add_that_fails_leaves_nothing",
        known("the interface stays", "assertion `left == right` failed"),
        an_add_that_fails_leaves_nothing,
    );
    both(
        "check_finds_what_was_changed",
        known("CHECK does not compare the MTU", "called `Result::unwrap_err()` on an `Ok`"),
        check_finds_what_was_changed,
    );
    both(
        "check_without_a_default_route",
        known("CHECK looks for the default route", "CHECK failed"),
        check_without_a_default_route,
    );
    both("del_does_not_need_the_master", None, del_does_not_need_the_master);
    both(
        "a_master_in_use",
        known("the error does not say what is wrong", "does not say"),
        a_master_in_use,
    );
    both("an_address_of_another_machine", None, an_address_of_another_machine);
    both("a_pod_after_another_one", None, a_pod_after_another_one);
    both("many_pods_at_once", None, many_pods_at_once);
    let ours = Plugins::ours();
    suite.case("gc_and_status", &Needs::plugins(&ours, &ALL), move || gc_and_status(&ours));
    let (ours, go) = (Plugins::ours(), Plugins::go());
    suite.case("takeover", &Needs::plugins(&ours, &ALL).and(&go, &ALL), move || {
        a_node_changes_over(&ours, &go);
        a_node_changes_over(&go, &ours);
    });
    suite.run()
}

/// A node whose link `eth0` leads to a router.
fn world(pods: &[&str]) -> World {
    let world = World::new(&[&["outside"], pods].concat());
    let addresses: &[&str] = &["10.88.0.1/24", "fd00:88::1/64"];
    world.connect((NODE, "eth0", &[]), ("outside", "eth0", addresses));
    world
}

fn network<'a>(world: &'a World, plugins: &Plugins, keys: &Value) -> Chain<'a> {
    let ipam = host_local(&[POD_SUBNET, POD_SUBNET6]);
    let config = json!({"type": "macvlan", "master": "eth0", "ipam": ipam});
    Chain::new(world, plugins, &[with(config, keys)])
}

/// An interface as `ip` shows it.
fn link(world: &World, netns: &str, ifname: &str) -> Value {
    let shown = world.sh(netns, &format!("ip -details -json addr show {ifname}"));
    serde_json::from_str::<Value>(&shown).unwrap()[0].take()
}

/// The number of links in the pod and of reserved addresses.
fn left(world: &World) -> (String, String) {
    let find = format!("find {STATE_DIR}/ipam -name '10.*' -o -name 'fd00*' | wc -l");
    (world.sh("pod-a", "ip -oneline link | wc -l"), world.sh(NODE, &find))
}

fn nothing() -> (String, String) {
    ("1\n".to_owned(), "0\n".to_owned())
}

fn a_pod_on_the_network_of_a_link(plugins: &Plugins) {
    let world = world(&["pod-a"]);
    let pod = Pod::new("pod-a");
    let chain = network(&world, plugins, &json!({"mtu": 1400, "bcqueuelen": 500}));
    let result = chain.add(&pod);
    let link = link(&world, "pod-a", "eth0");
    assert_eq!(link["linkinfo"]["info_kind"], "macvlan", "{link}");
    assert_eq!(link["linkinfo"]["info_data"]["mode"], "bridge", "{link}");
    assert_eq!(link["linkinfo"]["info_data"]["bcqueuelen"], 500, "{link}");
    assert_eq!(link["mtu"], 1400, "{link}");
    assert!(!link.to_string().contains("tentative"), "{link}");

    let interfaces = result["interfaces"].as_array().unwrap();
    assert_eq!(interfaces.len(), 1, "{result}");
    assert_eq!((&interfaces[0]["name"], &interfaces[0]["mac"]), (&json!("eth0"), &link["address"]));
    assert_eq!(interfaces[0]["sandbox"], tests::netns_path("pod-a"));
    for ip in result["ips"].as_array().unwrap() {
        assert_eq!(ip["interface"], 0, "{result}");
    }
    world.sh("pod-a", "ping -c 1 -W 2 10.88.0.1 && ping -c 1 -W 2 fd00:88::1");
    chain.check(&pod);
    chain.del(&pod);
    assert_eq!(left(&world), nothing());
    chain.del(&pod);
}

fn modes(plugins: &Plugins) {
    for (mode, reaches) in [("bridge", true), ("private", false), ("vepa", false)] {
        let world = world(&["pod-a", "pod-b"]);
        let chain = network(&world, plugins, &json!({"mode": mode}));
        for pod in ["pod-a", "pod-b"] {
            chain.add(&Pod::new(pod));
            assert_eq!(link(&world, pod, "eth0")["linkinfo"]["info_data"]["mode"], mode);
            chain.check(&Pod::new(pod));
        }
        let reached = world.sh("pod-a", "ping -c 1 -W 1 10.88.0.3 >&2 && echo yes || echo no");
        assert_eq!(reached == "yes\n", reaches, "{mode}");
    }
    let world = world(&["pod-a"]);
    network(&world, plugins, &json!({"mode": "passthru"})).add(&Pod::new("pod-a"));
    let (inside, master) = (link(&world, "pod-a", "eth0"), link(&world, NODE, "eth0"));
    assert_eq!(inside["linkinfo"]["info_data"]["mode"], "passthru", "{inside}");
    assert_eq!(inside["address"], master["address"]);
}

fn without_ipam(plugins: &Plugins) {
    let world = world(&["pod-a"]);
    let pod = Pod::new("pod-a");
    let chain = network(&world, plugins, &json!({"ipam": {}}));
    let result = chain.add(&pod);
    assert!(result["ips"].is_null() || result["ips"] == json!([]), "{result}");
    let link = link(&world, "pod-a", "eth0");
    assert!(link["flags"].as_array().unwrap().contains(&json!("UP")), "{link}");
    world.sh("pod-a", "ip addr add 10.88.0.9/24 dev eth0 && ping -c 1 -W 2 10.88.0.1");
    chain.check(&pod);
    chain.del(&pod);
    assert_eq!(left(&world), nothing());
}

fn the_default_route_has_the_master(plugins: &Plugins) {
    let world = world(&["pod-a"]);
    world.sh(NODE, "ip addr add 192.0.2.1/24 dev eth0 && ip route add default via 192.0.2.2");
    let chain = network(&world, plugins, &json!({"master": ""}));
    chain.add(&Pod::new("pod-a"));
    world.sh("pod-a", "ping -c 1 -W 2 10.88.0.1");
    chain.check(&Pod::new("pod-a"));
}

fn a_master_in_the_pod(plugins: &Plugins) {
    let world = world(&["pod-a"]);
    world.connect(("pod-a", "net0", &[]), ("outside", "net0", &[]));
    let pod = Pod::new("pod-a");
    let chain = network(&world, plugins, &json!({"master": "net0", "linkInContainer": true}));
    chain.add(&pod);
    assert_eq!(link(&world, "pod-a", "eth0")["link"], "net0");
    chain.check(&pod);
    chain.del(&pod);
    assert_eq!(left(&world), ("2\n".to_owned(), "0\n".to_owned()));
}

fn hardware_addresses(plugins: &Plugins) {
    let world = world(&["pod-a"]);
    let pod = Pod::new("pod-a");
    let runtime = json!({"mac": "c2:00:00:00:00:02"});
    for (keys, mac) in [
        (json!({"mac": "c2:00:00:00:00:01"}), "c2:00:00:00:00:01"),
        (json!({"mac": "c2:00:00:00:00:01", "runtimeConfig": runtime}), "c2:00:00:00:00:02"),
    ] {
        let chain = network(&world, plugins, &keys);
        assert_eq!(chain.add(&pod)["interfaces"][0]["mac"], mac);
        assert_eq!(link(&world, "pod-a", "eth0")["address"], mac);
        chain.check(&pod);
        chain.del(&pod);
    }
}

fn wrong_values_change_nothing(plugins: &Plugins) {
    let world = world(&["pod-a"]);
    for keys in [
        json!({"master": "eth9"}),
        json!({"master": ""}),
        json!({"mode": "source"}),
        json!({"mtu": 1501}),
        json!({"mac": "c2:00"}),
    ] {
        drop(network(&world, plugins, &keys).try_add(&Pod::new("pod-a")).unwrap_err());
        assert_eq!(left(&world), nothing(), "{keys}");
    }
}

fn an_add_that_fails_leaves_nothing(plugins: &Plugins) {
    let world = world(&["pod-a"]);
    let pod = Pod::new("pod-a");
    let mut ipam = host_local(&[POD_SUBNET]);
    ipam["routes"] = json!([{"dst": "192.0.2.0/24", "gw": "203.0.113.1"}]);
    drop(network(&world, plugins, &json!({"ipam": ipam})).try_add(&pod).unwrap_err());
    assert_eq!(left(&world), nothing());
    let ipam = json!({"type": "static", "addresses": []});
    drop(network(&world, plugins, &json!({"ipam": ipam})).try_add(&pod).unwrap_err());
    assert_eq!(left(&world), nothing());
}

fn check_finds_what_was_changed(plugins: &Plugins) {
    let world = world(&["pod-a"]);
    let pod = Pod::new("pod-a");
    let chain = network(&world, plugins, &json!({"mtu": 1400}));
    for spoil in [
        "ip addr del 10.88.0.2/24 dev eth0",
        "ip link set eth0 address c2:00:00:00:00:09",
        "ip link set eth0 type macvlan mode private",
        "ip link del eth0",
        "ip link del eth0; ip link add eth0 up type veth peer name eth1",
        "ip route del default",
        "ip link set eth0 mtu 1300",
    ] {
        chain.add(&pod);
        chain.check(&pod);
        world.sh("pod-a", spoil);
        let error = chain.try_check(&pod).unwrap_err().json();
        assert!(error["msg"].is_string(), "{spoil}: {error}");
        world.sh("pod-a", "ip link del eth0 2>/dev/null || true");
        chain.del(&pod);
    }
}

fn check_without_a_default_route(plugins: &Plugins) {
    let world = world(&["pod-a"]);
    world.sh(NODE, "ip addr add 192.0.2.1/24 dev eth0 && ip route add default via 192.0.2.2");
    let pod = Pod::new("pod-a");
    let chain = network(&world, plugins, &json!({"master": ""}));
    chain.add(&pod);
    world.sh(NODE, "ip route del default");
    assert!(chain.try_check(&pod).is_ok(), "CHECK failed");
}

fn del_does_not_need_the_master(plugins: &Plugins) {
    let world = world(&["pod-a"]);
    let pod = Pod::new("pod-a");
    let chain = network(&world, plugins, &json!({}));
    chain.add(&pod);
    world.sh(NODE, "ip link del eth0");
    chain.del(&pod);
    assert_eq!(left(&world), nothing());
    chain.del_by_names(&pod.without_netns());
}

fn a_master_in_use(plugins: &Plugins) {
    let world = world(&["pod-a"]);
    world.sh(NODE, "ip link add br0 type bridge && ip link set eth0 master br0");
    let error = network(&world, plugins, &json!({})).try_add(&Pod::new("pod-a")).unwrap_err();
    assert_eq!(left(&world), nothing());
    let error = error.json().to_string();
    assert!(error.contains("port of a bridge"), "{error} does not say what is wrong");
}

/// ADD finds out that another machine has the IPv6 address.
fn an_address_of_another_machine(plugins: &Plugins) {
    let world = world(&["pod-a"]);
    world.sh("outside", "ip addr add fd00:88::2/64 dev eth0 nodad");
    drop(network(&world, plugins, &json!({})).try_add(&Pod::new("pod-a")).unwrap_err());
    assert_eq!(left(&world).1, "0\n");
}

/// The router remembers the hardware address of a pod that had the address before. ADD announces the new one.
fn a_pod_after_another_one(plugins: &Plugins) {
    let world = world(&["pod-a", "pod-b"]);
    let chain = network(&world, plugins, &json!({"ipam": fixed()}));
    for pod in ["pod-a", "pod-b"] {
        chain.add(&Pod::new(pod));
        world.sh("outside", "ping -c 1 -W 1 10.88.0.2 && ping -c 1 -W 1 fd00:88::2");
        chain.del(&Pod::new(pod));
    }
}

/// The same addresses for each pod.
fn fixed() -> Value {
    let addresses = [("10.88.0.2/24", "10.88.0.1"), ("fd00:88::2/64", "fd00:88::1")];
    let addresses =
        addresses.map(|(address, gateway)| json!({"address": address, "gateway": gateway}));
    json!({"type": "static", "addresses": addresses})
}

fn many_pods_at_once(plugins: &Plugins) {
    let names: Vec<String> = (0..16).map(|number| format!("pod-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let world = world(&names);
    let chain = network(&world, plugins, &json!({"ipam": host_local(&[POD_SUBNET])}));
    thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| chain.add(&Pod::new(name)));
        }
    });
    for name in &names {
        chain.check(&Pod::new(name));
    }
    let links = world.sh(NODE, "ip -oneline link | wc -l");
    assert_eq!(links, "2\n", "a link is left on the node");
}

fn gc_and_status(plugins: &Plugins) {
    let world = world(&["pod-a"]);
    let (a, b) = (Pod::new("pod-a"), Pod::new("pod-a").ifname("net1"));
    let chain = network(&world, plugins, &json!({})).network("testnet", "1.1.0");
    chain.add(&a);
    chain.add(&b);
    chain.gc(&[&a]);
    assert_eq!(left(&world).1, "2\n");
    chain.check(&a);
    chain.try_status().unwrap();
    let missing = network(&world, plugins, &json!({"master": "eth9"})).network("testnet", "1.1.0");
    let error = missing.try_status().unwrap_err().json();
    assert_eq!(error["code"], 50, "{error}");
    assert_eq!(world.sh(NODE, "ip -oneline link | wc -l"), "2\n");

    // A DEL of another network does not delete the interface.
    network(&world, plugins, &json!({"ipam": {}})).network("other", "1.1.0").del_by_names(&a);
    chain.check(&a);
}

fn a_node_changes_over(from: &Plugins, to: &Plugins) {
    let world = world(&["pod-a"]);
    let pod = Pod::new("pod-a");
    let before = network(&world, from, &json!({}));
    before.add(&pod);
    let after = before.with(to);
    after.check(&pod);
    after.del(&pod);
    assert_eq!(left(&world), nothing());
}
