//! `cargo deny`: checks licences, sources, duplicate versions and known vulnerabilities of
//! dependencies.

use std::path::PathBuf;

use crate::command::{Failure, command, read, run};
use crate::paths::target_dir;

/// The version to install if cargo-deny is not installed.
const VERSION: &str = "0.20.2";

/// The outcome of the check for known vulnerabilities.
#[derive(Debug)]
pub(crate) enum Advisories {
    /// There is none.
    Clean,
    /// The database of advisories could not be fetched, for this reason.
    Unknown(String),
}

/// The program `cargo-deny`: from the search path, or built below `target`.
pub(crate) fn program() -> Result<PathBuf, Failure> {
    let root = target_dir().join("tools");
    let built = root.join("bin/cargo-deny");
    for program in [PathBuf::from("cargo-deny"), built.clone()] {
        if read(&mut command(&program, ["--version"])).is_ok() {
            return Ok(program);
        }
    }
    println!("lint: building cargo-deny {VERSION} into {}", root.display());
    let package = format!("cargo-deny@{VERSION}");
    // It runs for a second, so an optimised build does not pay.
    let mut install = crate::command::cargo(["install", "--quiet", "--locked", "--debug"]);
    run(install.arg(package).arg("--root").arg(root))?;
    Ok(built)
}

/// Checks licences, sources and duplicate versions by `deny.toml`.
pub(crate) fn dependencies() -> Result<(), Failure> {
    check(&["licenses", "bans", "sources"])
}

/// Checks for known vulnerabilities.
pub(crate) fn advisories() -> Result<Advisories, Failure> {
    if let Err(failure) = read(&mut command(program()?, ["fetch", "db"])) {
        return Ok(Advisories::Unknown(failure.to_string()));
    }
    check(&["advisories"]).map(|()| Advisories::Clean)
}

fn check(what: &[&str]) -> Result<(), Failure> {
    // Without `--hide-inclusion-graph`, one duplicate fills the screen.
    let mut check = command(program()?, ["--log-level=error", "check", "--hide-inclusion-graph"]);
    run(check.args(what))
}
