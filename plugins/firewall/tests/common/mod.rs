//! The plugin's program, and configurations for the pod of [`testbed::routed`].

#![allow(dead_code, reason = "not every test program uses all of it")]

use std::process::Command;

use serde_json::{Value, json};
use testbed::{Ended, Namespace, cni_command, sh};

/// Runs the plugin, for a container of this ID.
#[track_caller]
pub(crate) fn firewall(command: &str, container_id: &str, netns: &str, config: &Value) -> Ended {
    firewall_at("/usr/sbin", command, container_id, netns, config)
}

/// Like [`firewall`], with this directory as `PATH`.
#[track_caller]
pub(crate) fn firewall_at(
    path: &str,
    command: &str,
    container_id: &str,
    netns: &str,
    config: &Value,
) -> Ended {
    let mut call = cni_command(env!("CARGO_BIN_EXE_firewall"), command, container_id, netns);
    testbed::run(call.env("PATH", path), config)
}

/// A configuration for the pod.
pub(crate) fn config(keys: &Value) -> Value {
    let mut config = json!({
        "prevResult": {
            "cniVersion": "1.1.0",
            "interfaces": [{"name": "vethpod"}, {"name": "eth0", "sandbox": "/run/netns/pod"}],
            "ips": [
                {"address": "10.88.0.2/24", "interface": 1}, {"address": "fd00:88::2/64", "interface": 1}
            ],
        },
    });
    let more = [names(), keys.clone()].into_iter().filter_map(|it| it.as_object().cloned());
    config.as_object_mut().unwrap().extend(more.flatten());
    config
}

/// Only the names, as in a DEL after everything else was lost.
pub(crate) fn names() -> Value {
    json!({"cniVersion": "1.1.0", "name": "testnet", "type": "firewall"})
}

/// All rules of both families in the table `filter`.
pub(crate) fn rules() -> String {
    sh("iptables -S; ip6tables -S")
}

/// How many lines of a listing contain a text.
pub(crate) fn count(listing: &str, text: &str) -> usize {
    listing.lines().filter(|line| line.contains(text)).count()
}

/// Whether an address answers at least once of several times, because neighbours have to be found first.
pub(crate) fn reaches(from: &Namespace, to: &str) -> bool {
    let arguments = ["-q", "-c", "4", "-i", "0.3", "-W", "2", to];
    from.enter(|| Command::new("ping").args(arguments).output().unwrap().status.success())
}
