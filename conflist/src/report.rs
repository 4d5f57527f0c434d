//! Errors as a person reads them.

use std::io::{self, Write};

use conflist::Error;
use conflist::error::{PluginError, chain};

use crate::commands::Failure;

/// Tells of a failure on stderr.
pub(crate) fn failure(failure: &Failure) {
    match failure {
        Failure::Network(error) => note(&text(error)),
        other => note(&chain(other)),
    }
}

/// Says something on stderr.
pub(crate) fn note(text: &str) {
    // Nobody to tell if stderr is closed.
    let _ = writeln!(io::stderr().lock(), "conflist: {text}");
}

fn text(error: &Error) -> String {
    match error {
        Error::Plugin(error) => plugin(error),
        Error::NotUndone { add, del } => {
            format!("{}\nconflist: and undoing it: {}", text(add), text(del))
        }
        Error::NotDetached { error: cause, .. } => format!("{error}: {}", text(cause)),
        Error::Several(errors) => {
            errors.iter().map(text).collect::<Vec<_>>().join("\nconflist: also: ")
        }
        other => chain(other),
    }
}

/// The error object of a plugin, its code first; the details have a line of their own.
fn plugin(error: &PluginError) -> String {
    let cni::Error { code, msg, details } = error.error.as_ref();
    let mut text = format!("{error}: code {}: {msg}", u32::from(*code));
    if !details.is_empty() {
        text.push_str("\n  details: ");
        text.push_str(details);
    }
    text
}
