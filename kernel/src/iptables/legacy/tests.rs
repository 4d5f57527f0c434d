//! Texts as `iptables-legacy-save` 1.8.9 prints them, and the input of the restore program.

use super::save::SavedTable;
use super::*;
use crate::family::Family;
use crate::iptables::{Match, Table, Target};
use crate::nft::Place;

const SAVED: &str = include_str!("../../../tests/data/iptables-legacy-save.txt");

fn saved() -> Saved {
    Saved::parse(Family::V4, SAVED)
}

#[test]
fn a_node_of_kubernetes_is_read() {
    let saved = saved();
    let nat = saved.table(NAT);
    assert!(saved.has_hint);
    // Rules of CNI plugins and jumps to their chains do not count as rules of other programs.
    let is_counted = |line: &&str| line.starts_with("-A ") && !line.contains("CNI-");
    assert_eq!(saved.rules.others, SAVED.lines().filter(is_counted).count());
    let names = nat.chain_names();
    assert!(names.contains(&"KUBE-SERVICES".to_owned()), "{names:?}");
    assert!(!names.contains(&"KUBE-IPTABLES-HINT".to_owned()), "the chains of mangle are others");
    let entries = nat.rules("CNI-HOSTPORT-DNAT");
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0].1.comment_text(), Some("dnat name: \"testnet\" id: \"pod-a\""));
    assert_eq!(entries[0].1.next_chain(), Some("CNI-DN-9b8cc9dd5d53e36658bb0"));
    let known = |rule: &Rule| {
        !rule.matches.iter().any(|one| matches!(one, Match::Other(_)))
            && !matches!(rule.target, Some(Target::Other(_)))
    };
    for chain in names.iter().filter(|name| name.starts_with("CNI-")) {
        for (_, rule) in nat.rules(chain) {
            assert!(known(&rule), "{rule}");
        }
    }
    // The text is printed as it was read.
    for chain in &nat.chains {
        for line in chain.lines.iter().filter(|line| known(&line.rule)) {
            assert_eq!(line.rule.to_string(), line.text);
        }
    }
}

#[track_caller]
fn check(build: impl FnOnce(&mut Changes, &SavedTable), lines: &str, undo: &str) {
    let table = saved().table(NAT).clone();
    let mut changes = Changes::new();
    build(&mut changes, &table);
    let script = Script::new(&table, &changes.all).unwrap();
    let whole = |lines: &str| {
        let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.fold("*nat\n".to_owned(), |text, line| text + line + "\n") + "COMMIT\n"
    };
    assert_eq!(script.text(), whole(lines));
    assert_eq!(script.undo_text(), whole(undo));
}

const NAT: Table = Table::nat(Family::V4);
const ENTRIES: &str = "CNI-HOSTPORT-DNAT";

#[test]
fn additions() {
    check(
        |changes, table| {
            let second = table.rules(ENTRIES)[1].0;
            changes.add_table(NAT);
            changes.add_base_chain(NAT, crate::iptables::NatChain::Output);
            changes.add_chain(NAT, ENTRIES);
            changes.add_chain(NAT, "NEW");
            changes.add_rule(NAT, "NEW", Place::Last, &Rule::to(Target::Accept).comment("it's\\"));
            changes.add_rule(NAT, ENTRIES, Place::Before(second), &Rule::jump("NEW"));
            changes.add_rule(NAT, "POSTROUTING", Place::First, &Rule::jump("NEW"));
            changes.add_rule(
                Table::nat(Family::V6),
                "POSTROUTING",
                Place::First,
                &Rule::jump("OTHER"),
            );
        },
        r#"-N NEW
           -A NEW -m comment --comment "it\'s\\" -j ACCEPT
           -I CNI-HOSTPORT-DNAT 2 -j NEW
           -I POSTROUTING 1 -j NEW"#,
        r#"-D POSTROUTING -j NEW
           -D CNI-HOSTPORT-DNAT -j NEW
           -D NEW -m comment --comment "it\'s\\" -j ACCEPT
           -X NEW"#,
    );
}

#[test]
fn removals_by_what_the_rules_say() {
    let chain = "CNI-DN-9b8cc9dd5d53e36658bb0";
    let entry = |protocol, port| {
        let comment = r#"-m comment --comment "dnat name: \"testnet\" id: \"pod-a\"""#;
        format!("-p {protocol} {comment} -m multiport --dports {port} -j {chain}")
    };
    let (sctp, tcp) = (entry("sctp", 9899), entry("tcp", 8080));
    let saved = saved();
    let nat = saved.table(NAT);
    let own = nat.chain(chain).unwrap().lines.iter();
    let own: Vec<_> = own.map(|line| format!("-A {chain} {}", line.text)).collect();
    check(
        |changes, table| {
            for (handle, _) in table.rules(ENTRIES) {
                changes.delete_rule(NAT, ENTRIES, handle);
            }
            changes.flush_chain(NAT, chain);
            changes.delete_chain(NAT, chain);
        },
        &format!("-D {ENTRIES} {sctp}\n-D {ENTRIES} {tcp}\n-F {chain}\n-X {chain}"),
        &format!("-N {chain}\n{}\n-I {ENTRIES} 1 {tcp}\n-I {ENTRIES} 1 {sctp}", own.join("\n")),
    );
}

#[track_caller]
fn refused(build: impl FnOnce(&mut Changes), expected: nix::errno::Errno) {
    let mut changes = Changes::new();
    build(&mut changes);
    let error = Script::new(saved().table(NAT), &changes.all).unwrap_err();
    assert_eq!(error.errno(), Some(expected), "{error}");
}

#[test]
fn what_nf_tables_would_refuse_is_refused() {
    use nix::errno::Errno;
    refused(|changes| changes.create_chain(NAT, ENTRIES), Errno::EEXIST);
    refused(|changes| changes.flush_chain(NAT, "NOPE"), Errno::ENOENT);
    refused(|changes| changes.delete_chain(NAT, "NOPE"), Errno::ENOENT);
    refused(|changes| changes.delete_rule(NAT, ENTRIES, 999), Errno::ENOENT);
    refused(
        |changes| changes.add_rule(NAT, "NOPE", Place::Last, &Rule::jump(ENTRIES)),
        Errno::ENOENT,
    );
    refused(|changes| changes.delete_chain(NAT, "CNI-HOSTPORT-SETMARK"), Errno::EBUSY);
    refused(
        |changes| {
            changes.flush_chain(NAT, "CNI-DN-9b8cc9dd5d53e36658bb0");
            changes.delete_chain(NAT, "CNI-DN-9b8cc9dd5d53e36658bb0");
        },
        Errno::EBUSY,
    );
    let split = Rule::jump(ENTRIES).comment("one\n-F");
    refused(|changes| changes.add_rule(NAT, "OUTPUT", Place::Last, &split), Errno::EINVAL);
}
