//! The one place that decides what happens to a test that this machine cannot run: it is skipped, or
//! it fails if `CI=true` is in the environment. A test in another language prints `lacks: NAME: REASON`,
//! and `cargo xtask test` asks here.

use std::io::{Write, stdout};
use std::thread;

/// What happens to a test that needs something that the machine does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It fails, with this message.
    Fails(String),
    /// It is not run. `cargo xtask test` reads and counts this line.
    Skipped(String),
}

/// Decides about the test `name`, which lacks what `reason` says.
pub fn fate(name: &str, reason: &str) -> Fate {
    if std::env::var("CI").is_ok_and(|ci| ci == "true") {
        return Fate::Fails(format!("cannot run: {reason}"));
    }
    Fate::Skipped(skip_line(name, reason))
}

/// The line that says that a test is not run.
pub fn skip_line(name: &str, reason: &str) -> String {
    format!("skipped: {name}: {reason}")
}

/// Reports that the running `#[test]` lacks something; the test must return after that.
///
/// # Panics
/// With `CI=true` in the environment.
#[track_caller]
pub fn skip(reason: &str) {
    // The test harness names each test's thread after the test.
    match fate(thread::current().name().unwrap_or("test"), reason) {
        Fate::Fails(message) => panic!("{message}"),
        // `println!` would be captured. The line must not follow `test NAME ... `.
        Fate::Skipped(line) => writeln!(stdout(), "\n{line}").expect("write to stdout"),
    }
}
