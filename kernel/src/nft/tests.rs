//! Tables, chains and rules against captures of the program `nft`.

use super::{BaseChain, Chain, Family, Hook, Listed, NewRule, Place};
use crate::captures::captures;
use crate::nfnetlink::Batch;

const BRIDGE: &str = include_str!("../../tests/data/nft-bridge.txt");

#[test]
fn rules_with_comments_are_written_as_nft_writes_them() {
    let rules = captures(BRIDGE).into_iter().filter(|capture| !capture.kernel.is_empty());
    let mut count = 0;
    for capture in rules {
        let name = capture.command.split(' ').nth(5).unwrap();
        let chain = Chain { family: Family::Bridge, table: "nat", name };
        let listed = Listed::parse(&capture.kernel[4..], chain).unwrap();
        assert_eq!(listed.comment.as_deref(), Some("macspoofchk-pod-a-eth0"));
        let mut batch = Batch::new();
        let Listed { expressions, comment, .. } = listed;
        batch.add_rule(chain, Place::Last, NewRule { expressions, comment, compat: None });
        assert_eq!(batch.requests[0].payload, capture.new_rule(), "{}", capture.command);
        count += 1;
    }
    assert_eq!(count, 4);
}

#[test]
fn chains_of_a_bridge() {
    let chain = Chain { family: Family::Bridge, table: "nat", name: "cni-br-iface-pod-a-eth0" };
    let mut batch = Batch::new();
    batch.add_chain(chain);
    let all = captures(BRIDGE);
    assert_eq!(batch.requests[0].payload, all[2].sent[0].1);
    // nft has the same attributes of a base chain in another order.
    let base = BaseChain { kind: "filter", hook: Hook::Prerouting, priority: -300 };
    let mut batch = Batch::new();
    batch.add_base_chain(Chain { name: "PREROUTING", ..chain }, base);
    let (mut ours, mut theirs) = (batch.requests[0].payload.clone(), all[1].sent[0].1.clone());
    ours.sort_unstable();
    theirs.sort_unstable();
    assert_eq!(ours, theirs);
}
