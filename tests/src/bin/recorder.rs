//! Replaces a plugin: runs the real one and records the call.
//!
//! Called as `DIR/bin/PLUGIN`, it runs `DIR/real/PLUGIN` and appends one line to `DIR/calls.jsonl`
//! when the call has ended.

#![allow(clippy::unwrap_used, reason = "part of a test, which a panic fails")]

use std::collections::BTreeMap;
use std::env;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, parent_id};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use serde_json::json;

fn main() -> ExitCode {
    let called = PathBuf::from(env::args_os().next().unwrap());
    let (dir, plugin) = (called.parent().unwrap().parent().unwrap(), called.file_name().unwrap());
    let mut stdin = String::new();
    io::stdin().read_to_string(&mut stdin).unwrap();

    let mut real = Command::new(dir.join("real").join(plugin))
        .arg0(&called)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A plugin may end without reading all of its stdin.
    let _ = real.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = real.wait_with_output().unwrap();

    let parent = std::fs::read_to_string(format!("/proc/{}/comm", parent_id())).unwrap_or_default();
    let environment: BTreeMap<_, _> =
        env::vars().filter(|(name, _)| name.starts_with("CNI_")).collect();
    let call = json!({
        "plugin": plugin.to_string_lossy(),
        "parent": parent.trim(),
        "env": environment,
        "stdin": stdin,
        "stdout": String::from_utf8_lossy(&output.stdout),
        "stderr": String::from_utf8_lossy(&output.stderr),
        "exit": output.status.code(),
    });
    let log = OpenOptions::new().append(true).create(true).open(dir.join("calls.jsonl"));
    // In one write, because plugins run at the same time.
    log.unwrap().write_all(format!("{call}\n").as_bytes()).unwrap();

    io::stderr().write_all(&output.stderr).unwrap();
    io::stdout().write_all(&output.stdout).unwrap();
    ExitCode::from(output.status.code().map_or(1, |code| u8::try_from(code).unwrap_or(1)))
}
