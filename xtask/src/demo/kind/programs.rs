//! The programs of this machine that stand for kube-proxy and the ingress controller.

use std::env;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::demo::DemoError;
use crate::demo::machine::Machine;

/// Adds rules in the syntax of iptables-save, to `nf_tables` whatever the machine's default is.
const RESTORE: (&str, &str) = ("iptables-nft-restore", "iptables");
/// The ingress controller.
pub(super) const NGINX: (&str, &str) = ("nginx", "nginx");
/// Ends a program when its parent ends.
pub(super) const SETPRIV: (&str, &str) = ("setpriv", "util-linux");

/// Checks that all of them are installed.
pub(crate) fn find_all() -> Result<(), DemoError> {
    [RESTORE, NGINX, SETPRIV].into_iter().try_for_each(|program| find(program).map(drop))
}

/// The path of a program; the `PATH` of an ordinary user lacks some directories.
pub(super) fn find((name, package): (&'static str, &'static str)) -> Result<PathBuf, DemoError> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let mut files = places.map(|place| place.join(name));
    files.find(|file| file.is_file()).ok_or(DemoError::Program(name, package))
}

/// Adds rules to a node.
pub(super) fn restore(node: &Machine, rules: String) -> Result<(), DemoError> {
    let mut restore = Command::new(find(RESTORE)?);
    restore.arg("--noflush").stdin(Stdio::piped()).stderr(Stdio::piped());
    let output = node.run(move || {
        let mut child = restore.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(rules.as_bytes())?;
        }
        child.wait_with_output()
    });
    let output = output.map_err(|error| DemoError::Run(RESTORE.0, error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    Err(DemoError::Run(RESTORE.0, said))
}
