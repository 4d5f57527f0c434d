//! A node and pods in network namespaces of their own, and the plugin's program.

#![allow(dead_code, reason = "not every test program uses all of it")]

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio, id};
use std::thread;

use kernel::Netns;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use serde_json::{Value, json};

/// A namespace that lives as long as this, but for processes in it.
pub(crate) struct Namespace(File);

impl Namespace {
    pub(crate) fn new() -> Self {
        thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("root is needed to make a network namespace");
            Self(File::open(format!("/proc/self/task/{}/ns/net", gettid())).unwrap())
        })
        .join()
        .unwrap()
    }

    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", id(), self.0.as_raw_fd())
    }

    /// Runs something in it.
    pub(crate) fn enter<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        Netns::open(Path::new(&self.path())).unwrap().enter(inside).unwrap()
    }

    #[track_caller]
    pub(crate) fn sh(&self, command: &str) -> String {
        self.enter(|| sh(command))
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
    /// Where the IPAM plugin notes the commands that it gets.
    pub(crate) ipam_log: PathBuf,
}

impl Call {
    /// Of `eth0` in a network that masquerades.
    pub(crate) fn new(container_id: &'static str, pod: &Namespace) -> Self {
        let network = json!({
            "cniVersion": "1.1.0", "name": "n", "type": "ptp", "ipMasq": true,
            "ipam": {"type": "dual-stack"},
        });
        let (netns, ipam_log) = (pod.path(), PathBuf::new());
        Self { container_id, ifname: "eth0", netns, network, ipam_log }
    }

    /// The same with another key.
    pub(crate) fn with(&self, key: &str, value: Value) -> Self {
        let mut call = self.clone();
        call.network[key] = value;
        call
    }

    pub(crate) fn run(&self, command: &str) -> Ended {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ptp"))
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", self.container_id)
            .env("CNI_NETNS", &self.netns)
            .env("CNI_IFNAME", self.ifname)
            .env("CNI_PATH", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ipam"))
            .env("IPAM_LOG", &self.ipam_log)
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
    let output = Command::new("sh").args(["-c", command]).output().expect("run sh");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The links, addresses, routes and rules of the node that belong to pods, as `ip` and `nft` show
/// them; none of them, if all is as before the first pod.
pub(crate) fn leftovers() -> Vec<String> {
    let seen = sh("ip -o link; ip -o addr; ip -4 route; ip -6 route; nft list ruleset");
    let of_pod =
        |line: &&str| ["veth", "10.88.", "fd00:88:", "CNI-"].iter().any(|it| line.contains(it));
    seen.lines().filter(of_pod).map(str::to_owned).collect()
}
