//! The rules of the control plane's table `nat` that a connection passes, by their counters.

use std::collections::BTreeSet;

use tests::Cmd;
use tests::kind::{CONTROL_PLANE, Cluster};

/// A rule, and the number of connections that it has counted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Counted {
    chain: String,
    /// The rule in the syntax of `iptables -S`, without `-A CHAIN`.
    rule: String,
    packets: u64,
}

impl Counted {
    /// The chain that the rule jumps to, if it is not a target.
    fn next_chain(&self) -> Option<&str> {
        let mut words = self.rule.split(' ');
        words.find(|word| ["-j", "-g"].contains(word)).and_then(|_| words.next())
    }

    /// Whether a CNI plugin wrote it.
    fn is_of_a_plugin(&self) -> bool {
        [self.chain.as_str(), self.next_chain().unwrap_or_default()]
            .iter()
            .any(|chain| chain.starts_with("CNI-"))
    }

    /// The rule without a comment, unless a plugin wrote it.
    fn shown(&self) -> String {
        let comment = || {
            let (before, rest) = self.rule.split_once("-m comment --comment \"")?;
            Some(format!("{before}{}", rest.split_once("\" ")?.1))
        };
        let shown = if self.is_of_a_plugin() { None } else { comment() };
        shown.unwrap_or_else(|| self.rule.clone())
    }
}

/// The rules that some connections passed: each counts the first packet of a connection.
#[derive(Debug)]
pub(super) struct Passed(Vec<Counted>);

impl Passed {
    /// Compares the counters before and after `something`, which must not change rules.
    pub(super) fn of<E>(
        cluster: &Cluster,
        something: impl FnOnce() -> Result<(), E>,
    ) -> Result<Self, E> {
        let before = counted(cluster);
        something()?;
        let mut rules = counted(cluster);
        for (one, before) in rules.iter_mut().zip(before) {
            one.packets -= before.packets;
        }
        rules.retain(|one| one.packets > 0);
        Ok(Self(rules))
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
            println!(
                "{:>4}{:depth$}-A {chain} {}",
                one.packets,
                "",
                one.shown(),
                depth = 2 * depth
            );
            if let Some(next) = one.next_chain() {
                self.show_chain(next, depth + 1, shown);
            }
        }
    }
}

/// All rules of CNI plugins, without their counters.
pub(super) fn rules_of_plugins(cluster: &Cluster) -> Vec<String> {
    let of_plugins = counted(cluster).into_iter().filter(Counted::is_of_a_plugin);
    of_plugins.map(|one| format!("{} {}", one.chain, one.rule)).collect()
}

fn counted(cluster: &Cluster) -> Vec<Counted> {
    let save = Cmd::new("iptables-nft-save").args(["-c", "-t", "nat"]);
    let saved = cluster.world.run(CONTROL_PLANE, &save).success().stdout;
    saved.lines().filter_map(read).collect()
}

/// Reads a line like `[3:180] -A PREROUTING -j CNI-HOSTPORT-DNAT`.
fn read(line: &str) -> Option<Counted> {
    let (counters, rule) = line.strip_prefix('[')?.split_once("] -A ")?;
    let (packets, _) = counters.split_once(':')?;
    let (chain, rule) = rule.split_once(' ')?;
    Some(Counted { chain: chain.into(), rule: rule.into(), packets: packets.parse().ok()? })
}
