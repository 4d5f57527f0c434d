//! Undoing an ADD that fails, so that it leaves nothing behind.

use crate::error::Error;

type Step<'a> = (&'static str, Box<dyn FnOnce() -> Result<(), Error> + 'a>);

/// The steps that undo what an ADD has changed so far. They run in reverse order if the ADD fails.
///
/// ```
/// use cni::{Code, Error, Undo};
///
/// let add = |undo: &mut Undo<'_>| -> Result<(), Error> {
///     undo.on_error("delete the link", || Ok(()));
///     Err(Error::new(Code::Kernel, "add address"))
/// };
/// assert!(Undo::around(add).is_err());
/// ```
#[derive(Default)]
pub struct Undo<'a> {
    steps: Vec<Step<'a>>,
}

impl<'a> Undo<'a> {
    /// Runs `work`. If it fails, runs the steps that it registered, the last one first, and adds their errors
    /// to the first error.
    pub fn around<T>(work: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        let mut undo = Self { steps: Vec::new() };
        let mut result = work(&mut undo);
        if let Err(error) = &mut result {
            for (what, step) in undo.steps.into_iter().rev() {
                if let Err(another) = step() {
                    error.also(&format!("and undoing it, {what}: {another}"));
                }
            }
        }
        result
    }

    /// Registers the step that undoes a change which was just made.
    pub fn on_error(&mut self, what: &'static str, step: impl FnOnce() -> Result<(), Error> + 'a) {
        self.steps.push((what, Box::new(step)));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::error::Code;

    #[test]
    fn steps_run_in_reverse_and_both_errors_are_kept() {
        let order = RefCell::new(Vec::new());
        let error = Undo::around(|undo| -> Result<(), Error> {
            undo.on_error("free address", || {
                order.borrow_mut().push(1);
                Err(Error::new(Code::Io, "disk full"))
            });
            undo.on_error("delete link", || {
                order.borrow_mut().push(2);
                Ok(())
            });
            Err(Error::new(Code::Kernel, "add route"))
        });
        assert_eq!(*order.borrow(), [2, 1]);
        assert_eq!(
            error.unwrap_err().to_string(),
            "add route: and undoing it, free address: disk full"
        );
    }

    #[test]
    fn success_undoes_nothing() {
        let done = Undo::around(|undo| {
            undo.on_error("never", || Err(Error::new(Code::Io, "ran")));
            Ok(7)
        });
        assert_eq!(done, Ok(7));
    }
}
