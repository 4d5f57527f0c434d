//! What is in a table, and the elements and rules in it that have an owner.

use super::{Data, Element, Listed, Table, Verdict};
use crate::error::Result;
use crate::nfnetlink::{Batch, Nfnetlink};

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
    /// The comment, which names the owner.
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
