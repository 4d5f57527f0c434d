//! `cargo xtask test`: everything that shows that the plugins do what they promise.

use std::collections::BTreeMap;
use std::process::Command;

use crate::command::{Failure, cargo, watch};
use crate::report::Counts;
use crate::{build, conformance, lint, needs};

/// The task.
pub(crate) fn run() -> Result<(), Failure> {
    needs::provide();
    let mut skipped = Vec::new();
    let lint = lint::check_all();
    let unit = ["test", "--locked", "--workspace", "--exclude=tests", "--no-fail-fast"];
    let mut unit = cargo(unit);
    // Independent clients take part where a crate has tests with them.
    unit.env("GO_PLUGINS", needs::go_dir()).env("CNI_PATH", needs::go_dir());
    unit.env("CNITOOL", needs::go_dir().join("cnitool"));
    let unit = tests(&mut unit, &mut skipped)?;
    // The suites measure what users get: the release binaries.
    build::build_all()?;
    let mut end_to_end = cargo(["test", "--locked", "--package=tests", "--no-fail-fast"]);
    end_to_end.env("PODWIRE_BIN", build::dist()).env("GO_PLUGINS", needs::go_dir());
    let end_to_end = tests(&mut end_to_end, &mut skipped)?;

    let conformance = conform(&mut skipped)?;

    println!("\nlint: {lint}\nunit and property tests: {unit}\nend-to-end tests: {end_to_end}");
    println!("conformance tests: {conformance}");
    for (reason, count) in reasons(&skipped) {
        println!("skipped {count}: {reason}");
    }
    let all = lint + unit + end_to_end + conformance;
    println!("\n{all}");
    all.verdict()
}

/// Lets independent clients drive the plugins, if they can be compiled.
fn conform(skipped: &mut Vec<String>) -> Result<Counts, Failure> {
    let Some(reason) = conformance::missing() else {
        return tests(&mut conformance::tests(), skipped);
    };
    if std::env::var("CI").is_ok_and(|ci| ci == "true") {
        println!("conformance: cannot run: {reason}");
        return Ok(Counts { failed: 1, ..Counts::default() });
    }
    skipped.push(format!("conformance: {reason}"));
    Ok(Counts { skipped: 1, ..Counts::default() })
}

/// Runs test programs and counts their tests; one that ends badly without a word is a failure.
/// Collects the lines that say why a test is skipped.
fn tests(command: &mut Command, skipped: &mut Vec<String>) -> Result<Counts, Failure> {
    let mut counts = Counts::default();
    let succeeded = watch(command, |line| {
        counts.add_result_line(line);
        skipped.extend(line.strip_prefix("skipped: ").map(str::to_owned));
    })?;
    if !succeeded && counts.failed == 0 {
        counts.failed = 1;
    }
    Ok(counts)
}

/// How many tests were skipped for each reason, from lines like `NAME: REASON`.
fn reasons(skipped: &[String]) -> BTreeMap<&str, usize> {
    let mut reasons = BTreeMap::new();
    for line in skipped {
        let reason = line.split_once(": ").map_or(line.as_str(), |(_, reason)| reason);
        *reasons.entry(reason).or_default() += 1;
    }
    reasons
}
