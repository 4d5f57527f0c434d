//! `cargo xtask schema`: writes the JSON Schemas of `conflist/schemas` from the plugins' types, and the
//! table of programs in `README.md` from their descriptions.

use crate::command::{self, Failure, cargo};
use crate::paths::root;
use crate::registry;

/// The task.
pub(crate) fn write() -> Result<(), Failure> {
    command::run(&mut generator("write"))?;
    registry::write_table()
}

/// Finds out whether the committed files are up to date.
pub(crate) fn compare() -> Result<(), Failure> {
    command::run(&mut generator("compare"))?;
    registry::compare_table()
}

fn generator(command: &str) -> std::process::Command {
    let mut cargo = cargo(["run", "--quiet", "--locked", "--package=schema", "--", command]);
    cargo.arg(root().join("conflist/schemas"));
    cargo
}
