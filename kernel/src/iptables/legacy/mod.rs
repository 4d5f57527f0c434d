//! The legacy variant of iptables: tables of `x_tables`, which `iptables-legacy-save` reads and
//! `iptables-legacy-restore` changes, all of a table's changes at once or none.
//!
//! `x_tables` has no number for its state that a change could be bound to. So other processes of ours are kept
//! away by a [`Lock`] as long as a namespace's tables are in hand; and what others change meanwhile makes the
//! program fail, upon which everything is read and computed anew.

mod lock;
mod programs;
mod restore;
mod save;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;

use super::changes::{Change, Changes};
use super::{Nat, Rule};
use crate::error::{Cause, Error, Result};
use lock::Lock;
use programs::{Programs, table_names};
use restore::Script;
use save::Saved;

pub(super) use save::{HINT_TABLE, HINTS};

/// The legacy tables of the namespace that this thread is in.
#[derive(Debug)]
pub(super) struct Legacy {
    programs: Programs,
    #[expect(dead_code, reason = "it is held, not used")]
    lock: Lock,
    /// What was read of each family.
    saved: RefCell<[Option<Rc<Saved>>; 2]>,
}

const FAMILIES: [Nat; 2] = [Nat::V4, Nat::V6];

/// Changes are computed anew this often if someone else changes the tables meanwhile.
const ATTEMPTS: u32 = 20;

impl Legacy {
    /// Whether there are legacy tables here, were it only because somebody has looked for some.
    ///
    /// Those of IPv4 tell for both: whatever uses legacy iptables (kubelet, kube-proxy, container engines) uses
    /// or probes IPv4's, also on nodes whose pods have IPv6 alone.
    pub(super) fn is_possible() -> Result<bool> {
        Ok(!table_names(Nat::V4)?.is_empty())
    }

    /// Whether there is a legacy table `nat`, so that there could be rules to remove.
    pub(super) fn has_nat() -> Result<bool> {
        for nat in FAMILIES {
            if table_names(nat)?.lines().any(|name| name == "nat") {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Waits until no other process of ours changes the tables; none if this node has no programs for them.
    ///
    /// Errors: `Cause::Locked` if that takes too long.
    pub(super) fn open() -> Result<Option<Self>> {
        let Some(programs) = Programs::find()? else { return Ok(None) };
        let lock = Lock::take()?;
        Ok(Some(Self { programs, lock, saved: RefCell::default() }))
    }

    /// Whether the kubelet says that this is the variant in use.
    pub(super) fn has_hint(&self) -> Result<bool> {
        for nat in FAMILIES {
            if self.saved(nat)?.has_hint {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// How many rules of others there are in the tables of both families.
    pub(super) fn count_rules(&self) -> Result<usize> {
        FAMILIES.iter().try_fold(0, |sum, nat| Ok(sum + self.saved(*nat)?.rules))
    }

    pub(super) fn has_chain(&self, nat: Nat, chain: &str) -> Result<bool> {
        Ok(self.saved(nat)?.nat.has_chain(chain))
    }

    pub(super) fn chain_names(&self, nat: Nat) -> Result<Vec<String>> {
        Ok(self.saved(nat)?.nat.chain_names())
    }

    pub(super) fn rules(&self, nat: Nat, chain: &str) -> Result<Vec<(u64, Rule)>> {
        Ok(self.saved(nat)?.nat.rules(chain))
    }

    /// Makes the changes that `build` computes from what there is, anew if others make that fail.
    pub(super) fn transaction<E: From<Error>>(
        &self,
        mut build: impl FnMut() -> std::result::Result<Changes, E>,
    ) -> std::result::Result<(), E> {
        for _ in 0..ATTEMPTS {
            if self.attempt(&build()?.all)? {
                return Ok(());
            }
        }
        Err(Error::new("change the legacy iptables rules", Cause::Unstable(ATTEMPTS)).into())
    }

    /// Makes changes, family by family; false if others have changed the tables since they were read.
    fn attempt(&self, changes: &[Change]) -> Result<bool> {
        let mut scripts = Vec::new();
        for nat in FAMILIES {
            if changes.iter().any(|change| change.nat() == nat) {
                scripts.push(Script::new(&self.saved(nat)?.nat, changes)?);
            }
        }
        scripts.retain(|script| !script.is_empty());
        let before = self.saved.take();
        for (done, script) in scripts.iter().enumerate() {
            let Err(mut error) = self.programs.restore(script.nat(), &script.text()) else {
                continue;
            };
            for done in scripts[..done].iter().rev() {
                if let Err(another) = self.programs.restore(done.nat(), &done.undo_text()) {
                    error.also(&format!("and undoing what was done before, {another}"));
                }
            }
            let now = self.saved(script.nat())?;
            let is_as_read =
                |was: &Option<Rc<Saved>>| was.as_ref().is_some_and(|was| was.nat == now.nat);
            return if before.iter().any(is_as_read) { Err(error) } else { Ok(false) };
        }
        Ok(true)
    }

    /// What the tables of a family hold, read once.
    fn saved(&self, nat: Nat) -> Result<Rc<Saved>> {
        let index = usize::from(nat == Nat::V6);
        if let Some(saved) = &self.saved.borrow()[index] {
            return Ok(Rc::clone(saved));
        }
        // Without tables there is nothing to be printed.
        let is_unused = table_names(nat)?.is_empty();
        let text = if is_unused { String::new() } else { self.programs.save(nat)? };
        let saved = Rc::new(Saved::parse(nat.family(), &text));
        self.saved.borrow_mut()[index] = Some(Rc::clone(&saved));
        Ok(saved)
    }
}
