//! ADDs that stop halfway: an answer of the kernel is lost, or the process is killed. Needs root and strace.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{Call, leftovers};
use serde_json::json;
use testbed::{Namespace, halfway, on_a_node, sh};

/// The ADD fails, and undoes what it made without knowing.
#[test]
fn a_lost_answer_leaves_nothing() {
    for backend in ["iptables", "nftables"] {
        let call = |pod: &Namespace| Call::new("c1", pod).with("ipMasqBackend", backend.into());
        let add = |pod: &Namespace| (call(pod).command("ADD"), call(pod).network);
        halfway::at_each_lost_answer(add, |pod, context| {
            assert_eq!(leftovers(), Vec::<String>::new(), "{context}");
            call(pod).run("ADD").unwrap();
        });
    }
}

/// No DEL follows.
#[test]
fn what_a_killed_add_leaves_is_removed_by_gc() {
    let call = |pod: &Namespace| Call::new("c1", pod).with("cni.dev/valid-attachments", json!([]));
    let add = |pod: &Namespace| (call(pod).command("ADD"), call(pod).network);
    halfway::at_each_kill(add, |pod, context| {
        call(pod).run("GC").unwrap();
        assert_eq!(leftovers(), Vec::<String>::new(), "{context}");
    });
}

/// The rules for an address stay until the DEL of its interface, whatever a pod does in its own namespace.
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

/// The pod that has an address and the one that had it before are behind different links, so no neighbour
/// remembers the old hardware address. It is the same with the reference plugin 1.10.0.
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
