//! Which way connections took, by the counters of the rules, and what else the control plane keeps.

use std::fs;

use super::{CONTROL_PLANE, Cluster, Family, HOST_PORTS, LEASES};
use crate::process::Cmd;

impl Cluster {
    /// How many connections the rules of the control plane's node ports have taken.
    #[must_use]
    pub fn by_node_port(&self) -> u64 {
        let families = self.kind.families().iter();
        if self.kind.kube_proxy == "nftables" {
            let tables = families.map(|f| format!("nft list table {} kube-proxy;", f.nft()));
            let tables = self.world.sh(CONTROL_PLANE, &tables.collect::<String>());
            return tables.lines().filter_map(|line| number_after(line, "counter packets ")).sum();
        }
        families.map(|f| self.packets(*f, |rule| rule.starts_with("KUBE-NODEPORTS "))).sum()
    }

    /// How many connections the rules of the control plane's host ports have taken.
    #[must_use]
    pub fn by_host_port(&self) -> u64 {
        let families = self.kind.families().iter();
        if self.kind.backend == "nftables" {
            // Nobody else leads what comes in for these ports of the node to elsewhere.
            let ports = HOST_PORTS.map(|(port, _)| u64::from(port));
            let is_taken = |flow: &str, node: &str| {
                let port = number_after(flow, " dport=").filter(|port| ports.contains(port));
                let (first, last) = (after(flow, "dst="), flow.rsplit_once("src="));
                let goes_on = last.is_some_and(|(_, replier)| !replier.starts_with(node));
                port.is_some() && first == Some(node) && goes_on
            };
            let taken = families.map(|family| {
                let node = family.address(CONTROL_PLANE);
                self.flows(*family, node).iter().filter(|flow| is_taken(flow, node)).count()
            });
            return taken.sum::<usize>() as u64;
        }
        let is_dnat = |rule: &str| rule.starts_with("CNI-DN-") && rule.contains(" -j DNAT ");
        families.map(|f| self.packets(*f, is_dnat)).sum()
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

/// The word after the first occurrence of a mark.
fn after<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    text.split_once(mark)?.1.split(' ').next()
}

fn number_after(text: &str, mark: &str) -> Option<u64> {
    after(text, mark)?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
