//! The Go module `tests/conformance`: its programs run the plugins and share no code with them.

use std::process::Command;

use crate::command::{Failure, command, read, run};
use crate::paths::root;
use crate::{needs, paths, tidy};

/// What is missing to compile the module: Go, or a module that it depends on.
pub(crate) fn missing() -> Option<String> {
    let failure = read(&mut module("go", &["list", "-deps", "-test", "."])).err()?.to_string();
    Some(failure.lines().last().unwrap_or_default().to_owned())
}

/// The command that runs the tests with the release binaries and the Go plugins. A case mostly waits
/// for the kernel, hence 8 in parallel.
pub(crate) fn tests() -> Command {
    let mut tests = module("go", &["test", "-count=1", "-parallel=8", "-timeout=20m"]);
    tests.env("PODWIRE_BIN", paths::dist()).env("GO_PLUGINS", needs::go_dir());
    tests
}

/// Checks the format of the Go files.
pub(crate) fn format() -> Result<(), Failure> {
    let unformatted = read(&mut module("gofmt", &["-l", "."]))?;
    tidy::verdict(&unformatted.lines().map(str::to_owned).collect())
}

/// Runs `go vet`.
pub(crate) fn vet() -> Result<(), Failure> {
    run(&mut module("go", &["vet", "."]))
}

fn module(program: &str, args: &[&str]) -> Command {
    let mut command = command(program, args);
    command.current_dir(root().join("tests/conformance"));
    command
}
