//! A table that belongs to one program: what it should contain, and what is in it.
//!
//! A [`TableSpec`] is a plain value: the sets, the chains and the rules that all owners share. [`Contents`]
//! is what the kernel has. What one owner has are elements and rules with the owner's name as their comment.

use super::{
    BaseChain, Chain, Data, Element, Expr, Listed, NewRule, Place, Set, SetType, TableFamily,
    Verdict,
};
use crate::error::Result;
use crate::nfnetlink::{Batch, Nfnetlink};

/// A table by its full name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// The packets that it sees.
    pub family: TableFamily,
    /// Its own name.
    pub name: &'static str,
}

/// What a table should contain, whatever owners it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSpec {
    /// The table.
    pub table: Table,
    /// Its comment, at most 128 bytes.
    pub comment: Option<&'static str>,
    /// Its sets and maps.
    pub sets: Vec<SetSpec>,
    /// Its chains. One without rules must be named by a rule of another one.
    pub chains: Vec<ChainSpec>,
}

/// A set or map of a [`TableSpec`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetSpec {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub of: SetType,
}

/// A chain of a [`TableSpec`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainSpec {
    /// Its name.
    pub name: &'static str,
    /// The hook of a base chain.
    pub base: Option<BaseChain>,
    /// Its comment, at most 128 bytes.
    pub comment: Option<&'static str>,
    /// The rules that all owners share.
    pub rules: Vec<RuleSpec>,
    /// Where these rules come among others.
    pub order: Order,
}

/// The order of the rules of a [`ChainSpec`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// It does not matter.
    Any,
    /// They keep their order, and come before the rules of other programs.
    BeforeOthers,
    /// They keep their order. When one is added, the rules of other programs are removed.
    Alone,
}

/// A rule of a [`ChainSpec`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSpec {
    /// What it does, step by step.
    pub expressions: Vec<Expr>,
    /// The rule as `nft` shows it.
    pub text: String,
}

/// What is in a table. A table that does not exist has nothing in it.
#[derive(Debug, Clone)]
pub struct Contents {
    /// The table.
    pub table: Table,
    /// The sets and maps by name, with their elements if these were read.
    pub sets: Vec<(String, Vec<Element>)>,
    /// The rules, each with the name of its chain.
    pub rules: Vec<(String, Listed)>,
}

/// An element or rule that has an owner.
#[derive(Debug, Clone, Copy)]
pub struct Owned<'a> {
    /// The owner's name, which is the comment.
    pub owner: &'a str,
    /// Where it is.
    pub place: OwnedPlace<'a>,
}

/// Where an owned element or rule is.
#[derive(Debug, Clone, Copy)]
pub enum OwnedPlace<'a> {
    /// In the set or map of this name.
    Element(&'a str, &'a Element),
    /// In the chain of this name.
    Rule(&'a str, &'a Listed),
}

/// How elements are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// They expire at the next tick of the clock, see [`Batch::expire_element`].
    Expire,
    /// They are deleted. Closing the socket waits until the kernel has disposed of them.
    Delete,
}

/// The part of a [`TableSpec`] that a table lacks.
#[derive(Debug)]
pub struct Missing<'a> {
    spec: &'a TableSpec,
    sets: Vec<&'a SetSpec>,
    chains: Vec<IncompleteChain<'a>>,
}

/// The first thing that a table lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingPart {
    /// `set`, `map` or `rule`.
    pub what: &'static str,
    /// Its full name; for a rule, its chain's, and the rule as `nft` shows it.
    pub name: String,
    /// Whether it is a rule that is there, but behind one that it must precede.
    pub is_late: bool,
}

/// A chain that lacks rules.
#[derive(Debug)]
struct IncompleteChain<'a> {
    spec: &'a ChainSpec,
    /// The first rule that it lacks, and whether that is there, but too late.
    first: (&'a RuleSpec, bool),
    added: Vec<&'a RuleSpec>,
    /// The handles of rules that are added again, in their order.
    replaced: Vec<u64>,
}

