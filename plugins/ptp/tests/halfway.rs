//! ADDs that stop halfway: an answer of the kernel is lost, or the process is killed. Needs root and strace.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{Call, leftovers};
use serde_json::json;
use testbed::{Namespace, on_a_node, run_injected, sh};

/// The kernel has done what it was asked for, but its answer is lost, as when the socket's buffer is full.
/// The ADD fails, and takes back what it made without knowing.
#[test]
fn a_lost_answer_leaves_nothing() {
    for backend in ["iptables", "nftables"] {
        let mut failed = 0;
        for n in 1.. {
            let mut is_end = false;
            on_a_node(|| {
                let pod = Namespace::create();
                let call = Call::new("c1", &pod).with("ipMasqBackend", backend.into());
                let fault = ("recvfrom", "error=EAGAIN");
                match run_injected(&call.command("ADD"), &call.network, fault, n) {
                    None => is_end = true,
                    // It can do without that answer.
                    Some(Ok(_)) => {}
                    Some(Err(error)) => {
                        failed += 1;
                        assert_eq!(leftovers(), Vec::<String>::new(), "answer {n}: {error}");
                        call.run("ADD").unwrap();
                    }
                }
            });
            if is_end {
                break;
            }
        }
        assert!(failed > 10, "{failed}");
    }
}

/// Nobody remembers the pod, and no DEL comes.
#[test]
fn what_a_killed_add_leaves_is_removed_by_gc() {
    let mut killed = 0;
    for n in 1.. {
        let mut is_end = false;
        on_a_node(|| {
            let pod = Namespace::create();
            let call = Call::new("c1", &pod).with("cni.dev/valid-attachments", json!([]));
            let fault = ("sendto", "signal=KILL");
            match run_injected(&call.command("ADD"), &call.network, fault, n) {
                None => is_end = true,
                Some(Ok(result)) => panic!("it was not killed at message {n}: {result}"),
                Some(Err(_)) => {
                    killed += 1;
                    call.run("GC").unwrap();
                    assert_eq!(leftovers(), Vec::<String>::new(), "killed at message {n}");
                }
            }
        });
        if is_end {
            break;
        }
    }
    assert!(killed > 10, "{killed}");
}

/// The rules of an address stay until the DEL of its interface, and no longer: what a pod does in its own
/// namespace changes neither.
#[test]
fn a_pod_cannot_keep_rules_of_the_node() {
    for backend in ["iptables", "nftables"] {
        for trick in [
            "ip addr add 10.88.0.2/32 dev lo",
            "ip link set eth0 down; ip link set eth0 name eth9",
            "ip link del eth0; ip link add eth0 type bridge; ip addr add 10.88.0.2/24 dev lo",
        ] {
            on_a_node(|| {
                let pod = Namespace::create();
                let call = Call::new("c1", &pod).with("ipMasqBackend", backend.into());
                let result = call.run("ADD").unwrap();
                pod.sh(trick);
                call.with("prevResult", result).run("DEL").unwrap();
                assert_eq!(leftovers(), Vec::<String>::new(), "{backend}: {trick}");
            });
        }
    }
}

/// The pod that has an address and the one that had it before are behind links of their own, so nobody can
/// remember the old one's hardware address. That holds with the reference plugin 1.10.0, too.
#[test]
fn an_address_that_is_given_out_again_answers_at_once() {
    on_a_node(|| {
        let (old, new, neighbour) = (Namespace::create(), Namespace::create(), Namespace::create());
        Call::new("c2", &neighbour).run("ADD").unwrap();
        let ping = || {
            let script = "set -e; for to in 10.88.0.2 fd00:88::2; do ping -c 1 -W 1 $to; done";
            neighbour.sh(script);
            sh(script);
        };
        Call::new("c1", &old).run("ADD").unwrap();
        ping();
        Call::new("c1", &old).run("DEL").unwrap();
        Call::new("c1", &new).run("ADD").unwrap();
        ping();
    });
}
