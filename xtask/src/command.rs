//! Runs programs; the errors of the tasks.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::paths::root;

/// Why a task failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The demonstration failed.
    #[error("demo: {0}")]
    Demo(String),
    /// The benchmark failed.
    #[error(transparent)]
    Bench(#[from] crate::bench::error::BenchError),
    /// The task needs root, and the kernel does not let this user make a user namespace.
    #[error("make a user namespace: {0}; run as root, or where the kernel lets users do this")]
    NotRoot(nix::Error),
    /// A program could not be started.
    #[error("start {program}: {source}")]
    Start { program: String, source: io::Error },
    /// A program ended with a status other than 0.
    #[error("{program} ended with {status}")]
    Status { program: String, status: String },
    /// A file could not be read or written.
    #[error("{action} {}: {source}", path.display())]
    File {
        /// The verb, for example "read".
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// The output of a program is not valid JSON.
    #[error("read the output of {program}: {source}")]
    Output { program: &'static str, source: serde_json::Error },
    /// The toolchain lacks this component.
    #[error("{0} is not installed: rustup component add {0}")]
    Component(&'static str),
    /// A binary needs a dynamic loader.
    #[error("{} is not statically linked", .0.display())]
    Dynamic(PathBuf),
    /// README's table of programs is not what the descriptions in `Cargo.toml` files give.
    #[error("README.md: the table of programs is out of date; run cargo xtask schema")]
    Table,
    /// Checks failed; each has printed why.
    #[error("{0} failed")]
    Checks(usize),
}

impl Failure {
    /// The failure of an operation on a file.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}

/// A command in the workspace's directory.
pub(crate) fn command<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir(root()).stdin(Stdio::null());
    command
}

/// `cargo` with the toolchain that runs this task.
pub(crate) fn cargo<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), args)
}

/// Runs a command to its end; its output goes to ours.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    let status = command.status().map_err(|source| not_started(command, source))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::Status { program: line(command), status: status.to_string() })
}

/// Runs a command to its end and returns its stdout. An error includes its stderr.
pub(crate) fn read(command: &mut Command) -> Result<String, Failure> {
    let output = command.output().map_err(|source| not_started(command, source))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let status = format!("{}\n{}", output.status, said.trim_end());
    Err(Failure::Status { program: line(command), status })
}

/// Runs a command, prints each line of its stdout and passes it to `see`. Returns whether the exit
/// status was 0.
pub(crate) fn watch(command: &mut Command, mut see: impl FnMut(&str)) -> Result<bool, Failure> {
    let mut child =
        command.stdout(Stdio::piped()).spawn().map_err(|source| not_started(command, source))?;
    for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()) {
        let line = line.unwrap_or_default();
        println!("{line}");
        see(&line);
    }
    let status = child.wait().map_err(|source| not_started(command, source))?;
    Ok(status.success())
}

fn not_started(command: &Command, source: io::Error) -> Failure {
    Failure::Start { program: command.get_program().to_string_lossy().into_owned(), source }
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