/// What [`TableSpec::purge`] removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purged {
    /// There is no such table.
    Nothing,
    /// The whole table.
    Table,
    /// What the specification contains and what has an owner. The rest belongs to other programs.
    Parts,
}

impl Table {
    /// A set or map of the table.
    #[must_use]
    pub const fn set(self, name: &str) -> Set<'_> {
        Set { family: self.family, table: self.name, name }
    }

    /// A chain of the table.
    #[must_use]
    pub const fn chain(self, name: &str) -> Chain<'_> {
        Chain { family: self.family, table: self.name, name }
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.family.name(), self.name)
    }
}

impl ChainSpec {
    /// The rules that a chain with these rules lacks, each with whether it is there, but comes too late.
    fn missing<'a>(&'a self, listed: &[&Listed]) -> Vec<(&'a RuleSpec, bool)> {
        let place = |wanted: &RuleSpec| {
            listed.iter().position(|rule| rule.expressions == wanted.expressions)
        };
        let is_wrong = |(at, wanted): (usize, &'a RuleSpec)| {
            let mut later = self.rules[at + 1..].iter().filter_map(place);
            let is_late =
                place(wanted).map(|own| self.order != Order::Any && later.any(|other| other < own));
            (is_late != Some(false)).then_some((wanted, is_late.is_some()))
        };
        self.rules.iter().enumerate().filter_map(is_wrong).collect()
    }

    fn has(&self, rule: &Listed) -> bool {
        self.rules.iter().any(|one| one.expressions == rule.expressions)
    }
}

impl TableSpec {
    /// What a table with these contents lacks.
    #[must_use]
    pub fn missing(&self, contents: &Contents) -> Missing<'_> {
        let is_there = |set: &&SetSpec| contents.sets.iter().any(|(name, _)| *name == set.name);
        let sets = self.sets.iter().filter(|set| !is_there(set)).collect();
        let mut chains = Vec::new();
        for spec in &self.chains {
            let listed: Vec<&Listed> = contents.rules_of(spec.name).collect();
            let missing = spec.missing(&listed);
            let Some(first) = missing.first().copied() else { continue };
            let (added, is_replaced): (_, fn(&ChainSpec, &Listed) -> bool) = match spec.order {
                Order::Any => (missing.iter().map(|(rule, _)| *rule).collect(), |_, _| false),
                Order::BeforeOthers => (spec.rules.iter().collect(), ChainSpec::has),
                Order::Alone => (spec.rules.iter().collect(), |_, _| true),
            };
            let replaced = listed.iter().filter(|rule| is_replaced(spec, rule));
            let replaced = replaced.map(|rule| rule.handle).collect();
            chains.push(IncompleteChain { spec, first, added, replaced });
        }
        Missing { spec: self, sets, chains }
    }

    /// Has the kernel check that the whole table could be made, and changes nothing.
    pub fn try_out(&self, netlink: &Nfnetlink) -> Result<()> {
        let chains = self.chains.iter().filter_map(|spec| {
            let (first, added) = ((spec.rules.first()?, false), spec.rules.iter().collect());
            Some(IncompleteChain { spec, first, added, replaced: Vec::new() })
        });
        let chains = chains.collect();
        let mut batch = Batch::new();
        Missing { spec: self, sets: self.sets.iter().collect(), chains }.add_to(&mut batch);
        netlink.try_out(&batch)
    }

    /// Adds to a batch what removes the table. If it has chains or rules of other programs, or a policy that
    /// drops packets, only the sets and rules of the specification are removed, the rules that have an owner,
    /// and the chains that are empty then.
    pub fn purge(
        &self,
        netlink: &Nfnetlink,
        batch: &mut Batch,
        is_owned: impl Fn(&Listed) -> bool,
    ) -> Result<Purged> {
        let table = self.table;
        let (chains, sets) = (netlink.chain_names(table)?, netlink.set_names(table)?);
        if chains.is_empty() && sets.is_empty() {
            return Ok(Purged::Nothing);
        }
        let (ours, others): (Vec<_>, Vec<_>) = netlink
            .table_rules(table)?
            .into_iter()
            .partition(|(chain, rule)| self.has(chain, rule) || is_owned(rule));
        let of_others = |chain: &String| others.iter().any(|(name, _)| name == chain);
        let is_ours = |chain: &&String| {
            self.chain(chain).is_some() || ours.iter().any(|(name, _)| name == *chain)
        };
        let drops = netlink.filter_chains(table.family)?;
        let drops = drops.iter().any(|chain| chain.table == table.name && chain.drops);
        if !drops && others.is_empty() && chains.iter().all(|chain| is_ours(&chain)) {
            batch.delete_table(table);
            return Ok(Purged::Table);
        }
        for (chain, rule) in &ours {
            batch.delete_rule(table.chain(chain), rule.handle);
        }
        for SetSpec { name, .. } in self.sets.iter().filter(|set| sets.contains(&set.name)) {
            batch.delete_set(table.set(name));
        }
        let is_base = |chain: &str| self.chain(chain).is_some_and(|spec| spec.base.is_some());
        for chain in chains.iter().filter(is_ours).filter(|it| !of_others(it) && !is_base(it)) {
            batch.delete_chain(table.chain(chain));
        }
        Ok(Purged::Parts)
    }

    fn chain(&self, name: &str) -> Option<&ChainSpec> {
        self.chains.iter().find(|spec| spec.name == name)
    }

    fn has(&self, chain: &str, rule: &Listed) -> bool {
        self.chain(chain).is_some_and(|spec| spec.has(rule))
    }
}

