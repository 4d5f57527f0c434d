//! How many checks and tests passed, failed and were skipped, and why some were skipped.

use std::collections::BTreeMap;
use std::fmt;

use testbed::{Fate, fate, skip_line};

use crate::command::Failure;

/// The numbers of checks or tests by their outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Those that passed.
    pub passed: usize,
    /// Those that failed.
    pub failed: usize,
    /// Those that were not run.
    pub skipped: usize,
}

/// The outcome of several checks or test programs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// The numbers.
    pub counts: Counts,
    /// How many checks and tests were skipped for each reason.
    pub reasons: BTreeMap<String, usize>,
}

impl Report {
    /// Adds a check and prints its outcome.
    pub(crate) fn check(&mut self, name: &str, outcome: Result<(), Failure>) {
        match outcome {
            Ok(()) => {
                println!("{name}: ok");
                self.counts.passed += 1;
            }
            Err(failure) => {
                println!("{name}: FAILED: {failure}");
                self.counts.failed += 1;
            }
        }
    }

    /// Adds a check that lacks something on this machine: a failed or a skipped one.
    pub(crate) fn lack(&mut self, name: &str, reason: &str) {
        match fate(name, reason) {
            Fate::Fails(message) => {
                println!("{name}: FAILED: {message}");
                self.counts.failed += 1;
            }
            Fate::Skipped(_) => self.skip(name, reason),
        }
    }

    /// Adds a check that is not run, which is no failure on any machine.
    pub(crate) fn skip(&mut self, name: &str, reason: &str) {
        let line = skip_line(name, reason);
        println!("{line}");
        self.counts.skipped += 1;
        self.read(&line);
    }

    /// Adds what a line of a test program's output says: what a test lacks, for [`Report::lack`] to decide
    /// (`lacks: NAME: REASON`), why it was skipped (`skipped: NAME: REASON`), or the numbers of the
    /// closing line (`test result: ok. 3 passed; 0 failed; 1 ignored; …`).
    pub(crate) fn read(&mut self, line: &str) {
        if let Some((name, reason)) =
            line.strip_prefix("lacks: ").and_then(|it| it.split_once(": "))
        {
            self.lack(name, reason);
        }
        if let Some(skipped) = line.strip_prefix("skipped: ") {
            let reason = skipped.split_once(": ").map_or(skipped, |(_, reason)| reason);
            *self.reasons.entry(reason.to_owned()).or_default() += 1;
        }
        let Some(text) = line.trim_start().strip_prefix("test result: ") else { return };
        for (number, what) in text.split([';', '.']).filter_map(|part| part.trim().split_once(' '))
        {
            let number: usize = number.parse().unwrap_or(0);
            match what {
                "passed" => self.counts.passed += number,
                "failed" => self.counts.failed += number,
                "ignored" => self.counts.skipped += number,
                _ => {}
            }
        }
    }

    /// Adds another report.
    pub(crate) fn add(&mut self, other: Self) {
        self.counts.passed += other.counts.passed;
        self.counts.failed += other.counts.failed;
        self.counts.skipped += other.counts.skipped;
        for (reason, count) in other.reasons {
            *self.reasons.entry(reason).or_default() += count;
        }
    }

    pub(crate) fn verdict(&self) -> Result<(), Failure> {
        let failed = self.counts.failed;
        if failed == 0 { Ok(()) } else { Err(Failure::Checks(failed)) }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_added_up_and_others_are_not() {
        let mut report = Report::default();
        report.read("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured");
        report.read("test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured");
        report.read("test reading ... ok");
        assert_eq!(report.counts, Counts { passed: 5, failed: 4, skipped: 1 });
        assert_eq!(report.counts.to_string(), "5 passed, 4 failed, 1 skipped");
    }

    #[test]
    fn reasons_are_counted() {
        let mut report = Report::default();
        report.read("skipped: ours::gc: no program nft");
        report.read("skipped: ours::status: no program nft");
        assert_eq!(report.reasons, BTreeMap::from([("no program nft".to_owned(), 2)]));
    }
}
