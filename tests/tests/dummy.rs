//! dummy devices: what ADD makes, what CHECK finds, and what is left.
//!
//! If this machine's kernel does not have them, the cases run in a virtual machine.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::ExitCode;

use serde_json::{Value, json};
use tests::configs::{POD_SUBNET, POD_SUBNET6, host_local};
use tests::{Chain, Known, Needs, Plugins, Pod, STATE_DIR, Suite, World, vm};

const ALL: [&str; 3] = ["dummy", "host-local", "static"];

fn main() -> ExitCode {
    if vm::has_dummy_devices() {
        return with_dummy_devices(None);
    }
    vm::run_again().unwrap_or_else(|reason| with_dummy_devices(Some(&reason)))
}

fn with_dummy_devices(lack: Option<&str>) -> ExitCode {
    let mut suite = Suite::new();
    let mut both = |name, go_fails, test: fn(&Plugins)| {
        suite.both(name, go_fails, |it| Needs::plugins(it, &ALL).lacking(lack), test);
    };
    both("an_interface_with_addresses", None, an_interface_with_addresses);
    both("a_pod_without_ipv6_gets_it", None, a_pod_without_ipv6_gets_it);
    both(
        "check_finds_what_was_changed",
        Some(Known::new(
            "CHECK does not look at routes",
            "called `Result::unwrap_err()` on an `Ok`",
        )),
        check_finds_what_was_changed,
    );
    both("an_add_that_fails_leaves_nothing", None, an_add_that_fails_leaves_nothing);
    both(
        "del_needs_the_names_only",
        Some(Known::new("DEL needs an IPAM plugin", "no plugin name provided")),
        del_needs_the_names_only,
    );
    let ours = Plugins::ours();
    let needs = Needs::plugins(&ours, &ALL).lacking(lack);
    suite.case("gc_and_status", &needs, move || gc_and_status(&ours));
    let (ours, go) = (Plugins::ours(), Plugins::go());
    let needs = Needs::plugins(&ours, &ALL).and(&go, &ALL).lacking(lack);
    suite.case("takeover", &needs, move || {
        a_node_changes_over(&ours, &go);
        a_node_changes_over(&go, &ours);
    });
    suite.run()
}

fn network<'a>(world: &'a World, plugins: &Plugins, ipam: &Value) -> Chain<'a> {
    Chain::new(world, plugins, &[json!({"type": "dummy", "ipam": ipam})])
}

fn both_families() -> Value {
    let mut ipam = host_local(&[POD_SUBNET, POD_SUBNET6]);
    ipam["routes"] = json!([{"dst": "192.0.2.0/24"}, {"dst": "2001:db8::/64"}]);
    ipam
}

/// The pod's interface as `ip` shows it.
fn link(world: &World, ifname: &str) -> Value {
    let shown = world.sh("pod-a", &format!("ip -details -json addr show {ifname}"));
    serde_json::from_str::<Value>(&shown).unwrap()[0].take()
}

fn links(world: &World) -> String {
    world.sh("pod-a", "ip -oneline link | wc -l")
}

/// How many addresses are reserved.
fn leases(world: &World) -> String {
    let find = format!("find {STATE_DIR}/ipam -name '10.*' -o -name 'fd00*' | wc -l");
    world.sh(tests::NODE, &find)
}

fn an_interface_with_addresses(plugins: &Plugins) {
    let world = World::new(&["pod-a"]);
    let pod = Pod::new("pod-a");
    let chain = network(&world, plugins, &both_families());
    let result = chain.add(&pod);
    let link = link(&world, "eth0");
    assert_eq!(link["linkinfo"]["info_kind"], "dummy", "{link}");
    assert!(link["flags"].as_array().unwrap().contains(&json!("UP")), "{link}");
    let global = |it: &&Value| it["scope"] == "global";
    let addresses = link["addr_info"].as_array().unwrap().iter().filter(global);
    let addresses: Vec<_> = addresses.map(|it| it["local"].as_str().unwrap()).collect();
    assert_eq!(addresses, ["10.88.0.2", "fd00:88::2"]);

    let interfaces = result["interfaces"].as_array().unwrap();
    assert_eq!(interfaces.len(), 1, "{result}");
    assert_eq!((&interfaces[0]["name"], &interfaces[0]["mac"]), (&json!("eth0"), &link["address"]));
    assert_eq!(interfaces[0]["sandbox"], tests::netns_path("pod-a"));
    for ip in result["ips"].as_array().unwrap() {
        assert_eq!(ip["interface"], 0, "{result}");
    }
    let routes = world.sh("pod-a", "ip -4 route; ip -6 route show 2001:db8::/64");
    assert!(routes.contains("192.0.2.0/24 via 10.88.0.1 dev eth0"), "{routes}");
    assert!(routes.contains("2001:db8::/64 via fd00:88::1 dev eth0"), "{routes}");
    // The pod reaches its own addresses, as soon as ADD has returned.
    world.sh("pod-a", "ip link set lo up; ping -c 1 -W 1 10.88.0.2; ping -c 1 -W 1 fd00:88::2");
    chain.check(&pod);
    chain.del(&pod);
    assert_eq!((links(&world), leases(&world)), ("1\n".to_owned(), "0\n".to_owned()));
    chain.del(&pod);
}

