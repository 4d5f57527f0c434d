//! ADDs that stop halfway: an answer of the kernel is lost, or the process is killed. Needs root and strace.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{bridge, bridge_command, in_namespaces, network, node, rules};
use testbed::{run_injected, sh};

/// The kernel has done what it was asked for, but its answer is lost, as when the socket's buffer is full.
/// The ADD fails, and takes back what it made without knowing.
#[test]
fn a_lost_answer_leaves_nothing() {
    let mut failed = 0;
    for n in 1.. {
        let mut is_end = false;
        in_namespaces(|pod| {
            let before = node();
            let call = bridge_command("ADD", &pod.path());
            match run_injected(&call, &network(), ("recvfrom", "error=EAGAIN"), n) {
                None => is_end = true,
                // It can do without that answer.
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    failed += 1;
                    assert_eq!(node(), before, "answer {n}: {error}");
                    assert_eq!(rules(), Vec::<String>::new(), "answer {n}: {error}");
                    let tables = sh("nft list tables");
                    assert!(!tables.contains("bridge nat"), "answer {n}: {error}");
                    assert_eq!(pod.sh("ip -o link show type veth"), "", "answer {n}: {error}");
                    bridge("ADD", &pod.path(), &network()).unwrap();
                }
            }
        });
        if is_end {
            break;
        }
    }
    assert!(failed > 10, "{failed}");
}

/// Nobody remembers the pod, and no DEL comes.
#[test]
fn what_a_killed_add_leaves_is_removed_by_gc() {
    let mut killed = 0;
    for n in 1.. {
        let mut is_end = false;
        in_namespaces(|pod| {
            let call = bridge_command("ADD", &pod.path());
            match run_injected(&call, &network(), ("sendto", "signal=KILL"), n) {
                None => is_end = true,
                Some(Ok(result)) => panic!("it was not killed at message {n}: {result}"),
                Some(Err(_)) => {
                    killed += 1;
                    bridge("GC", "/run/netns/none", &network()).unwrap();
                    assert!(!node().contains("veth"), "killed at message {n}: {}", node());
                    assert_eq!(rules(), Vec::<String>::new(), "killed at message {n}");
                }
            }
        });
        if is_end {
            break;
        }
    }
    assert!(killed > 10, "{killed}");
}
