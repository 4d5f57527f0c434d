//! Changes to the tables `nat`, whichever variant of iptables they are for.

use std::fmt::{Display, Formatter, Result};

use super::{Nat, NatChain, Rule};
use crate::nfnetlink::Batch;
use crate::nft::Place;

/// Changes that are made together: a [`Batch`] for nf_tables, the input of `iptables-legacy-restore` else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    pub(super) all: Vec<Change>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    AddTable { nat: Nat },
    AddBaseChain { nat: Nat, base: NatChain },
    AddChain { nat: Nat, chain: String },
    CreateChain { nat: Nat, chain: String },
    FlushChain { nat: Nat, chain: String },
    DeleteChain { nat: Nat, chain: String },
    AddRule { nat: Nat, chain: String, place: Place, rule: Rule },
    DeleteRule { nat: Nat, chain: String, handle: u64 },
}

impl Changes {
    /// No changes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the table unless it is there.
    pub fn add_table(&mut self, nat: Nat) {
        self.all.push(Change::AddTable { nat });
    }

    /// Makes a base chain unless it is there, as iptables has it.
    pub fn add_base_chain(&mut self, nat: Nat, base: NatChain) {
        self.all.push(Change::AddBaseChain { nat, base });
    }

    /// Makes a chain unless it is there.
    pub fn add_chain(&mut self, nat: Nat, chain: &str) {
        self.all.push(Change::AddChain { nat, chain: chain.to_owned() });
    }

    /// Makes a chain; all changes fail with EEXIST if it is there.
    pub fn create_chain(&mut self, nat: Nat, chain: &str) {
        self.all.push(Change::CreateChain { nat, chain: chain.to_owned() });
    }

    /// Deletes all rules of a chain; fails with ENOENT if there is no such chain.
    pub fn flush_chain(&mut self, nat: Nat, chain: &str) {
        self.all.push(Change::FlushChain { nat, chain: chain.to_owned() });
    }

    /// Deletes a chain; fails with EBUSY if it is not empty or used by then, with ENOENT if it is not there.
    pub fn delete_chain(&mut self, nat: Nat, chain: &str) {
        self.all.push(Change::DeleteChain { nat, chain: chain.to_owned() });
    }

    /// Adds a rule.
    pub fn add_rule(&mut self, nat: Nat, chain: &str, place: Place, rule: &Rule) {
        let (chain, rule) = (chain.to_owned(), rule.clone());
        self.all.push(Change::AddRule { nat, chain, place, rule });
    }

    /// Deletes one rule; fails with ENOENT if it is not there.
    pub fn delete_rule(&mut self, nat: Nat, chain: &str, handle: u64) {
        self.all.push(Change::DeleteRule { nat, chain: chain.to_owned(), handle });
    }

    /// The changes as messages to nf_tables.
    #[must_use]
    pub fn batch(&self) -> Batch {
        let mut batch = Batch::new();
        for change in &self.all {
            match change {
                Change::AddTable { nat } => nat.add_table(&mut batch),
                Change::AddBaseChain { nat, base } => nat.add_base_chain(&mut batch, *base),
                Change::AddChain { nat, chain } => batch.add_chain(nat.chain(chain)),
                Change::CreateChain { nat, chain } => batch.create_chain(nat.chain(chain)),
                Change::FlushChain { nat, chain } => batch.flush_chain(nat.chain(chain)),
                Change::DeleteChain { nat, chain } => batch.delete_chain(nat.chain(chain)),
                Change::AddRule { nat, chain, place, rule } => {
                    nat.add_rule(&mut batch, chain, *place, rule);
                }
                Change::DeleteRule { nat, chain, handle } => {
                    batch.delete_rule(nat.chain(chain), *handle);
                }
            }
        }
        batch
    }
}

impl Change {
    pub(super) fn nat(&self) -> Nat {
        match self {
            Self::AddTable { nat }
            | Self::AddBaseChain { nat, .. }
            | Self::AddChain { nat, .. }
            | Self::CreateChain { nat, .. }
            | Self::FlushChain { nat, .. }
            | Self::DeleteChain { nat, .. }
            | Self::AddRule { nat, .. }
            | Self::DeleteRule { nat, .. } => *nat,
        }
    }
}

/// The operation and its object, for errors.
impl Display for Change {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let program = self.nat().program();
        match self {
            Self::AddTable { .. } => write!(f, "{program}: add table nat"),
            Self::AddBaseChain { base, .. } => write!(f, "{program}: add chain {}", base.name()),
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
