//! GC and STATUS of whole chains.
//!
//! ```text
//! outside 192.0.2.2 ── 192.0.2.1 node ──┬── steady
//!                                       ├── vanished  (its namespace is removed, without a DEL)
//!                                       └── left      (its namespace stays, without a DEL)
//! ```

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::ExitCode;

use serde_json::{Value, json};
use tests::configs::{
    POD_SUBNET, POD_SUBNET6, PORTMAP_BACKENDS, bridge, firewall, host_local, kind, port,
    portmap_by, with,
};
use tests::{Chain, Cmd, Known, Mirror, NODE, Needs, Output, Plugins, Pod, Suite, UdpEcho, World};
use tests::{conflist_program, differences, fetch_udp_at_last, netns_path, while_visited};

const ALL: [&str; 4] = ["bridge", "host-local", "portmap", "ptp"];
const SUBNETS: [&str; 2] = [POD_SUBNET, POD_SUBNET6];
const OTHER_SUBNETS: [&str; 2] = ["10.89.0.0/24", "fd00:89::/64"];
/// The directories of the plugins and of the network's file, where `conflist` is the runtime.
const BIN: &str = "/run/bin";
const NET_DIR: &str = "/run/net.d";

/// The Go plugins answer GC with success and remove nothing.
const NO_GC: Option<Known> =
    Some(Known::new("none of them has a GC", r#"found    ["0o600","vanished\r\neth0"]"#));
/// bridge and ptp only pass GC on to the IPAM plugin.
const NO_STATUS: Option<Known> = Some(Known::new(
    "host-local has no STATUS, which succeeds whatever there is",
    "STATUS succeeds; expected ",
));

/// A chain with a subnet of each family and one backend for all rules.
type Configs = fn(&[&str], &str) -> [Value; 2];

const NETWORKS: [(&str, Configs); 2] = [("kind", kind), ("bridge", bridge_and_portmap)];

fn bridge_and_portmap(subnets: &[&str], backend: &str) -> [Value; 2] {
    // Each of two networks has its own bridge.
    let name = format!("cni-{}", &subnets[0][.."10.88".len()]);
    let bridge = with(bridge(subnets), &json!({"bridge": name, "ipMasqBackend": backend}));
    [bridge, portmap_by(backend)]
}

/// The backends of firewall. The Go plugin treats the second one as the first.
const FIREWALL_BACKENDS: [&str; 2] = ["iptables", "nftables"];

fn bridge_and_firewall(subnets: &[&str], backend: &str) -> [Value; 2] {
    [bridge(subnets), with(firewall(), &json!({"backend": backend}))]
}

fn main() -> ExitCode {
    let mut suite = Suite::new();
    let needs = |plugins: &Plugins| Needs::plugins(plugins, &ALL).tools(&["iptables", "conntrack"]);
    for &backend in PORTMAP_BACKENDS {
        for (name, configs) in NETWORKS {
            let mut both = |what: &str, go_fails, test: fn(&Plugins, Configs, &str)| {
                let case = format!("{name}_{backend}::{what}");
                suite.both(&case, go_fails, needs, move |it| test(it, configs, backend));
            };
            both("leaves_what_is_valid", NO_GC, leaves_what_is_valid);
            both("removes_all_if_nothing_is_valid", NO_GC, removes_all_if_nothing_is_valid);
            both("leaves_other_networks_alone", NO_GC, leaves_other_networks_alone);
            let ours = needs(&Plugins::ours()).conflist();
            suite.case(&format!("conflist::{name}_{backend}"), &ours, move || {
                conflist_goes_on_after_failures(configs, backend);
            });
        }
    }
    for backend in FIREWALL_BACKENDS {
        let needs = |plugins: &Plugins| needs(plugins).and(plugins, &["firewall"]);
        let case = format!("firewall_{backend}::removes_all_if_nothing_is_valid");
        suite.both(&case, NO_GC, needs, move |plugins| {
            removes_all_if_nothing_is_valid(plugins, bridge_and_firewall, backend);
        });
    }
    for (name, configs) in NETWORKS {
        let mut both = |what: &str, go_fails, test: fn(&Plugins, Configs)| {
            suite.both(&format!("{name}::{what}"), go_fails, needs, move |it| test(it, configs));
        };
        both("status_is_good", None, status_is_good);
        both("status_of_a_full_range", NO_STATUS, status_of_a_full_range);
        both("status_without_ipam", None, status_without_ipam);
        both("status_of_a_read_only_disk", NO_STATUS, status_of_a_read_only_disk);
    }
    suite.run()
}

fn world() -> World {
    let world = World::new(&["outside", "steady", "vanished", "left"]);
    world.connect(
        (NODE, "uplink", &["192.0.2.1/24", "2001:db8::1/64"]),
        ("outside", "eth0", &["192.0.2.2/24", "2001:db8::2/64"]),
    );
    world
}

/// A network in which pods get these port mappings.
fn chain<'a>(world: &'a World, plugins: &Plugins, configs: &[Value], ports: &[Value]) -> Chain<'a> {
    Chain::new(world, plugins, configs).network("testnet", "1.1.0").ports(&json!(ports))
}

