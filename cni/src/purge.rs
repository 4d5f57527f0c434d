//! Removing from a node whatever a plugin has made there, for all networks and whatever was configured.
//!
//! Each plugin has a public function `purge(&mut Purge)`: it looks for what the plugin made, in the same way
//! as its GC does, and calls [`Purge::remove`] for each thing that it found. It needs no configuration,
//! because that may be gone; what configurations tell is in [`Known`].

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use crate::error::Error;

/// What the configurations of a node tell, those of today and those that are kept with results.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The networks whose plugins are all of the suite.
    pub networks: BTreeSet<String>,
    /// The directories that they name as `dataDir`, beside the plugins' own defaults.
    pub data_dirs: BTreeSet<PathBuf>,
}

/// What was found, and removed unless this is a dry run.
#[derive(Debug, Default)]
pub struct Purge {
    is_dry_run: bool,
    known: Known,
    found: Vec<String>,
    left: Vec<String>,
    errors: Vec<Error>,
}

impl Purge {
    /// A dry run only finds things.
    #[must_use]
    pub fn new(is_dry_run: bool, known: Known) -> Self {
        Self { is_dry_run, known, ..Self::default() }
    }

    /// Whether nothing is to be removed.
    #[must_use]
    pub fn is_dry_run(&self) -> bool {
        self.is_dry_run
    }

    /// What the configurations of the node tell.
    #[must_use]
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// Lets a function look for things and remove them, unless this is a dry run: it gets whether it is one,
    /// and gives the things that it removed, or would remove.
    pub fn all<E: Into<Error>>(
        &mut self,
        what: impl fmt::Display,
        remove: impl FnOnce(bool) -> Result<Vec<String>, E>,
    ) {
        let is_dry_run = self.is_dry_run;
        let found = self.look(what, || remove(is_dry_run));
        self.found.extend(found.into_iter().flatten());
    }

    /// Looks for things in one place. If that fails, the other places are searched nevertheless.
    pub fn look<T, E: Into<Error>>(
        &mut self,
        place: impl fmt::Display,
        look: impl FnOnce() -> Result<T, E>,
    ) -> Option<T> {
        look().map_err(|error| self.errors.push(error.into().context(place))).ok()
    }

    /// Takes note of a thing that was found, and removes it unless this is a dry run. `what` is how it is
    /// shown: its kind and its name.
    pub fn remove<E: Into<Error>>(
        &mut self,
        what: impl fmt::Display,
        remove: impl FnOnce() -> Result<(), E>,
    ) {
        if !self.is_dry_run
            && let Err(error) = remove()
        {
            self.errors.push(error.into().context(format!("remove {what}")));
            return;
        }
        self.found.push(what.to_string());
    }

    /// Takes note of a thing that stays because it may be somebody else's, and of what to do about it.
    pub fn leave(&mut self, what: impl fmt::Display) {
        self.left.push(what.to_string());
    }

    /// What was removed, or what would be.
    #[must_use]
    pub fn found(&self) -> &[String] {
        &self.found
    }

    /// What stays although it may have been made by a plugin.
    #[must_use]
    pub fn left(&self) -> &[String] {
        &self.left
    }

    /// What could not be looked for or removed.
    #[must_use]
    pub fn errors(&self) -> &[Error] {
        &self.errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn a_dry_run_removes_nothing() {
        for is_dry_run in [true, false] {
            let mut removed = 0;
            let mut purge = Purge::new(is_dry_run, Known::default());
            purge.remove("link a", || {
                removed += 1;
                Ok::<_, Error>(())
            });
            assert_eq!((removed == 0, purge.found()), (is_dry_run, &["link a".to_owned()][..]));
        }
    }

    #[test]
    fn the_others_are_removed_after_an_error() {
        let mut purge = Purge::new(false, Known::default());
        let fail = || Err::<(), _>(Error::new(Code::Kernel, "table is busy"));
        assert_eq!(purge.look("list links", fail), None);
        purge.remove("table a", fail);
        purge.remove("table b", || Ok::<_, Error>(()));
        let errors: Vec<String> = purge.errors().iter().map(ToString::to_string).collect();
        assert_eq!(errors, ["list links: table is busy", "remove table a: table is busy"]);
        assert_eq!(purge.found(), ["table b"]);
    }
}
