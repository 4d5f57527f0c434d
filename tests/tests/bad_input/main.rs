//! Input that must be refused with a clear error object, exit status 1 and no change of the node.
//!
//! The Go plugins get the same input. Their error objects have no `cniVersion` and mostly the code
//! 999, so they only have to refuse it and leave the node unchanged; where they fail even that, the
//! case says so.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ipam;
mod schema;
mod tuning;

use std::process::ExitCode;

use serde_json::{Value, json};
use tests::configs::{POD_SUBNET, bandwidth, bridge, host_local, port, ptp, with};
use tests::{Known, NODE, Needs, Plugins, Pod, Suite, World, call_with, differences, netns_path};

/// The error codes of the specification, section "Error", and those of this suite from 100 on.
const VERSION: u64 = 1;
const ENVIRONMENT: u64 = 4;
const JSON: u64 = 6;
const CONFIG: u64 = 7;
const NETNS: u64 = 8;
const TRY_AGAIN: u64 = 11;
const UNAVAILABLE: u64 = 50;
const KERNEL: u64 = 100;
const CONFLICT: u64 = 102;
const DELEGATE: u64 = 103;

/// What the Go plugins do instead.
const NOT_LOOKED_AT: Known = Known::new("takes it without a word", "\nexit status: 0\n");
const FORWARDS_EARLY: Known = Known::new(
    "has switched forwarding on before it looks",
    r#"found    {"net.ipv4.ip_forward":"1""#,
);
/// A sign that a bridge or a port of it was left: its address is the first difference.
const BRIDGE: &str = "the node was changed\n/node/addrs";

/// A sign that an interface of the pod was left.
const ETH0: &str = "nsenter --net=/run/netns/pod-a ip link add eth0 type veth peer name other";

/// A call that must be refused.
#[derive(Clone)]
struct Bad {
    plugin: &'static str,
    command: &'static str,
    stdin: String,
    env: Vec<(&'static str, String)>,
    /// A script that changes the node beforehand.
    before: &'static str,
    /// The code of the error.
    code: u64,
    /// What its message or details must contain, so that a user knows where to look.
    mentions: &'static str,
    go_fails: Option<Known>,
}

impl Bad {
    fn new(plugin: &'static str, stdin: &impl ToString, code: u64, mentions: &'static str) -> Self {
        let stdin = stdin.to_string();
        let (env, before, go_fails) = (Vec::new(), "", None);
        Self { plugin, command: "ADD", stdin, env, before, code, mentions, go_fails }
    }

    fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    fn before(self, before: &'static str) -> Self {
        Self { before, ..self }
    }

    fn command(self, command: &'static str) -> Self {
        Self { command, ..self }
    }

    /// The Go plugins do not refuse this, or they leave something behind.
    fn go_fails(self, known: Known) -> Self {
        Self { go_fails: Some(known), ..self }
    }

