//! VLANs of the bridge: which pods reach each other, the VLANs of the ports, and what happens on a
//! kernel without them.
//!
//! If this machine's kernel does not support them, the cases run in a virtual machine.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::ExitCode;

use serde_json::{Value, json};
use tests::configs::{bridge, host_local, port, portmap, with};
use tests::{Chain, Known, NODE, Needs, Plugins, Pod, STATE_DIR, Suite, TcpEcho, World};
use tests::{answers, call, fetch, vm};

const ALL: [&str; 3] = ["bridge", "host-local", "portmap"];

fn main() -> ExitCode {
    if vm::has_bridge_vlans() {
        return with_vlans(None);
    }
    let here = without_vlans();
    let there = vm::run_again().unwrap_or_else(|reason| with_vlans(Some(&reason)));
    if here == ExitCode::SUCCESS { there } else { here }
}

fn without_vlans() -> ExitCode {
    let mut suite = Suite::new();
    let ours = Plugins::ours();
    let needs = Needs::plugins(&ours, &ALL);
    suite.case("a_kernel_without_vlans", &needs, move || a_kernel_without_vlans(&ours));
    suite.run()
}

fn with_vlans(lack: Option<&str>) -> ExitCode {
    let mut suite = Suite::new();
    let mut both = |name, go_fails, test: fn(&Plugins)| {
        let needs = |plugins: &Plugins| {
            Needs::plugins(plugins, &ALL).tools(&["iptables", "bridge"]).lacking(lack)
        };
        suite.both(name, go_fails, needs, test);
    };
    both("only_pods_of_a_vlan_meet", None, only_pods_of_a_vlan_meet);
    both("the_default_vlan_is_preserved", None, the_default_vlan_is_preserved);
    both("a_trunk_carries_tags", None, a_trunk_carries_tags);
    both(
        "a_native_vlan_in_its_own_trunk",
        Some(Known::new(
            "the trunk takes the native VLAN's frames their place without tags",
            r#"left: ["100-102"]"#,
        )),
        a_native_vlan_in_its_own_trunk,
    );
    both("the_gateway_is_in_the_vlan", None, the_gateway_is_in_the_vlan);
    both(
        "check_names_what_is_missing",
        Some(Known::new(
            "CHECK does not look at VLANs",
            "called `Result::unwrap_err()` on an `Ok` value",
        )),
        check_names_what_is_missing,
    );
    both(
        "a_bridge_without_filtering_begins_to_filter",
        Some(Known::new(
            "such a bridge stays one network, whatever VLANs its ports have",
            r#"!answers(&world, "pod-c""#,
        )),
        a_bridge_without_filtering_begins_to_filter,
    );
    both(
        "an_add_that_fails_leaves_nothing",
        Some(Known::new("a failed ADD is not taken back", r#"right: "lo""#)),
        an_add_that_fails_leaves_nothing,
    );
    both(
        "the_gateway_comes_back_to_a_new_bridge",
        Some(Known::new("the other end of its pair is left without a bridge", "No route to host")),
        the_gateway_comes_back_to_a_new_bridge,
    );
    let (ours, go) = (Plugins::ours(), Plugins::go());
    let needs = Needs::plugins(&ours, &ALL).and(&go, &ALL).lacking(lack);
    suite.case("takeover", &needs, move || {
        a_node_changes_over(&ours, &go);
        a_node_changes_over(&go, &ours);
    });
    suite.run()
}

/// A network on the bridge `cni0` whose addresses begin with 10.88.0.`first`.
fn network<'a>(
    world: &'a World,
    plugins: &Plugins,
    name: &str,
    first: u8,
    keys: &Value,
) -> Chain<'a> {
    let ipam = json!({
        "type": "host-local", "dataDir": format!("{STATE_DIR}/ipam"),
        "ranges": [[{"subnet": "10.88.0.0/24", "rangeStart": format!("10.88.0.{first}")}]],
    });
    let bridge = with(json!({"type": "bridge", "bridge": "cni0", "ipam": ipam}), keys);
    let conflist = json!({"cniVersion": "1.0.0", "name": name, "plugins": [bridge]});
    Chain::of(world, plugins, conflist)
}

