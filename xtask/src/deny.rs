//! `cargo deny`: licences, sources, duplicate versions and known vulnerabilities of dependencies.

use std::path::PathBuf;

use crate::build::target_dir;
use crate::command::{Failure, command, read, run};

/// The version that is installed where none is there.
const VERSION: &str = "0.20.2";

/// What became of the look at the advisories.
#[derive(Debug)]
pub(crate) enum Advisories {
    /// No known vulnerability.
    Clean,
    /// The database of advisories could not be fetched, so nobody looked.
    Unknown(String),
}

/// The `cargo-deny` program: one of the search path, or one that is built below `target`.
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
    // It runs for a second: not worth the time of an optimised build.
    let mut install = crate::command::cargo(["install", "--quiet", "--locked", "--debug"]);
    run(install.arg(package).arg("--root").arg(root))?;
    Ok(built)
}

/// Licences, sources and duplicate versions, after `deny.toml`.
pub(crate) fn dependencies() -> Result<(), Failure> {
    check(&["licenses", "bans", "sources"])
}

/// Known vulnerabilities.
pub(crate) fn advisories() -> Result<Advisories, Failure> {
    if let Err(failure) = read(&mut command(program()?, ["fetch", "db"])) {
        return Ok(Advisories::Unknown(failure.to_string()));
    }
    check(&["advisories"]).map(|()| Advisories::Clean)
}

fn check(what: &[&str]) -> Result<(), Failure> {
    // Without `--hide-inclusion-graph` a single duplicate fills the screen.
    let mut check = command(program()?, ["--log-level=error", "check", "--hide-inclusion-graph"]);
    run(check.args(what))
}
