//! Tests what the READMEs show: each network attaches and detaches a pod, each session prints what it
//! says, and each key that a plugin reads is in its table.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::process::ExitCode;

use serde_json::{Value, json};
use tests::configs::port;
use tests::docs::{Block, Kind, blocks, readmes};
use tests::{Cmd, NODE, Needs, Output, Plugins, STATE_DIR, Suite, World};
use tests::{conflist_program, netns_path, vm, workspace};

fn main() -> ExitCode {
    let mut suite = Suite::new();
    let needs = Needs::plugins(&Plugins::ours(), &Plugins::ALL).conflist();
    for block in blocks() {
        let place = block.place.clone();
        match block.kind {
            Kind::List => {
                suite.case(&format!("network::{place}"), &needs, move || lives(&block, "conflist"));
            }
            Kind::Lone => {
                suite.case(&format!("network::{place}"), &needs, move || lives(&block, "conf"));
            }
            Kind::Session => {
                suite.case(&format!("session::{place}"), &needs, move || goes(&block));
            }
            Kind::Other(_) => {}
            Kind::Unknown => suite.case(&format!("unknown::{place}"), &needs, move || {
                let is_known = block.kind != Kind::Unknown;
                assert!(is_known, "what is this block? See tests/src/docs.rs\n{}", block.text);
            }),
        }
    }
    for plugin in Plugins::ALL {
        suite.case(&format!("keys::{plugin}"), &needs, move || all_keys_are_documented(plugin));
    }
    suite.run()
}

/// The README of a plugin has a network in JSON, and each key in backquotes in a table.
fn all_keys_are_documented(plugin: &str) {
    let readme = readmes().into_iter().find(|file| file.parent().unwrap().ends_with(plugin));
    let readme = fs::read_to_string(workspace().join(readme.unwrap())).unwrap();
    assert!(readme.contains("```json\n"), "no network to paste");
    let schema = workspace().join(format!("conflist/schemas/{plugin}.json"));
    let schema: Value = serde_json::from_str(&fs::read_to_string(schema).unwrap()).unwrap();
    let mut keys = Vec::new();
    keys_of(&schema["properties"], &mut keys);
    let first_cells = readme.lines().filter_map(|line| line.strip_prefix("| `"));
    let documented: Vec<&str> =
        first_cells.flat_map(|line| line.split(" | ").next().unwrap().split('`')).collect();
    for key in keys {
        assert!(documented.contains(&key), "key {key} is in no table");
    }
}

/// The keys that users can write, including those below `ipam` and in ranges.
fn keys_of<'a>(properties: &'a Value, keys: &mut Vec<&'a str>) {
    for (key, value) in properties.as_object().into_iter().flatten() {
        match key.as_str() {
            "args" | "runtimeConfig" => {}
            "ipam" if value["properties"].is_object() || value["anyOf"].is_array() => {
                keys_of(&value["properties"], keys);
                keys_of(&value["anyOf"][0]["properties"], keys);
            }
            _ => {
                keys.push(key);
                keys_of(&value["items"]["items"]["properties"], keys);
            }
        }
    }
}

/// Runs ADD, CHECK and DEL with conflist; nothing of the pod is left.
fn lives(block: &Block, extension: &str) {
    let world = world();
    let dir = format!("{STATE_DIR}/net.d");
    let file = format!("{dir}/10-pasted.{extension}");
    world.files(|| {
        fs::create_dir(&dir).unwrap();
        fs::write(&file, &block.text).unwrap();
    });
    let network: Value = serde_json::from_str(&block.text).unwrap();
    let name = network["name"].as_str().unwrap().to_owned();
    let ports = json!({"portMappings": [port("tcp", 8080, 80)]});
    let conflist = |args: &[&str]| -> Output {
        let call = Cmd::new(conflist_program())
            .args(args)
            .env("NETCONFPATH", &dir)
            .env("CNI_PATH", Plugins::ours().dir.to_string_lossy())
            .env("CAP_ARGS", ports.to_string());
        world.run(NODE, &call)
    };
    // Hints are about what a network could do better; examples are kept short.
    let said = conflist(&["validate", &file]).success().stdout;
    let complaints: Vec<&str> = said.lines().filter(|line| !line.contains(": hint: ")).collect();
    assert!(complaints.is_empty(), "validate: {said}");
    let netns = netns_path("pod-a");
    let vlan = block.text.contains("\"vlan");
    if vlan && !vm::has_bridge_vlans() {
        let refused = conflist(&["add", &name, &netns]);
        assert!(refused.code() == 1 && refused.stderr.contains("code 2"), "{refused}");
        assert!(refused.stderr.contains("CONFIG_BRIDGE_VLAN_FILTERING"), "{refused}");
        return;
    }
    if network["type"] == "dummy" && !vm::has_dummy_devices() {
        let refused = conflist(&["add", &name, &netns]);
        assert!(refused.stderr.contains("rtnl-link-dummy"), "{refused}");
        return;
    }
    for command in ["add", "check", "del"] {
        drop(conflist(&[command, &name, &netns]).success());
    }
    assert_eq!(world.sh("pod-a", "ip -o link").lines().count(), 1, "more than lo in the pod");
    let links = world.sh(NODE, "ip -o link show type veth | grep -v 'eth0\\|cni0\\.' || true");
    assert!(links.is_empty(), "a veth is left: {links}");
    let kept = world.sh(NODE, "find /var/lib/cni -name '*[0-9].[0-9]*.[0-9]*' -o -name '*::*'");
    assert_eq!(kept, "", "leases are left");
}

fn world() -> World {
    let world = World::new(&["outside", "pod-a"]);
    world.connect((NODE, "eth0", &["192.0.2.1/24"]), ("outside", "eth0", &["192.0.2.2/24"]));
    world
}

/// A line after `# ` is a command that root runs in the project's directory. The lines between
/// commands are the expected output; if there are none, the commands must succeed.
fn goes(block: &Block) {
    let world = world();
    let ours = Plugins::ours().dir;
    let ours = ours.to_string_lossy();
    let (mut commands, mut expected) = (String::new(), String::new());
    for line in block.text.lines() {
        let (text, line) = match line.strip_prefix("# ") {
            Some(command) => (&mut commands, command),
            None => (&mut expected, line),
        };
        text.push_str(&line.replace("$PWD/dist/bin", &ours));
        text.push('\n');
    }
    let output = if expected.is_empty() {
        let script = format!("cd {}\n{commands}", workspace().display());
        world.run(NODE, &Cmd::new("sh").args(["-ec", &script])).success()
    } else {
        let file = format!("{STATE_DIR}/10-node.conflist");
        world.files(|| fs::write(&file, broken_node()).unwrap());
        let script =
            format!("cd {STATE_DIR}; export PATH={ours}:$PATH CNI_PATH={ours}\n{commands}");
        world.run(NODE, &Cmd::new("sh").args(["-c", &script]))
    };
    if !expected.is_empty() {
        assert_eq!(output.stdout, expected, "{output}");
    }
}

/// The example `node` with three typing errors; conflist's README shows the messages.
fn broken_node() -> String {
    let node = workspace().join("conflist/examples/node.conflist");
    let mut text = fs::read_to_string(node).unwrap();
    for (right, slip) in [
        ("isGateway", "isGatway"),
        ("\"10.90.0.0/24\"", "\"10.90.0.0/24\", \"rangeStart\": \"10.91.0.1\""),
        (",\n      \"capabilities\": { \"portMappings\": true }", ""),
    ] {
        assert!(text.contains(right), "{right:?} is not in {text}");
        text = text.replace(right, slip);
    }
    text
}