/// The VLANs of a port as `bridge` prints them: `100 PVID Egress Untagged`, a range as `100-102`.
fn vlans_of(world: &World, port: &str) -> Vec<String> {
    let shown = world.sh(NODE, "bridge -compressvlans -json vlan show");
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let is_it = |entry: &&Value| entry["ifname"] == port;
    let entry = shown.as_array().unwrap().iter().find(is_it).cloned().unwrap_or_default();
    let describe = |vlan: &Value| {
        let mut text = vlan["vlan"].to_string();
        if let Some(last) = vlan["vlanEnd"].as_u64() {
            text = format!("{text}-{last}");
        }
        for flag in vlan["flags"].as_array().into_iter().flatten() {
            text = format!("{text} {}", flag.as_str().unwrap());
        }
        text
    };
    entry["vlans"].as_array().into_iter().flatten().map(describe).collect()
}

/// The node's end of the veth pair of a result.
fn host_end(result: &Value) -> &str {
    result["interfaces"][1]["name"].as_str().unwrap()
}

fn only_pods_of_a_vlan_meet(plugins: &Plugins) {
    let world = World::new(&["pod-a", "pod-b", "pod-c", "pod-d"]);
    let blue = network(&world, plugins, "blue", 10, &json!({"vlan": 100}));
    let red = network(&world, plugins, "red", 20, &json!({"vlan": 200}));
    let plain = network(&world, plugins, "plain", 30, &json!({}));
    let result = blue.add(&Pod::new("pod-a"));
    blue.add(&Pod::new("pod-b"));
    red.add(&Pod::new("pod-c"));
    plain.add(&Pod::new("pod-d"));
    assert_eq!(vlans_of(&world, host_end(&result)), ["100 PVID Egress Untagged"]);
    assert_eq!(vlans_of(&world, "cni0"), ["1 PVID Egress Untagged"]);

    let _page = TcpEcho::start(&world, "pod-a", "0.0.0.0:80", "blue");
    assert_eq!(fetch(&world, "pod-b", "10.88.0.10:80").unwrap(), "blue 10.88.0.11");
    for other in ["pod-c", "pod-d"] {
        assert!(!answers(&world, other, "10.88.0.10:80"), "{other} reaches another VLAN");
    }

    let port = host_end(&result);
    blue.del(&Pod::new("pod-a"));
    assert_eq!(vlans_of(&world, port), Vec::<String>::new());
    assert!(!world.sh(NODE, "ip link").contains(port));
}

fn the_default_vlan_is_preserved(plugins: &Plugins) {
    let world = World::new(&["pod-a", "pod-b"]);
    let keys = json!({"vlan": 100, "preserveDefaultVlan": true});
    let result = network(&world, plugins, "blue", 10, &keys).add(&Pod::new("pod-a"));
    let expected = ["1 Egress Untagged", "100 PVID Egress Untagged"];
    assert_eq!(vlans_of(&world, host_end(&result)), expected);

    // The bridge may have another default VLAN, or none.
    world.sh(NODE, "ip link set cni0 type bridge vlan_default_pvid 7");
    let result = network(&world, plugins, "red", 20, &json!({"vlan": 200})).add(&Pod::new("pod-b"));
    assert_eq!(vlans_of(&world, host_end(&result)), ["200 PVID Egress Untagged"]);
}

