//! The scenarios: chains of plugins and the commands that they run.

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
    chain: fn() -> Vec<Value>,
}

/// All scenarios, from the least work to the most.
pub(super) const SCENARIOS: &[Scenario] = &[
    // The lower limit for any plugin: a process that does nothing, the same one on both sides.
    Scenario { commands: &["start"], ..chain(FLOOR, || vec![json!({"type": FLOOR})]) },
    Scenario { commands: &["VERSION"], ..chain("VERSION", || vec![json!({"type": "bridge"})]) },
    chain("loopback", || vec![json!({"type": "loopback"})]),
    chain("static", || vec![static_ipam()]),
    last("tuning: nothing", || vec![bridge(false), json!({"type": "tuning"})]),
    last("tuning: sysctl, mtu", || {
        let tuning =
            json!({"type": "tuning", "mtu": 1400, "sysctl": {"net.core.somaxconn": "500"}});
        vec![bridge(false), tuning]
    }),
    last("bandwidth", || vec![bridge(false), bandwidth(10_000_000, 800_000)]),
    last("firewall", || vec![bridge(false), json!({"type": "firewall"})]),
    last("firewall: same-bridge", || {
        let firewall = json!({"type": "firewall", "ingressPolicy": "same-bridge"});
        vec![bridge(false), firewall]
    }),
    chain("bridge", || vec![bridge(false)]),
    chain("bridge, ipMasq", || vec![bridge(true)]),
    chain("bridge + portmap", || vec![bridge(false), portmap("iptables")]),
    chain("ptp, IPv4 and IPv6", || vec![ptp(&[V4, V6])]),
    chain("kind: ptp + portmap", || vec![ptp(&[V4]), portmap("iptables")]),
    chain("kind, nftables", || vec![ptp(&[V4]), portmap("nftables")]),
    chain("CRI-O", || CRI_O.chain()),
    chain("CRI-O, nftables", || CRI_O.nftables()),
    chain("containerd", || CONTAINERD.chain()),
    chain("containerd, nftables", || CONTAINERD.nftables()),
    chain("podman", || PODMAN.chain()),
    chain("podman, nftables", || PODMAN.nftables()),
    chain("nerdctl", || NERDCTL.chain()),
    chain("nerdctl, nftables", || NERDCTL.nftables()),
];

const FLOOR: &str = "/bin/true";

/// A chain of which all plugins are timed.
const fn chain(name: &'static str, chain: fn() -> Vec<Value>) -> Scenario {
    Scenario { name, commands: &COMMANDS, last_only: false, chain }
}

/// A chain of which only the last plugin is timed.
const fn last(name: &'static str, chain: fn() -> Vec<Value>) -> Scenario {
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
    pub(super) fn steps(&self, command: &str) -> Vec<Step> {
        let mut steps: Vec<_> = (self.chain)().into_iter().map(Step::of).collect();
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
            let steps = scenario.steps(command);
            steps.into_iter().filter(|step| step.timed).map(|step| step.plugin).collect::<Vec<_>>()
        };
        assert_eq!(timed("ADD"), ["firewall"]);
        assert_eq!(timed("DEL"), ["firewall"]);
    }
}
