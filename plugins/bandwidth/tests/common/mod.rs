//! A node and pods in network namespaces of their own, and the plugin's program.

#![allow(dead_code, reason = "not every test program uses all of it")]

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio, id};
use std::thread;

use kernel::Netns;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use serde_json::{Value, json};

/// A pod: a namespace that lives as long as this, `eth0` being 10.88.0.2 in it, and the other end
/// on the node 10.88.0.1.
pub(crate) struct Pod {
    namespace: File,
    /// The node's end.
    pub(crate) link: &'static str,
}

impl Pod {
    pub(crate) fn new(link: &'static str) -> Self {
        let namespace = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("root is needed to make a network namespace");
            File::open(format!("/proc/self/task/{}/ns/net", gettid())).unwrap()
        });
        let pod = Self { namespace: namespace.join().unwrap(), link };
        sh(&format!("ip link add {link} type veth peer name eth0 netns {}", pod.netns()));
        sh(&format!("ip addr add 10.88.0.1/24 dev {link}; ip link set {link} up"));
        pod.enter(|| sh("ip addr add 10.88.0.2/24 dev eth0; ip link set eth0 up"));
        pod
    }

    pub(crate) fn netns(&self) -> String {
        format!("/proc/{}/fd/{}", id(), self.namespace.as_raw_fd())
    }

    /// Does something in it.
    pub(crate) fn enter<T>(&self, inside: impl FnOnce() -> T) -> T {
        Netns::open(Path::new(&self.netns())).unwrap().enter(inside).unwrap()
    }

    /// What the plugin before ours has made.
    pub(crate) fn result(&self) -> Value {
        json!({
            "cniVersion": "1.1.0",
            "interfaces": [{"name": self.link}, {"name": "eth0", "sandbox": self.netns()}],
            "ips": [{"address": "10.88.0.2/24", "interface": 1}],
        })
    }
}

/// How a command ended: its result, or its error object.
pub(crate) type Ended = Result<Value, Value>;

/// A command of the plugin: an attachment, and what else it is told.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) container_id: &'static str,
    pub(crate) ifname: &'static str,
    pub(crate) netns: String,
    pub(crate) network: Value,
}

impl Call {
    /// Of `eth0`, which 4 Mbit/s enter and 5 Mbit/s leave.
    pub(crate) fn new(container_id: &'static str, pod: &Pod) -> Self {
        let network = json!({
            "cniVersion": "1.1.0", "name": "testnet", "type": "bandwidth",
            "ingressRate": 4_000_000, "ingressBurst": 800_000,
            "egressRate": 5_000_000, "egressBurst": 800_000,
            "prevResult": pod.result(),
        });
        Self { container_id, ifname: "eth0", netns: pod.netns(), network }
    }

    /// The same with other keys.
    pub(crate) fn with(&self, more: &Value) -> Self {
        let mut call = self.clone();
        for (key, value) in more.as_object().unwrap() {
            call.network[key] = value.clone();
        }
        call
    }

    /// The same by a runtime that has lost all but the names.
    pub(crate) fn by_names(&self) -> Self {
        let network = json!({"cniVersion": "1.1.0", "name": "testnet", "type": "bandwidth"});
        Self { netns: String::new(), network, ..self.clone() }
    }

    pub(crate) fn run(&self, command: &str) -> Ended {
        let mut child = Command::new(env!("CARGO_BIN_EXE_bandwidth"))
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", self.container_id)
            .env("CNI_NETNS", &self.netns)
            .env("CNI_IFNAME", self.ifname)
            .env("CNI_PATH", "/nowhere")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(self.network.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        if output.status.success() { Ok(value) } else { Err(value) }
    }
}

/// Runs a test inside a namespace that stands for the node.
pub(crate) fn on_a_node(test: impl FnOnce() + Send + 'static) {
    let body = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("root is needed to make a network namespace");
        sh("ip link set lo up");
        test();
    };
    if let Err(panic) = thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

#[track_caller]
pub(crate) fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-ec", command]).output().expect("run sh");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
pub(crate) fn json_of(command: &str) -> Value {
    serde_json::from_str(&sh(command)).unwrap()
}

/// The names of all ifb devices of the node.
pub(crate) fn ifbs() -> Vec<String> {
    let links = json_of("ip -j link show type ifb");
    let name = |link: &Value| link["ifname"].as_str().map(str::to_owned);
    links.as_array().unwrap().iter().filter_map(name).collect()
}

/// The queueing disciplines of a link that somebody gave it, as `kind` and `options`.
pub(crate) fn qdiscs(link: &str) -> Vec<(String, Value)> {
    let all = json_of(&format!("tc -j qdisc show dev {link}"));
    let all = all.as_array().unwrap().iter();
    let all = all.map(|it| (it["kind"].as_str().unwrap().to_owned(), it["options"].clone()));
    all.filter(|(kind, _)| kind != "noqueue").collect()
}
