//! ADDs that stop halfway: an answer of the kernel is lost, or the process is killed. Needs root and strace.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{bridge, bridge_command, network, node, rules};
use testbed::{Namespace, halfway, sh};

fn add(pod: &Namespace) -> (std::process::Command, serde_json::Value) {
    (bridge_command("ADD", &pod.path()), network())
}

/// The ADD fails, and undoes what it made without knowing.
#[test]
fn a_lost_answer_leaves_nothing() {
    halfway::at_each_lost_answer(add, |pod, context| {
        let node = node();
        assert!(!node.contains("cni0") && !node.contains("veth"), "{context}: {node}");
        assert_eq!(rules(), Vec::<String>::new(), "{context}");
        assert!(!sh("nft list tables").contains("bridge nat"), "{context}");
        assert_eq!(pod.sh("ip -o link show type veth"), "", "{context}");
        bridge("ADD", &pod.path(), &network()).unwrap();
    });
}

/// No DEL follows.
#[test]
fn what_a_killed_add_leaves_is_removed_by_gc() {
    halfway::at_each_kill(add, |_, context| {
        bridge("GC", "/run/netns/none", &network()).unwrap();
        assert!(!node().contains("veth"), "{context}: {}", node());
        assert_eq!(rules(), Vec::<String>::new(), "{context}");
    });
}
