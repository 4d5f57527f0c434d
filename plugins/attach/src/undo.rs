//! Undoing changes whose outcome may not be known.

use cni::Undo;

/// Registers how to undo a change, unless the kernel refused the change. If the kernel's answer was lost, the
/// change may have been made.
pub fn undo_unless_refused<'a, T, E: Into<cni::Error>>(
    undo: &mut Undo<'a>,
    changed: kernel::Result<T>,
    what: &'static str,
    step: impl FnOnce() -> Result<(), E> + 'a,
) -> kernel::Result<T> {
    if !changed.as_ref().is_err_and(kernel::Error::is_refusal) {
        undo.on_error(what, || step().map_err(E::into));
    }
    changed
}
