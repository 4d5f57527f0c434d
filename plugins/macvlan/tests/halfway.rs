//! ADDs that stop halfway: an answer of the kernel is lost, or the process is killed. Needs root and strace.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::env;
use std::process::Command;

use serde_json::{Value, json};
use testbed::{Namespace, cni_command, halfway, run, sh};

/// A command for a pod on a link of the node.
fn call(command: &str, pod: &Namespace) -> (Command, Value) {
    let mut call = cni_command(env!("CARGO_BIN_EXE_macvlan"), command, "c1", &pod.path());
    call.env("CNI_PATH", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ipam"));
    let config = json!({
        "cniVersion": "1.1.0", "name": "n", "type": "macvlan", "master": "up0",
        "ipam": {"type": "fixed"}, "cni.dev/valid-attachments": [],
    });
    (call, config)
}

/// The ADD of a pod on a new node.
fn add(pod: &Namespace) -> (Command, Value) {
    sh("ip link add up0 up type veth peer name up1 && ip link set up1 up");
    call("ADD", pod)
}

#[track_caller]
fn assert_nothing_is_left(pod: &Namespace, context: &str) {
    assert_eq!(pod.sh("ip -oneline link | wc -l"), "1\n", "{context}");
    assert_eq!(sh("ip -oneline link | wc -l"), "3\n", "{context}");
}

/// The ADD fails, and undoes what it made without knowing.
#[test]
fn a_lost_answer_leaves_nothing() {
    halfway::at_each_lost_answer(add, |pod, context| {
        assert_nothing_is_left(pod, context);
        let (mut command, config) = call("ADD", pod);
        run(&mut command, &config).unwrap();
    });
}

/// DEL removes what a killed ADD leaves in the pod. Nothing is left on the node.
#[test]
fn a_killed_add_leaves_what_del_removes() {
    halfway::at_each_kill(add, |pod, context| {
        let (mut command, config) = call("DEL", pod);
        run(&mut command, &config).unwrap();
        assert_nothing_is_left(pod, context);
    });
}