/// GC removes links, rules, leases and tracked connections of the stale pods, and nothing else.
fn leaves_what_is_valid(plugins: &Plugins, configs: Configs, backend: &str) {
    let [steady, vanished, left] = ["steady", "vanished", "left"].map(Pod::new);
    let configs = configs(&SUBNETS, backend);
    let of_steady = [port("tcp", 8080, 80), port("udp", 8053, 53)];
    let expected = {
        let world = world();
        chain(&world, plugins, &configs, &of_steady).add(&steady);
        state(&world)
    };

    let world = world();
    let network = chain(&world, plugins, &configs, &of_steady);
    network.add(&steady);
    let gone = chain(&world, plugins, &configs, &[port("tcp", 8081, 80), port("udp", 8153, 53)]);
    gone.add(&vanished);
    chain(&world, plugins, &configs, &[port("tcp", 8082, 80)]).add(&left);
    let _web = Mirror::start(&world, "steady", "[::]:80");
    let _dns = UdpEcho::start(&world, "steady", "[::]:53", "steady");
    let other_dns = UdpEcho::start(&world, "vanished", "[::]:53", "vanished");
    for (address, port) in
        [("192.0.2.1:8053", 4000), ("[2001:db8::1]:8053", 4000), ("192.0.2.1:8153", 4001)]
    {
        fetch_udp_at_last(&world, "outside", address, port).unwrap();
    }
    drop(other_dns);
    world.remove_netns("vanished");

    for address in ["192.0.2.1:8080", "[2001:db8::1]:8080"] {
        while_visited(&world, "outside", address, || network.gc(&[&steady]));
    }
    assert_same(&expected, &state(&world));
    assert!(!world.sh("left", "ip -o link").contains("eth0"), "the pod has its interface");
    let flows = world.conntrack();
    assert!(!flows.iter().any(|flow| flow.contains("dport=8153")), "a flow is left: {flows:?}");
    assert!(flows.iter().any(|flow| flow.contains("dport=8053")), "a flow is lost: {flows:?}");
}

/// As if there had been only one pod, which was deleted.
fn removes_all_if_nothing_is_valid(plugins: &Plugins, configs: Configs, backend: &str) {
    let (configs, ports) = (configs(&SUBNETS, backend), [port("tcp", 8080, 80)]);
    let [vanished, left] = ["vanished", "left"].map(Pod::new);
    let after = |remove: fn(&World, &Chain<'_>, &[&Pod])| {
        let world = world();
        let network = chain(&world, plugins, &configs, &ports);
        network.add(&vanished);
        network.add(&left);
        remove(&world, &network, &[&vanished, &left]);
        state(&world)
    };
    let expected = after(|_, network, pods| pods.iter().for_each(|pod| network.del(pod)));
    let found = after(|world, network, _| {
        world.remove_netns("vanished");
        network.gc(&[]);
    });
    assert_same(&expected, &found);
}