    fn is_refused_by(&self, plugins: &Plugins) {
        let world = World::new(&["pod-a"]);
        world.sh(NODE, self.before);
        let before = state(&world);
        let mut call =
            call_with(plugins, self.plugin, self.command, &Pod::new("pod-a"), &self.stdin);
        for (name, value) in &self.env {
            call = call.env(*name, value);
        }
        let output = world.run(NODE, &call);
        if plugins == &Plugins::ours() {
            let error = output.cni_error();
            let text = format!("{} {}", error["msg"], error["details"]);
            assert!(text.contains(self.mentions), "no word of {:?}\n{output}", self.mentions);
            assert_eq!(error["code"], self.code, "another code\n{output}");
        } else {
            assert!(output.code() == 1, "expected exit status 1\n{output}");
            assert!(output.json()["msg"].is_string(), "expected an error object\n{output}");
        }
        let after = state(&world);
        let changes: Vec<_> =
            differences(&before, &after).iter().map(ToString::to_string).collect();
        assert!(changes.is_empty(), "the node was changed\n{}\n{output}", changes.join("\n"));
    }
}

/// The state that must not change. host-local may create its directory and remember the address that
/// it checked last.
fn state(world: &World) -> Value {
    let mut state = world.snapshot_of(&[NODE, "pod-a"]);
    if let Some(files) = state["files"].as_object_mut() {
        files.retain(|path, _| {
            let bookkeeping = path.ends_with('/') || path.ends_with("/lock");
            !bookkeeping && !path.contains("/last_reserved_ip.")
        });
    }
    state
}

fn main() -> ExitCode {
    let mut suite = Suite::new();
    let cases = [
        decoding(),
        environment(),
        bridges(),
        links(),
        ipam::leases(),
        ipam::addresses(),
        ports(),
        tuning::settings(),
        limits(),
        policies(),
    ];
    let cases: Cases = cases.into_iter().flatten().collect();
    schema::case(&mut suite, &cases);
    for (name, bad) in cases {
        let go_fails = bad.go_fails;
        let needs = |plugins: &Plugins| Needs::plugins(plugins, &Plugins::ALL);
        suite.both(&name, go_fails, needs, move |plugins| bad.is_refused_by(plugins));
    }
    suite.run()
}

type Cases = Vec<(String, Bad)>;

/// A valid configuration for each plugin.
fn good(plugin: &str) -> Value {
    let more = match plugin {
        "bridge" => with(bridge(&[POD_SUBNET]), &json!({"ipMasq": false})),
        "ptp" => ptp(&[POD_SUBNET]),
        "host-local" => json!({"ipam": host_local(&[POD_SUBNET])}),
        "portmap" => json!({
            "prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "10.88.0.2/24"}]},
            "runtimeConfig": {"portMappings": [port("tcp", 8080, 80)]},
        }),
        "static" => json!({"ipam": {"type": "static", "addresses": [{"address": "10.88.0.5/24"}]}}),
        "tuning" => json!({"prevResult": {"cniVersion": "1.0.0"}, "mtu": 1400}),
        "bandwidth" => with(
            bandwidth(10, 10),
            &json!({"prevResult": {"cniVersion": "1.0.0", "interfaces": [{"name": "eth0"}]}}),
        ),
        "firewall" => json!({
            "prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "10.88.0.2/24"}]},
            "backend": "iptables",
        }),
        _ => json!({}),
    };
    with(json!({"cniVersion": "1.0.0", "name": "testnet", "type": plugin}), &more)
}

fn good_but(plugin: &str, more: &Value) -> Value {
    with(good(plugin), more)
}

fn decoding() -> Cases {
    let mut cases = Vec::new();
    for plugin in Plugins::ALL {
        let mut case = |name: &str, bad: Bad| cases.push((format!("{plugin}_{name}"), bad));
        case("empty_stdin", Bad::new(plugin, &"", JSON, "stdin"));
        case("broken_json", Bad::new(plugin, &r#"{"name": "testnet""#, JSON, "JSON"));
        case("a_list_on_stdin", Bad::new(plugin, &"[]", JSON, "object"));
        case(
            "unknown_version",
            Bad::new(plugin, &good_but(plugin, &json!({"cniVersion": "9.9.9"})), VERSION, "9.9.9"),
        );
        case(
            "version_of_another_type",
            Bad::new(plugin, &good_but(plugin, &json!({"cniVersion": 1})), CONFIG, "cniVersion"),
        );
        case(
            "bad_network_name",
            Bad::new(plugin, &good_but(plugin, &json!({"name": "../x"})), CONFIG, "../x"),
        );
        case(
            "network_name_of_another_type",
            Bad::new(plugin, &good_but(plugin, &json!({"name": 5})), CONFIG, "name"),
        );
    }
    cases
}

fn environment() -> Cases {
    let mut cases = Vec::new();
    for plugin in Plugins::ALL {
        let variable =
            |name, value: &str, code| Bad::new(plugin, &good(plugin), code, name).env(name, value);
        let mut case = |name: &str, bad: Bad| cases.push((format!("{plugin}_{name}"), bad));
        case("unknown_command", variable("CNI_COMMAND", "FROB", ENVIRONMENT));
        case("no_container_id", variable("CNI_CONTAINERID", "", ENVIRONMENT));
        case("bad_container_id", variable("CNI_CONTAINERID", "../../etc", ENVIRONMENT));
        case("no_interface_name", variable("CNI_IFNAME", "", ENVIRONMENT));
        case("long_interface_name", variable("CNI_IFNAME", "sixteen-letters-", ENVIRONMENT));
        case("interface_name_with_slash", variable("CNI_IFNAME", "../eth0", ENVIRONMENT));
        case("interface_name_of_dots", variable("CNI_IFNAME", "..", ENVIRONMENT));
        case("no_netns", variable("CNI_NETNS", "", ENVIRONMENT));
    }
    let keeps_lease = Known::new(
        "keeps the lease: host-local printed a result and then an error",
        r#"found    ["0o600","pod-a\r\neth0"]"#,
    );
    let prints_twice =
        Known::new("prints a result and then an error", "stdout is no JSON value: trailing");
    let of_the_node = [
        ("bridge", Some(keeps_lease)),
        ("ptp", Some(keeps_lease)),
        ("loopback", Some(prints_twice)),
        ("tuning", None),
    ];
    for (plugin, go_fails) in of_the_node {
        let netns =
            |path: &str| Bad::new(plugin, &good(plugin), NETNS, "CNI_NETNS").env("CNI_NETNS", path);
        let mut case = |name: &str, bad: Bad| cases.push((format!("{plugin}_{name}"), bad));
        case("netns_of_the_node", Bad { go_fails, ..netns(&netns_path(NODE)) });
        let file = netns("/run/file").before("echo > /run/file");
        let missing = netns("/run/netns/nobody");
        let early = match plugin {
            "bridge" => Some(Known::new("has made the bridge before it looks", BRIDGE)),
            "ptp" => Some(FORWARDS_EARLY),
            _ => None,
        };
        case("netns_that_is_a_file", Bad { go_fails: early, ..file });
        case("netns_that_is_missing", Bad { go_fails: early, ..missing });
    }
    let lo_down = Bad::new("loopback", &good("loopback"), NETNS, "CNI_NETNS")
        .command("DEL")
        .go_fails(Known::new(
            "takes the node's lo down before it refuses",
            r#"/node/links
    expected nothing
    found    [{"flags":["LOOPBACK"],"#,
        ))
        .env("CNI_NETNS", netns_path(NODE));
    cases.push(("loopback_del_in_the_node".to_owned(), lo_down));
    cases
}

fn bridges() -> Cases {
    let bad = |more: &Value, code, mentions| {
        Bad::new("bridge", &good_but("bridge", more), code, mentions)
    };
    let ipam = |more: &Value| json!({"ipam": with(host_local(&[POD_SUBNET]), more)});
    let cases = [
        (
            "bridge_name_of_another_kind",
            bad(&json!({}), CONFLICT, "cni0").before("ip link add cni0 type veth peer name other"),
        ),
        (
            "bridge_name_too_long",
            bad(&json!({"bridge": "a-name-longer-than-fifteen"}), CONFIG, "bridge"),
        ),
        ("bridge_mtu_is_a_text", bad(&json!({"mtu": "big"}), CONFIG, "mtu")),
        ("bridge_gateway_is_a_number", bad(&json!({"isGateway": 1}), CONFIG, "isGateway")),
        ("bridge_vlan_5000", bad(&json!({"vlan": 5000}), CONFIG, "vlan")),
        (
            "bridge_hairpin_and_promiscuous",
            bad(&json!({"hairpinMode": true, "promiscMode": true}), CONFIG, "promiscMode"),
        ),
        (
            "bridge_no_interface_but_addresses",
            bad(&json!({"disableContainerInterface": true}), CONFIG, "disableContainerInterface"),
        ),
        (
            "bridge_other_address",
            // It belongs to others and is in use: it has a port.
            bad(&json!({}), CONFLICT, "forceAddress").before(
                "ip link add cni0 address 02:00:00:00:00:01 type bridge
                 ip link add one type veth peer name other
                 ip link set one master cni0
                 for link in cni0 one other; do ip link set $link up; done
                 ip addr add 10.99.0.1/24 dev cni0",
            ),
        ),
        ("bridge_ipam_is_missing", bad(&ipam(&json!({"type": "nobody"})), DELEGATE, "nobody")),
        ("bridge_ipam_type_is_a_path", bad(&ipam(&json!({"type": "../sh"})), CONFIG, "../sh")),
        (
            "bridge_range_exhausted",
            bad(&ipam(&json!({"ranges": [[{"subnet": "10.88.0.0/30"}]]})), TRY_AGAIN, "10.88.0")
                .before(
                    "mkdir -p /run/state/ipam/testnet; printf 'other\\r\\neth0' > \
                    /run/state/ipam/testnet/10.88.0.2",
                ),
        ),
        ("bridge_interface_exists", bad(&json!({}), CONFLICT, "eth0").before(ETH0)),
    ];
    let leaves_traces = [
        "bridge_other_address",
        "bridge_ipam_is_missing",
        "bridge_ipam_type_is_a_path",
        "bridge_range_exhausted",
        "bridge_interface_exists",
    ];
    let known = |(name, bad): (&str, Bad)| {
        let leaves = leaves_traces.contains(&name);
        let known = Known::new("an ADD that fails leaves its bridge or its links behind", BRIDGE);
        (name.to_owned(), Bad { go_fails: leaves.then_some(known), ..bad })
    };
    cases.into_iter().map(known).collect()
}

fn links() -> Cases {
    let bad =
        |more: &Value, code, mentions| Bad::new("ptp", &good_but("ptp", more), code, mentions);
    let cases = [
        ("ptp_mtu_is_a_text", bad(&json!({"mtu": "big"}), CONFIG, "mtu")),
        ("ptp_without_ipam", bad(&json!({"ipam": null}), CONFIG, "ipam")),
        (
            "ptp_interface_exists",
            bad(&json!({}), CONFLICT, "eth0").before(ETH0).go_fails(FORWARDS_EARLY),
        ),
        (
            "ptp_route_to_nowhere",
            bad(
                &json!({"ipam": with(
                    host_local(&[POD_SUBNET]),
                    &json!({"routes": [{"dst": "192.0.2.0/24", "gw": "198.51.100.1"}]}),
                )}),
                KERNEL,
                "198.51.100.1",
            )
            .go_fails(FORWARDS_EARLY),
        ),
    ];
    cases.into_iter().map(|(name, bad)| (name.to_owned(), bad)).collect()
}

fn ports() -> Cases {
    let bad = |mappings: &Value, mentions| {
        let config = json!({"runtimeConfig": {"portMappings": mappings}});
        Bad::new("portmap", &good_but("portmap", &config), CONFIG, mentions)
    };
    let one = |more: &Value, mentions| bad(&json!([with(port("tcp", 8080, 80), more)]), mentions);
    let half_a_chain = Known::new("fails late and leaves half a chain", r#"":CNI-DN-"#);
    let cases = [
        (
            "portmap_host_port_70000",
            one(&json!({"hostPort": 70000}), "70000").go_fails(half_a_chain),
        ),
        ("portmap_host_port_0", one(&json!({"hostPort": 0}), "hostPort")),
        ("portmap_host_port_negative", one(&json!({"hostPort": -1}), "hostPort")),
        ("portmap_host_port_is_a_text", one(&json!({"hostPort": "80"}), "hostPort")),
        (
            "portmap_container_port_70000",
            one(&json!({"containerPort": 70000}), "70000").go_fails(half_a_chain),
        ),
        ("portmap_container_port_0", one(&json!({"containerPort": 0}), "containerPort")),
        (
            "portmap_unknown_protocol",
            one(&json!({"protocol": "icmp"}), "icmp").go_fails(half_a_chain),
        ),
        (
            "portmap_host_ip_is_none",
            one(&json!({"hostIP": "here"}), "here").go_fails(NOT_LOOKED_AT),
        ),
        (
            "portmap_same_port_twice",
            bad(&json!([port("tcp", 8080, 80), port("tcp", 8080, 81)]), "8080")
                .go_fails(NOT_LOOKED_AT),
        ),
        (
            "portmap_mark_bit_32",
            Bad::new(
                "portmap",
                &good_but("portmap", &json!({"markMasqBit": 32})),
                CONFIG,
                "markMasqBit",
            ),
        ),
        (
            "portmap_no_previous_result",
            Bad::new(
                "portmap",
                &good_but("portmap", &json!({"prevResult": null})),
                CONFIG,
                "prevResult",
            ),
        ),
    ];
    cases.into_iter().map(|(name, bad)| (name.to_owned(), bad)).collect()
}

fn policies() -> Cases {
    let bad = |more: &Value, code, mentions| {
        Bad::new("firewall", &good_but("firewall", more), code, mentions)
    };
    let late = Known::new("has made its rules before it looks", r#""-A FORWARD "#);
    let closed = bad(&json!({"ingressPolicy": "closed"}), CONFIG, "ingressPolicy");
    let no_bridge = bad(&json!({"ingressPolicy": "isolated"}), CONFIG, "ingressPolicy");
    let ufw = bad(&json!({"backend": "ufw"}), CONFIG, "ufw");
    let chain = bad(&json!({"iptablesAdminChainName": "two words"}), CONFIG, "two words");
    let cases = [
        ("firewall_unknown_policy", closed.go_fails(late)),
        ("firewall_policy_without_bridge", no_bridge.go_fails(late)),
        ("firewall_unknown_backend", ufw.go_fails(NOT_LOOKED_AT)),
        (
            "firewall_admin_chain_of_two_words",
            chain.go_fails(Known::new("leaves a chain", r#"":CNI-FORWARD -"]"#)),
        ),
        (
            "firewall_backend_firewalld",
            bad(&json!({"backend": "firewalld"}), UNAVAILABLE, "start it"),
        ),
        ("firewall_backend_is_a_number", bad(&json!({"backend": 1}), CONFIG, "backend")),
        ("firewall_no_previous_result", bad(&json!({"prevResult": null}), CONFIG, "prevResult")),
    ];
    cases.into_iter().map(|(name, bad)| (name.to_owned(), bad)).collect()
}

fn limits() -> Cases {
    let bad = |more: &Value, mentions| {
        Bad::new("bandwidth", &good_but("bandwidth", more), CONFIG, mentions)
    };
    let cases = [
        ("bandwidth_rate_without_burst", bad(&json!({"egressBurst": 0}), "egressBurst")),
        ("bandwidth_burst_without_rate", bad(&json!({"ingressRate": 0}), "ingressRate")),
        ("bandwidth_rate_is_a_text", bad(&json!({"ingressRate": "10M"}), "ingressRate")),
        ("bandwidth_rate_negative", bad(&json!({"ingressRate": -8}), "ingressRate")),
        ("bandwidth_burst_of_4_gib", bad(&json!({"egressBurst": 1_u64 << 35}), "egressBurst")),
        ("bandwidth_rate_below_a_byte", bad(&json!({"egressRate": 7}), "egressRate")),
        ("bandwidth_no_previous_result", bad(&json!({"prevResult": null}), "prevResult")),
        ("bandwidth_no_veth_pair", bad(&json!({}), "veth pair")),
    ];
    cases.into_iter().map(|(name, bad)| (name.to_owned(), bad)).collect()
}
