//! Rules written over netlink, seen by the real `iptables` and `ip6tables`. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::os::unix::process::CommandExt;
use std::process::Command;

use kernel::iptables::{
    self, BaseChain, Bits, Changes, Iptables, Is, Match, NatChain, Ports, Rule, SCTP, TCP, Table,
    Target, UDP, address_type,
};
use kernel::nft::Place;
use kernel::{Family, Nfnetlink};
use testbed::{in_new_netns, sh};

fn program(family: Family) -> &'static str {
    if family == Family::V6 { "ip6tables" } else { "iptables" }
}

/// Every shape of rule that the plugins write, and how `iptables -S` shows it.
fn shapes(family: Family) -> Vec<(Rule, String)> {
    let v6 = family == Family::V6;
    let pick = |v4: &str, six: &str| if v6 { six.to_owned() } else { v4.to_owned() };
    let (pod, subnet) = (pick("10.88.0.2", "fd00:88::2"), pick("10.88.0.0/24", "fd00:88::/64"));
    let (odd, multicast) = (pick("10.96.0.0/13", "fd00:80::/29"), pick("224.0.0.0/4", "ff00::/8"));
    let host = pick("192.0.2.10/32", "2001:db8::10/128");
    let at_pod = pick("10.88.0.2:80", "[fd00:88::2]:80");
    let net = |text: &str| Is::equal(text.parse().unwrap());
    let local = Some(Is::equal(address_type::LOCAL));
    let bit = Bits { value: 0x2000, mask: 0x2000 };
    let ports = vec![Ports::from(8080), Ports { first: 9000, last: 9010 }];
    let dnat = || Target::Dnat { address: pod.parse().unwrap(), port: Some(80) };
    let owner = "dnat name: \"testnet\" id: \"pod-a\"";
    vec![
        (
            Rule::jump("NEXT").matching(Match::AddressType { source: None, destination: local }),
            "-m addrtype --dst-type LOCAL -j NEXT".into(),
        ),
        (
            Rule::jump("NEXT").comment("CNI portfwd requiring masquerade"),
            "-m comment --comment \"CNI portfwd requiring masquerade\" -j NEXT".into(),
        ),
        (Rule::to(Target::Mark(bit)), "-j MARK --set-xmark 0x2000/0x2000".into()),
        (
            Rule::to(Target::Masquerade { random_fully: false })
                .matching(Match::Mark(Is::equal(bit))),
            "-m mark --mark 0x2000/0x2000 -j MASQUERADE".into(),
        ),
        (
            Rule::to(Target::Masquerade { random_fully: true }),
            "-j MASQUERADE --random-fully".into(),
        ),
        (
            Rule::jump("NEXT")
                .protocol(TCP)
                .comment(owner)
                .matching(Match::DestinationPorts(Is::equal(ports))),
            "-p tcp -m comment --comment \"dnat name: \\\"testnet\\\" id: \\\"pod-a\\\"\" -m multiport \
             --dports 8080,9000:9010 -j NEXT"
                .into(),
        ),
        (
            {
                let rule = Rule::jump("NEXT").protocol(TCP).source(net(&subnet));
                rule.destination(net(&host)).destination_port(8080)
            },
            format!("-s {subnet} -d {host} -p tcp -m tcp --dport 8080 -j NEXT"),
        ),
        (
            Rule::to(dnat()).protocol(UDP).destination_port(5353),
            format!("-p udp -m udp --dport 5353 -j DNAT --to-destination {at_pod}"),
        ),
        (
            Rule::to(dnat()).protocol(SCTP).destination_port(9899),
            format!("-p sctp -m sctp --dport 9899 -j DNAT --to-destination {at_pod}"),
        ),
        (
            Rule::to(Target::Accept).source(net(&odd)).comment("x"),
            format!("-s {odd} -m comment --comment x -j ACCEPT"),
        ),
        (
            Rule::to(Target::Masquerade { random_fully: false })
                .destination(Is::not(multicast.parse().unwrap())),
            format!("! -d {multicast} -j MASQUERADE"),
        ),
        (
            Rule {
                in_interface: Some(Is::equal("eth0".into())),
                out_interface: Some(Is::not("veth+".into())),
                ..Rule::to(Target::Return)
            },
            "-i eth0 ! -o veth+ -j RETURN".into(),
        ),
        (
            Rule::jump("NEXT").matching(Match::ConntrackState(Is::not(iptables::ct_state::INVALID))),
            "-m conntrack ! --ctstate INVALID -j NEXT".into(),
        ),
    ]
}

fn write_shapes(family: Family, chain: &str) {
    let mut changes = Changes::new();
    changes.add_table(Table::nat(family));
    changes.add_chain(Table::nat(family), chain);
    changes.add_chain(Table::nat(family), "NEXT");
    for (rule, _) in shapes(family) {
        changes.add_rule(Table::nat(family), chain, Place::Last, &rule);
    }
    Nfnetlink::open().unwrap().commit(&changes.batch()).unwrap();
}