impl Missing<'_> {
    /// Whether nothing is missing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty() && self.chains.is_empty()
    }

    /// The first thing that is missing.
    #[must_use]
    pub fn first(&self) -> Option<MissingPart> {
        let table = self.spec.table;
        if let Some(SetSpec { name, of }) = self.sets.first() {
            let what = if of.data.is_empty() { "set" } else { "map" };
            return Some(MissingPart { what, name: format!("{table} {name}"), is_late: false });
        }
        let IncompleteChain { spec, first: (rule, is_late), .. } = self.chains.first()?;
        let name = format!("{} {}", table.chain(spec.name), rule.text);
        Some(MissingPart { what: "rule", name, is_late: *is_late })
    }

    /// Adds to a batch what is missing.
    pub fn add_to(&self, batch: &mut Batch) {
        if self.is_empty() {
            return;
        }
        let table = self.spec.table;
        batch.add_table(table, self.spec.comment);
        for SetSpec { name, of } in &self.sets {
            batch.add_set(table.set(name), of);
        }
        for spec in &self.spec.chains {
            let is_incomplete = self.chains.iter().any(|chain| chain.spec.name == spec.name);
            let chain = table.chain(spec.name);
            // Chains that are there stay as they are. One without rules may be missing.
            match spec.base {
                Some(base) if is_incomplete => batch.add_base_chain(chain, base),
                None if is_incomplete || spec.rules.is_empty() => {
                    batch.add_chain(chain, spec.comment);
                }
                _ => {}
            }
        }
        for chain in &self.chains {
            chain.add_rules(batch, table);
        }
    }
}

impl MissingPart {
    /// What is wrong with it, for an error.
    #[must_use]
    pub fn how(&self) -> &'static str {
        if self.is_late {
            "comes too late, behind one that takes its packets"
        } else {
            "is missing"
        }
    }
}

impl IncompleteChain<'_> {
    fn add_rules(&self, batch: &mut Batch, table: Table) {
        let chain = table.chain(self.spec.name);
        for handle in &self.replaced {
            batch.delete_rule(chain, *handle);
        }
        let new = |rule: &RuleSpec| NewRule {
            expressions: rule.expressions.clone(),
            ..NewRule::default()
        };
        if self.spec.order == Order::BeforeOthers {
            self.added.iter().rev().for_each(|rule| batch.add_rule(chain, Place::First, new(rule)));
        } else {
            self.added.iter().for_each(|rule| batch.add_rule(chain, Place::Last, new(rule)));
        }
    }
}

