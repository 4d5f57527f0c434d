//! Writes the input of `iptables-legacy-restore --noflush`.
//!
//! If another program changes the same chains or rules after they were read, the whole input fails. For this,
//! chains are made with `-N` (`:CHAIN` would delete the rules of an existing chain), and rules are deleted by
//! their text.

use nix::errno::Errno;

use super::save::{Line, SavedChain, SavedTable};
use crate::error::{Error, Result};
use crate::iptables::changes::Change;
use crate::iptables::show::word;
use crate::iptables::{Rule, Table};
use crate::nft::Place;

/// The changes of one table as input for the program.
#[derive(Debug)]
pub(super) struct Script {
    table: SavedTable,
    lines: Vec<String>,
    /// The lines that undo them, to be used in reverse order.
    undo: Vec<String>,
}

impl Script {
    /// Selects the changes for the table.
    ///
    /// Errors: EEXIST, ENOENT or EBUSY, as `nf_tables` returns them for the same changes.
    pub(super) fn new(table: &SavedTable, changes: &[Change]) -> Result<Self> {
        let (lines, undo) = (Vec::new(), Vec::new());
        let mut script = Self { table: table.clone(), lines, undo };
        for change in changes.iter().filter(|change| change.table() == table.of) {
            script.apply(change).map_err(|errno| Error::new(change.to_string(), errno))?;
        }
        Ok(script)
    }

    pub(super) fn table(&self) -> Table {
        self.table.of
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The input that makes the changes.
    pub(super) fn text(&self) -> String {
        text(self.table.of, self.lines.iter())
    }

    /// The input that undoes them.
    pub(super) fn undo_text(&self) -> String {
        text(self.table.of, self.undo.iter().rev())
    }

    fn apply(&mut self, change: &Change) -> std::result::Result<(), Errno> {
        match change {
            // The kernel makes the table and its base chains when a program first uses it.
            Change::AddTable { .. } | Change::AddBaseChain { .. } => {}
            Change::AddChain { chain, .. } if self.table.has_chain(chain) => {}
            Change::CreateChain { chain, .. } if self.table.has_chain(chain) => {
                return Err(Errno::EEXIST);
            }
            Change::AddChain { chain, .. } | Change::CreateChain { chain, .. } => {
                let (name, lines) = (chain.clone(), Vec::new());
                self.table.chains.push(SavedChain { name, drops: false, lines });
                self.push(format!("-N {}", word(chain)), format!("-X {}", word(chain)));
            }
            Change::FlushChain { chain, .. } => {
                let gone = std::mem::take(&mut self.chain(chain)?.lines);
                self.lines.push(format!("-F {}", word(chain)));
                let append = |line: &Line| format!("-A {} {}", word(chain), line.text);
                self.undo.extend(gone.iter().rev().map(append));
            }
            Change::DeleteChain { chain, .. } => {
                if !self.chain(chain)?.lines.is_empty() || self.is_used(chain) {
                    return Err(Errno::EBUSY);
                }
                self.table.chains.retain(|one| one.name != *chain);
                self.push(format!("-X {}", word(chain)), format!("-N {}", word(chain)));
            }
            Change::AddRule { chain, place, rule, .. } => self.add_rule(chain, *place, rule)?,
            Change::DeleteRule { chain, handle, .. } => {
                let lines = &mut self.chain(chain)?.lines;
                let at = position(lines, *handle)?;
                let text = lines.remove(at).text;
                let undo = format!("-I {} {} {text}", word(chain), at + 1);
                self.push(format!("-D {} {text}", word(chain)), undo);
            }
        }
        Ok(())
    }

    fn add_rule(
        &mut self,
        chain: &str,
        place: Place,
        rule: &Rule,
    ) -> std::result::Result<(), Errno> {
        let text = rule.to_string();
        if text.contains(['\n', '\0']) {
            return Err(Errno::EINVAL);
        }
        let lines = &mut self.chain(chain)?.lines;
        let at = match place {
            Place::First => 0,
            Place::Last => lines.len(),
            Place::Before(handle) => position(lines, handle)?,
        };
        // A new rule has no handle: no change can name it.
        lines.insert(at, Line { handle: 0, text: text.clone(), rule: rule.clone() });
        let name = word(chain);
        let line = match place {
            Place::Last => format!("-A {name} {text}"),
            Place::First | Place::Before(_) => format!("-I {name} {} {text}", at + 1),
        };
        self.push(line, format!("-D {name} {text}"));
        Ok(())
    }

    fn push(&mut self, line: String, undo: String) {
        self.lines.push(line);
        self.undo.push(undo);
    }

    fn chain(&mut self, name: &str) -> std::result::Result<&mut SavedChain, Errno> {
        let found = self.table.chains.iter_mut().find(|chain| chain.name == name);
        found.ok_or(Errno::ENOENT)
    }

    fn is_used(&self, chain: &str) -> bool {
        let mut lines = self.table.chains.iter().flat_map(|chain| &chain.lines);
        lines.any(|line| line.rule.next_chain() == Some(chain))
    }
}

fn position(lines: &[Line], handle: u64) -> std::result::Result<usize, Errno> {
    lines.iter().position(|line| line.handle == handle).ok_or(Errno::ENOENT)
}

fn text<'a>(table: Table, lines: impl Iterator<Item = &'a String>) -> String {
    let mut text = format!("*{}\n", table.name());
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    text + "COMMIT\n"
}
