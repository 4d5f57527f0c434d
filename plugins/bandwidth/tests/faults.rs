//! System calls that fail, and a plugin that is killed at one. Needs root and strace.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{Call, Pod, ifbs, qdiscs};
use serde_json::json;
use testbed::on_a_node;

/// More calls than an ADD has.
const CALLS: usize = 60;

/// Injects a fault at the first, the second and each later call of an ADD, until an ADD has fewer calls.
fn at_each_call(fault: impl Fn(usize) -> String + Sync, after: impl Fn(&Call, usize) + Sync) {
    let is_met = |number: &usize| {
        let mut is_met = false;
        on_a_node(|| {
            let pod = Pod::new("vethpod");
            let call = Call::new("c1", &pod);
            is_met = call.run_with("ADD", &fault(*number)).is_err();
            if is_met {
                after(&call, *number);
            }
        });
        is_met
    };
    let met = (1..CALLS).take_while(is_met).count();
    assert!((5..CALLS - 1).contains(&met), "{met} calls were met");
}

/// After it, the plugin does not know whether the kernel has made something.
#[test]
fn an_acknowledgement_that_is_lost() {
    let fault = |number| format!("recvfrom:error=ENOBUFS:when={number}..{}", number + 1);
    at_each_call(fault, |_, number| {
        assert_eq!(ifbs(), Vec::<String>::new(), "call {number}");
        assert_eq!(qdiscs("vethpod"), [], "call {number}");
    });
}

/// GC finds the ifb device of a plugin that was killed.
#[test]
fn killed_before_a_gc() {
    at_each_call(
        |number| format!("recvfrom:signal=SIGKILL:when={number}"),
        |call, number| {
            call.with(&json!({"cni.dev/valid-attachments": []})).run("GC").unwrap();
            assert_eq!(ifbs(), Vec::<String>::new(), "call {number}");
        },
    );
}

/// A thread that cannot leave the pod's namespace: the plugin prints an error object.
#[test]
fn a_thread_that_cannot_leave_the_pod() {
    on_a_node(|| {
        let pod = Pod::new("vethpod");
        let call = Call::new("c1", &pod);
        let error = call.run_with("ADD", "setns:error=EPERM:when=2+").unwrap_err();
        let text = error["details"].as_str().unwrap();
        assert!(text.contains("return to network namespace"), "{error}");
        assert_eq!((ifbs(), qdiscs("vethpod")), (Vec::new(), Vec::new()));
    });
}
