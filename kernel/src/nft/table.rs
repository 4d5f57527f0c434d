//! A table that belongs to one program: what it should contain, and what is in it.
//!
//! A [`TableSpec`] is a plain value: the sets, the chains and the rules that all owners share. [`Contents`]
//! is what the kernel has. The elements and rules of one owner have the owner's name as their comment.

use super::contents::Contents;
use super::{BaseChain, Expr, Listed, NewRule, Place, SetType, Table};
use crate::error::Result;
use crate::nfnetlink::{Batch, Nfnetlink};

/// What a table should contain for all owners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSpec {
    /// The table.
    pub table: Table,
    /// Its comment, at most 128 bytes.
    pub comment: Option<&'static str>,
    /// Its sets and maps.
    pub sets: Vec<SetSpec>,
    /// Its chains. One without rules must be named by a rule of another one; a base chain without rules is
    /// not made.
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
    /// They keep their order, and are added before the rules of other programs.
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
    /// Nothing of ours is there.
    Nothing,
    /// The whole table.
    Table,
    /// Our part. The rest belongs to other programs.
    Parts,
}

impl ChainSpec {
    /// Compares a chain that has these rules; `None` if it lacks nothing. A rule that is there may come too
    /// late.
    fn compare(&self, listed: &[&Listed]) -> Option<IncompleteChain<'_>> {
        let place = |wanted: &RuleSpec| {
            listed.iter().position(|rule| rule.expressions == wanted.expressions)
        };
        let is_late = |at: usize, own: usize| {
            let mut later = self.rules[at + 1..].iter().filter_map(place);
            self.order != Order::Any && later.any(|other| other < own)
        };
        let wrong = |(at, rule)| match place(rule) {
            None => Some((rule, false)),
            Some(own) => is_late(at, own).then_some((rule, true)),
        };
        let wrong: Vec<_> = self.rules.iter().enumerate().filter_map(wrong).collect();
        let added = match self.order {
            Order::Any => wrong.iter().map(|(rule, _)| *rule).collect(),
            Order::BeforeOthers | Order::Alone => self.rules.iter().collect(),
        };
        let is_replaced = |rule: &&&Listed| match self.order {
            Order::Any => false,
            Order::BeforeOthers => self.has(rule),
            Order::Alone => true,
        };
        let replaced = listed.iter().filter(is_replaced).map(|rule| rule.handle).collect();
        Some(IncompleteChain { spec: self, first: *wrong.first()?, added, replaced })
    }

    fn has(&self, rule: &Listed) -> bool {
        self.rules.iter().any(|one| one.expressions == rule.expressions)
    }
}

