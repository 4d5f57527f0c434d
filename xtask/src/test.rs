//! `cargo xtask test`: all checks and tests.

use std::process::Command;

use crate::command::{Failure, cargo, watch};
use crate::report::Report;
use crate::{build, conformance, lint, needs, paths};

/// The task.
pub(crate) fn run() -> Result<(), Failure> {
    needs::provide();
    let lint = lint::check_all();
    let unit = ["test", "--locked", "--workspace", "--exclude=tests", "--no-fail-fast"];
    let mut unit = cargo(unit);
    // Some crates have tests that run programs of the reference suite.
    unit.env("GO_PLUGINS", needs::go_dir()).env("CNI_PATH", needs::go_dir());
    unit.env("CNITOOL", needs::go_dir().join("cnitool"));
    let unit = tests(&mut unit)?;
    // The suites test what users get: the release binaries.
    build::build_all()?;
    let mut end_to_end = cargo(["test", "--locked", "--package=tests", "--no-fail-fast"]);
    end_to_end.env("PODWIRE_BIN", paths::dist()).env("GO_PLUGINS", needs::go_dir());
    let end_to_end = tests(&mut end_to_end)?;
    let conformance = conform()?;

    let mut all = Report::default();
    println!();
    for (what, report) in [
        ("lint", lint),
        ("unit and property tests", unit),
        ("end-to-end tests", end_to_end),
        ("conformance tests", conformance),
    ] {
        println!("{what}: {}", report.counts);
        all.add(report);
    }
    for (reason, count) in &all.reasons {
        println!("skipped {count}: {reason}");
    }
    println!("\n{}", all.counts);
    all.verdict()
}

/// Runs the conformance tests, if they can be compiled.
fn conform() -> Result<Report, Failure> {
    let Some(reason) = conformance::missing() else { return tests(&mut conformance::tests()) };
    let mut report = Report::default();
    report.lack("conformance", &reason);
    Ok(report)
}

/// Runs test programs and counts their tests. A program that fails without a failed test counts as one
/// failed test.
fn tests(command: &mut Command) -> Result<Report, Failure> {
    let mut report = Report::default();
    let succeeded = watch(command, |line| report.read(line))?;
    if !succeeded && report.counts.failed == 0 {
        report.counts.failed = 1;
    }
    Ok(report)
}
