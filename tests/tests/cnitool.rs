//! libcni's own tool with our plugins, and `conflist` beside it.
//!
//! Both read the same files, run the same chain and keep their results in the same place, so that
//! either can detach what the other one attached. Plugins of an example that we do not ship are the Go
//! ones.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};
use tests::configs::port;
use tests::{Cmd, NODE, Needs, Output, Plugins, Suite, TcpEcho, World};
use tests::{conflist_program, differences, fetch, netns_path, tool, workspace};

const OURS: [&str; 7] =
    ["bridge", "firewall", "host-local", "loopback", "portmap", "ptp", "tuning"];

/// A program that runs the chain of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Cnitool,
    Conflist,
}

impl Tool {
    fn run(self, world: &World, command: &str, network: &str) -> Output {
        let program = match self {
            Self::Cnitool => tool("cnitool").unwrap(),
            Self::Conflist => conflist_program(),
        };
        let call = Cmd::new(program)
            .args([command, network, &netns_path("pod-a")])
            .env("NETCONFPATH", examples().to_string_lossy())
            .env("CNI_PATH", Plugins::ours().dir.to_string_lossy())
            .env("CAP_ARGS", json!({"portMappings": [port("tcp", 8080, 80)]}).to_string());
        world.run(NODE, &call).success()
    }
}

fn main() -> ExitCode {
    let mut suite = Suite::new();
    let needs = Needs::plugins(&Plugins::ours(), &OURS).conflist().tools(&["cnitool", "iptables"]);
    for network in networks() {
        for (name, tool) in [("cnitool", Tool::Cnitool), ("conflist", Tool::Conflist)] {
            let network = network.clone();
            suite.case(&format!("{name}::{}", network.file), &needs, move || lives(tool, &network));
        }
        for (name, adder, deleter) in [
            ("conflist_undoes_cnitool", Tool::Cnitool, Tool::Conflist),
            ("cnitool_undoes_conflist", Tool::Conflist, Tool::Cnitool),
        ] {
            let network = network.clone();
            let case = format!("{name}::{}", network.file);
            suite.case(&case, &needs, move || hand_over(adder, deleter, &network));
        }
    }
    suite.run()
}

/// One of the examples.
#[derive(Clone, Debug)]
struct Network {
    file: String,
    name: String,
    has_portmap: bool,
    /// CHECK exists from version 0.4.0 on.
    has_check: bool,
}

fn examples() -> PathBuf {
    workspace().join("conflist/examples")
}

fn networks() -> Vec<Network> {
    let files = fs::read_dir(examples()).into_iter().flatten().map(|entry| entry.unwrap().path());
    let conflists = files.filter(|path| path.extension().is_some_and(|e| e == "conflist"));
    let network = |path: PathBuf| {
        let conflist: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let plugins = conflist["plugins"].as_array().unwrap();
        Network {
            file: path.file_stem().unwrap().to_string_lossy().into_owned(),
            name: conflist["name"].as_str().unwrap().to_owned(),
            has_check: !conflist["cniVersion"].as_str().unwrap().starts_with("0.3"),
            has_portmap: plugins.iter().any(|plugin| plugin["type"] == "portmap"),
        }
    };
    let mut networks: Vec<Network> = conflists.map(network).collect();
    networks.sort_by(|a, b| a.file.cmp(&b.file));
    assert!(!networks.is_empty(), "no example in {}", examples().display());
    networks
}

fn world() -> World {
    let world = World::new(&["outside", "pod-a"]);
    world.connect((NODE, "uplink", &["192.0.2.1/24"]), ("outside", "eth0", &["192.0.2.2/24"]));
    world
}

/// Runs ADD and CHECK, requests a page through the hostPort, runs DEL, and checks that nothing of the
/// pod is left.
fn lives(tool: Tool, network: &Network) {
    let world = world();
    let result = tool.run(&world, "add", &network.name).json();
    assert!(result["ips"][0]["address"].is_string(), "no address in the result: {result}");
    if network.has_check {
        tool.run(&world, "check", &network.name);
    }
    if network.has_portmap {
        let _web = TcpEcho::start(&world, "pod-a", "[::]:80", "page");
        assert_eq!(fetch(&world, "outside", "192.0.2.1:8080").unwrap(), "page 192.0.2.2");
    }
    tool.run(&world, "del", &network.name);

    assert_eq!(world.sh("pod-a", "ip -o link").lines().count(), 1, "more than lo in the pod");
    let links = world.sh(NODE, "ip -o link show type veth | grep -v uplink || true");
    assert!(links.is_empty(), "a veth is left: {links}");
    let state = world.snapshot();
    let leases = state["files"].as_object().unwrap().keys().filter(|path| {
        let file = path.rsplit('/').next().unwrap_or_default();
        path.contains("/results/") && !path.ends_with('/')
            || file.parse::<std::net::IpAddr>().is_ok()
    });
    assert_eq!(leases.collect::<Vec<_>>(), Vec::<&String>::new(), "leases or results are left");
    let rules = state["node"]["iptables"].to_string();
    assert!(!rules.contains("id: "), "rules of the pod are left: {rules}");
}

/// One tool runs ADD and the other one DEL: the node is as if the first one had run both.
fn hand_over(adder: Tool, deleter: Tool, network: &Network) {
    let after_del_by = |deleter: Tool| {
        let world = world();
        adder.run(&world, "add", &network.name);
        if network.has_check {
            deleter.run(&world, "check", &network.name);
        }
        deleter.run(&world, "del", &network.name);
        let mut state = world.snapshot();
        // The lock file is ours and empty: a process that has it open holds the lock.
        state["files"].as_object_mut().map(|files| files.remove("/var/lib/cni/conflist.lock"));
        state
    };
    let found = differences(&after_del_by(adder), &after_del_by(deleter));
    let found: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}