fn a_trunk_carries_tags(plugins: &Plugins) {
    let world = World::new(&["pod-a", "pod-b", "pod-c", "pod-d"]);
    // The reference CHECK requires a hardware address that does not change.
    world.sh(NODE, "ip link add cni0 address c2:00:00:00:00:01 type bridge vlan_filtering 1");
    let keys = json!({"vlanTrunk": [{"id": 200}, {"minID": 100, "maxID": 102}]});
    let trunk = network(&world, plugins, "trunk", 10, &keys);
    let result = trunk.add(&Pod::new("pod-a"));
    let expected = ["1 PVID Egress Untagged", "100-102", "200"];
    assert_eq!(vlans_of(&world, host_end(&result)), expected);
    network(&world, plugins, "blue", 20, &json!({"vlan": 102})).add(&Pod::new("pod-b"));
    network(&world, plugins, "red", 30, &json!({"vlan": 103})).add(&Pod::new("pod-c"));
    network(&world, plugins, "plain", 40, &json!({})).add(&Pod::new("pod-d"));
    for (id, address) in [(102, "10.88.0.250/24"), (103, "10.88.0.251/24")] {
        world.sh(
            "pod-a",
            &format!(
                "ip link add link eth0 name eth0.{id} type vlan id {id}
                 ip link set eth0.{id} up; ip addr add {address} dev eth0.{id} noprefixroute"
            ),
        );
    }
    world.sh("pod-a", "ip route add 10.88.0.20 dev eth0.102; ip route add 10.88.0.30 dev eth0.103");

    let pages =
        ["pod-b", "pod-c", "pod-d"].map(|pod| TcpEcho::start(&world, pod, "0.0.0.0:80", pod));
    assert_eq!(fetch(&world, "pod-a", "10.88.0.20:80").unwrap(), "pod-b 10.88.0.250");
    assert!(!answers(&world, "pod-a", "10.88.0.30:80"), "VLAN 103 is not in the trunk");
    assert_eq!(fetch(&world, "pod-a", "10.88.0.40:80").unwrap(), "pod-d 10.88.0.10");
    drop(pages);
    trunk.check(&Pod::new("pod-a"));
    trunk.del(&Pod::new("pod-a"));
}

fn a_native_vlan_in_its_own_trunk(plugins: &Plugins) {
    let world = World::new(&["pod-a"]);
    let keys = json!({"vlan": 101, "vlanTrunk": [{"minID": 100, "maxID": 102}]});
    let result = network(&world, plugins, "trunk", 10, &keys).add(&Pod::new("pod-a"));
    let expected = ["100", "101 PVID Egress Untagged", "102"];
    assert_eq!(vlans_of(&world, host_end(&result)), expected);
}

/// A gateway in a VLAN for `subnet`, with hostPorts.
fn gateway<'a>(
    world: &'a World,
    plugins: &Plugins,
    name: &str,
    vlan: u16,
    subnet: &str,
) -> Chain<'a> {
    let bridge = with(bridge(&[]), &json!({"vlan": vlan, "ipam": host_local(&[subnet])}));
    let plugin_configs = json!([bridge, portmap()]);
    let conflist = json!({"cniVersion": "1.1.0", "name": name, "plugins": plugin_configs});
    Chain::of(world, plugins, conflist)
}

fn the_gateway_is_in_the_vlan(plugins: &Plugins) {
    let world = World::new(&["outside", "pod-a", "pod-b"]);
    world.connect((NODE, "uplink", &["192.0.2.1/24"]), ("outside", "eth0", &["192.0.2.2/24"]));
    let ports = json!([port("tcp", 8080, 80)]);
    let blue = gateway(&world, plugins, "blue", 100, "10.88.0.0/24").ports(&ports);
    let red = gateway(&world, plugins, "red", 200, "10.89.0.0/24");
    let (a, b) = (Pod::new("pod-a"), Pod::new("pod-b"));
    let result = blue.add(&a);
    red.add(&b);
    assert_eq!(result["interfaces"][3]["name"], "cni0.100");
    let gateway: Value =
        serde_json::from_str(&world.sh(NODE, "ip -json -details link show cni0.100")).unwrap();
    assert_eq!(gateway[0]["linkinfo"]["info_kind"], "veth");
    assert_eq!(result["interfaces"][3]["mac"], gateway[0]["address"]);
    let port = gateway[0]["link"].as_str().unwrap().to_owned();
    assert_eq!(vlans_of(&world, &port), ["100 PVID Egress Untagged"]);
    assert!(world.sh(NODE, "ip addr show cni0.100").contains("10.88.0.1/24"));
    assert!(!world.sh(NODE, "ip addr show cni0").contains("10.88.0.1"));

    let page = TcpEcho::start(&world, "pod-a", "0.0.0.0:80", "page");
    assert_eq!(fetch(&world, "outside", "192.0.2.1:8080").unwrap(), "page 192.0.2.2");
    assert_eq!(fetch(&world, NODE, "127.0.0.1:8080").unwrap(), "page 10.88.0.1");
    // Through the node, which routes between its VLANs and masquerades.
    assert_eq!(fetch(&world, "pod-b", "10.88.0.2:80").unwrap(), "page 10.88.0.1");
    let far = TcpEcho::start(&world, "outside", "0.0.0.0:80", "far");
    assert_eq!(fetch(&world, "pod-a", "192.0.2.2:80").unwrap(), "far 192.0.2.1");
    drop((page, far));

    blue.del(&a);
    assert!(!answers(&world, "outside", "192.0.2.1:8080"));
    blue.gc(&[]);
    // As on the bridge, for later pods.
    assert_eq!(vlans_of(&world, &port), ["100 PVID Egress Untagged"]);
    red.del(&b);
    assert!(world.sh(NODE, "ip addr show cni0.200").contains("10.89.0.1/24"));
}

