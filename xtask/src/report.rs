//! Counts of what passed, failed and was skipped, and the closing line that sums them up.

use std::fmt;

use crate::command::Failure;

/// How many checks or tests went which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Those that did what they should.
    pub passed: usize,
    /// Those that did not.
    pub failed: usize,
    /// Those that were not run.
    pub skipped: usize,
}

impl Counts {
    /// Adds what one line of a test program's output says, if it is its closing line:
    /// `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
    pub(crate) fn add_result_line(&mut self, line: &str) {
        let Some(text) = line.trim_start().strip_prefix("test result: ") else { return };
        for (number, what) in text.split([';', '.']).filter_map(|part| part.trim().split_once(' '))
        {
            let number: usize = number.parse().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }

    /// A failure if anything failed.
    pub(crate) fn verdict(self) -> Result<(), Failure> {
        if self.failed == 0 { Ok(()) } else { Err(Failure::Checks(self.failed)) }
    }
}

impl std::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
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
        let mut counts = Counts::default();
        counts.add_result_line("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured");
        counts.add_result_line("test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured");
        counts.add_result_line("test reading ... ok");
        assert_eq!(counts, Counts { passed: 5, failed: 4, skipped: 1 });
        assert_eq!(counts.to_string(), "5 passed, 4 failed, 1 skipped");
    }
}
