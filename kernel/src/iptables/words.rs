//! Reads rules as `iptables -S` and `iptables-save` print them: the opposite of `show`.

use std::net::{IpAddr, SocketAddr};

use super::arguments::{digits, mark, parse_matches};
use super::{Bits, Is, Match, Ports, Rule, SCTP, TCP, Target, UDP};
use crate::family::Family;
use crate::nft::Expr;

/// Protocols that iptables prints by name. It prints others by number; rules with other names are not
/// decoded.
const PROTOCOLS: [(&str, u8); 5] =
    [("tcp", TCP), ("udp", UDP), ("sctp", SCTP), ("icmp", 1), ("ipv6-icmp", 58)];

impl Rule {
    /// Reads a rule from the text after `-A CHAIN`. This cannot fail: see [`Match::Other`] and
    /// [`Target::Other`].
    ///
    /// A target without options that is not a verdict of iptables counts as a chain.
    pub(crate) fn parse(family: Family, text: &str) -> Rule {
        let words = split(text);
        let starts = |word: &String| matches!(word.as_str(), "-m" | "-j" | "-g");
        let mut groups = Vec::new();
        let mut rest = words.as_slice();
        while !rest.is_empty() {
            let next = rest.iter().skip(1).position(starts).map_or(rest.len(), |at| at + 1);
            let (group, after) = rest.split_at(next);
            groups.push(group);
            rest = after;
        }
        let mut rule = Rule::default();
        for group in groups {
            match group {
                [first, ..] if first == "-j" || first == "-g" => {
                    rule.target =
                        Some(read_target(group).unwrap_or_else(|| Target::Other(other(group))));
                }
                [first, name, options @ ..] if first == "-m" => match read_ports(name, options) {
                    Some(ports) => rule.matches.extend(ports),
                    None => rule = read_plain(rule, family, group),
                },
                header => rule = read_header(rule, family, header),
            }
        }
        rule
    }
}

/// Splits a line into words, and removes the quotes and backslashes that iptables adds.
pub(super) fn split(line: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let (mut quoted, mut characters) = (false, line.chars());
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' if quoted => word.get_or_insert_default().extend(characters.next()),
            ' ' if !quoted => words.extend(word.take()),
            plain => word.get_or_insert_default().push(plain),
        }
    }
    words.extend(word);
    words
}

/// Reads the options before the first extension: the protocol, and those that configurations can have.
fn read_header(mut rule: Rule, family: Family, words: &[String]) -> Rule {
    let Some(at) = words.iter().position(|word| word == "-p") else {
        return read_plain(rule, family, words);
    };
    let negated = at > 0 && words[at - 1] == "!";
    let number = words.get(at + 1).and_then(|name| {
        let known = PROTOCOLS.iter().find(|(known, _)| known == name).map(|(_, number)| *number);
        known.or_else(|| digits(name, 10)?.try_into().ok())
    });
    let Some(value) = number else { return with_other(rule, words) };
    rule.protocol = Some(Is { value, negated });
    let others = [&words[..at - usize::from(negated)], &words[at + 2..]].concat();
    read_plain(rule, family, &others)
}

/// Reads options that configurations can have, too.
fn read_plain(rule: Rule, family: Family, words: &[String]) -> Rule {
    match parse_matches(rule.clone(), family, words) {
        Ok(read) => read,
        Err(_) => with_other(rule, words),
    }
}

fn with_other(rule: Rule, words: &[String]) -> Rule {
    rule.matching(Match::Other(vec![other(words)]))
}

/// An expression that has the text as its name. No expression of the kernel has such a name.
fn other(words: &[String]) -> Expr {
    Expr::Other { name: words.join(" "), data: Vec::new() }
}

