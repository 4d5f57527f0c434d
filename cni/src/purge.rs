//! Removing everything that a plugin has made on a node, for all networks.
//!
//! [`Plugin::purge`](crate::Plugin::purge) finds what the plugin made, in the same way as its GC, and calls
//! [`Purge::remove`] for each thing. It needs no configuration, because that may no longer exist. What the
//! existing configurations contain is in [`Known`].

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use crate::error::Error;

/// What the configurations of a node contain: those in files, and those that are cached with results.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The networks whose plugins all belong to this suite.
    pub networks: BTreeSet<String>,
    /// The directories that they name as `dataDir`. The plugins' defaults are not included.
    pub data_dirs: BTreeSet<PathBuf>,
}

/// What plugins find, and remove unless this is a dry run.
#[derive(Debug, Default)]
pub struct Purge {
    is_dry_run: bool,
    known: Known,
    found: Vec<String>,
    left: Vec<String>,
    errors: Vec<Error>,
}

impl Purge {
    /// Nothing is found yet. A dry run removes nothing.
    #[must_use]
    pub fn new(is_dry_run: bool, known: Known) -> Self {
        Self { is_dry_run, known, ..Self::default() }
    }

    /// Whether this is a dry run, which removes nothing.
    #[must_use]
    pub fn is_dry_run(&self) -> bool {
        self.is_dry_run
    }

    /// What the configurations of the node contain.
    #[must_use]
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// Runs a function that finds things and removes them. Its argument is whether this is a dry run. It
    /// returns the things that it removed, or would remove in a dry run.
    pub fn all<E: Into<Error>>(
        &mut self,
        what: impl fmt::Display,
        remove: impl FnOnce(bool) -> Result<Vec<String>, E>,
    ) {
        let is_dry_run = self.is_dry_run;
        let found = self.look(what, || remove(is_dry_run));
        self.found.extend(found.into_iter().flatten());
    }

    /// Runs a function that finds things in one place. If it fails, keeps the error and returns `None`.
    pub fn look<T, E: Into<Error>>(
        &mut self,
        place: impl fmt::Display,
        look: impl FnOnce() -> Result<T, E>,
    ) -> Option<T> {
        look().map_err(|error| self.errors.push(error.into().context(place))).ok()
    }

    /// Records a thing that was found, and removes it unless this is a dry run. `what` is shown to the user:
    /// the kind and the name of the thing.
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

    /// Records a thing that is not removed because it may have another owner, and what the user can do.
    pub fn leave(&mut self, what: impl fmt::Display) {
        self.left.push(what.to_string());
    }

    /// What was removed, or would be removed in a dry run.
    #[must_use]
    pub fn found(&self) -> &[String] {
        &self.found
    }

    /// What was not removed although a plugin of this suite may have made it.
    #[must_use]
    pub fn left(&self) -> &[String] {
        &self.left
    }

    /// The errors of finding and removing.
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
