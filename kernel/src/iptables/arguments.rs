//! Reads conditions that a configuration has as arguments of `iptables`, such as `-s 192.0.2.0/24`.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::show::{ADDRESS_TYPES, CONNTRACK_STATES};
use super::{AddressRange, Bits, COMMENT_MAX, Is, Match, Rule, iprange};
use crate::family::Family;

/// Why a list of arguments is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArgumentError {
    /// The option or match extension is not supported.
    #[error(
        "argument {argument:?} is not supported; supported are [!] -s, -d, -i, -o and the matches addrtype, \
         comment, conntrack (--ctstate), iprange and mark"
    )]
    Unsupported {
        /// The argument.
        argument: String,
    },
    /// The list ends after an option that needs a value.
    #[error("argument {argument:?} has no value")]
    NoValue {
        /// The option.
        argument: String,
    },
    /// The value is not valid for the option.
    #[error("argument {argument:?} must be {expected}, not {value:?}")]
    BadValue {
        /// The option.
        argument: String,
        /// The value.
        value: String,
        /// What the value must be.
        expected: &'static str,
    },
    /// The option was given before.
    #[error("argument {argument:?} is given twice")]
    Twice {
        /// The option.
        argument: String,
    },
    /// The match extension needs at least one of its options.
    #[error("argument \"-m {extension}\" must be followed by one of its options")]
    NoOption {
        /// Its name.
        extension: &'static str,
    },
}

/// Adds the conditions in `arguments` to `rule`, after the matches that it has.
pub fn parse_matches(
    mut rule: Rule,
    family: Family,
    arguments: &[String],
) -> Result<Rule, ArgumentError> {
    let mut reader = Reader { arguments: arguments.iter(), negated: false };
    let mut bare = Vec::new();
    while let Some(option) = reader.option() {
        let option = option.as_str();
        let twice = || ArgumentError::Twice { argument: option.into() };
        bare.retain(|(_, options): &(_, &[&str])| !options.contains(&option));
        match option {
            "-m" | "--match" => {
                let name = reader.value(option)?;
                let known = EXTENSIONS.iter().find(|known| known.0 == name && !reader.negated);
                let argument = || format!("{option} {name}");
                bare.push(
                    *known.ok_or_else(|| ArgumentError::Unsupported { argument: argument() })?,
                );
            }
            "-s" | "--source" | "--src" if rule.source.is_none() => {
                let is = reader.is(option, "an address or network", |v| network(family, v))?;
                rule = rule.source(is);
            }
            "-d" | "--destination" | "--dst" if rule.destination.is_none() => {
                let is = reader.is(option, "an address or network", |v| network(family, v))?;
                rule = rule.destination(is);
            }
            "-i" | "--in-interface" if rule.in_interface.is_none() => {
                rule.in_interface = reader.interface(option)?;
            }
            "-o" | "--out-interface" if rule.out_interface.is_none() => {
                rule.out_interface = reader.interface(option)?;
            }
            "-s" | "--source" | "--src" | "-d" | "--destination" | "--dst" | "-i"
            | "--in-interface" | "-o" | "--out-interface" => return Err(twice()),
            "--src-type" | "--dst-type" => {
                let is =
                    reader.is(option, "a list of address types such as LOCAL", address_types)?;
                add_address_type(&mut rule, option == "--src-type", is).ok_or_else(twice)?;
            }
            "--src-range" | "--dst-range" => {
                let is = reader.is(option, RANGE, |v| AddressRange::parse(family, v))?;
                iprange::add(&mut rule, option == "--src-range", is).ok_or_else(twice)?;
            }
            "--comment" if reader.negated => {
                return Err(ArgumentError::Unsupported { argument: format!("! {option}") });
            }
            "--comment" => rule = rule.comment(reader.is(option, COMMENT, comment)?.value),
            "--ctstate" => {
                let is = reader.is(option, "a list of states such as NEW,RELATED", states)?;
                rule = rule.matching(Match::ConntrackState(is));
            }
            "--mark" => {
                let is = reader.is(option, "a number or number/mask", mark)?;
                rule = rule.matching(Match::Mark(is));
            }
            other => return Err(ArgumentError::Unsupported { argument: other.into() }),
        }
    }
    match bare.first() {
        Some((extension, _)) => Err(ArgumentError::NoOption { extension }),
        None => Ok(rule),
    }
}

/// The match extensions and their options.
const EXTENSIONS: [(&str, &[&str]); 5] = [
    ("addrtype", &["--src-type", "--dst-type"]),
    ("comment", &["--comment"]),
    ("conntrack", &["--ctstate"]),
    ("iprange", &["--src-range", "--dst-range"]),
    ("mark", &["--mark"]),
];

