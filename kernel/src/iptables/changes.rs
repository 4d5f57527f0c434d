//! Changes to tables, for both variants of iptables.

use std::fmt::{Display, Formatter, Result};

use super::{BaseChain, Rule, Table};
use crate::nfnetlink::Batch;
use crate::nft::Place;

/// Changes that are made together: a [`Batch`] for nf_tables, or the input of `iptables-legacy-restore`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    pub(super) all: Vec<Change>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "most changes add a rule, and there are few")]
pub(super) enum Change {
    AddTable { table: Table },
    AddBaseChain { table: Table, base: BaseChain },
    AddChain { table: Table, chain: String },
    CreateChain { table: Table, chain: String },
    FlushChain { table: Table, chain: String },
    DeleteChain { table: Table, chain: String },
    AddRule { table: Table, chain: String, place: Place, rule: Rule, owner: Option<String> },
    DeleteRule { table: Table, chain: String, handle: u64 },
}

impl Changes {
    /// No changes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the table if it does not exist.
    pub fn add_table(&mut self, table: Table) {
        self.all.push(Change::AddTable { table });
    }

    /// Makes a base chain of iptables if it does not exist.
    pub fn add_base_chain(&mut self, table: Table, base: impl Into<BaseChain>) {
        self.all.push(Change::AddBaseChain { table, base: base.into() });
    }

    /// Makes a chain if it does not exist.
    pub fn add_chain(&mut self, table: Table, chain: &str) {
        self.all.push(Change::AddChain { table, chain: chain.to_owned() });
    }

    /// Makes a chain. If it exists, all changes fail with EEXIST.
    pub fn create_chain(&mut self, table: Table, chain: &str) {
        self.all.push(Change::CreateChain { table, chain: chain.to_owned() });
    }

    /// Deletes all rules of a chain. If the chain does not exist, all changes fail with ENOENT.
    pub fn flush_chain(&mut self, table: Table, chain: &str) {
        self.all.push(Change::FlushChain { table, chain: chain.to_owned() });
    }

    /// Deletes a chain. All changes fail with EBUSY if the chain then has rules or a rule leads to it, and
    /// with ENOENT if it does not exist.
    pub fn delete_chain(&mut self, table: Table, chain: &str) {
        self.all.push(Change::DeleteChain { table, chain: chain.to_owned() });
    }

    /// Adds a rule.
    pub fn add_rule(&mut self, table: Table, chain: &str, place: Place, rule: &Rule) {
        let (table, chain, rule) = (table, chain.to_owned(), rule.clone());
        self.all.push(Change::AddRule { table, chain, place, rule, owner: None });
    }

    /// Adds a rule with the name of its owner, at most 253 bytes. `iptables` does not show or compare this
    /// name, so `-C` and `-D` find the rule without it. The legacy variant cannot store it and ignores it.
    pub fn add_owned_rule(
        &mut self,
        table: Table,
        chain: &str,
        place: Place,
        rule: &Rule,
        owner: &str,
    ) {
        let (table, chain, rule) = (table, chain.to_owned(), rule.clone());
        let owner = Some(owner.to_owned());
        self.all.push(Change::AddRule { table, chain, place, rule, owner });
    }

    /// Deletes one rule. If it does not exist, all changes fail with ENOENT.
    pub fn delete_rule(&mut self, table: Table, chain: &str, handle: u64) {
        self.all.push(Change::DeleteRule { table, chain: chain.to_owned(), handle });
    }

    /// Encodes the changes as messages to nf_tables.
    #[must_use]
    pub fn batch(&self) -> Batch {
        let mut batch = Batch::new();
        for change in &self.all {
            match change {
                Change::AddTable { table } => batch.add_table((*table).into(), None),
                Change::AddBaseChain { table, base } => base.add_to(&mut batch, *table),
                Change::AddChain { table, chain } => batch.add_chain(table.chain(chain), None),
                Change::CreateChain { table, chain } => batch.create_chain(table.chain(chain)),
                Change::FlushChain { table, chain } => batch.flush_chain(table.chain(chain)),
                Change::DeleteChain { table, chain } => batch.delete_chain(table.chain(chain)),
                Change::AddRule { table, chain, place, rule, owner } => {
                    table.add_rule(&mut batch, chain, *place, rule, owner.as_deref());
                }
                Change::DeleteRule { table, chain, handle } => {
                    batch.delete_rule(table.chain(chain), *handle);
                }
            }
        }
        batch
    }
}

impl Change {
    pub(super) fn table(&self) -> Table {
        match self {
            Self::AddTable { table }
            | Self::AddBaseChain { table, .. }
            | Self::AddChain { table, .. }
            | Self::CreateChain { table, .. }
            | Self::FlushChain { table, .. }
            | Self::DeleteChain { table, .. }
            | Self::AddRule { table, .. }
            | Self::DeleteRule { table, .. } => *table,
        }
    }
}

/// The operation and its object, for errors.
impl Display for Change {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let program = self.table().program();
        match self {
            Self::AddTable { table } => write!(f, "{program}: add table {}", table.name),
            Self::AddBaseChain { base, .. } => write!(f, "{program}: add chain {}", base.name),
            Self::AddChain { chain, .. } | Self::CreateChain { chain, .. } => {
                write!(f, "{program}: add chain {chain}")
            }
            Self::FlushChain { chain, .. } => write!(f, "{program}: delete all rules of {chain}"),
            Self::DeleteChain { chain, .. } => write!(f, "{program}: delete chain {chain}"),
            Self::AddRule { chain, rule, .. } => write!(f, "{program}: add rule -A {chain} {rule}"),
            Self::DeleteRule { chain, handle, .. } => {
                write!(f, "{program}: delete rule {handle} of {chain}")
            }
        }
    }
}