fn check_names_what_is_missing(plugins: &Plugins) {
    let world = World::new(&["pod-a"]);
    let chain = gateway(&world, plugins, "blue", 100, "10.88.0.0/24");
    let pod = Pod::new("pod-a");
    let result = chain.add(&pod);
    chain.check(&pod);
    let port = host_end(&result);
    world.sh(NODE, &format!("bridge vlan add dev {port} vid 300"));
    chain.check(&pod);
    let link = world.sh(NODE, "ip -json link show cni0.100");
    let link: Value = serde_json::from_str(&link).unwrap();
    let gateway = link[0]["link"].as_str().unwrap();
    let same_again = format!("vlan add dev {gateway} vid 100 pvid untagged");
    for (spoil, mend, complaint) in [
        (
            format!("bridge vlan del dev {port} vid 100"),
            format!("bridge vlan add dev {port} vid 100 pvid untagged"),
            format!("VLAN 100 of link {port} is missing"),
        ),
        (
            format!("bridge vlan add dev {port} vid 100"),
            format!("bridge vlan add dev {port} vid 100 pvid untagged"),
            format!("VLAN 100 of link {port} is tagged"),
        ),
        (
            format!("bridge vlan del dev {gateway} vid 100"),
            format!("bridge {same_again}"),
            format!("VLAN 100 of link {gateway} is missing"),
        ),
        (
            "ip addr del 10.88.0.1/24 dev cni0.100".to_owned(),
            "ip addr add 10.88.0.1/24 dev cni0.100".to_owned(),
            "address 10.88.0.1/24 of link cni0.100 is missing".to_owned(),
        ),
        (
            "ip link set cni0 type bridge vlan_filtering 0".to_owned(),
            "ip link set cni0 type bridge vlan_filtering 1".to_owned(),
            "bridge cni0 does not filter VLANs".to_owned(),
        ),
    ] {
        world.sh(NODE, &spoil);
        let error = chain.try_check(&pod).unwrap_err().cni_error();
        assert_eq!(error["msg"], complaint, "{error}");
        assert_eq!(error["code"], 101);
        world.sh(NODE, &mend);
        chain.check(&pod);
    }
}

fn a_bridge_without_filtering_begins_to_filter(plugins: &Plugins) {
    let world = World::new(&["pod-a", "pod-b", "pod-c"]);
    let plain = network(&world, plugins, "plain", 10, &json!({}));
    plain.add(&Pod::new("pod-a"));
    plain.add(&Pod::new("pod-b"));
    network(&world, plugins, "blue", 20, &json!({"vlan": 100})).add(&Pod::new("pod-c"));
    let _page = TcpEcho::start(&world, "pod-a", "0.0.0.0:80", "plain");
    assert_eq!(fetch(&world, "pod-b", "10.88.0.10:80").unwrap(), "plain 10.88.0.11");
    assert!(!answers(&world, "pod-c", "10.88.0.10:80"));
}

