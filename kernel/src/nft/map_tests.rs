//! Compares sets, maps and rules that use them with captures of `nft`.

use super::attribute::attributes;
use super::{
    Base, Chain, Data, Element, Expr, Found, Listed, NewRule, Place, Set, SetType, TableFamily,
};
use super::{Type, Verdict, meta};
use crate::captures::{Capture, captures};
use crate::family::Family;
use crate::nfnetlink::Batch;

/// Types and values.
pub(super) type Attributes = Vec<(u16, Vec<u8>)>;

const MAPS: &str = include_str!("../../tests/data/nft-maps.txt");
const TABLE: &str = "podwire_hostport";
const SET_ID: (&str, u16) = ("lookup", 4);
const OPERATION: (&str, u16) = ("bitwise", 6);
const FLAGS: (&str, u16) = ("nat", 7);

fn of(family: TableFamily) -> impl Iterator<Item = Capture> {
    let of_family = format!(" {} ", family.name());
    captures(MAPS).into_iter().filter(move |capture| capture.command.contains(&of_family))
}

#[track_caller]
fn capture(family: TableFamily, text: &str) -> Capture {
    of(family).find(|capture| capture.command.contains(text)).unwrap()
}

/// A rule's expressions, without attributes that have the kernel's default. We leave those out.
pub(super) fn comparable(new_rule: &[u8]) -> Vec<(String, Attributes)> {
    let elements = attributes(&new_rule[4..]).find(|(kind, _)| *kind == 4).unwrap().1;
    let mut all = Vec::new();
    for (_, element) in attributes(elements) {
        let attribute = |wanted| attributes(element).find(|(kind, _)| *kind == wanted).unwrap().1;
        let name = super::attribute::string(attribute(1));
        let left_out = |kind| [SET_ID, OPERATION, FLAGS].contains(&(name, kind));
        let data = attributes(attribute(2)).filter(|(kind, _)| !left_out(*kind));
        all.push((name.to_owned(), data.map(|(kind, value)| (kind, value.to_vec())).collect()));
    }
    all
}

#[track_caller]
fn rule(family: TableFamily, text: &str, expressions: Vec<Expr>) {
    let capture = capture(family, text);
    let name = capture.command.split(' ').nth(5).unwrap();
    let chain = Chain { family, table: TABLE, name };
    let listed = Listed::parse(&capture.kernel[4..], chain).unwrap();
    assert_eq!(listed.expressions, expressions, "{}", capture.command);
    let mut batch = Batch::new();
    batch.add_rule(chain, Place::Last, NewRule { expressions, ..NewRule::default() });
    let ours = comparable(&batch.requests[0].payload);
    assert_eq!(ours, comparable(capture.new_rule()), "{}", capture.command);
}

fn at(word: u8, load: Expr) -> Expr {
    Expr::At(word, Box::new(load))
}

fn address(family: TableFamily, offset: [u32; 2]) -> Expr {
    let (at, len) = if family == TableFamily::Ip6 { (1, 16) } else { (0, 4) };
    Expr::Payload { base: Base::Network, offset: offset[at], len }
}

fn mark(mask: u32, xor: u32) -> Expr {
    let bytes = |number: u32| number.to_ne_bytes().to_vec();
    Expr::Bitwise { mask: bytes(mask), xor: bytes(xor) }
}

#[test]
fn rules_of_hostports() {
    let port = || Expr::Payload { base: Base::Transport, offset: 2, len: 2 };
    let lookup = |set: &str, found| Expr::Lookup { set: set.into(), found };
    for (addresses, family, words, set, mask) in [
        (Family::V4, TableFamily::Ip, 1, "masquerade_16", vec![255, 255, 0, 0]),
        (Family::V6, TableFamily::Ip6, 4, "masquerade_64", [[255; 8], [0; 8]].concat()),
    ] {
        let local = Expr::Cmp { negated: false, value: 2_u32.to_ne_bytes().to_vec() };
        let jump = Expr::Verdict(Verdict::Jump("host_ports".into()));
        rule(family, "fib daddr type local", vec![Expr::DestinationType, local, jump]);
        let set_mark =
            vec![Expr::Meta(meta::MARK), mark(!0x2000, 0x2000), Expr::SetMeta(meta::MARK)];
        rule(family, "mark or 0x2000", set_mark);
        let verdict = lookup("conditional_ports", Found::Verdict);
        let key = [Expr::Meta(meta::L4PROTO), at(1, port()), verdict];
        rule(family, "vmap @conditional_ports", key.into());
        let dnat = Expr::Dnat { family: addresses, port: words };
        let found = lookup("host_ports", Found::Load);
        let key = [Expr::Meta(meta::L4PROTO), at(1, port()), found, dnat.clone()];
        rule(family, "map @host_ports", key.into());
        let found = lookup("host_ip_ports", Found::Load);
        let key = [
            address(family, [16, 24]),
            at(words, Expr::Meta(meta::L4PROTO)),
            at(words + 1, port()),
            found,
            dnat,
        ];
        rule(family, "map @host_ip_ports", key.into());
        let masquerade = [
            Expr::Meta(meta::MARK),
            mark(0x2000, 0),
            Expr::Cmp { negated: false, value: 0x2000_u32.to_ne_bytes().into() },
            address(family, [12, 8]),
            Expr::Bitwise { xor: vec![0; mask.len()], mask },
            at(words, address(family, [16, 24])),
            lookup(set, Found::Continue),
            Expr::Masquerade,
        ];
        rule(family, "masquerade'", masquerade.into());
    }
}