/// Reads the ports of `tcp`, `udp`, `sctp` and `multiport`. None if there are other options.
fn read_ports(extension: &str, mut options: &[String]) -> Option<Vec<Match>> {
    let mut found = Vec::new();
    while !options.is_empty() {
        let negated = options[0] == "!";
        let [option, value, rest @ ..] = &options[usize::from(negated)..] else { return None };
        found.push(match (extension, option.as_str()) {
            ("tcp" | "udp" | "sctp", "--sport") => {
                Match::SourcePort(Is { value: ports(value)?, negated })
            }
            ("tcp" | "udp" | "sctp", "--dport") => {
                Match::DestinationPort(Is { value: ports(value)?, negated })
            }
            ("multiport", "--dports") => {
                let value = value.split(',').map(ports).collect::<Option<_>>()?;
                Match::DestinationPorts(Is { value, negated })
            }
            _ => return None,
        });
        options = rest;
    }
    (!found.is_empty()).then_some(found)
}

fn ports(text: &str) -> Option<Ports> {
    let port = |text: &str| u16::try_from(digits(text, 10)?).ok();
    match text.split_once(':') {
        Some((first, last)) => Some(Ports { first: port(first)?, last: port(last)? }),
        None => port(text).map(Ports::from),
    }
}

fn read_target(words: &[String]) -> Option<Target> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Some(match words.as_slice() {
        ["-j", "ACCEPT"] => Target::Accept,
        ["-j", "DROP"] => Target::Drop,
        ["-j", "RETURN"] => Target::Return,
        ["-j", "MASQUERADE"] => Target::Masquerade { random_fully: false },
        ["-j", "MASQUERADE", "--random-fully"] => Target::Masquerade { random_fully: true },
        ["-j", "MARK", "--set-xmark", bits] => {
            let Bits { value, mask } = mark(bits)?;
            Target::Mark(Bits { value, mask })
        }
        ["-j", "DNAT", "--to-destination", to] => {
            let with_port = to.parse::<SocketAddr>().ok();
            match with_port {
                Some(to) => Target::Dnat { address: to.ip(), port: Some(to.port()) },
                None => Target::Dnat { address: to.parse::<IpAddr>().ok()?, port: None },
            }
        }
        ["-j", chain] => Target::Jump((*chain).to_owned()),
        ["-g", chain] => Target::Goto((*chain).to_owned()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use ipnetwork::IpNetwork;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_are_split_as_iptables_restore_splits_them() {
        let line = r#"-A CNI-X  -m comment --comment "dnat name: \"net\" id: \"it\'s \\ ü\"" -j X"#;
        let words =
            ["-A", "CNI-X", "-m", "comment", "--comment", r#"dnat name: "net" id: "it's \ ü""#];
        assert_eq!(split(line), [&words[..], &["-j", "X"]].concat());
        assert_eq!(split(r#"--comment """#), ["--comment", ""]);
    }

    #[test]
    fn what_is_not_known_stays_in_its_place() {
        let text =
            "-p gre -m statistic --mode random -m mark --mark 0x1 -j LOG --log-prefix \"a b\"";
        let rule = Rule::parse(Family::V4, text);
        let [Match::Other(header), Match::Other(statistic), Match::Mark(_)] = &rule.matches[..]
        else {
            panic!("{rule:?}");
        };
        assert_eq!(header[0], Expr::Other { name: "-p gre".into(), data: Vec::new() });
        let name = "-m statistic --mode random".into();
        assert_eq!(statistic[0], Expr::Other { name, data: Vec::new() });
        assert!(matches!(rule.target, Some(Target::Other(_))), "{rule:?}");
        let of_flags = Rule::parse(Family::V4, "-p tcp -m tcp --dport 80 --tcp-flags SYN SYN");
        assert!(matches!(of_flags.matches[..], [Match::Other(_)]), "{of_flags:?}");
    }

    fn network(family: Family) -> BoxedStrategy<Is<IpNetwork>> {
        let v4 = (any::<[u8; 4]>(), 0..=32_u8).prop_map(|(a, p)| (IpAddr::from(a), p));
        let v6 = (any::<[u8; 16]>(), 0..=128_u8).prop_map(|(a, p)| (IpAddr::from(a), p));
        let some = if family == Family::V6 { v6.boxed() } else { v4.boxed() };
        (some, any::<bool>())
            .prop_map(|((address, prefix), negated)| Is {
                value: IpNetwork::new(address, prefix).unwrap(),
                negated,
            })
            .boxed()
    }

    fn is<T: std::fmt::Debug + Clone>(
        value: impl Strategy<Value = T>,
    ) -> impl Strategy<Value = Is<T>> {
        (value, any::<bool>()).prop_map(|(value, negated)| Is { value, negated })
    }

    fn range() -> impl Strategy<Value = Ports> {
        any::<(u16, u16)>().prop_map(|(a, b)| Ports { first: a.min(b), last: a.max(b) })
    }

    fn bits() -> impl Strategy<Value = Bits> {
        any::<(u32, u32)>().prop_map(|(value, mask)| Bits { value, mask })
    }

    fn one_match() -> impl Strategy<Value = Match> {
        prop_oneof![
            is(range()).prop_map(Match::SourcePort),
            is(range()).prop_map(Match::DestinationPort),
            is(prop::collection::vec(range(), 1..7)).prop_map(Match::DestinationPorts),
            is(bits()).prop_map(Match::Mark),
            "[^\0\n]{0,60}".prop_map(Match::Comment),
            is(1..512_u16).prop_map(|mut is| {
                is.value = is.value & 0b1_1100_1111 | 1;
                Match::ConntrackState(is)
            }),
            is(1..4096_u16)
                .prop_map(|is| Match::AddressType { source: None, destination: Some(is) }),
        ]
    }

    fn target(family: Family) -> impl Strategy<Value = Target> {
        let v4 = any::<[u8; 4]>().prop_map(IpAddr::from);
        let v6 = any::<[u8; 16]>().prop_map(IpAddr::from);
        let address = if family == Family::V6 { v6.boxed() } else { v4.boxed() };
        prop_oneof![
            "[A-Z][A-Z0-9-]{0,20}-[a-f0-9]{3}".prop_map(Target::Jump),
            "[A-Z][A-Z0-9-]{0,20}-[a-f0-9]{3}".prop_map(Target::Goto),
            Just(Target::Accept),
            Just(Target::Drop),
            Just(Target::Return),
            any::<bool>().prop_map(|random_fully| Target::Masquerade { random_fully }),
            bits().prop_map(Target::Mark),
            (address, any::<Option<u16>>())
                .prop_map(|(address, port)| Target::Dnat { address, port }),
        ]
    }

    fn rule(family: Family) -> impl Strategy<Value = Rule> {
        let name = "[a-z][a-z0-9.\"\\\\]{0,13}\\+?";
        let interfaces = (prop::option::of(is(name)), prop::option::of(is(name)));
        let networks = (prop::option::of(network(family)), prop::option::of(network(family)));
        let protocol = prop::sample::select(vec![TCP, UDP, SCTP, 50]);
        let matches = prop::collection::vec(one_match(), 0..4);
        (interfaces, networks, is(protocol), matches, prop::option::of(target(family))).prop_map(
            |(
                (in_interface, out_interface),
                (source, destination),
                protocol,
                mut matches,
                target,
            )| {
                // Ports need a protocol with ports. Two addrtypes in a row are read as one.
                let has_ports = [TCP, UDP, SCTP].contains(&protocol.value);
                matches.retain(|one| {
                    has_ports || !matches!(one, Match::SourcePort(_) | Match::DestinationPort(_))
                });
                matches.dedup_by_key(|one| matches!(one, Match::AddressType { .. }));
                let rule = Rule {
                    in_interface,
                    out_interface,
                    protocol: Some(protocol),
                    matches,
                    target,
                    ..Rule::default()
                };
                let rule = source.into_iter().fold(rule, Rule::source);
                destination.into_iter().fold(rule, Rule::destination)
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(v4 in rule(Family::V4), v6 in rule(Family::V6)) {
            prop_assert_eq!(Rule::parse(Family::V4, &v4.to_string()), v4);
            prop_assert_eq!(Rule::parse(Family::V6, &v6.to_string()), v6);
        }
        #[test]
        fn no_text_panics(text in "(-[psdiomjg]|!|-m tcp|--[sd]ports?|[0-9:,./]{0,4}|\"|\\\\| \
            |DNAT|.){0,20}") {
            let _ = Rule::parse(Family::V6, &text).to_string();
        }
    }
}
