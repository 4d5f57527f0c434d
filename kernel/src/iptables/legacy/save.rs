//! Reads the output of `iptables-legacy-save`.

use crate::family::Family;
use crate::iptables::variant::Count;
use crate::iptables::{NatChain, Rule, Table};

/// The legacy tables of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Saved {
    /// Whether they have the hint of the kubelet.
    pub(crate) has_hint: bool,
    /// The number of rules in all tables.
    pub(in crate::iptables) rules: Count,
    tables: [SavedTable; 5],
}

/// A table as it was read, or as it will be after changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SavedTable {
    pub(super) of: Table,
    pub(super) chains: Vec<SavedChain>,
}

/// A chain of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SavedChain {
    pub(super) name: String,
    /// Whether it is a base chain with the policy DROP.
    pub(super) drops: bool,
    pub(super) lines: Vec<Line>,
}

/// A rule of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// The number to delete the rule by. It is valid until the table is read again.
    pub(super) handle: u64,
    /// The text after `-A CHAIN`, as it was printed.
    pub(super) text: String,
    /// The decoded text.
    pub(super) rule: Rule,
}

/// The table where the kubelet makes a chain in the variant that the node uses.
pub(crate) const HINT_TABLE: &str = "mangle";
/// The names of this chain. Kubelets before 1.24 use the second.
pub(crate) const HINTS: [&str; 2] = ["KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"];

impl Saved {
    /// Reads the text of all tables. Lines that are not a table, chain or rule are ignored.
    pub(crate) fn parse(family: Family, text: &str) -> Self {
        let tables = NAMES.map(|name| SavedTable::new(Table { family, name }));
        let mut saved = Self { has_hint: false, rules: Count::default(), tables };
        let (mut name, mut handle) = ("", 0);
        for line in text.lines() {
            if let Some(next) = line.strip_prefix('*') {
                name = next;
                continue;
            }
            let table = saved.tables.iter_mut().find(|table| table.of.name == name);
            if let Some(chain) = line.strip_prefix(':') {
                let mut words = chain.split(' ');
                let chain = words.next().unwrap_or_default();
                saved.has_hint |= name == HINT_TABLE && HINTS.contains(&chain);
                if let Some(table) = table {
                    table.declare(chain, words.next() == Some("DROP"));
                }
            } else if let Some(line) = line.strip_prefix("-A ") {
                let (chain, text) = line.split_once(' ').unwrap_or((line, ""));
                let rule = Rule::parse(family, text);
                saved.rules.add(chain, rule.next_chain());
                if let Some(table) = table {
                    handle += 1;
                    table.append(chain, Line { handle, text: text.to_owned(), rule });
                }
            }
        }
        saved
    }

    /// The table of this name.
    pub(crate) fn table(&self, wanted: Table) -> &SavedTable {
        let found = self.tables.iter().find(|table| table.of.name == wanted.name);
        found.unwrap_or(&self.tables[0])
    }

    /// All tables.
    pub(crate) fn tables(&self) -> &[SavedTable] {
        &self.tables
    }
}

/// The names of all tables.
const NAMES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];

impl SavedTable {
    /// A table before its first use.
    pub(crate) fn new(of: Table) -> Self {
        let nat =
            [NatChain::Prerouting, NatChain::Output, NatChain::Postrouting].map(NatChain::name);
        let filter = ["INPUT", "FORWARD", "OUTPUT"];
        let names: &[&str] = match of.name {
            "nat" => &nat,
            "filter" => &filter,
            "mangle" => &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"],
            // The chains of other tables are only known after they were read.
            _ => &[],
        };
        let chain =
            |name: &&str| SavedChain { name: (*name).to_owned(), drops: false, lines: Vec::new() };
        Self { of, chains: names.iter().map(chain).collect() }
    }

    /// The names of all chains, each with whether its policy is DROP.
    pub(crate) fn policies(&self) -> impl Iterator<Item = (&str, bool)> {
        self.chains.iter().map(|chain| (chain.name.as_str(), chain.drops))
    }

    /// The name of the table.
    pub(crate) fn name(&self) -> &'static str {
        self.of.name
    }

    /// The rules of a chain with their handles, in the order of the chain. Empty if the chain does not exist.
    pub(crate) fn rules(&self, chain: &str) -> Vec<(u64, Rule)> {
        let lines = self.chain(chain).map(|chain| chain.lines.as_slice()).unwrap_or_default();
        lines.iter().map(|line| (line.handle, line.rule.clone())).collect()
    }

    /// The names of all chains.
    pub(crate) fn chain_names(&self) -> Vec<String> {
        self.chains.iter().map(|chain| chain.name.clone()).collect()
    }

    pub(crate) fn has_chain(&self, name: &str) -> bool {
        self.chain(name).is_some()
    }

    pub(super) fn chain(&self, name: &str) -> Option<&SavedChain> {
        self.chains.iter().find(|chain| chain.name == name)
    }

    /// Records a chain and its policy.
    fn declare(&mut self, name: &str, drops: bool) {
        if let Some(chain) = self.chains.iter_mut().find(|chain| chain.name == name) {
            chain.drops = drops;
        } else {
            let (name, lines) = (name.to_owned(), Vec::new());
            self.chains.push(SavedChain { name, drops, lines });
        }
    }

    fn append(&mut self, name: &str, line: Line) {
        if let Some(chain) = self.chains.iter_mut().find(|chain| chain.name == name) {
            chain.lines.push(line);
        }
    }
}