/// A pod is in both networks: GC of one keeps what it has in the other one.
fn leaves_other_networks_alone(plugins: &Plugins, configs: Configs, backend: &str) {
    let [first, last] = configs(&SUBNETS, backend);
    // The pod has its default routes through the other network.
    let ipam = with(host_local(&SUBNETS), &json!({"routes": []}));
    let without_routes = [with(first, &json!({"ipam": ipam})), last];
    let others = configs(&OTHER_SUBNETS, backend);
    let [steady, vanished] = ["steady", "vanished"].map(Pod::new);
    let second = steady.ifname("eth1");

    let worlds = [world(), world()];
    let [expected, found] = [&worlds[0], &worlds[1]].map(|world| {
        let other = chain(world, plugins, &others, &[port("tcp", 8080, 80)]);
        other.network("othernet", "1.1.0").add(&steady);
        let network = chain(world, plugins, &without_routes, &[port("tcp", 8081, 80)]);
        network.add(&second);
        network.add(&vanished);
        network
    });
    expected.del(&vanished);
    expected.del(&second);

    let _web = Mirror::start(&worlds[1], "steady", "[::]:80");
    worlds[1].remove_netns("vanished");
    for address in ["192.0.2.1:8080", "[2001:db8::1]:8080"] {
        while_visited(&worlds[1], "outside", address, || found.gc(&[]));
    }
    assert_same(&state(&worlds[0]), &state(&worlds[1]));
}

/// The IPAM plugin is missing and another plugin always fails: the other work is done, and both are
/// reported.
fn conflist_goes_on_after_failures(configs: Configs, backend: &str) {
    let world = world();
    let [first, last] = configs(&SUBNETS, backend);
    let line =
        |name: &str| format!("ln -s '{}' {BIN}/{name}\n", Plugins::ours().path(name).display());
    world.sh(NODE, &format!("mkdir {BIN} {NET_DIR}\n{}", ALL.map(line).concat()));
    write_network(&world, &[first.clone(), last.clone()]);
    for (pod, ports) in [("steady", 8080), ("vanished", 8081), ("left", 8082)] {
        let args = ["add", "testnet", &netns_path(pod), "--container-id", pod];
        let ports = json!({"portMappings": [port("tcp", ports, 80)]}).to_string();
        drop(conflist(&world, &args, &ports).success());
    }
    drop(conflist(&world, &["status", "testnet"], "").success());

    world.remove_netns("vanished");
    let broken = json!({"type": "broken"});
    write_network(&world, &[first, broken, last]);
    world.sh(NODE, &format!("ln -s /bin/false {BIN}/broken; rm {BIN}/host-local"));
    let status = conflist(&world, &["status", "testnet"], "");
    assert_eq!(status.code(), 1, "{status}");
    assert!(status.stderr.contains("code 50"), "{status}");

    let _web = Mirror::start(&world, "steady", "[::]:80");
    let gc = while_visited(&world, "outside", "192.0.2.1:8080", || {
        conflist(&world, &["gc", "testnet", "--valid", "steady:eth0"], "")
    });
    assert_eq!(gc.code(), 1, "{gc}");
    for what in ["find plugin \"host-local\"", "(2 of 3 of network \"testnet\")"] {
        assert!(gc.stderr.contains(what), "no word of {what}\n{gc}");
    }
    let node = state(&world)["node"].to_string();
    for port in ["8081", "8082"] {
        assert!(!node.contains(port), "rules for port {port} are left: {node}");
    }
    assert!(!world.sh("left", "ip -o link").contains("eth0"), "the pod has its interface");

    // When both work again, GC removes the rest.
    world.sh(NODE, &line("host-local"));
    world.sh(NODE, &format!("ln -sf /bin/true {BIN}/broken"));
    let leases = || world.sh(NODE, "cd /run/state/ipam/testnet; ls | grep -c '^10\\.' || true");
    assert_eq!(leases().trim(), "3");
    drop(conflist(&world, &["gc", "testnet", "--valid", "steady:eth0"], "").success());
    assert_eq!(leases().trim(), "1");
}