fn iptables_lists_checks_and_deletes_our_rules(family: Family) {
    write_shapes(family, "OURS");
    let program = program(family);
    let listed = sh(&format!("{program} -t nat -S OURS"));
    let mut lines = listed.lines();
    assert_eq!(lines.next(), Some("-N OURS"));
    for (_, text) in shapes(family) {
        assert_eq!(lines.next(), Some(format!("-A OURS {text}").as_str()));
    }
    assert_eq!(lines.next(), None);
    for (_, text) in shapes(family) {
        sh(&format!("{program} -t nat -C OURS {text}"));
        sh(&format!("{program} -t nat -D OURS {text}"));
    }
    assert_eq!(sh(&format!("{program} -t nat -S OURS")), "-N OURS\n");
    sh(&format!("{program} -t nat -X OURS"));
}

#[test]
fn iptables_lists_checks_and_deletes_our_v4_rules() {
    in_new_netns(|| iptables_lists_checks_and_deletes_our_rules(Family::V4));
}

#[test]
fn ip6tables_lists_checks_and_deletes_our_v6_rules() {
    in_new_netns(|| iptables_lists_checks_and_deletes_our_rules(Family::V6));
}

/// What the kernel lists of a chain, without its name and handles.
fn listed(family: Family, chain: &str) -> Vec<Vec<kernel::nft::Expr>> {
    let netlink = Nfnetlink::open().unwrap();
    netlink.rules(Table::nat(family).chain(chain)).unwrap().map(|rule| rule.expressions).collect()
}

fn the_kernel_holds_the_same(family: Family) {
    write_shapes(family, "OURS");
    let program = program(family);
    sh(&format!("{program} -t nat -N THEIRS"));
    for (_, text) in shapes(family) {
        sh(&format!("{program} -t nat -A THEIRS {text}"));
    }
    assert_eq!(listed(family, "OURS"), listed(family, "THEIRS"));
    let read: Vec<Rule> = {
        let netlink = Nfnetlink::open().unwrap();
        let listed = Iptables::of_node(&netlink).unwrap();
        listed.rules(Table::nat(family), "THEIRS").unwrap().map(|(_, rule)| rule).collect()
    };
    let meant: Vec<Rule> = shapes(family).into_iter().map(|(rule, _)| rule).collect();
    assert_eq!(read, meant);
    for (rule, text) in shapes(family) {
        assert_eq!(rule.to_string(), text);
    }
}

/// What goes to `iptables-legacy-restore` comes back from the program as it was.
fn the_legacy_program_prints_the_same(family: Family) {
    let program = format!("{}-legacy -t nat", program(family));
    sh(&format!("{program} -N NEXT; {program} -N OURS"));
    let shown: Vec<String> =
        shapes(family).iter().map(|(rule, _)| format!("-A OURS {rule}")).collect();
    for line in &shown {
        sh(&format!("{program} {line}"));
    }
    let listed = sh(&format!("{program} -S OURS"));
    assert_eq!(listed.lines().skip(1).collect::<Vec<_>>(), shown);
}

#[test]
fn the_legacy_programs_print_the_same() {
    in_new_netns(|| {
        the_legacy_program_prints_the_same(Family::V4);
        the_legacy_program_prints_the_same(Family::V6);
    });
}

#[test]
fn the_kernel_holds_the_same_of_us_and_of_iptables() {
    in_new_netns(|| the_kernel_holds_the_same(Family::V4));
}

#[test]
fn the_kernel_holds_the_same_of_us_and_of_ip6tables() {
    in_new_netns(|| the_kernel_holds_the_same(Family::V6));
}

