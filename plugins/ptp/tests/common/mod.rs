//! The plugin's program, and what it leaves on a node.

#![allow(dead_code, reason = "not every test program uses all of it")]

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use testbed::{Ended, Namespace, cni_command, sh};

/// A command of the plugin: an attachment and its configuration.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) container_id: &'static str,
    pub(crate) ifname: &'static str,
    pub(crate) netns: String,
    pub(crate) network: Value,
    /// The file to which the IPAM plugin writes the commands that it gets.
    pub(crate) ipam_log: PathBuf,
}

impl Call {
    /// Of `eth0` in a network that masquerades.
    pub(crate) fn new(container_id: &'static str, pod: &Namespace) -> Self {
        let network = json!({
            "cniVersion": "1.1.0", "name": "n", "type": "ptp", "ipMasq": true,
            "ipam": {"type": "dual-stack"},
        });
        let (netns, ipam_log) = (pod.path(), PathBuf::new());
        Self { container_id, ifname: "eth0", netns, network, ipam_log }
    }

    /// The same with another key.
    pub(crate) fn with(&self, key: &str, value: Value) -> Self {
        let mut call = self.clone();
        call.network[key] = value;
        call
    }

    pub(crate) fn run(&self, command: &str) -> Ended {
        testbed::run(&mut self.command(command), &self.network)
    }

    /// The program with the variables of a command.
    pub(crate) fn command(&self, command: &str) -> Command {
        let program = env!("CARGO_BIN_EXE_ptp");
        let mut call = cni_command(program, command, self.container_id, &self.netns);
        call.env("CNI_IFNAME", self.ifname)
            .env("CNI_PATH", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ipam"))
            .env("IPAM_LOG", &self.ipam_log);
        call
    }
}

/// The links, addresses, routes and rules of the node that belong to pods, as `ip` and `nft` show them.
pub(crate) fn leftovers() -> Vec<String> {
    let seen = sh("ip -o link; ip -o addr; ip -4 route; ip -6 route; nft list ruleset");
    let of_pod =
        |line: &&str| ["veth", "10.88.", "fd00:88:", "CNI-"].iter().any(|it| line.contains(it));
    seen.lines().filter(of_pod).map(str::to_owned).collect()
}