fn write_network(world: &World, plugins: &[Value]) {
    let network = json!({"cniVersion": "1.1.0", "name": "testnet", "plugins": plugins});
    let script = format!("cat > {NET_DIR}/10-test.conflist");
    let write = Cmd::new("sh").args(["-ec", &script]).stdin(network.to_string());
    drop(world.run(NODE, &write).success());
}

fn conflist(world: &World, args: &[&str], capability_args: &str) -> Output {
    let call = Cmd::new(conflist_program()).args(args).env("CAP_ARGS", capability_args);
    world.run(NODE, &call.env("NETCONFPATH", NET_DIR).env("CNI_PATH", BIN))
}

fn status_is_good(plugins: &Plugins, configs: Configs) {
    let world = world();
    let network = chain(&world, plugins, &configs(&SUBNETS, "iptables"), &[]);
    network.try_status().unwrap();
    network.add(&Pod::new("steady"));
    let before = state(&world);
    network.try_status().unwrap();
    assert_same(&before, &state(&world));
}

/// There is room for one pod: STATUS succeeds before its ADD, fails after it, and succeeds after its
/// DEL.
fn status_of_a_full_range(plugins: &Plugins, configs: Configs) {
    let world = world();
    let network = chain(&world, plugins, &configs(&["10.88.0.0/30"], "iptables"), &[]);
    network.try_status().unwrap();
    network.add(&Pod::new("steady"));
    assert_not_available(&network, "10.88.0.2");
    assert!(network.try_add(&Pod::new("left")).is_err(), "STATUS was wrong");
    network.del(&Pod::new("steady"));
    network.try_status().unwrap();
}

fn status_without_ipam(plugins: &Plugins, configs: Configs) {
    let world = world();
    let [first, last] = configs(&SUBNETS, "iptables");
    let configs = [with(first, &json!({"ipam": {"type": "no-such-ipam"}})), last];
    let network = chain(&world, plugins, &configs, &[]);
    let output = network.try_status().unwrap_err();
    assert!(output.stdout.contains("no-such-ipam"), "{output}");
    if plugins == &Plugins::ours() {
        assert_eq!(output.cni_error()["code"], 50, "{output}");
    }
}

fn status_of_a_read_only_disk(plugins: &Plugins, configs: Configs) {
    let world = world();
    world.sh(NODE, "mkdir /run/state/ipam; mount -t tmpfs -o ro world /run/state/ipam");
    let network = chain(&world, plugins, &configs(&SUBNETS, "iptables"), &[]);
    assert_not_available(&network, "/run/state/ipam");
    assert!(network.try_add(&Pod::new("steady")).is_err(), "STATUS was wrong");
    world.sh(NODE, "mount -o remount,rw /run/state/ipam");
    network.try_status().unwrap();
}

#[track_caller]
fn assert_not_available(network: &Chain<'_>, why: &str) {
    let Err(output) = network.try_status() else { panic!("STATUS succeeds; expected {why}") };
    assert_eq!(output.cni_error()["code"], 50, "{output}");
    assert!(output.stdout.contains(why), "no word of {why}\n{output}");
}

/// The state of the node. The address given out last is the only trace that a pod may leave.
fn state(world: &World) -> Value {
    let mut state = world.snapshot();
    let files = state["files"].as_object_mut().unwrap();
    files.retain(|path, _| !path.contains("/last_reserved_ip."));
    state
}

#[track_caller]
fn assert_same(expected: &Value, found: &Value) {
    let found: Vec<_> = differences(expected, found).iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}
