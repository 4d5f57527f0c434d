//! `cargo xtask schema`: the JSON Schemas of `conflist/schemas`, as the types give them.

use crate::command::{self, Failure, cargo};
use crate::workspace::root;

/// The task.
pub(crate) fn write() -> Result<(), Failure> {
    command::run(&mut generator("write"))
}

/// Finds out whether the committed files are what the types give.
pub(crate) fn compare() -> Result<(), Failure> {
    command::run(&mut generator("compare"))
}

fn generator(command: &str) -> std::process::Command {
    let mut cargo = cargo(["run", "--quiet", "--locked", "--package=schema", "--", command]);
    cargo.arg(root().join("conflist/schemas"));
    cargo
}
