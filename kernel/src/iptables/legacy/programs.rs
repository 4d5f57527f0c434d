//! The programs of the legacy variant. This crate runs no other programs.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use crate::error::{Cause, Error, Result};
use crate::family::Family;
use crate::netns::ensure_home;

/// The directory and the names of the programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Programs {
    directory: PathBuf,
    /// The part of the name between `iptables` and `-restore`.
    infix: &'static str,
}

/// The directories if `PATH` is not set.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How many seconds the programs wait for the lock of iptables.
const WAIT: &str = "10";

/// `RESOURCE_PROBLEM` of `xtables.h`: another program held the lock for this time.
const RESOURCE_PROBLEM: i32 = 4;

impl Programs {
    /// The programs with `-legacy` in their names; otherwise those without, if `--version` prints `(legacy)`.
    pub(super) fn find() -> Result<Option<Self>> {
        let directories = directories();
        let first = |infix| {
            let has_both = |programs: &Self| {
                let is_there = |action| programs.path(Family::V4, action).is_file();
                is_there("save") && is_there("restore")
            };
            let all =
                directories.iter().map(|directory| Self { directory: directory.clone(), infix });
            all.into_iter().find(has_both)
        };
        if let Some(named) = first("-legacy") {
            return Ok(Some(named));
        }
        let Some(plain) = first("") else { return Ok(None) };
        let version = run(&plain.path(Family::V4, "restore"), &["--version"], "")?;
        Ok(version.contains("(legacy)").then_some(plain))
    }

    /// Prints all tables that are in use. This makes no table, because it names none.
    pub(super) fn save(&self, family: Family) -> Result<String> {
        run(&self.path(family, "save"), &[], "")
    }

    /// Makes all changes of a text to its table, or none.
    pub(super) fn restore(&self, family: Family, text: &str) -> Result<()> {
        let arguments = ["--noflush", "--wait", WAIT];
        run(&self.path(family, "restore"), &arguments, text).map(drop)
    }

    fn path(&self, family: Family, action: &str) -> PathBuf {
        let program = if family == Family::V6 { "ip6tables" } else { "iptables" };
        self.directory.join(format!("{program}{}-{action}", self.infix))
    }
}

/// Whether the program `iptables` of either variant is installed.
pub(in super::super) fn has_iptables() -> bool {
    directories().iter().any(|directory| directory.join("iptables").is_file())
}

fn directories() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    env::split_paths(&path).collect()
}

/// The environment variables that the programs get. Others, such as `CNI_*` and `TRACEPARENT`, are only for
/// the plugins.
const ENVIRONMENT: [&str; 3] = ["PATH", "XTABLES_LIBDIR", "XTABLES_LOCKFILE"];

/// Runs a program, and returns its output.
fn run(program: &Path, arguments: &[&str], input: &str) -> Result<String> {
    ensure_home()?;
    let failed = |cause: Cause| Error::new(format!("run {}", program.display()), cause);
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env_clear();
    command.envs(ENVIRONMENT.iter().filter_map(|name| Some((name, env::var_os(name)?))));
    let mut child = command.spawn().map_err(|error| failed(error.into()))?;
    // If this fails because the program ended, its exit status and its output say why.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(|error| failed(error.into()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let mut words =
        stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>();
    words.extend(failed_line(&stderr, input));
    let text = format!("{}: {}", output.status, words.join("; "));
    Err(failed(match output.status.code() {
        Some(RESOURCE_PROBLEM) => Cause::Locked(text),
        _ => Cause::Program(text),
    }))
}

/// The line of the input whose number is in the program's error.
fn failed_line<'a>(stderr: &str, input: &'a str) -> Option<&'a str> {
    let (_, after) = stderr.split_once("line")?;
    let number =
        after.trim_start_matches([':', ' ']).split(|c: char| !c.is_ascii_digit()).next()?;
    input.lines().nth(number.parse::<usize>().ok()?.checked_sub(1)?)
}

/// The names of the legacy tables in this network namespace, one in each line. A table is listed after a
/// program has read it or, on older kernels, when its module is loaded. This only reads one file.
///
/// Only root of the initial user namespace can read it. For other users, the result is empty.
pub(super) fn table_names(family: Family) -> Result<String> {
    ensure_home()?;
    let file = if family == Family::V6 { "ip6_tables_names" } else { "ip_tables_names" };
    let path = Path::new("/proc/thread-self/net").join(file);
    match fs::read_to_string(&path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
            Ok(String::new())
        }
        read => read.map_err(|error| Error::new(format!("read {}", path.display()), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_failed_is_shown() {
        let input = "*nat\n-N CNI-X\n-A CNI-X -j NOPE\nCOMMIT\n";
        assert_eq!(failed_line("iptables-restore: line 2 failed\n", input), Some("-N CNI-X"));
        let text = "iptables-restore v1.8.9 (legacy): x\nError occurred at line: 3\nTry -h\n";
        assert_eq!(failed_line(text, input), Some("-A CNI-X -j NOPE"));
        assert_eq!(failed_line("Another app is currently holding the xtables lock", input), None);
    }

    /// In earlier releases, the programs got all variables, such as those of the runtime.
    #[test]
    fn programs_get_the_environment_that_they_need() {
        let environment = run(Path::new("/usr/bin/env"), &[], "").unwrap();
        for line in environment.lines() {
            let name = line.split('=').next().unwrap_or_default();
            assert!(ENVIRONMENT.contains(&name), "{line}");
        }
        assert!(environment.contains("PATH="), "{environment}");
    }
}