fn a_pod_without_ipv6_gets_it(plugins: &Plugins) {
    let world = World::new(&["pod-a"]);
    let off = "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1";
    world.sh("pod-a", off);
    network(&world, plugins, &both_families()).add(&Pod::new("pod-a"));
    assert!(link(&world, "eth0").to_string().contains("fd00:88::2"));
}

fn check_finds_what_was_changed(plugins: &Plugins) {
    let world = World::new(&["pod-a"]);
    let pod = Pod::new("pod-a");
    let chain = network(&world, plugins, &both_families());
    for spoil in [
        "ip addr del 10.88.0.2/24 dev eth0",
        "ip link set eth0 down",
        "ip link set eth0 address c2:00:00:00:00:09",
        "ip link del eth0",
        "ip link del eth0; ip link add eth0 up type veth peer name eth1",
        "ip route del 192.0.2.0/24",
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

fn an_add_that_fails_leaves_nothing(plugins: &Plugins) {
    let world = World::new(&["pod-a"]);
    let pod = Pod::new("pod-a");
    let mut ipam = both_families();
    ipam["routes"] = json!([{"dst": "192.0.2.0/24", "gw": "203.0.113.1"}]);
    drop(network(&world, plugins, &ipam).try_add(&pod).unwrap_err());
    assert_eq!((links(&world), leases(&world)), ("1\n".to_owned(), "0\n".to_owned()));

    let chain = network(&world, plugins, &both_families());
    chain.add(&pod);
    drop(chain.try_add(&pod).unwrap_err());
    assert_eq!(leases(&world), "2\n");
    chain.check(&pod);
}

fn del_needs_the_names_only(plugins: &Plugins) {
    let world = World::new(&["pod-a"]);
    let pod = Pod::new("pod-a");
    let chain = network(&world, plugins, &both_families());
    chain.add(&pod);
    chain.del_by_names(&pod.without_netns());
    assert_eq!(leases(&world), "0\n");
    chain.del_by_names(&pod);
    assert_eq!(links(&world), "1\n");
    chain.add(&pod);
    network(&world, plugins, &json!({})).del_by_names(&pod);
    assert_eq!(links(&world), "1\n");
}

fn gc_and_status(plugins: &Plugins) {
    let world = World::new(&["pod-a"]);
    let (a, b) = (Pod::new("pod-a"), Pod::new("pod-a").ifname("net1"));
    let chain = network(&world, plugins, &both_families()).network("testnet", "1.1.0");
    chain.add(&a);
    chain.add(&b);
    chain.gc(&[&a]);
    assert_eq!(leases(&world), "2\n");
    chain.check(&a);
    chain.try_status().unwrap();
    assert_eq!(world.sh(tests::NODE, "ip -oneline link | wc -l"), "1\n");

    // A DEL of another network does not delete the interface.
    network(&world, plugins, &json!({})).network("other", "1.1.0").del_by_names(&a);
    chain.check(&a);
}

fn a_node_changes_over(from: &Plugins, to: &Plugins) {
    let world = World::new(&["pod-a"]);
    let pod = Pod::new("pod-a");
    let before = network(&world, from, &both_families());
    before.add(&pod);
    let after = before.with(to);
    after.check(&pod);
    after.del(&pod);
    assert_eq!((links(&world), leases(&world)), ("1\n".to_owned(), "0\n".to_owned()));
}
