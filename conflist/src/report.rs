//! Prints results and errors.

use std::fmt::Display;
use std::io::{self, Write};

use conflist::error::PluginError;
use conflist::{Error, with_causes};

use crate::failure::Failure;

/// Prints a failure on stderr.
pub(crate) fn failure(failure: &Failure) {
    match failure {
        Failure::Network(error) => note(&text(error)),
        other => note(&with_causes(other)),
    }
}

/// Prints a message on stderr.
pub(crate) fn note(text: &str) {
    // If stderr is closed, the message is lost.
    let _ = writeln!(io::stderr().lock(), "conflist: {text}");
}

/// Prints a line on stdout.
pub(crate) fn print(line: &dyn Display) -> Result<(), Failure> {
    writeln!(io::stdout().lock(), "{line}").map_err(Failure::Print)
}

fn text(error: &Error) -> String {
    match error {
        Error::Plugin(error) => plugin(error),
        Error::NotUndone { add, del } => {
            format!("{}\nconflist: undoing it failed, too: {}", text(add), text(del))
        }
        Error::NotDetached { error: cause, .. } => format!("{error}: {}", text(cause)),
        Error::Several(errors) => {
            errors.iter().map(text).collect::<Vec<_>>().join("\nconflist: also: ")
        }
        other => with_causes(other),
    }
}

/// The error object of a plugin, its code first; the details have a line of their own. Both are shortened
/// as in a printed error object, because a plugin may print any length.
fn plugin(error: &PluginError) -> String {
    let object = error.error.to_json(cni::Version::LATEST);
    let value = |key: &str| object[key].as_str().unwrap_or_default();
    let mut text = format!("{error}: code {}: {}", object["code"], value("msg"));
    if !value("details").is_empty() {
        text.push_str("\n  details: ");
        text.push_str(value("details"));
    }
    text
}
