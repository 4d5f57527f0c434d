//! Runs the program of a plugin under strace, which makes one of its system calls fail.

use std::fs;
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::plugin::{Ended, run};

/// Runs a command of a plugin in which the `n`th system call `kind` fails as strace's option
/// `--inject` says, for example `("recvfrom", "error=EAGAIN")`. `None` if there were fewer such calls.
#[track_caller]
pub fn run_injected(
    call: &Command,
    config: &Value,
    (kind, fault): (&str, &str),
    n: u32,
) -> Option<Ended> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let trace = std::env::temp_dir().join(format!("strace-{}-{number}", process::id()));
    let mut strace = Command::new("strace");
    strace.env_clear().args(["-qq", "-o"]).arg(&trace);
    strace.args(["-e", &format!("trace={kind}")]);
    strace.args(["-e", &format!("inject={kind}:{fault}:when={n}")]).arg(call.get_program());
    strace.envs(call.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let ended = run(&mut strace, config);
    let calls = fs::read_to_string(&trace).unwrap();
    fs::remove_file(&trace).unwrap();
    let made = calls.lines().filter(|line| line.starts_with(kind)).count();
    (made >= n as usize).then_some(ended)
}
