//! The plugin's program, and configurations for the pod of [`testbed::routed`].

#![allow(dead_code, reason = "not every test program uses all of it")]

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use testbed::routed::on_a_node;
use testbed::{Ended, Namespace, cni_command, sh};

/// Runs a test with either backend, each time on a new node.
pub(crate) fn with_both_backends(test: fn(&'static str)) {
    for backend in ["iptables", "nftables"] {
        on_a_node(move || test(backend));
    }
}

/// Runs the plugin, for a container of this ID.
#[track_caller]
pub(crate) fn portmap(command: &str, container_id: &str, netns: &str, config: &Value) -> Ended {
    testbed::run(&mut call(command, container_id, netns), config)
}

/// Runs the plugin with these programs and no others in its reach.
#[track_caller]
pub(crate) fn portmap_with(
    programs: &Programs,
    command: &str,
    container_id: &str,
    netns: &str,
    config: &Value,
) -> Ended {
    let mut call = call(command, container_id, netns);
    testbed::run(call.env("PATH", programs.path()), config)
}

/// A directory of programs, which goes with the value.
pub(crate) struct Programs(std::path::PathBuf);

impl Programs {
    /// An empty directory.
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("portmap-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> String {
        self.0.to_str().unwrap().to_owned()
    }

    /// The machine's own program, by another name if there are two.
    pub(crate) fn link(self, program: &str, name: &str) -> Self {
        let program = sh(&format!("readlink -f $(command -v {program})"));
        std::os::unix::fs::symlink(program.trim(), self.0.join(name)).unwrap();
        self
    }

    /// A program that says something and fails.
    pub(crate) fn failing(self, name: &str, text: &str, status: u8) -> Self {
        self.script(name, &format!("echo '{text}' >&2; exit {status}"))
    }

    /// A program for the shell.
    pub(crate) fn script(self, name: &str, body: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let path = self.0.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        self
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn call(command: &str, container_id: &str, netns: &str) -> Command {
    cni_command(env!("CARGO_BIN_EXE_portmap"), command, container_id, netns)
}

/// A configuration with these mappings for the pod.
pub(crate) fn config(mappings: &Value) -> Value {
    json!({
        "cniVersion": "1.1.0", "name": "testnet", "type": "portmap",
        "runtimeConfig": {"portMappings": mappings},
        "prevResult": {
            "cniVersion": "1.1.0",
            "interfaces": [{"name": "vethpod"}, {"name": "eth0", "sandbox": "/run/netns/pod"}],
            "ips": [
                {"address": "10.88.0.2/24", "interface": 1}, {"address": "fd00:88::2/64", "interface": 1}
            ],
        },
    })
}

/// The same configuration for a backend.
pub(crate) fn of(backend: &str, mut config: Value) -> Value {
    config["backend"] = backend.into();
    config
}

/// The names alone, as in a DEL after everything else has been lost.
pub(crate) fn names() -> Value {
    json!({"cniVersion": "1.1.0", "name": "testnet", "type": "portmap"})
}

pub(crate) fn tcp(host_port: u16, container_port: u16) -> Value {
    json!({"hostPort": host_port, "containerPort": container_port, "protocol": "tcp"})
}

/// All rules of both families but those of the table's own chains.
pub(crate) fn rules() -> String {
    sh("iptables -t nat -S; ip6tables -t nat -S")
}

/// What a connection from a namespace is answered; none if nobody takes it.
pub(crate) fn ask(from: &Namespace, to: &str) -> Option<String> {
    let to: SocketAddr = to.parse().unwrap();
    let limit = Duration::from_millis(700);
    let mut stream = from.enter(|| TcpStream::connect_timeout(&to, limit)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}