impl TableSpec {
    /// What a table with these contents lacks.
    #[must_use]
    pub fn missing(&self, contents: &Contents) -> Missing<'_> {
        let sets = self.sets.iter().filter(|set| !contents.has_set(&set.name)).collect();
        let chains = self.chains.iter().filter_map(|spec| {
            let listed: Vec<&Listed> = contents.rules_of(spec.name).collect();
            spec.compare(&listed)
        });
        Missing { spec: self, sets, chains: chains.collect() }
    }

    /// Has the kernel check that the whole table could be made, and changes nothing.
    pub fn try_out(&self, netlink: &Nfnetlink) -> Result<()> {
        let nothing = Contents { table: self.table, sets: Vec::new(), rules: Vec::new() };
        let mut batch = Batch::new();
        self.missing(&nothing).add_to(&mut batch);
        netlink.try_out(&batch)
    }

    /// Adds to a batch what removes the table. If it has chains or rules of other programs, or a policy that
    /// drops packets, only our part is removed: the rules, sets and chains of the specification and those of
    /// owners, except base chains, and sets and chains that rules of other programs use.
    pub fn purge(
        &self,
        netlink: &Nfnetlink,
        batch: &mut Batch,
        is_owned: impl Fn(&Listed) -> bool,
        is_owned_chain: impl Fn(&str) -> bool,
    ) -> Result<Purged> {
        let table = self.table;
        let (chains, sets) = (netlink.chain_names(table)?, netlink.set_names(table)?);
        let (ours, others): (Vec<_>, Vec<_>) = netlink
            .table_rules(table)?
            .into_iter()
            .partition(|(chain, rule)| self.has(chain, rule) || is_owned(rule));
        let is_ours = |chain: &&String| self.chain(chain).is_some() || is_owned_chain(chain);
        let drops = netlink.filter_chains(table.family)?;
        let drops = drops.iter().any(|chain| chain.table == table.name && chain.drops);
        if !drops && others.is_empty() && chains.iter().all(|chain| is_ours(&chain)) {
            if chains.is_empty() && sets.is_empty() {
                return Ok(Purged::Nothing);
            }
            batch.delete_table(table);
            return Ok(Purged::Table);
        }
        for (chain, rule) in &ours {
            batch.delete_rule(table.chain(chain), rule.handle);
        }
        let is_used = |name: &str| {
            others.iter().any(|(chain, rule)| chain == name || rule.names().any(|it| it == name))
        };
        for set in self.sets.iter().map(|set| &set.name).filter(|name| sets.contains(name)) {
            if is_used(set) {
                for element in netlink.elements(table.set(set))? {
                    batch.delete_element(table.set(set), &element.key);
                }
            } else {
                batch.delete_set(table.set(set));
            }
        }
        let is_base = |chain: &str| self.chain(chain).is_some_and(|spec| spec.base.is_some());
        for chain in chains.iter().filter(is_ours).filter(|it| !is_used(it) && !is_base(it)) {
            batch.delete_chain(table.chain(chain));
        }
        Ok(if batch.is_empty() { Purged::Nothing } else { Purged::Parts })
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

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn expressions(number: u32) -> Vec<Expr> {
        vec![Expr::Meta(number), Expr::Verdict(Verdict::Accept)]
    }

    /// The rules that are reported, added and replaced where a chain with the rules 1, 2 and 3 has these
    /// ones; 9 is another program's, and handles are the numbers too.
    #[track_caller]
    fn check(
        order: Order,
        there: &[u32],
        first: Option<(u32, bool)>,
        added: &[u32],
        replaced: &[u64],
    ) {
        let rule = |number| RuleSpec { expressions: expressions(number), text: number.to_string() };
        let rules = [1, 2, 3].map(rule).into();
        let chain = ChainSpec { name: "chain", base: None, comment: None, rules, order };
        let listed: Vec<Listed> = there
            .iter()
            .map(|number| Listed {
                handle: (*number).into(),
                expressions: expressions(*number),
                comment: None,
                owner: None,
            })
            .collect();
        let incomplete = chain.compare(&listed.iter().collect::<Vec<_>>());
        let number = |rule: &RuleSpec| rule.text.parse::<u32>().unwrap();
        let found = incomplete.as_ref().map(|it| (number(it.first.0), it.first.1));
        assert_eq!(found, first, "{order:?} {there:?}");
        let Some(it) = incomplete else { return };
        assert_eq!(it.added.into_iter().map(number).collect::<Vec<_>>(), added);
        assert_eq!(it.replaced, replaced);
    }

    #[test]
    fn chains_are_compared_with_what_they_should_contain() {
        for order in [Order::Any, Order::BeforeOthers, Order::Alone] {
            check(order, &[1, 2, 3], None, &[], &[]);
            check(order, &[9, 1, 9, 2, 3, 9], None, &[], &[]);
        }
        check(Order::Any, &[3, 2, 1], None, &[], &[]);
        check(Order::Any, &[3, 9, 1], Some((2, false)), &[2], &[]);
        check(Order::BeforeOthers, &[3, 9, 1], Some((1, true)), &[1, 2, 3], &[3, 1]);
        check(Order::BeforeOthers, &[9], Some((1, false)), &[1, 2, 3], &[]);
        check(Order::Alone, &[1, 3, 9, 2], Some((2, true)), &[1, 2, 3], &[1, 3, 9, 2]);
    }
}
