//! Misbehaving IPAM plugins: bridge and ptp run them and end without waiting for them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::ExitCode;

use serde_json::{Value, json};

use tests::{NODE, Needs, Output, Plugins, Pod, Suite, World, call};

/// The directory of a test's own plugins.
const OWN: &str = "/run/own";

/// The answer of an IPAM plugin to ADD.
const RESULT: &str =
    r#"{"cniVersion": "1.0.0", "ips": [{"address": "10.1.2.2/24", "gateway": "10.1.2.1"}]}"#;

fn main() -> ExitCode {
    let mut suite = Suite::new();
    for plugin in ["bridge", "ptp"] {
        let mut both = |name: &str, go_fails, test: fn(&Plugins, &str)| {
            let needs = |it: &Plugins| Needs::plugins(it, &[plugin]);
            suite.both(&format!("{plugin}::{name}"), go_fails, needs, move |it| test(it, plugin));
        };
        both("the_environment_of_tracing_reaches_ipam", None, tracing);
        both("a_configuration_is_written_while_output_is_read", None, large);
    }
    for plugin in ["bridge", "ptp"] {
        let ours = Plugins::ours();
        let needs = Needs::plugins(&ours, &["bridge", "ptp"]);
        let mut own = |name: &str, test: fn(&Plugins, &str)| {
            let ours = ours.clone();
            suite.case(&format!("{plugin}::{name}"), &needs, move || test(&ours, plugin));
        };
        // The Go plugins wait until the process is killed.
        own("what_ipam_leaves_behind_holds_nobody", left_behind);
        // The Go plugins would run each other until no process can be started any more.
        own("ipam_that_delegates_is_refused", delegating);
    }
    suite.run()
}

/// A node with an IPAM plugin that is a shell script.
struct Node<'a> {
    world: World,
    plugins: &'a Plugins,
    plugin: &'a str,
}

impl<'a> Node<'a> {
    fn new(plugins: &'a Plugins, plugin: &'a str, script: &str) -> Self {
        let world = World::new(&["pod"]);
        let install = format!(
            "mkdir {OWN}; cat >{OWN}/own <<'END'\n#!/bin/sh\n{script}\nEND\nchmod +x {OWN}/own"
        );
        world.sh(NODE, &install);
        Self { world, plugins, plugin }
    }

    fn run(&self, command: &str, more: &Value) -> Output {
        let mut config = json!({
            "cniVersion": "1.0.0", "name": "net", "type": self.plugin, "bridge": "br-own",
            "ipam": {"type": "own"},
        });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let path = format!("{}:{OWN}", self.plugins.dir.display());
        let call = call(self.plugins, self.plugin, command, &Pod::new("pod"), &config);
        let call = call.env("CNI_PATH", path).env("TRACEPARENT", "00-1").env("TRACESTATE", "a=b");
        self.world.run(NODE, &call.env("BAGGAGE", "c=d"))
    }

    fn links(&self) -> String {
        self.world.sh(NODE, "ip -br link | cut -d' ' -f1")
            + &self.world.sh("pod", "ip -br link | cut -d' ' -f1")
    }
}

fn tracing(plugins: &Plugins, plugin: &str) {
    let script =
        format!("echo $CNI_COMMAND $TRACEPARENT $TRACESTATE $BAGGAGE >>{OWN}/log\necho '{RESULT}'");
    let node = Node::new(plugins, plugin, &script);
    let _ = node.run("ADD", &json!({})).success();
    let _ = node.run("DEL", &json!({})).success();
    assert_eq!(
        node.world.sh(NODE, &format!("cat {OWN}/log")),
        "ADD 00-1 a=b c=d\nDEL 00-1 a=b c=d\n"
    );
}

/// Both are larger than a pipe: if one side reads only after it has written everything, neither ever
/// ends.
fn large(plugins: &Plugins, plugin: &str) {
    let script = format!(
        "head -c 300000 /dev/zero | tr '\\0' ' '\n[ $(wc -c) -gt 300000 ] && echo '{RESULT}'"
    );
    let node = Node::new(plugins, plugin, &script);
    let _ = node.run("ADD", &json!({"note": "x".repeat(300_000)})).success();
    let _ = node.run("DEL", &json!({"note": "x".repeat(300_000)})).success();
}

fn left_behind(plugins: &Plugins, plugin: &str) {
    let script = format!("sleep 1000 2>/dev/null & echo $! >>{OWN}/left; echo '{RESULT}'");
    let node = Node::new(plugins, plugin, &script);
    let [add, del] = ["ADD", "DEL"].map(|command| node.run(command, &json!({})));
    node.world.sh(NODE, &format!("xargs kill <{OWN}/left"));
    let _ = add.success();
    let _ = del.success();
}

fn delegating(plugins: &Plugins, plugin: &str) {
    let node = Node::new(plugins, plugin, "exit 1");
    let copy = format!("cp {} {OWN}/renamed", plugins.path(plugin).display());
    node.world.sh(NODE, &copy);
    let before = node.links();
    for kind in ["bridge", "ptp", "macvlan", "renamed"] {
        let config = json!({"ipam": {"type": kind}});
        let output = node.run("ADD", &config);
        let error = output.cni_error();
        assert_eq!(error["code"], 7, "{output}");
        assert!(error["msg"].as_str().unwrap().contains("\"ipam.type\""), "{output}");
        assert_eq!(node.links(), before, "{output}");
        let _ = node.run("DEL", &config).success();
    }
}