const RANGE: &str = "a range FIRST-LAST of addresses of this family";
const INTERFACE: &str = "an interface name of 1 to 15 characters";
const COMMENT: &str = "a string of at most 255 bytes without a zero byte";

/// Reads one argument after the other. A `!` inverts the option that follows it.
struct Reader<'a> {
    arguments: std::slice::Iter<'a, String>,
    negated: bool,
}

impl Reader<'_> {
    fn option(&mut self) -> Option<String> {
        self.negated = false;
        let mut next = self.arguments.next()?;
        if next == "!" {
            self.negated = true;
            match self.arguments.next() {
                Some(option) => next = option,
                None => return Some("!".into()),
            }
        }
        Some(next.clone())
    }

    fn value(&mut self, option: &str) -> Result<String, ArgumentError> {
        let missing = || ArgumentError::NoValue { argument: option.into() };
        self.arguments.next().cloned().ok_or_else(missing)
    }

    /// Reads an interface name. `+` alone matches all interfaces, so it is no condition. `! +` matches none
    /// and is refused.
    fn interface(&mut self, option: &str) -> Result<Option<Is<String>>, ArgumentError> {
        let is = self.is(option, INTERFACE, interface)?;
        match (is.value.as_str(), is.negated) {
            ("+", false) => Ok(None),
            ("+", true) => Err(ArgumentError::BadValue {
                argument: format!("! {option}"),
                value: is.value,
                expected: "an interface name or its beginning",
            }),
            _ => Ok(Some(is)),
        }
    }

    fn is<T>(
        &mut self,
        option: &str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Is<T>, ArgumentError> {
        let value = self.value(option)?;
        match parse(&value) {
            Some(parsed) => Ok(Is { value: parsed, negated: self.negated }),
            None => Err(ArgumentError::BadValue { argument: option.into(), value, expected }),
        }
    }
}

/// Adds a type to a rule. The two types of one `-m addrtype` are one match. None if the type is already set.
fn add_address_type(rule: &mut Rule, of_source: bool, is: Is<u16>) -> Option<()> {
    if let Some(Match::AddressType { source, destination }) = rule.matches.last_mut() {
        let place = if of_source { source } else { destination };
        return place.is_none().then(|| *place = Some(is));
    }
    let (source, destination) = if of_source { (Some(is), None) } else { (None, Some(is)) };
    rule.matches.push(Match::AddressType { source, destination });
    Some(())
}

fn network(family: Family, value: &str) -> Option<IpNetwork> {
    let network = match value.split_once('/') {
        None => IpNetwork::from(value.parse::<IpAddr>().ok()?),
        Some((address, prefix)) => {
            let prefix = digits(prefix, 10)?.try_into().ok()?;
            IpNetwork::new(address.parse().ok()?, prefix).ok()?
        }
    };
    (network.is_ipv6() == (family == Family::V6)).then_some(network)
}

fn interface(value: &str) -> Option<String> {
    let plausible = (1..16).contains(&value.len()) && !value.contains(['/', ' ', '\0']);
    plausible.then(|| value.to_owned())
}

fn address_types(value: &str) -> Option<u16> {
    value.split(',').try_fold(0, |set, name| {
        let bit = ADDRESS_TYPES.iter().position(|known| known.eq_ignore_ascii_case(name))?;
        Some(set | 1 << bit)
    })
}

fn states(value: &str) -> Option<u16> {
    value.split(',').try_fold(0, |set, name| {
        let (_, bit) =
            CONNTRACK_STATES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(set | bit)
    })
}

pub(super) fn mark(value: &str) -> Option<Bits> {
    let (value, mask) = match value.split_once('/') {
        Some((value, mask)) => (number(value)?, number(mask)?),
        None => (number(value)?, u32::MAX),
    };
    Some(Bits { value, mask })
}

/// Reads a number as strtoul(3) with base 0 and iptables do: 0x10, 020 and 16 are equal.
fn number(text: &str) -> Option<u32> {
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return digits(hex, 16);
    }
    match text.strip_prefix('0') {
        Some(octal) if !octal.is_empty() => digits(octal, 8),
        _ => digits(text, 10),
    }
}

/// Reads a number without a sign. `from_str_radix` alone would accept a `+`.
pub(super) fn digits(text: &str, radix: u32) -> Option<u32> {
    let plain = text.chars().all(|character| character.is_digit(radix));
    plain.then(|| u32::from_str_radix(text, radix).ok())?
}

