//! `conflist purge`: shows what it found, asks, and removes it.

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;

use conflist::Runtime;

use crate::cli::Purge;
use crate::failure::Failure;
use crate::report::{note, print};

pub(crate) fn run(runtime: &Runtime, options: &Purge) -> Result<ExitCode, Failure> {
    if !options.yes {
        let found = runtime.purge(true)?;
        if options.dry_run || found.found().is_empty() {
            return report(&found, "would remove");
        }
        report(&found, "found")?;
        if !io::stdin().is_terminal() {
            return Err(Failure::NoTerminal);
        }
        if !is_confirmed().map_err(Failure::Answer)? {
            return Ok(ExitCode::FAILURE);
        }
    }
    report(&runtime.purge(false)?, "removed")
}

fn report(purge: &cni::Purge, verb: &str) -> Result<ExitCode, Failure> {
    for what in purge.found() {
        print(&format!("{verb} {what}"))?;
    }
    purge.left().iter().for_each(|what| note(&format!("left {what}")));
    purge.errors().iter().for_each(|error| note(&error.to_string()));
    if purge.found().is_empty() && purge.errors().is_empty() {
        note("this node has nothing that the plugins made");
    }
    Ok(if purge.errors().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Asks on the terminal. Any answer but yes means no.
fn is_confirmed() -> io::Result<bool> {
    write!(io::stderr(), "Remove all of this? Pods that still run lose their network. [y/N] ")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
