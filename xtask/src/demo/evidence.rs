//! Compares the state of the kernel and the files before a pod and after it.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;

use kernel::Family;
use kernel::Rtnl;
use kernel::conntrack::Filter;
use kernel::iptables::{Iptables, Rule, Table, Target};
use kernel::nfnetlink::Nfnetlink;

use super::error::DemoError;
use super::machine::{Machine, Workplace};

/// The state before the pod.
#[derive(Debug)]
pub(super) struct Evidence {
    node_links: BTreeSet<String>,
    pod_links: BTreeSet<String>,
    files: BTreeSet<String>,
}

/// What a node keeps after its first pod, for the next ones: the bridge, and the chains that all
/// hostPorts share.
const BRIDGE: &str = "podwire0";
const SHARED_CHAINS: [&str; 3] = ["CNI-HOSTPORT-DNAT", "CNI-HOSTPORT-SETMARK", "CNI-HOSTPORT-MASQ"];

impl Evidence {
    /// Reads the state before the pod exists.
    pub(super) fn collect(
        node: &Machine,
        pod: &Machine,
        workplace: &Workplace,
    ) -> Result<Self, DemoError> {
        Ok(Self { node_links: links(node)?, pod_links: links(pod)?, files: leases(workplace)? })
    }

    /// Reads the state again and checks that nothing of the pod is left.
    pub(super) fn nothing_is_left(
        &self,
        node: &Machine,
        pod: &Machine,
        workplace: &Workplace,
        addresses: &[IpAddr],
    ) -> Result<(), DemoError> {
        let mut node_links = links(node)?;
        let bridge = node_links.take(BRIDGE);
        same("links of the node", &self.node_links, &node_links)?;
        same("links of the pod", &self.pod_links, &links(pod)?)?;
        same("leases", &self.files, &leases(workplace)?)?;

        let addresses = addresses.to_vec();
        let (chains, rules, flows) = node.run(move || -> Result<_, kernel::Error> {
            Ok((chains()?, rules_naming(&addresses)?, flows_of(&addresses)?))
        })?;
        let (kept, own): (Texts, Texts) =
            chains.into_iter().partition(|chain| SHARED_CHAINS.contains(&chain.as_str()));
        same("chains of the pod", &BTreeSet::new(), &own)?;
        same("rules of the nat tables that name the pod", &BTreeSet::new(), &rules)?;
        same("tracked connections of the pod", &BTreeSet::new(), &flows)?;
        let kept: Vec<String> = bridge.into_iter().chain(kept).collect();
        println!("  left on the node, for the next pod: {}", kept.join(", "));
        Ok(())
    }
}

/// Prints the rules that a packet to the hostPort passes, in order.
pub(super) fn show_path(node: &Machine, host_port: u16, pod: &[IpAddr]) -> Result<(), DemoError> {
    let path = node.run(move || follow(host_port))?;
    let mut arrived = false;
    for (chain, rule) in &path {
        println!("  -A {chain} {rule}");
        if let Some(Target::Dnat { address, .. }) = rule.target {
            arrived |= pod.contains(&address);
        }
    }
    if arrived {
        return Ok(());
    }
    Err(DemoError::Evidence(format!("no rule leads from port {host_port} to {pod:?}")))
}

/// The rules that a TCP packet to a port of the node passes.
fn follow(host_port: u16) -> Result<Vec<(String, Rule)>, kernel::Error> {
    let netlink = Nfnetlink::open()?;
    let iptables = Iptables::of_node(&netlink)?;
    let mut path = Vec::new();
    let mut chains = vec!["PREROUTING".to_owned()];
    while let Some(chain) = chains.pop() {
        for (_, rule) in iptables.rules(Table::nat(Family::V4), &chain)? {
            let next = rule.next_chain().filter(|next| next.starts_with("CNI-"));
            chains.extend(next.map(str::to_owned));
            let of_the_way = next.is_some() || rule.to_string().contains(&host_port.to_string());
            if of_the_way {
                path.push((chain.clone(), rule));
            }
        }
    }
    Ok(path)
}

type Texts = BTreeSet<String>;

/// The names of the CNI plugins' chains in the nat tables.
fn chains() -> Result<Texts, kernel::Error> {
    let netlink = Nfnetlink::open()?;
    let iptables = Iptables::of_node(&netlink)?;
    let mut chains = Texts::new();
    for nat in Family::ALL.map(Table::nat) {
        let all = iptables.chain_names(nat)?.into_iter();
        chains.extend(all.filter(|chain| chain.starts_with("CNI-")));
    }
    Ok(chains)
}

/// The rules of the nat tables that contain one of these addresses.
fn rules_naming(addresses: &[IpAddr]) -> Result<Texts, kernel::Error> {
    let netlink = Nfnetlink::open()?;
    let iptables = Iptables::of_node(&netlink)?;
    let mut rules = Texts::new();
    for nat in Family::ALL.map(Table::nat) {
        for chain in iptables.chain_names(nat)? {
            let texts = iptables.rules(nat, &chain)?.map(|(_, rule)| rule.to_string());
            let named =
                texts.filter(|rule| addresses.iter().any(|ip| rule.contains(&ip.to_string())));
            rules.extend(named);
        }
    }
    Ok(rules)
}

/// The tracked connections from or to one of these addresses.
fn flows_of(addresses: &[IpAddr]) -> Result<Texts, kernel::Error> {
    let netlink = Nfnetlink::open()?;
    let mut flows = Texts::new();
    for &address in addresses {
        let family = Family::of(address);
        let from = Filter { original_source: Some(address), ..Filter::default() };
        let to = Filter { reply_source: Some(address), ..Filter::default() };
        for filter in [from, to] {
            flows.extend(netlink.flows(family, &filter)?.iter().map(|flow| format!("{flow:?}")));
        }
    }
    Ok(flows)
}

fn links(machine: &Machine) -> Result<Texts, DemoError> {
    let links = machine.run(|| Rtnl::open()?.links())?;
    Ok(links.into_iter().map(|link| link.name).collect())
}

/// The names of files that are addresses; host-local also keeps a counter and a lock there.
fn leases(workplace: &Workplace) -> Result<Texts, DemoError> {
    let mut found = Texts::new();
    let mut directories = vec![workplace.path().to_owned()];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory)
            .map_err(|error| DemoError::File("read", directory.clone(), error))?;
        for entry in entries {
            let entry = entry.map_err(|error| DemoError::File("read", directory.clone(), error))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() {
                directories.push(entry.path());
            } else if name.parse::<IpAddr>().is_ok() || directory.ends_with("results") {
                found.insert(name);
            }
        }
    }
    Ok(found)
}

fn same(what: &str, before: &Texts, after: &Texts) -> Result<(), DemoError> {
    if before == after {
        println!(
            "  {what}: {}",
            if after.is_empty() { "none".to_owned() } else { format!("as before, {after:?}") }
        );
        return Ok(());
    }
    Err(DemoError::Evidence(format!("{what}: {after:?} instead of {before:?}")))
}
