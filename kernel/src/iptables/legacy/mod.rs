//! The legacy variant of iptables: tables of `x_tables`.
//!
//! `iptables-legacy-save` reads them. `iptables-legacy-restore` makes all changes of a table or none.
//!
//! `x_tables` has no generation number that shows whether a table has changed. So a [`Lock`] keeps other
//! processes of these plugins from changing the tables at the same time. If other programs change them, the
//! restore program fails, and everything is read and computed again.

mod lock;
mod programs;
mod restore;
mod save;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;

use super::changes::{Change, Changes};
use super::variant::Count;
use super::{Rule, Table};
use crate::error::{Cause, Error, Result};
use crate::family::Family;
use lock::Lock;
use programs::{Programs, table_names};
use restore::Script;
use save::Saved;

pub(super) use programs::has_iptables;
pub(crate) use save::SavedTable;
pub(super) use save::{HINT_TABLE, HINTS};

/// The legacy tables in the network namespace of this thread.
#[derive(Debug)]
pub(crate) struct Legacy {
    programs: Programs,
    #[expect(dead_code, reason = "it is held, not used")]
    lock: Lock,
    /// The tables of IPv4 and IPv6, after they were read.
    saved: RefCell<[Option<Rc<Saved>>; 2]>,
}

/// How many times changes are computed if other programs change the tables at the same time.
const ATTEMPTS: u32 = 20;

impl Legacy {
    /// Whether there are legacy tables. A program makes a table when it lists it.
    ///
    /// Only those of IPv4 are looked at: programs that use legacy iptables (kubelet, kube-proxy, container
    /// engines) use or probe those of IPv4, also on nodes whose pods have only IPv6.
    pub(crate) fn is_possible() -> Result<bool> {
        Ok(!table_names(Family::V4)?.is_empty())
    }

    /// Whether there is a legacy table of this name in one of the families.
    pub(super) fn has_table(table: &str) -> Result<bool> {
        for family in Family::ALL {
            if table_names(family)?.lines().any(|name| name == table) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Waits for the lock of the tables. None if the programs are not installed.
    ///
    /// Errors: `Cause::Locked` if another process does not release the lock in time.
    pub(crate) fn open() -> Result<Option<Self>> {
        let Some(programs) = Programs::find()? else { return Ok(None) };
        let lock = Lock::take()?;
        Ok(Some(Self { programs, lock, saved: RefCell::default() }))
    }

    /// Whether the hint of the kubelet is in the legacy variant.
    pub(super) fn has_hint(&self) -> Result<bool> {
        for family in Family::ALL {
            if self.saved(family)?.has_hint {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Counts the rules in the tables of both families.
    pub(super) fn count_rules(&self) -> Result<Count> {
        Family::ALL
            .iter()
            .try_fold(Count::default(), |sum, family| Ok(sum.plus(self.saved(*family)?.rules)))
    }

    pub(super) fn has_chain(&self, table: Table, chain: &str) -> Result<bool> {
        Ok(self.saved(table.family)?.table(table).has_chain(chain))
    }

    pub(super) fn chain_names(&self, table: Table) -> Result<Vec<String>> {
        Ok(self.saved(table.family)?.table(table).chain_names())
    }

    pub(super) fn rules(&self, table: Table, chain: &str) -> Result<Vec<(u64, Rule)>> {
        Ok(self.saved(table.family)?.table(table).rules(chain))
    }

    /// All tables of a family.
    pub(crate) fn tables(&self, family: Family) -> Result<Rc<Saved>> {
        self.saved(family)
    }

    /// Makes the changes that `build` computes from the tables. If another program changes them first, calls
    /// `build` again.
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

    /// Makes changes, table by table. False if other programs have changed the tables since they were read.
    fn attempt(&self, changes: &[Change]) -> Result<bool> {
        let mut tables: Vec<Table> = Vec::new();
        for table in changes.iter().map(Change::table) {
            if !tables.contains(&table) {
                tables.push(table);
            }
        }
        let mut scripts = Vec::new();
        for table in tables {
            scripts.push(Script::new(self.saved(table.family)?.table(table), changes)?);
        }
        scripts.retain(|script| !script.is_empty());
        let before = self.saved.take();
        for (done, script) in scripts.iter().enumerate() {
            let family = script.table().family;
            let Err(mut error) = self.programs.restore(family, &script.text()) else { continue };
            for done in scripts[..done].iter().rev() {
                let undone = self.programs.restore(done.table().family, &done.undo_text());
                if let Err(another) = undone {
                    let name = done.table().name();
                    error.also(&format!("and undo the changes of table {name} ({another})"));
                }
            }
            let now = self.saved(family)?;
            let is_as_read = |was: &Option<Rc<Saved>>| {
                was.as_ref()
                    .is_some_and(|was| was.table(script.table()) == now.table(script.table()))
            };
            return if before.iter().any(is_as_read) { Err(error) } else { Ok(false) };
        }
        Ok(true)
    }

    /// The tables of a family. They are read once.
    fn saved(&self, family: Family) -> Result<Rc<Saved>> {
        let index = usize::from(family == Family::V6);
        if let Some(saved) = &self.saved.borrow()[index] {
            return Ok(Rc::clone(saved));
        }
        // Without tables, the program has nothing to print.
        let is_unused = table_names(family)?.is_empty();
        let text = if is_unused { String::new() } else { self.programs.save(family)? };
        let saved = Rc::new(Saved::parse(family, &text));
        self.saved.borrow_mut()[index] = Some(Rc::clone(&saved));
        Ok(saved)
    }
}
