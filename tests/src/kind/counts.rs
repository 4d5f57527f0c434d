//! Counters of the rules that connections pass, and the state of the control plane.

use std::fs;

use super::{CONTROL_PLANE, Cluster, Family, HOST_PORTS, leases};
use crate::process::Cmd;

/// A table that only the test uses.
const COUNTER: &str = "host-port-counter";

impl Cluster {
    /// The number of connections that rules of the control plane's node ports took.
    #[must_use]
    pub fn by_node_port(&self) -> u64 {
        let families = self.kind.families().iter();
        if self.kind.kube_proxy == "nftables" {
            return self.counted_in("kube-proxy");
        }
        families.map(|f| self.packets(*f, |rule| rule.starts_with("KUBE-NODEPORTS "))).sum()
    }

    /// The number of connections that rules of the control plane's hostPorts took.
    #[must_use]
    pub fn by_host_port(&self) -> u64 {
        let families = self.kind.families().iter();
        if self.kind.backend == "nftables" {
            return self.counted_in(COUNTER);
        }
        let is_dnat = |rule: &str| rule.starts_with("CNI-DN-") && rule.contains(" -j DNAT ");
        families.map(|f| self.packets(*f, is_dnat)).sum()
    }

    /// Adds counters for what the backend `nftables` does not count: new connections to hostPorts of
    /// the control plane whose destination has been changed to a pod. Only portmap does that.
    pub(super) fn count_host_ports(&self) {
        let ports = HOST_PORTS.map(|(port, _)| port.to_string()).join(", ");
        for family in self.kind.families() {
            let (nft, pods) = (family.nft(), family.pods_of(CONTROL_PLANE));
            let node = family.addresses_of_node();
            self.nft(CONTROL_PLANE, &format!("add table {nft} {COUNTER}"));
            for hook in ["prerouting", "output"] {
                let chain = format!("{nft} {COUNTER} {hook}");
                // After all chains that may change destinations.
                let commands = format!(
                    "add chain {chain} {{ type filter hook {hook} priority -50; }}
                     add rule {chain} ct state new ct direction original meta l4proto tcp \
                     ct original {nft} daddr {{ {node} }} ct original proto-dst {{ {ports} }} \
                     {nft} daddr {pods} counter"
                );
                self.nft(CONTROL_PLANE, &commands);
            }
        }
    }

    /// The sum of the counters of a table, in both families.
    fn counted_in(&self, table: &str) -> u64 {
        let families = self.kind.families().iter();
        let tables = families.map(|f| format!("nft list table {} {table};", f.nft()));
        let tables = self.world.sh(CONTROL_PLANE, &tables.collect::<String>());
        tables.lines().filter_map(|line| number_after(line, "counter packets ")).sum()
    }

    /// The tracked connections of a node that contain a string.
    #[must_use]
    pub fn flows(&self, node: &str, family: Family, text: &str) -> Vec<String> {
        let list = Cmd::new("conntrack").args(["-L", "-f", family.conntrack()]);
        let list = self.world.run(node, &list).success().stdout;
        list.lines().filter(|flow| flow.contains(text)).map(str::to_owned).collect()
    }

    /// The leases of a node: files named by their address.
    #[must_use]
    pub fn leases(&self, node: &str) -> Vec<String> {
        self.world.files(|| {
            let files = fs::read_dir(format!("{}/kindnet", leases(node))).expect("read the leases");
            let names = files.map(|file| file.expect("read a lease").file_name());
            names.map(|name| name.to_string_lossy().into_owned()).collect()
        })
    }

    /// What a node has of a pod's IPv4 address: its lease, rules that kube-proxy did not write, and
    /// connections to a hostPort.
    #[must_use]
    pub fn traces(&self, node: &str, address: &str) -> Vec<String> {
        let mut traces = self.leases(node);
        traces.retain(|lease| lease == address);
        let rules = self.world.run(node, &Cmd::new(Family::V4.save())).success().stdout;
        let is_own = |rule: &&str| rule.contains(address) && !rule.starts_with("-A KUBE-");
        traces.extend(rules.lines().filter(is_own).map(str::to_owned));
        let ports = HOST_PORTS.map(|(port, _)| port.to_string());
        let mut flows = self.flows(node, Family::V4, &format!("src={address} "));
        flows.retain(|flow| {
            // The keys of the original direction come first, then those of the replies.
            let value = |key, n| flow.split(' ').filter_map(|it| it.strip_prefix(key)).nth(n);
            value("src=", 1) == Some(address)
                && value("dst=", 0) == Some(Family::V4.address(node))
                && value("dport=", 0).is_some_and(|port| ports.iter().any(|it| it == port))
        });
        traces.extend(flows);
        traces
    }

    /// The packets counted by rules of the control plane's table `nat`, given in the form of `-A`.
    fn packets(&self, family: Family, is_counted: impl Fn(&str) -> bool) -> u64 {
        let save = Cmd::new(family.save()).args(["-c", "-t", "nat"]);
        let saved = self.world.run(CONTROL_PLANE, &save).success().stdout;
        let rules = saved.lines().filter_map(|line| line.split_once(" -A "));
        let counted = rules.filter(|(_, rule)| is_counted(rule));
        counted.filter_map(|(counters, _)| number_after(counters, "[")).sum()
    }
}

/// The number after the first occurrence of `mark`.
fn number_after(text: &str, mark: &str) -> Option<u64> {
    let (_, rest) = text.split_once(mark)?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
