//! A node, a pod and a client in network namespaces of their own, and the plugin's program.

#![allow(dead_code, reason = "not every test program uses all of it")]

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::thread;

use kernel::Netns;
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

/// A namespace that lives as long as a process sleeps in it.
pub(crate) struct Namespace {
    holder: Child,
    pub(crate) netns: Netns,
}

impl Namespace {
    fn new() -> Self {
        let mut command = Command::new("unshare");
        let body = format!("{NO_DAD}; echo made; exec sleep 300");
        command.args(["--net", "sh", "-c", &body]);
        let mut holder = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let out = holder.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
        let netns = Netns::open(format!("/proc/{}/ns/net", holder.id()).as_ref()).unwrap();
        Self { holder, netns }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.holder.id()
    }

    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.pid())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Routers ask for their neighbours by link-local addresses, which would be tentative for a while.
const NO_DAD: &str = "sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0";

/// Runs a test inside a namespace that stands for the node.
pub(crate) fn on_a_node(test: impl FnOnce() + Send + 'static) {
    let body = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("root is needed to make a network namespace");
        sh(NO_DAD);
        sh("ip link set lo up; sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        test();
    };
    if let Err(panic) = thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a test with either backend, each time on a new node.
pub(crate) fn with_both_backends(test: fn(&'static str)) {
    for backend in ["iptables", "nftables"] {
        on_a_node(move || test(backend));
    }
}

/// A pod behind a veth pair: 10.88.0.2 and `fd00:88::2`, routed by the node.
pub(crate) fn pod() -> Namespace {
    neighbour("vethpod", "10.88.0", "fd00:88")
}

/// A machine outside: 192.0.2.1 and `2001:db8::1`; the node is 192.0.2.10 and `2001:db8::10` to it.
pub(crate) fn client() -> Namespace {
    neighbour("uplink", "192.0.2", "2001:db8")
}

fn neighbour(link: &str, v4: &str, v6: &str) -> Namespace {
    let namespace = Namespace::new();
    let pid = namespace.pid();
    let last = if link == "uplink" { 1 } else { 2 };
    let inside = format!("nsenter -t {pid} -n");
    sh(&format!(
        "set -e
        ip link add {link} type veth peer name eth0 netns {pid}
        ip addr add {v4}.10/24 dev {link}; ip addr add {v6}::10/64 dev {link} nodad; ip link set {link} up
        {inside} ip link set lo up; {inside} ip link set eth0 up
        {inside} ip addr add {v4}.{last}/24 dev eth0; {inside} ip addr add {v6}::{last}/64 dev eth0 nodad
        {inside} ip route add default via {v4}.10; {inside} ip -6 route add default via {v6}::10"
    ));
    namespace
}

#[track_caller]
pub(crate) fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().expect("run sh");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// How a command ended: its result, or its error object.
pub(crate) type Ended = Result<Value, Value>;

/// Runs the plugin, for a container of this ID.
#[track_caller]
pub(crate) fn portmap(command: &str, container_id: &str, netns: &str, config: &Value) -> Ended {
    run(&[], command, container_id, netns, config)
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
    run(&[("PATH", &programs.path())], command, container_id, netns, config)
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

#[track_caller]
fn run(
    environment: &[(&str, &str)],
    command: &str,
    container_id: &str,
    netns: &str,
    config: &Value,
) -> Ended {
    let mut child = Command::new(env!("CARGO_BIN_EXE_portmap"))
        .env_clear()
        .envs(environment.iter().copied())
        .envs([("CNI_COMMAND", command), ("CNI_CONTAINERID", container_id), ("CNI_NETNS", netns)])
        .envs([("CNI_IFNAME", "eth0"), ("CNI_PATH", "/nowhere")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    if output.status.success() { Ok(value) } else { Err(value) }
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
