//! A virtual machine with another kernel, for tests that this machine's kernel cannot run.

use std::ffi::OsStr;
use std::process::{Command, ExitCode};
use std::time::Duration;

use crate::binaries::workspace;
use crate::process::Cmd;
use crate::world::{NODE, World};

/// The variable that says, in the virtual machine, how many times slower than usual it is.
const SLOWNESS: &str = "TESTS_SLOWNESS";
/// The exit status of `run-in-vm` when the virtual machine cannot be started.
const NO_MACHINE: i32 = 125;

/// Whether the kernel supports VLANs of bridges.
#[must_use]
pub fn has_bridge_vlans() -> bool {
    has_link(&["bridge", "vlan_filtering", "1"])
}

/// Whether the kernel has dummy devices.
#[must_use]
pub fn has_dummy_devices() -> bool {
    has_link(&["dummy"])
}

/// Whether `ip` can make a link of a kind, in a world of its own.
fn has_link(kind: &[&str]) -> bool {
    let link = Cmd::new("ip").args(["link", "add", "link0", "type"]).args(kind);
    nix::unistd::geteuid().is_root() && World::new(&[]).run(NODE, &link).code() == 0
}

/// Runs this test program again, with its arguments, in a virtual machine with Debian's kernel.
///
/// Returns an error with the reason if the virtual machine cannot be started.
pub fn run_again() -> Result<ExitCode, String> {
    let script = workspace().join("tests/vm/run-in-vm");
    // This reports what is missing now; later failures are reported while it runs.
    let mut prepare = Command::new(&script);
    let prepared = prepare.arg("--prepare").output().map_err(|e| format!("run-in-vm: {e}"))?;
    if !prepared.status.success() {
        return Err(String::from_utf8_lossy(&prepared.stderr).trim().replace('\n', "; "));
    }
    let mut command = Command::new(&script);
    let program = std::env::current_exe().map_err(|e| format!("find this program: {e}"))?;
    command.arg(program).args(std::env::args_os().skip(1)).env(SLOWNESS, "10");
    let status = command.status().map_err(|e| format!("run-in-vm: {e}"))?;
    match status.code() {
        Some(NO_MACHINE) => Err("the virtual machine stopped before the tests ended".to_owned()),
        Some(0) => Ok(ExitCode::SUCCESS),
        _ => Ok(ExitCode::FAILURE),
    }
}

/// A waiting time, multiplied in the virtual machine.
pub(crate) fn patience(usual: Duration) -> Duration {
    let slowness = std::env::var_os(SLOWNESS);
    usual * slowness.as_deref().and_then(OsStr::to_str).and_then(|s| s.parse().ok()).unwrap_or(1)
}
