//! The errors of a command that runs all its steps even if some fail.

use std::fmt;

use crate::error::Error;

/// Collects the errors of steps that must all be tried, as in DEL and GC.
#[derive(Debug, Default)]
pub struct Failures(Vec<Error>);

impl Failures {
    /// No error yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a step. Returns its value, or keeps its error with `what` in front.
    pub fn try_to<T, E: Into<Error>>(
        &mut self,
        what: impl fmt::Display,
        step: impl FnOnce() -> Result<T, E>,
    ) -> Option<T> {
        match step() {
            Ok(value) => Some(value),
            Err(error) => {
                self.0.push(error.into().context(what));
                None
            }
        }
    }

    /// One error with the texts of all errors and the code of the first. `Ok` if every step succeeded.
    pub fn into_result(self) -> Result<(), Error> {
        let mut errors = self.0.into_iter();
        let Some(mut first) = errors.next() else {
            return Ok(());
        };
        for error in errors {
            first.also(&format!("also: {error}"));
        }
        Err(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn every_step_runs_and_every_error_is_kept() {
        let mut failures = Failures::new();
        let fail = |text: &str| Err::<(), _>(Error::new(Code::Kernel, text));
        assert_eq!(failures.try_to("count", || Ok::<_, Error>(3)), Some(3));
        failures.try_to("remove rules", || fail("table is busy"));
        failures.try_to("remove link", || Err::<(), _>(Error::new(Code::Io, "no")));
        let error = failures.into_result().unwrap_err();
        assert_eq!(error.code, Code::Kernel);
        assert_eq!(error.to_string(), "remove rules: table is busy: also: remove link: no");
        assert_eq!(Failures::new().into_result(), Ok(()));
    }
}
