//! The plugin's program, and what it leaves on a node.

#![allow(dead_code, reason = "not every test program uses all of it")]

use std::process::Command;

use serde_json::{Value, json};
use testbed::{Ended, Namespace, cni_command, in_new_netns, sh};

/// The directory of an IPAM plugin that always gives the same two addresses.
const IPAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ipam");

pub(crate) fn network() -> Value {
    json!({
        "cniVersion": "1.1.0", "name": "n", "type": "bridge", "isGateway": true, "forceAddress": true,
        "ipMasq": true, "macspoofchk": true, "ipam": {"type": "dual-stack"},
        "cni.dev/valid-attachments": [],
    })
}

/// The same with another key.
pub(crate) fn network_with(key: &str, value: Value) -> Value {
    let mut network = network();
    network[key] = value;
    network
}

/// Runs a test in a new namespace that stands for the node, with a second one for a pod.
pub(crate) fn in_namespaces(test: impl FnOnce(&Namespace) + Send) {
    in_new_netns(|| test(&Namespace::create()));
}

/// The names of the node's links, and its addresses, as `ip` shows them. Without the states of the links,
/// which change some time after their carrier.
pub(crate) fn node() -> String {
    let links = sh("ip -o link show");
    let names: Vec<_> = links.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    names.join("\n") + "\n" + &sh("ip -o -4 addr show; ip -o -6 addr show scope global")
}

/// The lines of all rules and chains that belong to the pod, as `nft` shows them.
pub(crate) fn rules() -> Vec<String> {
    let text = sh("nft list ruleset");
    let of_pod = |line: &&str| line.contains("cni-br-iface-") || line.contains("CNI-");
    text.lines().filter(of_pod).map(str::to_owned).collect()
}

/// A command of the plugin for `eth0` of container `c1`.
pub(crate) fn bridge_command(command: &str, netns: &str) -> Command {
    let mut call = cni_command(env!("CARGO_BIN_EXE_bridge"), command, "c1", netns);
    call.env("CNI_PATH", IPAM);
    call
}

pub(crate) fn bridge(command: &str, netns: &str, network: &Value) -> Ended {
    testbed::run(&mut bridge_command(command, netns), network)
}
