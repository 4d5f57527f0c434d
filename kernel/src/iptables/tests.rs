//! Rules against captures of the real `iptables` and `ip6tables`.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use proptest::prelude::*;

use super::*;
use crate::captures::{Capture, captures, without_policy};
use crate::family::Family;
use crate::nfnetlink::Batch;
use crate::nft::{Base, Chain, Expr, Listed, NewRule, Place, TableFamily, Xt};

const RULES_V4: &str = include_str!("../../tests/data/iptables-rules-v4.txt");
const RULES_V6: &str = include_str!("../../tests/data/iptables-rules-v6.txt");

fn family_of(capture: &Capture) -> Family {
    if capture.command.starts_with("ip6tables") { Family::V6 } else { Family::V4 }
}

/// The chain of the capture, read from its own attributes.
fn chain_of(capture: &Capture) -> Chain<'_> {
    let mut words = capture.command.split(' ').skip(2);
    let table = words.next().unwrap();
    let name = words.nth(1).unwrap();
    Chain { family: family_of(capture).into(), table, name }
}

fn decoded(capture: &Capture) -> Rule {
    let listed = Listed::parse(&capture.kernel[4..], chain_of(capture)).unwrap();
    Rule::decode(family_of(capture), &listed.expressions)
}

#[test]
fn every_captured_rule_is_written_as_iptables_writes_it() {
    let all: Vec<_> = captures(RULES_V4).into_iter().chain(captures(RULES_V6)).collect();
    assert_eq!(all.len(), 80);
    for capture in &all {
        let rule = decoded(capture);
        let mut batch = Batch::new();
        let place = if capture.command.contains(" -I ") { Place::First } else { Place::Last };
        let new = NewRule {
            expressions: rule.encode(family_of(capture)),
            comment: None,
            owner: None,
            compat: Some(rule.compat()),
        };
        batch.add_rule(chain_of(capture), place, new);
        let ours = batch.requests[0].payload.as_slice();
        assert!(
            ours == capture.new_rule(),
            "{}\nours {ours:02x?}\ntheirs {:02x?}",
            capture.command,
            capture.new_rule()
        );
    }
}

#[test]
fn every_captured_rule_is_understood() {
    for capture in captures(RULES_V4).iter().chain(&captures(RULES_V6)) {
        let rule = decoded(capture);
        let other = rule.matches.iter().any(|one| matches!(one, Match::Other(_)))
            || matches!(rule.target, Some(Target::Other(_)));
        assert!(!other, "{}: {rule:?}", capture.command);
    }
}

#[track_caller]
fn check(command: &str, expected: &Rule) {
    let all: Vec<_> = captures(RULES_V4).into_iter().chain(captures(RULES_V6)).collect();
    let capture = all.iter().find(|capture| capture.command == command);
    let capture = capture.unwrap_or_else(|| panic!("no capture of {command}"));
    assert_eq!(decoded(capture), *expected);
}

fn net(text: &str) -> Is<IpNetwork> {
    Is::equal(text.parse().unwrap())
}

