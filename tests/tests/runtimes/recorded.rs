//! The recorded calls of containerd and podman to the Go plugins: `recorded.jsonl`.
//!
//! Our plugins must accept all of them, and `libcni.rs` must make calls with the same bytes.

use std::collections::BTreeMap;
use std::fs;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tests::{Cmd, NODE, Needs, Plugins, World};

use crate::libcni::{Attachment, members, request};
use crate::node::file;
use crate::stage::Stage;

/// A recorded call that succeeded.
#[derive(Debug, Deserialize)]
struct Recorded {
    runtime: String,
    plugin: String,
    env: BTreeMap<String, String>,
    stdin: String,
}

pub(crate) fn cases(stage: &mut Stage) {
    let ours = Plugins::ours();
    stage.case("recorded::calls_succeed", &Needs::plugins(&ours, &Plugins::ALL), move || {
        calls_succeed(&ours);
    });
    stage.case("recorded::bytes_are_those_of_libcni", &Needs::default(), bytes_are_those_of_libcni);
}

fn recorded() -> Vec<Recorded> {
    let text = fs::read_to_string(file("recorded.jsonl")).unwrap();
    let calls: Vec<_> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(calls.len() > 100, "only {} calls", calls.len());
    calls
}

/// Runs each call on a new node with the links of the result before it.
fn calls_succeed(ours: &Plugins) {
    for call in recorded() {
        let world = World::new(&[]);
        if call.env["CNI_COMMAND"] == "ADD" {
            let netns = call.env["CNI_NETNS"].rsplit('/').next().unwrap();
            world.add_netns(netns);
            if let Some(link) = host_end(&call.stdin) {
                let peer = format!("ip link add {link} type veth peer name eth0 netns {netns}");
                world.sh(NODE, &peer);
            }
        }
        let mut command = Cmd::new(ours.path(&call.plugin)).stdin(call.stdin.as_str());
        for (name, value) in &call.env {
            command = command.env(name, value);
        }
        let output = world.run(NODE, &command.env("CNI_PATH", ours.dir.to_string_lossy()));
        assert_eq!(output.code(), 0, "sent by {}\n{output}", call.runtime);
    }
}

/// The node's end of the pod's link in the result of the previous plugin.
fn host_end(stdin: &str) -> Option<String> {
    let request: Value = serde_json::from_str(stdin).unwrap();
    let interfaces = request["prevResult"]["interfaces"].as_array()?;
    let mut names = interfaces.iter().filter_map(|interface| interface["name"].as_str());
    names.find(|name| name.starts_with("veth")).map(str::to_owned)
}

fn bytes_are_those_of_libcni() {
    /// What the runtime adds.
    const PUT_IN: [&str; 2] = ["prevResult", "runtimeConfig"];
    let calls = recorded().into_iter().filter(|call| call.env["CNI_COMMAND"] != "VERSION");
    for Recorded { stdin, .. } in calls {
        let whole: Value = serde_json::from_str(&stdin).unwrap();
        let mut config = members(&whole);
        config.retain(|key, _| !PUT_IN.contains(&key.as_str()));
        let raw: BTreeMap<&str, &RawValue> = serde_json::from_str(&stdin).unwrap();
        let capabilities: BTreeMap<&str, &RawValue> = raw
            .get("runtimeConfig")
            .map(|v| serde_json::from_str(v.get()).unwrap())
            .unwrap_or_default();
        let known = |name: &str| match name {
            "bandwidth" => "bandwidth",
            "ips" => "ips",
            "portMappings" => "portMappings",
            other => panic!("no capability {other} was recorded"),
        };
        let capabilities =
            capabilities.iter().map(|(name, raw)| (known(name), raw.get().to_owned())).collect();
        let attachment = Attachment { capabilities, ..Attachment::nobody() };
        let previous = whole.get("prevResult");
        assert_eq!(request(&config, &whole["capabilities"], &attachment, previous), stdin);
    }
}
