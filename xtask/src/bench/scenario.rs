//! What is measured: chains of plugins and the commands that they are given.

use std::path::Path;

use serde_json::{Value, json};

use super::COMMANDS;

/// A chain that is timed as one.
#[derive(Debug)]
pub(super) struct Scenario {
    /// How the table calls it.
    pub name: &'static str,
    /// Its commands, in the order of a pod's life.
    pub commands: &'static [&'static str],
    chain: fn(&Path) -> Vec<Value>,
}

/// All of them, from the least work to the most.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "VERSION",
        commands: &["VERSION"],
        chain: |_| vec![json!({"type": "bridge"})],
    },
    Scenario {
        name: "loopback",
        commands: &COMMANDS,
        chain: |_| vec![json!({"type": "loopback"})],
    },
    Scenario { name: "bridge", commands: &COMMANDS, chain: |leases| vec![bridge(leases, false)] },
    Scenario {
        name: "bridge with masquerade",
        commands: &COMMANDS,
        chain: |leases| vec![bridge(leases, true)],
    },
    Scenario {
        name: "bridge + portmap",
        commands: &COMMANDS,
        chain: |leases| vec![bridge(leases, false), portmap()],
    },
];

/// One plugin's part of a command.
#[derive(Debug)]
pub(super) struct Step {
    /// The program.
    pub plugin: &'static str,
    /// `CNI_IFNAME`.
    pub ifname: &'static str,
    config: Value,
}

impl Scenario {
    /// The plugins that a command runs, in order; the last first for DEL.
    pub(super) fn steps(&self, command: &str, leases: &Path) -> Vec<Step> {
        let step = |config: Value| match config["type"].as_str() {
            Some("bridge") => Step { plugin: "bridge", ifname: "eth0", config },
            Some("portmap") => Step { plugin: "portmap", ifname: "eth0", config },
            _ => Step { plugin: "loopback", ifname: "lo", config },
        };
        let mut steps: Vec<_> = (self.chain)(leases).into_iter().map(step).collect();
        if command == "DEL" {
            steps.reverse();
        }
        steps
    }
}

impl Step {
    /// What the plugin reads on stdin, given the result before it (or of the ADD).
    pub(super) fn request(&self, previous: &Value) -> String {
        let mut request = self.config.clone();
        request["cniVersion"] = json!("1.0.0");
        request["name"] = json!("bench");
        if !previous.is_null() {
            request["prevResult"] = previous.clone();
        }
        request.to_string()
    }
}

fn bridge(leases: &Path, masquerade: bool) -> Value {
    json!({
        "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": masquerade,
        "ipam": {
            "type": "host-local", "dataDir": leases,
            "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}],
        },
    })
}

fn portmap() -> Value {
    let ports = [(8080, 80), (8443, 443)];
    let mapping = |(host, pod)| json!({"hostPort": host, "containerPort": pod, "protocol": "tcp"});
    json!({"type": "portmap", "runtimeConfig": {"portMappings": ports.map(mapping)}})
}