fn not_net(text: &str) -> Is<IpNetwork> {
    Is::not(text.parse().unwrap())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn rules_of_portmap() {
    let destination = Some(Is::equal(address_type::LOCAL));
    check(
        "iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
        &Rule::jump("CNI-HOSTPORT-DNAT").matching(Match::AddressType { source: None, destination }),
    );
    check(
        "iptables -t nat -I POSTROUTING 1 -m comment --comment \"CNI portfwd requiring masquerade\" -j NEXT",
        &Rule::jump("NEXT").comment("CNI portfwd requiring masquerade"),
    );
    let bits = Bits { value: 0x2000, mask: 0x2000 };
    check(
        "iptables -t nat -A CHAIN -m mark --mark 0x2000/0x2000 -j MASQUERADE",
        &Rule::to(Target::Masquerade { random_fully: false })
            .matching(Match::Mark(Is::equal(bits))),
    );
    check(
        "iptables -t nat -A CHAIN -m comment --comment \"CNI portfwd masquerade mark\" -j MARK --set-xmark \
         0x2000/0x2000",
        &Rule::to(Target::Mark(bits)).comment("CNI portfwd masquerade mark"),
    );
    let ports = vec![Ports::from(8080), Ports::from(8443)];
    check(
        "iptables -t nat -A CHAIN -m comment --comment 'dnat name: \"testnet\" id: \"pod-a\"' -m multiport \
         -p tcp --destination-ports 8080,8443 -j NEXT",
        &Rule::jump("NEXT")
            .protocol(TCP)
            .comment("dnat name: \"testnet\" id: \"pod-a\"")
            .matching(Match::DestinationPorts(Is::equal(ports))),
    );
    check(
        "iptables -t nat -A CHAIN -p sctp --dport 9899 -s 10.88.0.0/24 -j NEXT",
        &Rule::jump("NEXT").protocol(SCTP).source(net("10.88.0.0/24")).destination_port(9899),
    );
    check(
        "ip6tables -t nat -A CHAIN -p tcp --dport 8080 -j DNAT --to-destination [fd00:88::2]:80",
        &Rule::to(Target::Dnat { address: ip("fd00:88::2"), port: Some(80) })
            .protocol(TCP)
            .destination_port(8080),
    );
}

#[test]
fn rules_of_firewall() {
    let states = ct_state::RELATED | ct_state::ESTABLISHED;
    check(
        "ip6tables -t filter -A CHAIN -d fd00:88::2 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        &Rule::to(Target::Accept)
            .destination(net("fd00:88::2/128"))
            .matching(Match::ConntrackState(Is::equal(states))),
    );
    let comment = "CNI firewall plugin rules (ingressPolicy: isolated)";
    check(
        "iptables -t filter -A CHAIN -i cni0 ! -o cni0 -j NEXT -m comment --comment \"CNI firewall plugin \
         rules (ingressPolicy: isolated)\"",
        &Rule {
            in_interface: Some(Is::equal("cni0".into())),
            out_interface: Some(Is::not("cni0".into())),
            ..Rule::jump("NEXT").comment(comment)
        },
    );
}

#[test]
fn rules_of_masquerade() {
    let comment = "name: \"testnet\" id: \"pod-a\"";
    check(
        "iptables -t nat -A CHAIN -s 10.88.0.2 -j NEXT -m comment --comment 'name: \"testnet\" id: \
         \"pod-a\"'",
        &Rule::jump("NEXT").source(net("10.88.0.2/32")).comment(comment),
    );
    check(
        "iptables -t nat -A CHAIN -d 10.88.0.0/24 -j ACCEPT -m comment --comment 'name: \"testnet\" id: \
         \"pod-a\"'",
        &Rule::to(Target::Accept).destination(net("10.88.0.0/24")).comment(comment),
    );
    let masquerade = Rule::to(Target::Masquerade { random_fully: false });
    check(
        "iptables -t nat -A CHAIN ! -d 224.0.0.0/4 -j MASQUERADE -m comment --comment 'name: \"testnet\" id: \
         \"pod-a\"'",
        &masquerade.clone().destination(not_net("224.0.0.0/4")).comment(comment),
    );
    check(
        "ip6tables -t nat -A CHAIN ! -d ff00::/8 -j MASQUERADE -m comment --comment 'name: \"testnet\" id: \
         \"pod-a\"'",
        &masquerade.destination(not_net("ff00::/8")).comment(comment),
    );
}

#[test]
fn interfaces_networks_and_verdicts() {
    let rule = Rule::to(Target::Return)
        .source(not_net("10.88.0.0/20"))
        .destination(not_net("192.0.2.1/32"));
    check(
        "iptables -t nat -A CHAIN ! -s 10.88.0.0/20 ! -d 192.0.2.1 -i eth0 -j RETURN",
        &Rule { in_interface: Some(Is::equal("eth0".into())), ..rule },
    );
    check(
        "iptables -t nat -A CHAIN -i eth+ -g NEXT",
        &Rule {
            in_interface: Some(Is::equal("eth+".into())),
            ..Rule::to(Target::Goto("NEXT".into()))
        },
    );
    check(
        "iptables -t filter -A FORWARD ! -i eth0 -j DROP",
        &Rule { in_interface: Some(Is::not("eth0".into())), ..Rule::to(Target::Drop) },
    );
    check(
        "iptables -t nat -A CHAIN -s 0.0.0.0/0 -p tcp -j NEXT",
        &Rule::jump("NEXT").protocol(TCP),
    );
    let ports = Ports { first: 8080, last: 8090 };
    check(
        "iptables -t nat -A CHAIN -p tcp --dport 8080:8090 -j NEXT",
        &Rule::jump("NEXT").protocol(TCP).matching(Match::DestinationPort(Is::equal(ports))),
    );
    check(
        "iptables -t nat -A CHAIN -m conntrack --ctstate NEW,RELATED -j NEXT",
        &Rule::jump("NEXT")
            .matching(Match::ConntrackState(Is::equal(ct_state::NEW | ct_state::RELATED))),
    );
}

const CHAINS: &str = include_str!("../../tests/data/iptables-chains.txt");

/// Compares message types and contents. The flags differ, because iptables asks for an error in some cases.
#[track_caller]
fn check_batch(command: &str, build: impl FnOnce(&mut Batch)) {
    let all = captures(CHAINS);
    let capture = all.iter().find(|capture| capture.command == command);
    let capture = capture.unwrap_or_else(|| panic!("no capture of {command}"));
    let mut batch = Batch::new();
    build(&mut batch);
    let ours = batch.requests.iter().map(|request| ((request.kind & 0xff) as u8, &request.payload));
    let theirs = capture.sent.iter().map(|(kind, payload)| (*kind, without_policy(payload)));
    let ours = ours.map(|(kind, payload)| (kind, payload.clone()));
    assert_eq!(ours.collect::<Vec<_>>(), theirs.collect::<Vec<_>>());
}

const NAT: Table = Table::nat(Family::V4);

#[test]
fn tables_and_chains_are_written_as_iptables_writes_them() {
    check_batch("iptables -t nat -N CHAIN", |batch| {
        batch.add_table(Table::nat(Family::V4).into(), None);
        batch.create_chain(NAT.chain("CHAIN"));
    });
    let with_jump = |base: NatChain| {
        move |batch: &mut Batch| {
            let mut changes = Changes::new();
            changes.add_base_chain(NAT, base);
            changes.add_rule(NAT, base.name(), Place::Last, &Rule::jump("CHAIN"));
            *batch = changes.batch();
        }
    };
    check_batch("iptables -t nat -A PREROUTING -j CHAIN", with_jump(NatChain::Prerouting));
    check_batch("iptables -t nat -A OUTPUT -j CHAIN", with_jump(NatChain::Output));
    check_batch("iptables -t nat -A POSTROUTING -j CHAIN", with_jump(NatChain::Postrouting));
    check_batch("iptables -t filter -A FORWARD -j CHAIN", |batch| {
        let mut changes = Changes::new();
        changes.add_base_chain(Table::filter(Family::V4), BaseChain::FORWARD);
        changes.add_rule(Table::filter(Family::V4), "FORWARD", Place::Last, &Rule::jump("CHAIN"));
        *batch = changes.batch();
    });
    check_batch("iptables -t nat -F CHAIN", |batch| batch.flush_chain(NAT.chain("CHAIN")));
}

/// Structures of older revisions, after `xt_tcpudp.h`, `xt_mark.h`, `xt_addrtype.h`, `xt_multiport.h` and
/// `nf_nat.h`.
#[test]
fn older_versions_of_iptables_are_understood() {
    let xt =
        |name: &str, revision, info: &[u8]| Xt { name: name.into(), revision, info: info.to_vec() };
    let ports = [0, 0, 0xff, 0xff, 0x90, 0x1f, 0x90, 0x1f];
    let protocol = [
        Expr::Payload { base: Base::Network, offset: 9, len: 1 },
        Expr::Cmp { negated: false, value: vec![TCP] },
    ];
    let masked = [
        Expr::Payload { base: Base::Network, offset: 12, len: 4 },
        Expr::Bitwise { mask: vec![255, 255, 255, 0], xor: vec![0; 4] },
        Expr::Cmp { negated: false, value: vec![10, 88, 0, 0] },
    ];
    let mark = [0, 32, 0, 0, 0, 32, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    let mut multiport = [0; 32];
    multiport[..6].copy_from_slice(&[1, 2, 80, 0, 187, 1]);
    let mut dnat = [0; 24];
    dnat[..8].copy_from_slice(&[1, 0, 0, 0, 3, 0, 0, 0]);
    dnat[8..20].copy_from_slice(&[10, 88, 0, 2, 10, 88, 0, 2, 0, 80, 0, 80]);
    let matches = [
        Expr::Match(xt("tcp", 0, &[&ports[..], &[0; 8]].concat())),
        Expr::Match(xt("mark", 1, &mark)),
        Expr::Match(xt("addrtype", 0, &[0, 0, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])),
        Expr::Match(xt("multiport", 0, &multiport)),
        Expr::ZERO,
        Expr::Target(xt("DNAT", 0, &dnat)),
    ];
    let all = [&protocol[..], &masked, &matches].concat();
    assert_eq!(
        Rule::decode(Family::V4, &all).to_string(),
        "-s 10.88.0.0/24 -p tcp -m tcp --dport 8080 -m mark ! --mark 0x2000/0x2000 -m addrtype ! --dst-type \
         LOCAL -m multiport --dports 80,443 -j DNAT --to-destination 10.88.0.2:80"
    );
    // Structures that are too short or use unknown options are kept as they are.
    for odd in [xt("tcp", 0, &ports), xt("multiport", 7, &multiport), xt("set", 4, &[0; 64])] {
        let rule = Rule::decode(Family::V4, &[Expr::Match(odd.clone())]);
        assert_eq!(rule.matches, [Match::Other(vec![Expr::Match(odd)])]);
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, name in 0..8_usize, revision in 0..4_u32) {
        let chain = Chain { family: TableFamily::Ip6, table: "", name: "" };
        if let Some(listed) = Listed::parse(&bytes, chain) {
            let _ = Rule::decode(Family::V6, &listed.expressions).to_string();
        }
        let names =
            ["tcp", "udp", "sctp", "multiport", "conntrack", "addrtype", "comment", "DNAT"];
        let xt = Xt { name: names[name].into(), revision, info: bytes };
        for family in Family::ALL {
            let both = [Expr::Match(xt.clone()), Expr::Target(xt.clone())];
            let rule = Rule::decode(family, &both);
            let _ = (rule.to_string(), rule.encode(family));
        }
    }
    /// Rules that are compared with the kernel's must be equal after they were written and read.
    #[test]
    fn accepted_arguments_are_read_back(
        words in prop::collection::vec(prop::sample::select(&ARGUMENTS[..]), 0..8)
    ) {
        let words: Vec<String> = words.iter().flat_map(|some| some.split(' ')).map(Into::into).collect();
        for family in Family::ALL {
            if let Ok(rule) = parse_matches(Rule::jump("NEXT"), family, &words) {
                prop_assert_eq!(Rule::decode(family, &rule.encode(family)), rule);
            }
        }
    }
}

const ARGUMENTS: [&str; 24] = [
    "!",
    "-s 192.0.2.77/25",
    "-s 0.0.0.0/0",
    "-d 192.0.2.1",
    "-d 2001:db8::1/61",
    "-s ::/0",
    "-i +",
    "-i eth0",
    "-i eth++",
    "-o aaaabbbbccccdd+",
    "-m mark",
    "--mark 010",
    "--mark 1/1",
    "--mark 0x10/0x1",
    "--mark 0/0",
    "-m comment",
    "--comment web",
    "--comment ü+",
    "-m addrtype",
    "--src-type LOCAL,UNSPEC",
    "--dst-type nat",
    "-m conntrack",
    "--ctstate NEW,SNAT",
    "-d 10.0.0.1/+24",
];
