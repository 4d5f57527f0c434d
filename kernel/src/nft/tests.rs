//! Compares tables, chains and rules with captures of `nft`.

use super::{BaseChain, Chain, Expr, Hook, Listed, NewRule, Place, TableFamily};
use crate::captures::{captures, without_policy};
use crate::nfnetlink::Batch;

const BRIDGE: &str = include_str!("../../tests/data/nft-bridge.txt");
const MASQUERADE: &str = include_str!("../../tests/data/nft-masquerade.txt");

const MASQ_CHECKS: Chain<'_> =
    Chain { family: TableFamily::Inet, table: "cni_plugins_masquerade", name: "masq_checks" };

/// A rule that the kernel lists is written as `nft` wrote it.
#[track_caller]
fn check(text: &'static str, chain: Chain<'_>, comments: &[Option<&str>]) {
    let rules = captures(text).into_iter().filter(|capture| !capture.kernel.is_empty());
    let mut found = Vec::new();
    for capture in rules {
        let name = capture.command.split(' ').nth(5).unwrap();
        let chain = Chain { name, ..chain };
        let Listed { expressions, comment, .. } =
            Listed::parse(&capture.kernel[4..], chain).unwrap();
        assert!(!expressions.iter().any(|it| matches!(it, Expr::Other { .. })), "{expressions:?}");
        found.push(comment.clone());
        let mut batch = Batch::new();
        batch.add_rule(chain, Place::Last, NewRule { expressions, comment, ..NewRule::default() });
        assert_eq!(batch.requests[0].payload, capture.new_rule(), "{}", capture.command);
    }
    assert_eq!(found.iter().map(Option::as_deref).collect::<Vec<_>>(), comments);
}

#[test]
fn rules_with_comments_are_written_as_nft_writes_them() {
    let chain = Chain { family: TableFamily::Bridge, table: "nat", name: "" };
    check(BRIDGE, chain, &[Some("macspoofchk-pod-a-eth0"); 4]);
}

#[test]
fn rules_that_masquerade() {
    let comment = "c5964c6794a1152e-4fc55df38455c536, net: testnet, if: eth0, id: pod-a";
    let comments = [[None; 3].as_slice(), &[Some(comment); 5]].concat();
    check(MASQUERADE, MASQ_CHECKS, &comments);
}

#[test]
fn chains_of_a_bridge() {
    let chain =
        Chain { family: TableFamily::Bridge, table: "nat", name: "cni-br-iface-pod-a-eth0" };
    let mut batch = Batch::new();
    batch.add_chain(chain, None);
    let all = captures(BRIDGE);
    assert_eq!(batch.requests[0].payload, all[2].sent[0].1);
    // nft writes the attributes of a base chain in another order.
    let base = BaseChain { kind: "filter", hook: Hook::Prerouting, priority: -300 };
    let mut batch = Batch::new();
    batch.add_base_chain(Chain { name: "PREROUTING", ..chain }, base);
    let mut ours = batch.requests[0].payload.clone();
    let mut theirs = without_policy(&all[1].sent[0].1);
    ours.sort_unstable();
    theirs.sort_unstable();
    assert_eq!(ours, theirs);
}

#[test]
fn comments_of_tables_and_chains() {
    let all = captures(MASQUERADE);
    let comment = |at: usize| all[at].command.split('"').nth(1).unwrap();
    let mut batch = Batch::new();
    let table = super::Table { family: TableFamily::Inet, name: MASQ_CHECKS.table };
    batch.add_table(table, Some(comment(0)));
    batch.add_chain(MASQ_CHECKS, Some(comment(1)));
    // nft also writes a table's flags, which are 0.
    let flags: &[u8] = &[8, 0, 2, 0, 0, 0, 0, 0];
    let (table, sent) = (&batch.requests[0].payload, &all[0].sent[0].1);
    let at = sent.windows(flags.len()).position(|bytes| bytes == flags).unwrap();
    assert_eq!(*table, [&sent[..at], &sent[at + flags.len()..]].concat());
    assert_eq!(batch.requests[1].payload, all[1].sent[0].1);
}
