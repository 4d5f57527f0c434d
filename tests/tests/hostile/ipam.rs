//! IPAM plugins that misbehave.

use serde_json::json;
use tests::{NODE, Needs, Plugins, Suite, World};

use crate::{WITH_LITTLE_MEMORY, assert_has_memory, assert_same, direct, install, state};

const RESULT: &str =
    r#"{"cniVersion":"1.1.0","ips":[{"address":"10.88.0.9/24","gateway":"10.88.0.1"}]}"#;
const MAIN: [&str; 2] = ["bridge", "ptp"];
/// More than the 64 KiB that a pipe holds.
const MUCH: usize = 100_000;

pub(crate) fn cases(suite: &mut Suite) {
    let needs = Needs::plugins(&Plugins::ours(), &Plugins::ALL).tools(&["prlimit"]);
    for plugin in MAIN {
        let mut case = |name: &str, test: fn(&str)| {
            suite.case(&format!("ipam::{plugin}::{name}"), &needs, move || test(plugin));
        };
        case("prints_before_it_reads", prints_before_it_reads);
        case("leaves_a_child_with_its_stdout", leaves_a_child_with_its_stdout);
        case("prints_100_megabytes", prints_100_megabytes);
        for named in MAIN {
            suite.case(&format!("ipam::{plugin}::is_{named}"), &needs, move || {
                delegates_to(plugin, named);
            });
        }
    }
}

/// Both pipes are full at the same time.
fn prints_before_it_reads(plugin: &str) {
    let world = World::new(&["pod-a"]);
    let script =
        format!("head -c {MUCH} /dev/zero | tr '\\0' ' '; cat > /dev/null; echo '{RESULT}'");
    let plugins = install(&world, "slow", &script);
    let more = json!({"ipam": {"type": "slow"}, "padding": "x".repeat(MUCH)});
    drop(world.run(NODE, &direct(&plugins, plugin, "ADD", &more)).success());
    drop(world.run(NODE, &direct(&plugins, plugin, "DEL", &more)).success());
}

/// The IPAM plugin's answer ends with the plugin. Its child runs longer than the time limit of a call.
fn leaves_a_child_with_its_stdout(plugin: &str) {
    let world = World::new(&["pod-a"]);
    let plugins = install(
        &world,
        "parent",
        &format!("sleep 90 2> /dev/null &\ncat > /dev/null; echo '{RESULT}'"),
    );
    let more = json!({"ipam": {"type": "parent"}});
    drop(world.run(NODE, &direct(&plugins, plugin, "ADD", &more)).success());
    drop(world.run(NODE, &direct(&plugins, plugin, "DEL", &more)).success());
}

fn prints_100_megabytes(plugin: &str) {
    let world = World::new(&["pod-a"]);
    let plugins = install(&world, "loud", "cat > /dev/null; head -c 100000000 /dev/zero");
    let before = state(&world);
    let add = direct(&plugins, plugin, "ADD", &json!({"ipam": {"type": "loud"}}));
    let output = world.run(NODE, &add.wrapped_by(WITH_LITTLE_MEMORY));
    let error = output.cni_error();
    assert!(error["msg"].as_str().unwrap().contains("loud"), "{output}");
    assert_has_memory(&output);
    assert!(output.stdout.len() < 16 * 1024, "the error has {} bytes", output.stdout.len());
    assert_same(&before, &state(&world), "a failed ADD leaves something behind");
}

/// A plugin that delegates must not be called as IPAM plugin: it would call the next one, and so on.
/// The one in `CNI_PATH` counts its calls and stops after a few.
fn delegates_to(plugin: &str, named: &str) {
    let world = World::new(&["pod-a"]);
    let real = Plugins::ours().path(named);
    let script = format!(
        "echo >> /run/calls; [ $(wc -l < /run/calls) -lt 5 ] || exit 9; exec {}",
        real.display()
    );
    let plugins = install(&world, named, &script);
    let call = |command: &str| {
        let call = direct(&plugins, plugin, command, &json!({"ipam": {"type": named}}));
        let call = call.env("CNI_PATH", plugins.dir.to_string_lossy());
        // The first one is ours, whatever is in CNI_PATH.
        if plugin == named { call.wrapped_by(["env"]) } else { call }
    };
    let before = state(&world);
    let output = world.run(NODE, &call("ADD"));
    assert_eq!(output.cni_error()["code"], 7, "{output}");
    assert_same(&before, &state(&world), "a failed ADD leaves something behind");
    drop(world.run(NODE, &call("DEL")).success());
    let calls = world.sh(NODE, "cat /run/calls 2>/dev/null | wc -l");
    // If the plugin that is called is the one that counts, this call is the first.
    let most = if plugin == named { 2 } else { 0 };
    assert!(calls.trim().parse::<u32>().unwrap() <= most, "called {calls} times");
}
