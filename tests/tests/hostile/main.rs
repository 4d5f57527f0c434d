//! Unexpected input from outside: files that are not regular files, IPAM plugins that misbehave, a
//! result that cannot be written, the umask and the environment of the caller.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod environment;
mod ipam;
mod no_files;
mod refusals;
mod result;
mod umask;

use std::process::ExitCode;

use serde_json::{Value, json};
use tests::configs::{
    POD_SUBNET, POD_SUBNET6, bandwidth, bridge, firewall, port, portmap, ptp, tuning, with,
};
use tests::{Chain, Cmd, NODE, Output, Plugins, Pod, Suite, World, call, differences};

/// The directory of a test's own plugins.
const BIN: &str = "/run/bin";

/// The memory limit of a plugin: its input may be endless.
const WITH_LITTLE_MEMORY: [&str; 3] = ["prlimit", "--data=83886080", "--"];

fn main() -> ExitCode {
    let mut suite = Suite::new();
    environment::cases(&mut suite);
    ipam::cases(&mut suite);
    no_files::cases(&mut suite);
    refusals::cases(&mut suite);
    result::cases(&mut suite);
    umask::cases(&mut suite);
    suite.run()
}

/// A chain of all our plugins with `main` as its first.
fn whole_chain(main: &str) -> Vec<Value> {
    let subnets = [POD_SUBNET, POD_SUBNET6];
    let first = if main == "ptp" { ptp(&subnets) } else { bridge(&subnets) };
    vec![first, portmap(), firewall(), tuning(), bandwidth(10, 10)]
}

/// The chain as a network of this world.
fn network<'a>(world: &'a World, plugins: &Plugins, configs: &[Value]) -> Chain<'a> {
    let ports = json!([port("tcp", 8080, 80), port("udp", 5353, 53)]);
    Chain::new(world, plugins, configs).network("testnet", "1.1.0").ports(&ports)
}

/// Plugins of a test, which a shell writes, and our plugins.
fn install(world: &World, name: &str, script: &str) -> Plugins {
    let dir = Plugins::ours().dir;
    world.sh(
        NODE,
        &format!(
            "mkdir -p {BIN}; ln -sf {}/* {BIN}; rm -f {BIN}/{name}\ncat > {BIN}/{name} <<'END'\n\
             #!/bin/sh\n{script}\nEND\nchmod +x {BIN}/{name}",
            dir.display()
        ),
    );
    Plugins { label: "ours", dir: BIN.into() }
}

/// A call of a main plugin whose network has addresses.
fn direct(plugins: &Plugins, plugin: &str, command: &str, more: &Value) -> Cmd {
    let config = match plugin {
        "ptp" => ptp(&[POD_SUBNET]),
        _ => bridge(&[POD_SUBNET]),
    };
    let config = with(config, &json!({"cniVersion": "1.1.0", "name": "testnet"}));
    call(plugins, plugin, command, &Pod::new("pod-a"), &with(config, more))
}

/// The state of the node and a pod, without what an ADD may leave: the next address, locks,
/// directories. Also without link-local addresses: the kernel gives one to a bridge some time after its
/// first port is up.
fn state(world: &World) -> Value {
    let mut state = world.snapshot_of(&[NODE, "pod-a"]);
    let is_link_local =
        |address: &Value| address["addr"].as_str().is_some_and(|text| text.starts_with("fe80:"));
    if let Some(addresses) = state["node"]["addrs"].as_array_mut() {
        addresses.retain(|address| !is_link_local(address));
    }
    state["files"].as_object_mut().unwrap().retain(|path, _| {
        let name = path.rsplit('/').next().unwrap_or_default();
        !name.is_empty() && name != "lock" && !name.starts_with("last_reserved_ip.")
    });
    state
}

/// A plugin that reaches its memory limit reports that.
#[track_caller]
fn assert_has_memory(output: &Output) {
    let text = format!("{}{}", output.stdout, output.stderr).to_lowercase();
    assert!(!text.contains("memory"), "reads without a limit\n{output}");
}

#[track_caller]
fn assert_same(before: &Value, after: &Value, what: &str) {
    let found: Vec<_> = differences(before, after).iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "{what}\n{}", found.join("\n"));
}
