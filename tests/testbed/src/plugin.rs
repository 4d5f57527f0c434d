//! Runs the program of a plugin as a runtime does.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

/// How a command of a plugin ended: its result (null if it printed none) or its error object.
pub type Ended = Result<Value, Value>;

/// A command of a plugin with the variables that most tests need, and no others. `CNI_IFNAME` is
/// `eth0`; `CNI_PATH` contains no plugin.
pub fn cni_command(program: &str, command: &str, container_id: &str, netns: &str) -> Command {
    let mut call = Command::new(program);
    call.env_clear().envs([
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", container_id),
        ("CNI_NETNS", netns),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/nowhere"),
    ]);
    call
}

/// Runs a command of a plugin, with this configuration, to its end.
#[track_caller]
pub fn run(call: &mut Command, config: &Value) -> Ended {
    let mut child = call.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    if output.status.success() { Ok(value) } else { Err(value) }
}
