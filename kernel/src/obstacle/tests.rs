//! Rules as they are listed, and what they do with a packet.

use std::net::IpAddr;

use super::*;
use crate::iptables::ct_state;
use crate::nft::{Data, Found, Verdict, meta};

/// Chains with their rules, and one map.
struct Table(Vec<(&'static str, Vec<Vec<Expr>>)>, Vec<Element>);

impl Chains for Table {
    fn rules(&self, chain: &str) -> Result<Vec<Vec<Expr>>> {
        let found = self.0.iter().find(|(name, _)| *name == chain);
        Ok(found.map(|(_, rules)| rules.clone()).unwrap_or_default())
    }

    fn elements(&self, _set: &str) -> Result<Vec<Element>> {
        Ok(self.1.clone())
    }
}

const ANY: Packet<'_> = Packet { family: Family::V4, source: None, in_interface: None };

fn accept() -> Expr {
    Expr::Verdict(Verdict::Accept)
}

fn drop_it() -> Expr {
    Expr::Verdict(Verdict::Drop)
}

fn jump(to: &str) -> Expr {
    Expr::Verdict(Verdict::Jump(to.to_owned()))
}

fn answers() -> Vec<Expr> {
    let mask = u32::from(ct_state::ESTABLISHED | ct_state::RELATED).to_ne_bytes().to_vec();
    vec![
        Expr::ConntrackState,
        Expr::Bitwise { mask, xor: vec![0; 4] },
        Expr::Cmp { negated: true, value: vec![0; 4] },
    ]
}

fn from_link(name: &str) -> Vec<Expr> {
    let value = [name.as_bytes(), &[0]].concat();
    vec![Expr::Meta(meta::IIFNAME), Expr::Cmp { negated: false, value }]
}

fn legacy(lines: &[&str]) -> Vec<Vec<Expr>> {
    let parse = |line: &&str| crate::iptables::Rule::parse(Family::V4, line).encode(Family::V4);
    lines.iter().map(parse).collect()
}

#[track_caller]
fn check(rules: Vec<Vec<Expr>>, policy: bool, packet: Packet<'_>, expected: Option<bool>) {
    let user = legacy(&["-s 192.0.2.0/24 -j RETURN", "-j RETURN"]);
    let open = legacy(&["-p tcp -j ACCEPT"]);
    let closed =
        legacy(&["-p tcp -j LOG --log-prefix x", "-j REJECT --reject-with icmp-port-unreachable"]);
    let table = Table(
        vec![("FORWARD", rules), ("user", user), ("open", open), ("closed", closed)],
        Vec::new(),
    );
    assert_eq!(Walk::new(&table, packet).drops("FORWARD", policy).unwrap(), expected);
}

#[test]
fn a_policy_and_a_last_rule_drop() {
    let with = |mut rule: Vec<Expr>, verdict| {
        rule.push(verdict);
        rule
    };
    check(vec![], true, ANY, Some(true));
    check(vec![], false, ANY, None);
    let for_answers = || with(answers(), accept());
    check(vec![for_answers()], true, ANY, Some(true));
    check(vec![for_answers(), vec![Expr::ZERO, drop_it()]], false, ANY, Some(false));
    let reject = Expr::Other { name: "reject".into(), data: Vec::new() };
    check(vec![vec![reject]], false, ANY, Some(false));
    check(vec![with(from_link("virbr0"), accept()), vec![drop_it()]], true, ANY, None);
    check(vec![vec![drop_it()], vec![accept()]], false, ANY, Some(false));
    check(vec![with(from_link("virbr0"), drop_it())], false, ANY, None);
    let unknown = Expr::Other { name: "exthdr".into(), data: Vec::new() };
    check(vec![vec![unknown, drop_it()]], false, ANY, None);
}

#[test]
fn other_chains_are_followed() {
    check(vec![vec![jump("user")]], true, ANY, Some(true));
    check(vec![vec![jump("open")]], true, ANY, None);
    check(vec![vec![jump("closed")]], false, ANY, Some(false));
    check(legacy(&["-i eth0 -j closed"]), false, ANY, None);
    check(vec![vec![jump("user")], vec![jump("closed")]], false, ANY, Some(false));
    check(
        vec![vec![Expr::Verdict(Verdict::Goto("user".into()))], vec![accept()]],
        true,
        ANY,
        Some(true),
    );
    check(vec![vec![jump("FORWARD")]], true, ANY, None);
}

#[test]
fn what_is_known_of_a_packet_decides() {
    let pod = Packet {
        family: Family::V4,
        source: Some(IpAddr::from([10, 88, 0, 2])),
        in_interface: Some("cni0"),
    };
    for (rule, passes) in [
        ("-i docker0 ! -o docker0 -j ACCEPT", false),
        ("-i cni0 -j ACCEPT", true),
        ("-i cni+ -j ACCEPT", true),
        ("-i veth+ -j ACCEPT", false),
        ("! -i docker0 -j ACCEPT", true),
        ("-s 10.88.0.0/16 -j ACCEPT", true),
        ("-s 10.88.0.2/32 -j ACCEPT", true),
        ("-s 10.0.0.0/9 -j ACCEPT", true),
        ("-s 10.89.0.0/16 -j ACCEPT", false),
        ("! -s 10.88.0.0/16 -j ACCEPT", false),
        ("-d 10.89.0.0/16 -j ACCEPT", true),
        ("-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", false),
        ("-m state --state RELATED,ESTABLISHED -j ACCEPT", false),
        ("-m state --state NEW -j ACCEPT", true),
        ("-m conntrack ! --ctstate INVALID -j ACCEPT", true),
        ("-m comment --comment x -j ACCEPT", true),
    ] {
        let expected = if passes { None } else { Some(true) };
        check(legacy(&[rule]), true, pod, expected);
    }
    check(legacy(&["-i docker0 -j ACCEPT"]), true, ANY, None);
}

#[test]
fn maps_of_states_are_read() {
    let element = |state: Option<u16>, verdict| Element {
        key: state.map(|state| u32::from(state).to_ne_bytes().to_vec()).unwrap_or_default(),
        data: Some(Data::Verdict(verdict)),
        comment: None,
        expires: false,
    };
    let lookup = Expr::Lookup { set: "__map0".into(), found: Found::Verdict };
    let of = |rule: Vec<Expr>, elements| {
        let table = Table(vec![("forward", vec![rule])], elements);
        Walk::new(&table, ANY).drops("forward", true).unwrap()
    };
    let by_state = || vec![Expr::ConntrackState, lookup.clone()];
    let established = || element(Some(ct_state::ESTABLISHED), Verdict::Accept);
    assert_eq!(of(by_state(), vec![established()]), Some(true));
    let new = element(Some(ct_state::NEW), Verdict::Accept);
    assert_eq!(of(by_state(), vec![established(), new]), None);
    let rest = element(None, Verdict::Accept);
    assert_eq!(of(by_state(), vec![established(), rest]), None);
    let by_link = vec![Expr::Meta(meta::IIFNAME), lookup.clone()];
    assert_eq!(of(by_link, vec![established()]), None);
}
