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
    // What no plugin can be faster than: a process that does nothing, the same one on both sides.
    Scenario { name: FLOOR, commands: &["start"], chain: |_| vec![json!({"type": FLOOR})] },
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
        name: "bridge, ipMasq",
        commands: &COMMANDS,
        chain: |leases| vec![bridge(leases, true)],
    },
    Scenario {
        name: "bridge + portmap",
        commands: &COMMANDS,
        chain: |leases| vec![bridge(leases, false), portmap("iptables")],
    },
    Scenario {
        name: "ptp, IPv4 and IPv6",
        commands: &COMMANDS,
        chain: |leases| vec![ptp(leases, &[V4, V6])],
    },
    Scenario {
        name: "kind: ptp + portmap",
        commands: &COMMANDS,
        chain: |leases| vec![ptp(leases, &[V4]), portmap("iptables")],
    },
    Scenario {
        name: "kind, nftables",
        commands: &COMMANDS,
        chain: |leases| vec![ptp(leases, &[V4]), portmap("nftables")],
    },
];

const FLOOR: &str = "/bin/true";
/// A network and the destination of the route that leads out of it.
pub(super) const V4: (&str, &str) = ("10.88.0.0/16", "0.0.0.0/0");
const V6: (&str, &str) = ("fd00:88::/64", "::/0");

/// One plugin's part of a command.
#[derive(Debug)]
pub(super) struct Step {
    /// The program.
    pub plugin: String,
    /// `CNI_IFNAME`.
    pub ifname: &'static str,
    config: Value,
}

impl Scenario {
    /// The plugins that a command runs, in order; the last first for DEL.
    pub(super) fn steps(&self, command: &str, leases: &Path) -> Vec<Step> {
        let mut steps: Vec<_> = (self.chain)(leases).into_iter().map(Step::of).collect();
        if command == "DEL" {
            steps.reverse();
        }
        steps
    }
}

impl Step {
    /// The part of a plugin with this configuration.
    pub(super) fn of(config: Value) -> Self {
        let plugin = config["type"].as_str().unwrap_or_default().to_owned();
        let ifname = if plugin == "loopback" { "lo" } else { "eth0" };
        Self { plugin, ifname, config }
    }

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
        "ipam": ipam(leases, &[V4]),
    })
}

/// As kind has it, which masquerades by other means.
pub(super) fn ptp(leases: &Path, networks: &[(&str, &str)]) -> Value {
    json!({"type": "ptp", "ipMasq": false, "ipam": ipam(leases, networks)})
}

fn ipam(leases: &Path, networks: &[(&str, &str)]) -> Value {
    let ranges: Vec<_> = networks.iter().map(|(subnet, _)| json!([{"subnet": subnet}])).collect();
    let routes: Vec<_> = networks.iter().map(|(_, dst)| json!({"dst": dst})).collect();
    json!({"type": "host-local", "dataDir": leases, "ranges": ranges, "routes": routes})
}

fn portmap(backend: &str) -> Value {
    portmap_of(backend, &[(8080, 80), (8443, 443)])
}

/// portmap with ports of the node and what they lead to.
pub(super) fn portmap_of(backend: &str, ports: &[(u16, u16)]) -> Value {
    let mapping = |ports: &(u16, u16)| {
        let (host, pod) = ports;
        json!({"hostPort": host, "containerPort": pod, "protocol": "tcp"})
    };
    let mappings: Vec<_> = ports.iter().map(mapping).collect();
    json!({
        "type": "portmap", "backend": backend, "runtimeConfig": {"portMappings": mappings},
    })
}
