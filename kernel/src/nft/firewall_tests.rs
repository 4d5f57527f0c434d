//! Compares sets of addresses and names, and rules that use them, with captures of `nft`.

use super::map_tests::{comparable, element_message};
use super::{
    Base, Chain, Data, Element, Expr, Found, Listed, NewRule, Place, Set, SetType, TableFamily,
};
use super::{Type, Verdict, meta};
use crate::captures::{Capture, captures};
use crate::iptables::ct_state;
use crate::nfnetlink::Batch;

const FIREWALL: &str = include_str!("../../tests/data/nft-firewall.txt");
const TABLE: &str = "podwire_firewall";

#[track_caller]
fn capture(text: &str) -> Capture {
    captures(FIREWALL).into_iter().find(|capture| capture.command.contains(text)).unwrap()
}

fn set(name: &str) -> Set<'_> {
    Set { family: TableFamily::Inet, table: TABLE, name }
}

#[track_caller]
fn rule(text: &str, expressions: Vec<Expr>) {
    let capture = capture(text);
    let name = capture.command.split(' ').nth(5).unwrap();
    let chain = Chain { family: TableFamily::Inet, table: TABLE, name };
    let listed = Listed::parse(&capture.kernel[4..], chain).unwrap();
    assert_eq!(listed.expressions, expressions, "{text}");
    let mut batch = Batch::new();
    batch.add_rule(chain, Place::Last, NewRule { expressions, ..NewRule::default() });
    let ours = comparable(&batch.requests[0].payload);
    assert_eq!(ours, comparable(capture.new_rule()), "{text}");
}

fn lookup(set: &str, found: Found) -> Expr {
    Expr::Lookup { set: set.into(), found }
}

#[test]
fn rules_about_interfaces() {
    let at_second = |load| Expr::At(4, Box::new(load));
    rule(
        "vmap @within_bridges",
        vec![
            Expr::Meta(meta::IIFNAME),
            at_second(Expr::Meta(meta::OIFNAME)),
            lookup("within_bridges", Found::Verdict),
        ],
    );
    rule(
        "oifname @bridges drop",
        vec![
            Expr::Meta(meta::IIFNAME),
            lookup("bridges", Found::Continue),
            Expr::Meta(meta::OIFNAME),
            lookup("bridges", Found::Continue),
            Expr::Verdict(Verdict::Drop),
        ],
    );
}

#[test]
fn rules_about_addresses_and_connections() {
    for (text, family, [offset, len], set) in
        [("ip daddr @pods4", 2, [16, 4], "pods4"), ("ip6 daddr @pods6", 10, [24, 16], "pods6")]
    {
        let answers = u32::from(ct_state::ESTABLISHED | ct_state::RELATED);
        rule(
            text,
            vec![
                Expr::Meta(meta::NFPROTO),
                Expr::Cmp { negated: false, value: vec![family] },
                Expr::Payload { base: Base::Network, offset, len },
                lookup(set, Found::Continue),
                Expr::ConntrackState,
                Expr::Bitwise { mask: answers.to_ne_bytes().into(), xor: vec![0; 4] },
                Expr::Cmp { negated: true, value: vec![0; 4] },
                Expr::Verdict(Verdict::Accept),
            ],
        );
    }
}

#[test]
fn sets_of_names() {
    for (name, key, data) in [
        ("pods4", vec![Type::Ipv4], vec![]),
        ("pods6", vec![Type::Ipv6], vec![]),
        ("bridges", vec![Type::Ifname], vec![]),
        ("within_bridges", vec![Type::Ifname; 2], vec![Type::Verdict]),
    ] {
        let is_named = key == [Type::Ifname];
        let mut batch = Batch::new();
        batch.add_set(set(name), &SetType { key, data, expires: false });
        let capture = capture(&format!(" {name} {{ type"));
        let (ours, theirs) = (&batch.requests[0].payload, &capture.sent[0].1);
        // nft stores the byte order of every key. It matters only for names.
        assert!(theirs.starts_with(ours), "{}", capture.command);
        assert_eq!(ours == theirs, is_named, "{}", capture.command);
    }
}

#[test]
fn elements_of_names() {
    let name = *b"cni0\0\0\0\0\0\0\0\0\0\0\0\0";
    let owner = || Some("testnet pod-a eth0".to_owned());
    let element =
        |key: &[u8], data, comment| Element { key: key.into(), data, comment, expires: false };
    let back = Some(Data::Verdict(Verdict::Return));
    for (set_name, element) in [
        ("pods4", element(&[10, 88, 0, 2], None, owner())),
        ("bridges", element(&name, None, None)),
        ("within_bridges", element(&[name, name].concat(), back, None)),
    ] {
        let capture = capture(&format!("add element inet {TABLE} {set_name} "));
        let mut batch = Batch::new();
        batch.add_element(set(set_name), &element);
        let ours = element_message(&batch.requests[0].payload);
        assert_eq!(ours, element_message(&capture.sent[0].1), "{}", capture.command);
        let listed: Vec<Element> = Element::parse_all(&capture.kernel[4..]).collect();
        assert_eq!(listed, [element], "{}", capture.command);
    }
}