#[test]
fn base_chains_are_those_of_iptables() {
    in_new_netns(|| {
        let mut changes = Changes::new();
        changes.add_table(Table::nat(Family::V4));
        for base in [NatChain::Prerouting, NatChain::Output, NatChain::Postrouting] {
            changes.add_base_chain(Table::nat(Family::V4), base);
        }
        let netlink = Nfnetlink::open().unwrap();
        netlink.commit(&changes.batch()).unwrap();
        let ours = sh("nft list table ip nat");
        netlink.commit(&changes.batch()).expect("it may all be there already");
        // Listing would make iptables add what it misses, so this compares with a table of its own making.
        sh("nft delete table ip nat; iptables -t nat -N X; iptables -t nat -X X
            for c in PREROUTING OUTPUT POSTROUTING; do iptables -t nat -A $c -j ACCEPT; iptables -t nat -F \
            $c; done");
        assert_eq!(ours, sh("nft list table ip nat"));
    });
}

#[test]
fn an_error_names_the_message_and_nothing_is_changed() {
    in_new_netns(|| {
        let netlink = Nfnetlink::open().unwrap();
        let mut changes = Changes::new();
        changes.add_table(Table::nat(Family::V4));
        changes.add_chain(Table::nat(Family::V4), "A");
        changes.add_rule(Table::nat(Family::V4), "A", Place::Last, &Rule::to(Target::Accept));
        changes.add_rule(Table::nat(Family::V4), "MISSING", Place::Last, &Rule::to(Target::Accept));
        changes.add_rule(Table::nat(Family::V4), "A", Place::Last, &Rule::jump("MISSING"));
        let error = netlink.commit(&changes.batch()).unwrap_err();
        assert_eq!(error.to_string(), "add rule to ip nat MISSING");
        assert!(error.is_not_found(), "{error:?}");
        assert_eq!(sh("nft list ruleset"), "");
    });
}

#[test]
fn a_transaction_is_built_anew_when_the_tables_change_meanwhile() {
    in_new_netns(|| {
        let netlink = Nfnetlink::open().unwrap();
        let mut rounds = 0;
        let result = netlink.transaction(|_| {
            rounds += 1;
            if rounds == 1 {
                sh("iptables -t nat -N SOMEONE-ELSES");
            }
            let mut changes = Changes::new();
            changes.add_table(Table::nat(Family::V4));
            changes.add_chain(Table::nat(Family::V4), &format!("ROUND-{rounds}"));
            Ok::<_, kernel::Error>(changes.batch())
        });
        result.unwrap();
        let chains = sh("iptables -t nat -S");
        assert!(chains.contains("-N ROUND-2\n") && !chains.contains("ROUND-1"), "{chains}");
    });
}

#[test]
fn a_batch_larger_than_the_sockets_buffer() {
    in_new_netns(|| {
        let mut changes = Changes::new();
        changes.add_table(Table::nat(Family::V4));
        changes.add_chain(Table::nat(Family::V4), "BIG");
        for port in 1..=1000 {
            let rule = Rule::to(Target::Accept).protocol(TCP).comment("big").destination_port(port);
            changes.add_rule(Table::nat(Family::V4), "BIG", Place::Last, &rule);
        }
        let netlink = Nfnetlink::open().unwrap();
        netlink.commit(&changes.batch()).unwrap();
        let rules: Vec<_> = Iptables::of_node(&netlink)
            .unwrap()
            .rules(Table::nat(Family::V4), "BIG")
            .unwrap()
            .collect();
        assert_eq!(rules.len(), 1000);
        assert_eq!(rules[999].1.comment_text(), Some("big"));
        assert!(netlink.has_chain(Table::nat(Family::V4).chain("BIG")).unwrap());
        assert!(!netlink.has_chain(Table::nat(Family::V4).chain("SMALL")).unwrap());
        assert_eq!(netlink.chain_names(Table::nat(Family::V4).into()).unwrap(), ["BIG"]);
        assert!(netlink.chain_names(Table::filter(Family::V4).into()).unwrap().is_empty());
        let mut changes = Changes::new();
        changes.add_rule(
            Table::nat(Family::V4),
            "BIG",
            Place::Before(rules[999].0),
            &Rule::to(Target::Drop),
        );
        changes.delete_rule(Table::nat(Family::V4), "BIG", rules[0].0);
        netlink.commit(&changes.batch()).unwrap();
        let after: Vec<_> = Iptables::of_node(&netlink)
            .unwrap()
            .rules(Table::nat(Family::V4), "BIG")
            .unwrap()
            .map(|(_, rule)| rule)
            .collect();
        assert_eq!((after.len(), &after[998]), (1000, &Rule::to(Target::Drop)));
        let mut changes = Changes::new();
        changes.flush_chain(Table::nat(Family::V4), "BIG");
        changes.delete_chain(Table::nat(Family::V4), "BIG");
        netlink.commit(&changes.batch()).unwrap();
        assert!(netlink.chain_names(Table::nat(Family::V4).into()).unwrap().is_empty());
    });
}

#[test]
fn an_owner_is_nothing_that_iptables_sees() {
    in_new_netns(|| {
        let netlink = Nfnetlink::open().unwrap();
        let iptables = Iptables::of_node(&netlink).unwrap();
        let table = Table::filter(Family::V4);
        let rule = Rule::to(Target::Accept).source(Is::equal("10.88.0.2/32".parse().unwrap()));
        let mut changes = Changes::new();
        changes.add_table(table);
        changes.add_base_chain(table, BaseChain::FORWARD);
        changes.add_owned_rule(table, "FORWARD", Place::Last, &rule, "testnet pod-a eth0");
        changes.add_owned_rule(table, "FORWARD", Place::Last, &rule, &"x".repeat(300));
        iptables.commit(&changes).unwrap();
        let owners: Vec<_> =
            iptables.owned_rules(table, "FORWARD").unwrap().map(|one| one.owner.unwrap()).collect();
        assert_eq!(owners, ["testnet pod-a eth0", &"x".repeat(253)]);
        let line = "-A FORWARD -s 10.88.0.2/32 -j ACCEPT\n";
        assert_eq!(sh("iptables -S FORWARD"), format!("-P FORWARD ACCEPT\n{line}{line}"));
        sh("iptables -C FORWARD -s 10.88.0.2 -j ACCEPT; nft list ruleset");
        sh(
            "iptables -D FORWARD -s 10.88.0.2 -j ACCEPT; iptables -D FORWARD -s 10.88.0.2 -j ACCEPT",
        );
        assert_eq!(sh("iptables -S FORWARD"), "-P FORWARD ACCEPT\n");
    });
}

/// Each message is refused with an answer of its own, more than the socket's buffer holds. Before, this
/// waited forever for the answer to the last one.
#[test]
fn hundreds_of_refused_messages() {
    in_new_netns(|| {
        let netlink = Nfnetlink::open().unwrap();
        let mut changes = Changes::new();
        for _ in 0..1000 {
            changes.add_rule(
                Table::nat(Family::V4),
                "POSTROUTING",
                Place::Last,
                &Rule::to(Target::Accept),
            );
        }
        let error = netlink.commit(&changes.batch()).unwrap_err();
        assert!(error.is_not_found() && error.is_refusal(), "{error:?}");
        assert!(error.operation.contains("POSTROUTING"), "{error:?}");
        // The socket is in order.
        assert!(netlink.has_nf_tables().unwrap());
        assert!(!netlink.has_chain(Table::filter(Family::V4).chain("FORWARD")).unwrap());
    });
}

/// Who becomes root in a user namespace may not read which legacy tables there are. Before, nothing worked
/// there.
#[test]
fn root_of_a_user_namespace() {
    let anyone = std::env::temp_dir().join(format!("kernel-iptables-{}", std::process::id()));
    std::fs::copy(std::env::current_exe().unwrap(), &anyone).unwrap();
    let output = Command::new("unshare")
        .args(["-Urn", anyone.to_str().unwrap(), "--exact", "rules_of_this_namespace", "--ignored"])
        .current_dir("/")
        .uid(65534)
        .gid(65534)
        .output();
    std::fs::remove_file(anyone).unwrap();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "started by another test, in a namespace of its own"]
fn rules_of_this_namespace() {
    std::fs::read_to_string("/proc/self/net/ip_tables_names").unwrap_err();
    let netlink = Nfnetlink::open().unwrap();
    let iptables = Iptables::of_node(&netlink).unwrap();
    let mut changes = Changes::new();
    changes.add_table(Table::nat(Family::V4));
    changes.add_base_chain(Table::nat(Family::V4), NatChain::Postrouting);
    iptables.commit(&changes).unwrap();
    assert!(iptables.has_chain(Table::nat(Family::V4), "POSTROUTING").unwrap());
    assert_eq!(Iptables::all(&netlink).unwrap().len(), 1);
}

/// Rules of others do not make the next pod's rules go elsewhere than those of the pods that are there.
/// Before, eight rules in the other variant were enough.
#[test]
fn a_variant_that_was_chosen_stays_chosen() {
    in_new_netns(|| {
        let netlink = Nfnetlink::open().unwrap();
        let is_legacy = || Iptables::of_node(&netlink).unwrap().is_legacy();
        sh("iptables-legacy -N DOCKER-USER; iptables-legacy -A FORWARD -j DOCKER-USER");
        assert!(is_legacy());

        let pod = "CNI-0123456789abcdef01234567";
        let mut add = Changes::new();
        add.create_chain(Table::nat(Family::V4), pod);
        add.add_rule(Table::nat(Family::V4), "POSTROUTING", Place::Last, &Rule::jump(pod));
        Iptables::of_node(&netlink).unwrap().commit(&add).unwrap();
        let others =
            "for i in 1 2 3 4 5 6 7 8; do iptables-nft -A INPUT -s 198.51.100.$i -j DROP; done";
        sh(others);
        assert!(is_legacy());
        sh("iptables-legacy -t nat -F POSTROUTING");
        assert!(!is_legacy());

        // The other way round.
        sh(&format!("iptables-nft -t nat -N {pod}; iptables-nft -t nat -A POSTROUTING -j {pod}"));
        sh(&others.replace("iptables-nft", "iptables-legacy"));
        sh(&others.replace("iptables-nft", "iptables-legacy"));
        assert!(!is_legacy());
        sh("iptables-nft -t nat -F POSTROUTING");
        assert!(is_legacy());
    });
}