#[test]
fn a_destination_that_is_written_out() {
    let capture = capture(TableFamily::Ip6, "dnat to [");
    let chain = Chain { family: TableFamily::Ip6, table: TABLE, name: "tcp_8080" };
    let listed = Listed::parse(&capture.kernel[4..], chain).unwrap();
    let pod = "fd00:88::2".parse::<std::net::Ipv6Addr>().unwrap();
    let end = [
        Expr::Immediate(pod.octets().into()),
        at(4, Expr::Immediate(vec![0, 80])),
        Expr::Dnat { family: Family::V6, port: 4 },
    ];
    assert_eq!(listed.expressions[listed.expressions.len() - 3..], end);
    let expressions = listed.expressions;
    rule(TableFamily::Ip6, "dnat to [", expressions);
}

#[test]
fn sets_and_maps() {
    for (family, address) in [(TableFamily::Ip, Type::Ipv4), (TableFamily::Ip6, Type::Ipv6)] {
        let hairpin = if family == TableFamily::Ip { "masquerade_16" } else { "masquerade_64" };
        let to_pod = vec![address, Type::Port];
        for (name, key, data, expires) in [
            ("host_ports", vec![Type::Protocol, Type::Port], to_pod.clone(), true),
            ("host_ip_ports", vec![address, Type::Protocol, Type::Port], to_pod, true),
            ("conditional_ports", vec![Type::Protocol, Type::Port], vec![Type::Verdict], false),
            (hairpin, vec![address, address], vec![], true),
        ] {
            let mut batch = Batch::new();
            let set = Set { family, table: TABLE, name };
            batch.add_set(set, &SetType { key, data, expires });
            let capture = capture(family, &format!("{name} {{"));
            // nft adds user data about byte orders.
            let (number, bytes) = &capture.sent[0];
            assert_eq!((*number, &batch.requests[0].kind.to_be_bytes()[1]), (9, number));
            assert!(bytes.starts_with(&batch.requests[0].payload), "{}", capture.command);
        }
    }
}

/// The attributes of a message about an element, without the number of the set.
pub(super) fn element_message(payload: &[u8]) -> Attributes {
    let all = attributes(&payload[4..]).filter(|(kind, _)| *kind != 4);
    all.map(|(kind, value)| (kind, value.to_vec())).collect()
}

#[test]
fn elements() {
    const PORT: [u8; 8] = [6, 0, 0, 0, 0x1f, 0x90, 0, 0];
    let family = TableFamily::Ip;
    let pod = || Some(Data::Value(vec![10, 88, 0, 2, 0, 80, 0, 0]));
    let set = |name| Set { family, table: TABLE, name };
    let element = |key: &[u8], data, comment: Option<&str>| {
        let comment = comment.map(Into::into);
        Element { key: key.into(), data, comment, expires: false }
    };
    let jump = Data::Verdict(Verdict::Goto("tcp_8080".into()));
    let host_ip = [&[192, 0, 2, 10][..], &PORT].concat();
    for (command, name, element) in [
        ("add", "host_ports", element(&PORT, pod(), Some("pod-a"))),
        ("create", "host_ip_ports", element(&host_ip, pod(), Some("pod-a"))),
        ("add", "conditional_ports", element(&PORT, Some(jump), None)),
        ("add", "masquerade_16", element(&[10, 88, 0, 0, 10, 88, 0, 2], None, Some("pod-a"))),
    ] {
        let text = format!("{command} element {} {TABLE} {name} ", family.name());
        let capture = capture(family, &text);
        let mut batch = Batch::new();
        if command == "create" {
            batch.create_element(set(name), &element);
        } else {
            batch.add_element(set(name), &element);
        }
        let ours = element_message(&batch.requests[0].payload);
        assert_eq!(ours, element_message(&capture.sent[0].1), "{}", capture.command);
        let listed: Vec<Element> = Element::parse_all(&capture.kernel[4..]).collect();
        assert_eq!(listed, [element], "{}", capture.command);
    }
    let mut batch = Batch::new();
    batch.expire_element(set("host_ports"), &element(&PORT, pod(), Some("pod-a")));
    batch.delete_element(set("masquerade_16"), &[10, 88, 0, 0, 10, 88, 0, 2]);
    for (request, text) in batch.requests.iter().zip(["timeout 1ms", "delete element"]) {
        let capture = capture(family, text);
        assert_eq!(
            element_message(&request.payload),
            element_message(&capture.sent[0].1),
            "{text}"
        );
        assert_eq!(request.kind.to_be_bytes()[1], capture.sent[0].0);
    }
    let dying = capture(family, "timeout 1h");
    assert!(Element::parse_all(&dying.kernel[4..]).next().unwrap().expires);
}
