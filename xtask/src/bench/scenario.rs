//! The scenarios: chains of plugins and the commands that they run.

use std::path::Path;

use serde_json::{Value, json};

use super::COMMANDS;
use super::config::{
    CONTAINERD, CRI_O, NERDCTL, PODMAN, V4, V6, bandwidth, bridge, portmap, ptp, static_ipam,
};

/// A chain; its time is the sum of the times of its plugins.
#[derive(Debug)]
pub(super) struct Scenario {
    /// Its name in the table.
    pub name: &'static str,
    /// Its commands, in order.
    pub commands: &'static [&'static str],
    /// Whether only the last plugin is timed; it needs the links of those before it.
    last_only: bool,
    chain: fn(&Path) -> Vec<Value>,
}

/// All scenarios, from the least work to the most.
pub(super) const SCENARIOS: &[Scenario] = &[
    // The lower limit for any plugin: a process that does nothing, the same one on both sides.
    Scenario { commands: &["start"], ..chain(FLOOR, |_| vec![json!({"type": FLOOR})]) },
    Scenario { commands: &["VERSION"], ..chain("VERSION", |_| vec![json!({"type": "bridge"})]) },
    chain("loopback", |_| vec![json!({"type": "loopback"})]),
    chain("static", |_| vec![static_ipam()]),
    last("tuning: nothing", |leases| vec![bridge(leases, false), json!({"type": "tuning"})]),
    last("tuning: sysctl, mtu", |leases| {
        let tuning =
            json!({"type": "tuning", "mtu": 1400, "sysctl": {"net.core.somaxconn": "500"}});
        vec![bridge(leases, false), tuning]
    }),
    last("bandwidth", |leases| vec![bridge(leases, false), bandwidth(10_000_000, 800_000)]),
    last("firewall", |leases| vec![bridge(leases, false), json!({"type": "firewall"})]),
    last("firewall: same-bridge", |leases| {
        let firewall = json!({"type": "firewall", "ingressPolicy": "same-bridge"});
        vec![bridge(leases, false), firewall]
    }),
    chain("bridge", |leases| vec![bridge(leases, false)]),
    chain("bridge, ipMasq", |leases| vec![bridge(leases, true)]),
    chain("bridge + portmap", |leases| vec![bridge(leases, false), portmap("iptables")]),
    chain("ptp, IPv4 and IPv6", |leases| vec![ptp(leases, &[V4, V6])]),
    chain("kind: ptp + portmap", |leases| vec![ptp(leases, &[V4]), portmap("iptables")]),
    chain("kind, nftables", |leases| vec![ptp(leases, &[V4]), portmap("nftables")]),
    chain("CRI-O", |leases| CRI_O.chain(leases)),
    chain("CRI-O, nftables", |leases| CRI_O.nftables(leases)),
    chain("containerd", |leases| CONTAINERD.chain(leases)),
    chain("containerd, nftables", |leases| CONTAINERD.nftables(leases)),
    chain("podman", |leases| PODMAN.chain(leases)),
    chain("podman, nftables", |leases| PODMAN.nftables(leases)),
    chain("nerdctl", |leases| NERDCTL.chain(leases)),
    chain("nerdctl, nftables", |leases| NERDCTL.nftables(leases)),
];

const FLOOR: &str = "/bin/true";

/// A chain of which all plugins are timed.
const fn chain(name: &'static str, chain: fn(&Path) -> Vec<Value>) -> Scenario {
    Scenario { name, commands: &COMMANDS, last_only: false, chain }
}

/// A chain of which only the last plugin is timed.
const fn last(name: &'static str, chain: fn(&Path) -> Vec<Value>) -> Scenario {
    Scenario { name, commands: &COMMANDS, last_only: true, chain }
}

/// One plugin of a command.
#[derive(Debug)]
pub(super) struct Step {
    /// The program.
    pub plugin: String,
    /// `CNI_IFNAME`.
    pub ifname: &'static str,
    /// Whether it is timed.
    pub timed: bool,
    config: Value,
}

impl Scenario {
    /// The plugins of a command in order; DEL runs them backwards.
    pub(super) fn steps(&self, command: &str, leases: &Path) -> Vec<Step> {
        let mut steps: Vec<_> = (self.chain)(leases).into_iter().map(Step::of).collect();
        if self.last_only
            && let Some((_, before)) = steps.split_last_mut()
        {
            for step in before {
                step.timed = false;
            }
        }
        if command == "DEL" {
            steps.reverse();
        }
        steps
    }
}

impl Step {
    /// The step of a plugin with this configuration.
    pub(super) fn of(config: Value) -> Self {
        let plugin = config["type"].as_str().unwrap_or_default().to_owned();
        let ifname = if plugin == "loopback" { "lo" } else { "eth0" };
        Self { plugin, ifname, timed: true, config }
    }

    /// What the plugin reads on stdin; `previous` is the result before it, or of the ADD.
    pub(super) fn request(&self, previous: &Value) -> String {
        let mut request = self.config.clone();
        for (key, default) in [("cniVersion", "1.0.0"), ("name", "bench")] {
            if request[key].is_null() {
                request[key] = json!(default);
            }
        }
        if !previous.is_null() {
            request["prevResult"] = previous.clone();
        }
        request.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_plugin_counts_where_it_is_measured_alone() {
        let scenario = SCENARIOS.iter().find(|scenario| scenario.name == "firewall").unwrap();
        let timed = |command| {
            let steps = scenario.steps(command, Path::new("/leases"));
            steps.into_iter().filter(|step| step.timed).map(|step| step.plugin).collect::<Vec<_>>()
        };
        assert_eq!(timed("ADD"), ["firewall"]);
        assert_eq!(timed("DEL"), ["firewall"]);
    }
}