fn comment(text: &str) -> Option<String> {
    let fits = text.len() <= COMMENT_MAX && !text.contains('\0');
    fits.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(family: Family, arguments: &str) -> Result<String, String> {
        let arguments: Vec<String> = arguments.split_whitespace().map(Into::into).collect();
        let rule = parse_matches(Rule::default(), family, &arguments);
        rule.map(|rule| rule.to_string()).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn check(arguments: &str, expected: &str) {
        assert_eq!(parse(Family::V4, arguments).as_deref(), Ok(expected));
    }

    #[track_caller]
    fn refused(arguments: &str, expected: &str) {
        let error = parse(Family::V4, arguments).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }

    #[track_caller]
    fn not_valid(arguments: &str, argument: &str, value: &str) {
        let error = parse(Family::V4, arguments).unwrap_err();
        assert!(error.starts_with(&format!("argument \"{argument}\" must be ")), "{error}");
        assert!(error.ends_with(&format!(", not \"{value}\"")), "{error}");
    }

    #[test]
    fn what_is_supported() {
        check("", "");
        check("-s 192.0.2.0/24", "-s 192.0.2.0/24");
        check("! -d 192.0.2.1", "! -d 192.0.2.1/32");
        check("-s 0.0.0.0/0", "");
        check("-i eth0 ! -o veth+", "-i eth0 ! -o veth+");
        check(
            "-m addrtype --src-type unicast ! --dst-type LOCAL,BROADCAST",
            "-m addrtype --src-type UNICAST ! --dst-type LOCAL,BROADCAST",
        );
        check("-m mark ! --mark 0x10/0xf0", "-m mark ! --mark 0x10/0xf0");
        check("-m mark --mark 5", "-m mark --mark 0x5");
        check("-m mark --mark 010/0xff", "-m mark --mark 0x8/0xff");
        check("-m mark --mark 0", "-m mark --mark 0x0");
        check("-i + -o +", "");
        check("-m conntrack --ctstate NEW,DNAT", "-m conntrack --ctstate NEW,DNAT");
        check(
            "-m iprange --src-range 192.0.2.1-192.0.2.9 ! --dst-range 198.51.100.1",
            "-m iprange --src-range 192.0.2.1-192.0.2.9 ! --dst-range 198.51.100.1-198.51.100.1",
        );
        check("-m comment --comment web", "-m comment --comment web");
        assert_eq!(parse(Family::V6, "-s 2001:db8::/32").as_deref(), Ok("-s 2001:db8::/32"));
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        refused("-m set --match-set x src", "argument \"-m set\" is not supported");
        refused("ip daddr 1.2.3.4", "argument \"ip\" is not supported");
        refused("-p tcp", "argument \"-p\" is not supported");
        refused("! -m mark", "argument \"-m mark\" is not supported");
        refused("-m comment ! --comment x", "argument \"! --comment\" is not supported");
        refused("!", "argument \"!\" is not supported");
        refused("-s", "argument \"-s\" has no value");
        not_valid("-s x", "-s", "x");
        not_valid("-s 2001:db8::1", "-s", "2001:db8::1");
        not_valid("-s 1.2.3.4/33", "-s", "1.2.3.4/33");
        not_valid("-i 0123456789abcdef", "-i", "0123456789abcdef");
        refused("-s 1.2.3.4 --src 1.2.3.5", "argument \"--src\" is given twice");
        refused("--dst-type LOCAL --dst-type LOCAL", "argument \"--dst-type\" is given twice");
        not_valid("--mark 0x", "--mark", "0x");
        not_valid("--mark 08", "--mark", "08");
        not_valid("--mark +5", "--mark", "+5");
        not_valid("--mark 0x+5", "--mark", "0x+5");
        not_valid("-d 10.0.0.1/+24", "-d", "10.0.0.1/+24");
        not_valid("! -i +", "! -i", "+");
        not_valid("--comment a\0b", "--comment", "a\\0b");
        let long = "x".repeat(256);
        not_valid(&format!("--comment {long}"), "--comment", &long);
        refused("-m mark", "argument \"-m mark\" must be followed by one of its options");
        refused("-m comment -m mark --mark 1", "argument \"-m comment\" must be followed by");
        refused("-m mark --mark 1 -m mark", "argument \"-m mark\" must be followed by");
        not_valid(
            "-m iprange --src-range 192.0.2.9-192.0.2.1",
            "--src-range",
            "192.0.2.9-192.0.2.1",
        );
        not_valid("-m iprange --src-range ::1-::2", "--src-range", "::1-::2");
        not_valid("--ctstate OLD", "--ctstate", "OLD");
    }
}
