//! ADDs that stop halfway, at each of their system calls of a kind in turn.

use std::process::Command;

use serde_json::Value;

use crate::{Ended, Namespace, on_a_node, run_injected};

/// Runs the command that `add` gives for a new pod, on a new node for each answer of the kernel, and loses
/// that answer, as when the socket's buffer is full: the kernel has done what it was asked to do. If the
/// command fails, `check` must find that nothing is left; it gets a text that says which answer was lost.
pub fn at_each_lost_answer(
    add: impl Fn(&Namespace) -> (Command, Value) + Sync,
    check: impl Fn(&Namespace, &str) + Sync,
) {
    at_each_call(("recvfrom", "error=EAGAIN"), add, |pod, n, ended| match ended {
        // The command can do without that answer.
        Ok(_) => false,
        Err(error) => {
            check(pod, &format!("answer {n}: {error}"));
            true
        }
    });
}

/// Does the same, but kills the command at each message that it sends to the kernel.
pub fn at_each_kill(
    add: impl Fn(&Namespace) -> (Command, Value) + Sync,
    check: impl Fn(&Namespace, &str) + Sync,
) {
    at_each_call(("sendto", "signal=KILL"), add, |pod, n, ended| {
        assert!(ended.is_err(), "it was not killed at message {n}: {ended:?}");
        check(pod, &format!("killed at message {n}"));
        true
    });
}

/// Injects a fault at the first system call of a kind, at the second one and so on. `check` returns whether
/// the command was interrupted.
fn at_each_call(
    fault: (&str, &str),
    add: impl Fn(&Namespace) -> (Command, Value) + Sync,
    check: impl Fn(&Namespace, u32, Ended) -> bool + Sync,
) {
    let (mut interrupted, mut is_end) = (0, false);
    for n in 1.. {
        on_a_node(|| {
            let pod = Namespace::create();
            let (command, config) = add(&pod);
            match run_injected(&command, &config, fault, n) {
                None => is_end = true,
                Some(ended) => interrupted += u32::from(check(&pod, n, ended)),
            }
        });
        if is_end {
            break;
        }
    }
    assert!(interrupted > 10, "{interrupted}");
}
