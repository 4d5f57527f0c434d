//! A result that cannot be written: for the runtime the ADD has failed, so it must fail.

use serde_json::Value;
use tests::{NODE, Needs, Plugins, Pod, Suite, World, call};

use crate::{assert_same, network, state, whole_chain};

/// A full disk, and a pipe that no process reads.
const LOST: [(&str, &str); 2] = [
    ("full", "exec \"$0\" > /dev/full"),
    ("closed", "mkfifo /run/out; exec 3<> /run/out 4> /run/out 3>&-; exec \"$0\" >&4 4>&-"),
];

pub(crate) fn cases(suite: &mut Suite) {
    let needs = Needs::plugins(&Plugins::ours(), &Plugins::ALL);
    for (kind, script) in LOST {
        for (main, index) in
            [("bridge", 0), ("ptp", 0), ("bridge", 1), ("bridge", 2), ("bridge", 3), ("bridge", 4)]
        {
            let plugin = whole_chain(main)[index]["type"].as_str().unwrap().to_owned();
            suite.case(&format!("result::{kind}::{plugin}"), &needs, move || {
                is_undone(main, index, script);
            });
        }
        suite.case(&format!("result::{kind}::host-local"), &needs, move || no_lease(script));
    }
}

/// The node is as after an ADD and a DEL.
fn is_undone(main: &str, index: usize, script: &str) {
    let [lost, deleted] = [true, false].map(|is_lost| {
        let world = World::new(&["pod-a"]);
        let configs = whole_chain(main);
        let ours = Plugins::ours();
        let pod = Pod::new("pod-a");
        let previous = match index {
            0 => Value::Null,
            _ => network(&world, &ours, &configs[..index]).add(&pod),
        };
        let plugin = configs[index]["type"].as_str().unwrap();
        let stdin = network(&world, &ours, &configs).stdin(index, &previous);
        let add = call(&ours, plugin, "ADD", &pod, &stdin);
        if is_lost {
            let output = world.run(NODE, &add.wrapped_by(["sh", "-c", script]));
            assert_eq!(output.code(), 1, "{output}");
        } else {
            drop(world.run(NODE, &add).success());
            drop(world.run(NODE, &call(&ours, plugin, "DEL", &pod, &stdin)).success());
        }
        state(&world)
    });
    assert_same(&deleted, &lost, "an ADD whose result is lost leaves something behind");
}

fn no_lease(script: &str) {
    let world = World::new(&["pod-a"]);
    let stdin = network(&world, &Plugins::ours(), &whole_chain("bridge")).stdin(0, &Value::Null);
    let add = call(&Plugins::ours(), "host-local", "ADD", &Pod::new("pod-a"), &stdin);
    let before = state(&world);
    let output = world.run(NODE, &add.wrapped_by(["sh", "-c", script]));
    assert_eq!(output.code(), 1, "{output}");
    assert_same(&before, &state(&world), "an ADD whose result is lost leaves something behind");
}
