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
    pub(crate) fn new() -> Self {
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
pub(crate) fn firewall(command: &str, container_id: &str, netns: &str, config: &Value) -> Ended {
    firewall_at("/usr/sbin", command, container_id, netns, config)
}

/// As [`firewall`], where programs are looked for in this directory.
#[track_caller]
pub(crate) fn firewall_at(
    path: &str,
    command: &str,
    container_id: &str,
    netns: &str,
    config: &Value,
) -> Ended {
    let mut child = Command::new(env!("CARGO_BIN_EXE_firewall"))
        .env_clear()
        .envs([("CNI_COMMAND", command), ("CNI_CONTAINERID", container_id), ("CNI_NETNS", netns)])
        .envs([("CNI_IFNAME", "eth0"), ("CNI_PATH", "/nowhere"), ("PATH", path)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    if output.status.success() { Ok(value) } else { Err(value) }
}

/// A configuration for the pod.
pub(crate) fn config(keys: &Value) -> Value {
    let mut config = json!({
        "prevResult": {
            "cniVersion": "1.1.0",
            "interfaces": [{"name": "vethpod"}, {"name": "eth0", "sandbox": "/run/netns/pod"}],
            "ips": [
                {"address": "10.88.0.2/24", "interface": 1}, {"address": "fd00:88::2/64", "interface": 1}
            ],
        },
    });
    let more = [names(), keys.clone()].into_iter().filter_map(|it| it.as_object().cloned());
    config.as_object_mut().unwrap().extend(more.flatten());
    config
}

/// The names alone, as in a DEL after everything else has been lost.
pub(crate) fn names() -> Value {
    json!({"cniVersion": "1.1.0", "name": "testnet", "type": "firewall"})
}

/// All rules of both families in the table `filter`.
pub(crate) fn rules() -> String {
    sh("iptables -S; ip6tables -S")
}

/// How many lines of a listing hold a text.
pub(crate) fn count(listing: &str, text: &str) -> usize {
    listing.lines().filter(|line| line.contains(text)).count()
}

/// Whether an address answers, once at least: neighbours have to be found first.
pub(crate) fn reaches(from: &Namespace, to: &str) -> bool {
    let pid = from.pid().to_string();
    let arguments = ["-t", pid.as_str(), "-n", "ping", "-q", "-c", "4", "-i", "0.3", "-W", "2", to];
    Command::new("nsenter").args(arguments).output().unwrap().status.success()
}
