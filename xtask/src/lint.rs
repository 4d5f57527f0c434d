//! `cargo xtask lint`: everything that can be said about the tree without running a plugin.

use crate::command::{self, Failure, cargo, read};
use crate::conformance;
use crate::deny::{self, Advisories};
use crate::report::Counts;
use crate::schema;
use crate::tidy;

/// The task.
pub(crate) fn run() -> Result<(), Failure> {
    check_all().verdict()
}

/// Runs all checks, each with a line that says how it went.
pub(crate) fn check_all() -> Counts {
    let mut counts = Counts::default();
    let mut check = |name: &str, outcome: Result<(), Failure>| match outcome {
        Ok(()) => {
            println!("lint: {name}: ok");
            counts.passed += 1;
        }
        Err(failure) => {
            println!("lint: {name}: FAILED: {failure}");
            counts.failed += 1;
        }
    };
    check("format", component("fmt", "rustfmt").and_then(|()| format()));
    check("clippy", component("clippy", "clippy").and_then(|()| clippy()));
    check("documentation", documentation());
    check("dependencies", deny::dependencies());
    check("schemas", schema::compare());
    for (rule, offences) in tidy::rules() {
        check(rule, offences.and_then(|offences| tidy::verdict(&offences)));
    }
    if let Some(reason) = conformance::missing() {
        println!("lint: go format, go vet: skipped: {reason}");
        counts.skipped += 2;
    } else {
        check("go format", conformance::format());
        check("go vet", conformance::vet());
    }
    match deny::advisories() {
        Ok(Advisories::Unknown(reason)) => {
            let reason = reason.lines().last().unwrap_or_default();
            println!("lint: advisories: skipped, the database cannot be fetched: {reason}");
            counts.skipped += 1;
        }
        Ok(Advisories::Clean) => check("advisories", Ok(())),
        Err(failure) => check("advisories", Err(failure)),
    }
    counts
}

/// Says which component a toolchain lacks, where cargo would only know no such command.
fn component(subcommand: &str, name: &'static str) -> Result<(), Failure> {
    read(&mut cargo([subcommand, "--version"])).map(drop).map_err(|_| Failure::Component(name))
}

fn format() -> Result<(), Failure> {
    command::run(&mut cargo(["fmt", "--all", "--check"]))
}

fn clippy() -> Result<(), Failure> {
    let args =
        ["clippy", "--quiet", "--workspace", "--all-targets", "--locked", "--", "-Dwarnings"];
    command::run(&mut cargo(args))
}

fn documentation() -> Result<(), Failure> {
    let args =
        ["doc", "--quiet", "--workspace", "--no-deps", "--document-private-items", "--locked"];
    command::run(cargo(args).env("RUSTDOCFLAGS", "-Dwarnings"))
}
