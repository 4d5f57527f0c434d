//! A pod, the plugin's program, and what the plugin makes on a node.

#![allow(dead_code, reason = "not every test program uses all of it")]

use serde_json::{Value, json};
use testbed::{Ended, Namespace, cni_command, sh};

/// A pod whose `eth0` has 10.88.0.2; the other end, on the node, has 10.88.0.1.
pub(crate) struct Pod {
    namespace: Namespace,
    /// The node's end.
    pub(crate) link: &'static str,
}

impl Pod {
    pub(crate) fn new(link: &'static str) -> Self {
        let pod = Self { namespace: Namespace::create(), link };
        sh(&format!("ip link add {link} type veth peer name eth0 netns {}", pod.netns()));
        sh(&format!("ip addr add 10.88.0.1/24 dev {link}; ip link set {link} up"));
        pod.namespace.sh("ip addr add 10.88.0.2/24 dev eth0; ip link set eth0 up");
        pod
    }

    pub(crate) fn netns(&self) -> String {
        self.namespace.path()
    }

    /// Runs `work` in the pod's namespace.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.namespace.enter(work)
    }

    /// The result of the previous plugin.
    pub(crate) fn result(&self) -> Value {
        json!({
            "cniVersion": "1.1.0",
            "interfaces": [{"name": self.link}, {"name": "eth0", "sandbox": self.netns()}],
            "ips": [{"address": "10.88.0.2/24", "interface": 1}],
        })
    }
}

/// A command of the plugin: an attachment and a configuration.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) container_id: &'static str,
    pub(crate) ifname: &'static str,
    pub(crate) netns: String,
    pub(crate) network: Value,
}

impl Call {
    /// For `eth0`, with limits of 4 Mbit/s to the pod and 5 Mbit/s from the pod.
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

    /// The same, with the names only.
    pub(crate) fn by_names(&self) -> Self {
        let network = json!({"cniVersion": "1.1.0", "name": "testnet", "type": "bandwidth"});
        Self { netns: String::new(), network, ..self.clone() }
    }

    pub(crate) fn run(&self, command: &str) -> Ended {
        let program = env!("CARGO_BIN_EXE_bandwidth");
        let mut call = cni_command(program, command, self.container_id, &self.netns);
        testbed::run(call.env("CNI_IFNAME", self.ifname), &self.network)
    }

    /// Runs a command while strace changes its system calls (`inject=` of strace(1)).
    pub(crate) fn run_with(&self, command: &str, fault: &str) -> Ended {
        let mut call = cni_command("strace", command, self.container_id, &self.netns);
        call.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("inject={fault}")]);
        call.args([env!("CARGO_BIN_EXE_bandwidth")]);
        testbed::run(call.env("CNI_IFNAME", self.ifname), &self.network)
    }
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

/// The queueing disciplines of a link, except the default one, as `kind` and `options`.
pub(crate) fn qdiscs(link: &str) -> Vec<(String, Value)> {
    let all = json_of(&format!("tc -j qdisc show dev {link}"));
    let all = all.as_array().unwrap().iter();
    let all = all.map(|it| (it["kind"].as_str().unwrap().to_owned(), it["options"].clone()));
    all.filter(|(kind, _)| kind != "noqueue").collect()
}