fn an_add_that_fails_leaves_nothing(plugins: &Plugins) {
    let world = World::new(&["pod-a", "pod-b"]);
    let links = || world.sh(NODE, "ip -oneline link | cut -d: -f2");
    let (a, b) = (Pod::new("pod-a"), Pod::new("pod-b"));
    // Nearly the last step of an ADD is to switch forwarding on.
    world.sh(NODE, "mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys");
    let blue = gateway(&world, plugins, "blue", 100, "10.88.0.0/24");
    let fails = || {
        let output = blue.try_add(&a).unwrap_err();
        assert!(output.json()["msg"].to_string().contains("ip_forward"), "{output}");
    };
    fails();
    assert_eq!(links().trim(), "lo");
    // A bridge that existed before stays as it was.
    world.sh(NODE, "ip link add cni0 type bridge");
    fails();
    assert!(world.sh(NODE, "ip -details link show cni0").contains("vlan_filtering 0"));

    world.sh(NODE, "umount /proc/sys; ip link del cni0");
    blue.add(&a);
    let before = links();
    // Another gateway in the same VLAN; the configuration does not say which one yields.
    let other = gateway(&world, plugins, "other", 100, "10.99.0.0/24");
    let error = other.try_add(&b).unwrap_err().cni_error();
    assert_eq!(error["code"], 102, "{error}");
    assert_eq!(links(), before);
    blue.check(&a);
}

/// If an administrator deletes a bridge, the pair that is the gateway of a VLAN stays.
fn the_gateway_comes_back_to_a_new_bridge(plugins: &Plugins) {
    let world = World::new(&["pod-a", "pod-b"]);
    let (a, b) = (Pod::new("pod-a"), Pod::new("pod-b"));
    let blue = gateway(&world, plugins, "blue", 100, "10.88.0.0/24");
    blue.add(&a);
    world.sh(NODE, "ip link del cni0");
    blue.del(&a);
    let result = blue.add(&b);
    blue.check(&b);
    let page = TcpEcho::start(&world, "pod-b", "0.0.0.0:80", "page");
    let address = result["ips"][0]["address"].as_str().unwrap().replace("/24", ":80");
    assert_eq!(fetch(&world, NODE, &address).unwrap(), "page 10.88.0.1");
    drop(page);

    // It has none either after a failed ADD.
    world.sh(NODE, "ip link del cni0; echo 0 > /proc/sys/net/ipv4/ip_forward");
    blue.del(&b);
    let links = || world.sh(NODE, "ip -oneline link | grep -o '^[^<]*'");
    let before = links();
    world.sh(NODE, "mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys");
    blue.try_add(&b).unwrap_err();
    assert_eq!(links(), before);
}

fn a_node_changes_over(from: &Plugins, to: &Plugins) {
    let world = World::new(&["pod-a", "pod-b"]);
    let (a, b) = (Pod::new("pod-a"), Pod::new("pod-b"));
    let before = gateway(&world, from, "blue", 100, "10.88.0.0/24");
    before.add(&a);
    let links = world.sh(NODE, "ip -oneline link");
    let gateways = |links: &str| links.matches("cni0.100@").count();
    let after = before.with(to);
    after.check(&a);
    after.add(&b);
    assert_eq!(gateways(&world.sh(NODE, "ip -oneline link")), gateways(&links));
    let _page = TcpEcho::start(&world, "pod-a", "0.0.0.0:80", "page");
    assert_eq!(fetch(&world, "pod-b", "10.88.0.2:80").unwrap(), "page 10.88.0.3");
    assert_eq!(fetch(&world, NODE, "10.88.0.2:80").unwrap(), "page 10.88.0.1");
    after.del(&a);
    before.del(&b);
    // The bridge, and the pair that is its gateway.
    let ports = world.sh(NODE, "ip -oneline link show master cni0");
    assert_eq!(ports.lines().count(), 1, "{ports}");
}

fn a_kernel_without_vlans(plugins: &Plugins) {
    let world = World::new(&["pod-a"]);
    let before = world.snapshot();
    let pod = Pod::new("pod-a");
    for keys in [json!({"vlan": 100}), json!({"vlanTrunk": [{"id": 100}]})] {
        let chain = network(&world, plugins, "blue", 10, &keys);
        for (command, code) in [("ADD", 2), ("STATUS", 50)] {
            let version = json!({"cniVersion": "1.1.0"});
            let config = with(chain.stdin(0, &Value::Null), &version);
            let output = world.run(NODE, &call(plugins, "bridge", command, &pod, &config));
            let error = output.cni_error();
            assert_eq!(error["code"], code, "{command}: {error}");
            let says = error["msg"].as_str().unwrap();
            assert!(says.contains("CONFIG_BRIDGE_VLAN_FILTERING"), "{says}");
            assert_eq!(world.snapshot(), before, "{command} changed something");
        }
        chain.del(&pod);
    }
}
