//! What is in the table at the moment.

use kernel::nft::{BaseChain, Element, Listed, SetType};
use kernel::{Batch, Nfnetlink};

use super::table::{FAMILY, PUBLISHED, Shared, TABLE, chain, chains, rules, set, sets};

/// The table: nothing in it if it is not there.
#[derive(Default)]
pub(super) struct Held {
    sets: Vec<(String, Vec<Element>)>,
    chains: Vec<&'static str>,
    /// With the names of their chains.
    rules: Vec<(String, Listed)>,
    /// Whether a pod asks for published ports, or has asked before.
    published: bool,
}

impl Held {
    pub(super) fn read(netlink: &Nfnetlink, published: bool) -> Result<Self, kernel::Error> {
        let mut held = Self::frame(netlink, published)?;
        for (name, elements) in &mut held.sets {
            *elements = netlink.elements(set(name))?;
        }
        Ok(held)
    }

    /// All but the elements.
    pub(super) fn frame(netlink: &Nfnetlink, published: bool) -> Result<Self, kernel::Error> {
        let mut held = Self::default();
        let names = netlink.set_names(FAMILY, TABLE)?;
        held.published = published || names.iter().any(|name| PUBLISHED.contains(&name.as_str()));
        held.sets.extend(names.into_iter().map(|name| (name, Vec::new())));
        // Without sets there is no table, or nothing of ours in it.
        if !held.sets.is_empty() {
            held.rules = netlink.table_rules(FAMILY, TABLE)?;
        }
        // All chains have rules, or are named by one.
        let is_whole =
            held.wanted_chains().iter().all(|(name, _)| held.missing_rule(name).is_none());
        for (name, _) in held.wanted_chains() {
            if is_whole || netlink.has_chain(chain(name))? {
                held.chains.push(name);
            }
        }
        Ok(held)
    }

    /// An empty table, as one is before the first pod.
    pub(super) fn nothing(published: bool) -> Self {
        Self { published, ..Self::default() }
    }

    /// All sets and maps that there should be.
    pub(super) fn wanted_sets(&self) -> Vec<(&'static str, SetType)> {
        sets(self.published)
    }

    /// All chains that there should be.
    pub(super) fn wanted_chains(&self) -> Vec<(&'static str, Option<BaseChain>)> {
        chains(self.published)
    }

    /// All rules that there should be in a chain.
    pub(super) fn wanted_rules(&self, chain: &str) -> Vec<Shared> {
        rules(self.published).into_iter().filter(|rule| rule.chain == chain).collect()
    }

    pub(super) fn elements(&self, set: &str) -> &[Element] {
        self.sets.iter().find(|(name, _)| name == set).map_or(&[], |(_, elements)| elements)
    }

    pub(super) fn has_chain(&self, chain: &str) -> bool {
        self.chains.contains(&chain)
    }

    /// The sets that are missing.
    pub(super) fn missing_sets(&self) -> Vec<&'static str> {
        let all = self.wanted_sets().into_iter().map(|(name, _)| name);
        all.filter(|wanted| !self.sets.iter().any(|(name, _)| name == wanted)).collect()
    }

    /// The first rule of a chain that is missing, or comes before one that should come first.
    pub(super) fn missing_rule(&self, chain: &str) -> Option<Shared> {
        let mut there = self.rules_of(chain);
        self.wanted_rules(chain)
            .into_iter()
            .find(|wanted| !there.any(|rule| rule.expressions == wanted.expressions))
    }

    /// The handles of our own rules in a chain.
    pub(super) fn handles(&self, chain: &str) -> Vec<u64> {
        let ours = self.wanted_rules(chain);
        let is_ours = |rule: &&Listed| ours.iter().any(|it| it.expressions == rule.expressions);
        self.rules_of(chain).filter(is_ours).map(|rule| rule.handle).collect()
    }

    /// Whether anything of the table is there.
    pub(super) fn is_there(&self) -> bool {
        !self.sets.is_empty() || !self.chains.is_empty()
    }

    /// Whether the table has rules of another program.
    pub(super) fn has_rules_of_others(&self) -> bool {
        let ours = rules(true);
        let is_ours = |(chain, rule): &(String, Listed)| {
            ours.iter().any(|it| it.chain == chain && it.expressions == rule.expressions)
        };
        !self.rules.iter().all(is_ours)
    }

    /// Deletes our rules, sets and chains; the chains that others may have rules in stay.
    pub(super) fn remove_ours(&self, batch: &mut Batch) {
        for (name, _) in self.wanted_chains() {
            for handle in self.handles(name) {
                batch.delete_rule(chain(name), handle);
            }
        }
        for (name, _) in self.wanted_sets() {
            if self.sets.iter().any(|(there, _)| there == name) {
                batch.delete_set(set(name));
            }
        }
        for (name, base) in self.wanted_chains() {
            let is_empty = self.handles(name).len() == self.rules_of(name).count();
            if base.is_none() && self.has_chain(name) && is_empty {
                batch.delete_chain(chain(name));
            }
        }
    }

    fn rules_of(&self, chain: &str) -> impl Iterator<Item = &Listed> {
        self.rules.iter().filter(move |(name, _)| name == chain).map(|(_, rule)| rule)
    }
}
