//! `cargo xtask lint`: all checks of the tree that do not run a plugin.

use crate::command::{self, Failure, cargo, read};
use crate::conformance;
use crate::deny::{self, Advisories};
use crate::report::Report;
use crate::schema;
use crate::tidy;

/// The task.
pub(crate) fn run() -> Result<(), Failure> {
    check_all().verdict()
}

/// Runs all checks and prints the outcome of each.
pub(crate) fn check_all() -> Report {
    let mut report = Report::default();
    let mut check = |name: &str, outcome| report.check(&format!("lint: {name}"), outcome);
    check("format", component("fmt", "rustfmt").and_then(|()| format()));
    check("clippy", component("clippy", "clippy").and_then(|()| clippy()));
    check("documentation", documentation());
    check("dependencies", deny::dependencies());
    check("schemas", schema::compare());
    for (rule, offences) in tidy::rules() {
        check(rule, offences.and_then(|offences| tidy::verdict(&offences)));
    }
    if let Some(reason) = conformance::missing() {
        report.lack("lint, go format and go vet", &reason);
    } else {
        check("go format", conformance::format());
        check("go vet", conformance::vet());
    }
    match deny::advisories() {
        Ok(Advisories::Unknown(reason)) => {
            let reason = reason.lines().last().unwrap_or_default();
            let reason = format!("the database of advisories cannot be fetched: {reason}");
            report.skip("lint, advisories", &reason);
        }
        Ok(Advisories::Clean) => report.check("lint: advisories", Ok(())),
        Err(failure) => report.check("lint: advisories", Err(failure)),
    }
    report
}

/// Checks that the toolchain has a component: cargo would report only an unknown subcommand.
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
