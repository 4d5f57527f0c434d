//! Which way connections took, by the counters of the rules, and what else the control plane keeps.

use std::fs;

use super::{CONTROL_PLANE, Cluster, Family, HOST_PORTS, LEASES};
use crate::process::Cmd;

/// A table of the test's own.
const COUNTER: &str = "host-port-counter";

impl Cluster {
    /// How many connections the rules of the control plane's node ports have taken.
    #[must_use]
    pub fn by_node_port(&self) -> u64 {
        let families = self.kind.families().iter();
        if self.kind.kube_proxy == "nftables" {
            return self.counted_in("kube-proxy");
        }
        families.map(|f| self.packets(*f, |rule| rule.starts_with("KUBE-NODEPORTS "))).sum()
    }

    /// How many connections the rules of the control plane's host ports have taken.
    #[must_use]
    pub fn by_host_port(&self) -> u64 {
        let families = self.kind.families().iter();
        if self.kind.backend == "nftables" {
            return self.counted_in(COUNTER);
        }
        let is_dnat = |rule: &str| rule.starts_with("CNI-DN-") && rule.contains(" -j DNAT ");
        families.map(|f| self.packets(*f, is_dnat)).sum()
    }

    /// Sets counters to what the backend `nftables` counts nowhere: connections that begin, are for
    /// host ports of the control plane, and lead to a pod by now. Nobody else leads them there.
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

    /// All that the rules of a table have counted, in both families.
    fn counted_in(&self, table: &str) -> u64 {
        let families = self.kind.families().iter();
        let tables = families.map(|f| format!("nft list table {} {table};", f.nft()));
        let tables = self.world.sh(CONTROL_PLANE, &tables.collect::<String>());
        tables.lines().filter_map(|line| number_after(line, "counter packets ")).sum()
    }

    /// The control plane's tracked connections that contain a text.
    #[must_use]
    pub fn flows(&self, family: Family, text: &str) -> Vec<String> {
        let list = Cmd::new("conntrack").args(["-L", "-f", family.conntrack()]);
        let list = self.world.run(CONTROL_PLANE, &list).success().stdout;
        list.lines().filter(|flow| flow.contains(text)).map(str::to_owned).collect()
    }

    /// The control plane's leases, which are files by the name of an address.
    #[must_use]
    pub fn leases(&self) -> Vec<String> {
        self.world.files(|| {
            let files = fs::read_dir(format!("{LEASES}/kindnet")).expect("read the leases");
            let names = files.map(|file| file.expect("read a lease").file_name());
            names.map(|name| name.to_string_lossy().into_owned()).collect()
        })
    }

    /// Packets that met rules of the control plane's table `nat`, which are told as `-A` has them.
    fn packets(&self, family: Family, is_counted: impl Fn(&str) -> bool) -> u64 {
        let save = Cmd::new(family.save()).args(["-c", "-t", "nat"]);
        let saved = self.world.run(CONTROL_PLANE, &save).success().stdout;
        let rules = saved.lines().filter_map(|line| line.split_once(" -A "));
        let counted = rules.filter(|(_, rule)| is_counted(rule));
        counted.filter_map(|(counters, _)| number_after(counters, "[")).sum()
    }
}

/// The number after the first occurrence of a mark.
fn number_after(text: &str, mark: &str) -> Option<u64> {
    let (_, rest) = text.split_once(mark)?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
