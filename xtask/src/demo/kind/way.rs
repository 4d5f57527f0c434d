//! The rules of the node's table `nat` that a connection passes, by their counters.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use kernel::iptables::{Match, Nat, Rule, Target};
use kernel::nfnetlink::Nfnetlink;
use kernel::nft::Expr;

use crate::demo::DemoError;
use crate::demo::machine::Machine;

/// A rule of the table `nat`, and the number of connections that it has counted.
#[derive(Clone, Debug)]
struct Counted {
    chain: String,
    handle: u64,
    rule: Rule,
    packets: u64,
}

impl Counted {
    /// Whether a CNI plugin wrote it.
    fn is_of_a_plugin(&self) -> bool {
        let next = self.rule.next_chain().unwrap_or_default();
        self.chain.starts_with("CNI-") || next.starts_with("CNI-")
    }

    /// The rule as text; rules of others without their comments.
    fn told(&self) -> String {
        let mut rule = self.rule.clone();
        if !self.is_of_a_plugin() {
            rule.matches.retain(|one| !matches!(one, Match::Comment(_) | Match::Other(_)));
        }
        rule.to_string()
    }
}

/// The rules that some connections passed: each counts the first packet of a connection.
#[derive(Debug)]
pub(super) struct Way(Vec<Counted>);

impl Way {
    /// Compares the counters of the node before and after `something`.
    pub(super) fn of<T>(
        node: &Machine,
        something: impl FnOnce() -> Result<T, DemoError>,
    ) -> Result<(T, Self), DemoError> {
        let before: BTreeMap<u64, u64> =
            node.run(counted)?.into_iter().map(|one| (one.handle, one.packets)).collect();
        let done = something()?;
        let mut rules = node.run(counted)?;
        for one in &mut rules {
            one.packets -= before.get(&one.handle).copied().unwrap_or(0);
        }
        rules.retain(|one| one.packets > 0);
        Ok((done, Self(rules)))
    }

    /// Prints the rules in the order of their chains.
    pub(super) fn show(&self) {
        let mut shown = BTreeSet::new();
        for chain in ["PREROUTING", "OUTPUT", "POSTROUTING"] {
            self.show_chain(chain, 1, &mut shown);
        }
    }

    fn show_chain<'a>(&'a self, chain: &'a str, depth: usize, shown: &mut BTreeSet<&'a str>) {
        if !shown.insert(chain) {
            return;
        }
        for one in self.0.iter().filter(|one| one.chain == chain) {
            println!("{:>4}{:depth$}-A {chain} {}", one.packets, "", one.told(), depth = 2 * depth);
            if let Some(next) = one.rule.next_chain() {
                self.show_chain(next, depth + 1, shown);
            }
        }
    }

    /// The number of connections that the hostPort's rules sent to this pod.
    pub(super) fn by_host_port(&self, pod: IpAddr) -> u64 {
        self.count(|one| {
            let target = one.rule.target.as_ref();
            let leads_there =
                matches!(target, Some(Target::Dnat { address, .. }) if *address == pod);
            one.chain.starts_with("CNI-DN-") && leads_there
        })
    }

    /// The number of connections that the rules of a node port took.
    pub(super) fn by_node_port(&self) -> u64 {
        self.count(|one| one.chain == "KUBE-NODEPORTS")
    }

    fn count(&self, is_counted: impl Fn(&Counted) -> bool) -> u64 {
        self.0.iter().filter(|one| is_counted(one)).map(|one| one.packets).sum()
    }
}

/// All rules of CNI plugins, without their counters.
pub(super) fn rules_of_plugins(node: &Machine) -> Result<Vec<String>, DemoError> {
    let of_plugins = node.run(counted)?.into_iter().filter(Counted::is_of_a_plugin);
    Ok(of_plugins.map(|one| format!("{} {}", one.chain, one.rule)).collect())
}

fn counted() -> Result<Vec<Counted>, kernel::Error> {
    let netlink = Nfnetlink::open()?;
    let mut all = Vec::new();
    for chain in netlink.chain_names(Nat::V4.family(), "nat")? {
        let packets = |expression: &Expr| match expression {
            Expr::Counter { packets, .. } => Some(*packets),
            _ => None,
        };
        let listed = netlink.rules(Nat::V4.chain(&chain))?;
        let packets: BTreeMap<u64, u64> = listed
            .filter_map(|one| Some((one.handle, one.expressions.iter().find_map(packets)?)))
            .collect();
        for (handle, rule) in Nat::V4.rules(&netlink, &chain)? {
            let packets = packets.get(&handle).copied().unwrap_or(0);
            all.push(Counted { chain: chain.clone(), handle, rule, packets });
        }
    }
    Ok(all)
}