impl Contents {
    /// Reads the names of the sets, and the rules. Without sets, the table counts as empty.
    pub fn frame(netlink: &Nfnetlink, table: Table) -> Result<Self> {
        let names = netlink.set_names(table)?;
        let rules = if names.is_empty() { Vec::new() } else { netlink.table_rules(table)? };
        let sets = names.into_iter().map(|name| (name, Vec::new())).collect();
        Ok(Self { table, sets, rules })
    }

    /// Reads the sets with their elements, and the rules. Without sets, the table counts as empty.
    pub fn read(netlink: &Nfnetlink, table: Table) -> Result<Self> {
        let mut contents = Self::frame(netlink, table)?;
        for (name, elements) in &mut contents.sets {
            *elements = netlink.elements(table.set(name))?;
        }
        Ok(contents)
    }

    /// Reads the rules of one chain, for a table whose owners have many rules in others.
    pub fn of_chain(netlink: &Nfnetlink, table: Table, chain: &str) -> Result<Self> {
        let rules = netlink.rules(table.chain(chain))?.map(|rule| (chain.to_owned(), rule));
        Ok(Self { table, sets: Vec::new(), rules: rules.collect() })
    }

    /// Whether a set or map has been read.
    #[must_use]
    pub fn has_set(&self, set: &str) -> bool {
        self.sets.iter().any(|(name, _)| name == set)
    }

    /// The elements of a set or map.
    #[must_use]
    pub fn elements(&self, set: &str) -> &[Element] {
        self.sets.iter().find(|(name, _)| name == set).map_or(&[], |(_, elements)| elements)
    }

    /// The rules of a chain in their order.
    pub fn rules_of(&self, chain: &str) -> impl Iterator<Item = &Listed> {
        self.rules.iter().filter(move |(name, _)| name == chain).map(|(_, rule)| rule)
    }

    /// The elements and rules that have an owner.
    pub fn owned(&self) -> impl Iterator<Item = Owned<'_>> {
        let of_sets = self.sets.iter().flat_map(|(set, elements)| {
            elements.iter().filter_map(|element| {
                let place = OwnedPlace::Element(set, element);
                Some(Owned { owner: element.comment.as_deref()?, place })
            })
        });
        let of_chains = self.rules.iter().filter_map(|(chain, rule)| {
            let place = OwnedPlace::Rule(chain, rule);
            Some(Owned { owner: rule.comment.as_deref()?, place })
        });
        of_sets.chain(of_chains)
    }

    /// Adds to a batch what removes elements and rules. With the last rule of a chain to which map elements
    /// lead, the chain is removed, and these elements.
    pub fn remove(&self, batch: &mut Batch, doomed: &[Owned<'_>], how: Removal) {
        let mut chains: Vec<&str> = Vec::new();
        for Owned { place, .. } in doomed {
            match place {
                OwnedPlace::Element(set, element) if how == Removal::Expire => {
                    batch.expire_element(self.table.set(set), element);
                }
                OwnedPlace::Element(set, element) => {
                    batch.delete_element(self.table.set(set), &element.key);
                }
                OwnedPlace::Rule(chain, rule) => {
                    batch.delete_rule(self.table.chain(chain), rule.handle);
                    chains.push(chain);
                }
            }
        }
        chains.sort_unstable();
        for same in chains.chunk_by(|a, b| a == b) {
            if same.len() == self.rules_of(same[0]).count() {
                self.remove_chain(batch, same[0]);
            }
        }
    }

    fn remove_chain(&self, batch: &mut Batch, chain: &str) {
        use Verdict::{Goto, Jump};
        let is_entry = |element: &&Element| match &element.data {
            Some(Data::Verdict(Jump(to) | Goto(to))) => to == chain,
            _ => false,
        };
        for (set, elements) in &self.sets {
            for element in elements.iter().filter(is_entry) {
                batch.delete_element(self.table.set(set), &element.key);
            }
        }
        batch.delete_chain(self.table.chain(chain));
    }
}
