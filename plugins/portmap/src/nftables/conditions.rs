//! The keys `conditionsV4` and `conditionsV6`: matches of `nft` rules, a part of its language.
//!
//! A set in a condition becomes one condition for each of its members: with `!=` all of them in one rule,
//! otherwise each in a rule of its own. So the plugin makes no sets for them.

use ipnetwork::IpNetwork;
use kernel::Family;
use kernel::iptables::AddressRange;
use kernel::nft::{Expr, TableFamily, interface_name, meta, octets};

/// The conditions of one family: a packet must match all conditions of one of the lists. No lists mean no
/// conditions.
pub(crate) type Conditions = Vec<Vec<Condition>>;

/// One match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(super) expressions: Vec<Expr>,
    /// The condition as `nft` shows it.
    pub(super) text: String,
}

/// Each combination of members of sets becomes a rule for each port.
const COMBINATIONS_MAX: usize = 256;

const SUPPORTED: &str = "supported are ip/ip6 saddr and daddr, iifname, oifname and meta mark, each with \
    a value or a set, { a, b }, perhaps after !=";

/// Reads conditions, which may be split into strings between any words. The error names the word that is not
/// valid.
pub(crate) fn read(family: Family, texts: &[String]) -> Result<Conditions, String> {
    let tokens = tokens(texts);
    let mut words = tokens.iter().map(String::as_str);
    if tokens.is_empty() {
        return Ok(Vec::new());
    }
    let mut all: Conditions = vec![Vec::new()];
    while let Some(word) = words.next() {
        let ways = one(family, word, &mut words)?;
        if all.len() * ways.len() > COMBINATIONS_MAX {
            return Err(format!(
                "the sets have more than {COMBINATIONS_MAX} members or combinations; use fewer or shorter \
                 sets, or networks and ranges instead of their addresses"
            ));
        }
        let with = |before: &Vec<Condition>, way: &Vec<Condition>| [&before[..], way].concat();
        all = all.iter().flat_map(|before| ways.iter().map(|way| with(before, way))).collect();
    }
    Ok(all)
}

/// Splits into words. Braces and commas are words of their own.
fn tokens(texts: &[String]) -> Vec<String> {
    let mut all = Vec::new();
    for word in texts.iter().flat_map(|text| text.split_whitespace()) {
        let mut rest = word;
        while let Some(first) = rest.chars().next() {
            let is_mark = |character: char| "{},".contains(character);
            let end = match first {
                '!' | '=' if rest.starts_with("!=") || rest.starts_with("==") => 2,
                mark if is_mark(mark) => 1,
                _ => rest.find(is_mark).unwrap_or(rest.len()),
            };
            let (token, after) = rest.split_at(end);
            all.push(token.to_owned());
            rest = after;
        }
    }
    all
}

/// Reads one condition. Returns a list of conditions for each alternative.
fn one<'a>(
    family: Family,
    first: &'a str,
    words: &mut impl Iterator<Item = &'a str>,
) -> Result<Conditions, String> {
    let mut seen = vec![first];
    let mut next = |seen: &mut Vec<&'a str>| {
        let word = words.next().ok_or_else(|| format!("{:?} lacks its end", seen.join(" ")))?;
        seen.push(word);
        Ok::<_, String>(word)
    };
    let unsupported = |word: &str| Err(format!("{word:?} is not supported; {SUPPORTED}"));
    let kind = match first {
        "iifname" => Kind::Interface(meta::IIFNAME),
        "oifname" => Kind::Interface(meta::OIFNAME),
        "ip" | "ip6" if first == TableFamily::from(family).name() => match next(&mut seen)? {
            "saddr" => Kind::Network(Expr::source(family)),
            "daddr" => Kind::Network(Expr::destination(family)),
            other => return unsupported(other),
        },
        "ip" | "ip6" => return Err(format!("{first:?} is of the other family")),
        "meta" => match next(&mut seen)? {
            "mark" => Kind::Mark,
            "iifname" => Kind::Interface(meta::IIFNAME),
            "oifname" => Kind::Interface(meta::OIFNAME),
            other => return unsupported(other),
        },
        other => return unsupported(other),
    };
    let subject = seen.join(" ");
    let mut value = next(&mut seen)?;
    let negated = value == "!=";
    if negated || value == "==" {
        value = next(&mut seen)?;
    }
    let mut values = vec![value];
    if value == "{" {
        values.clear();
        loop {
            match next(&mut seen)? {
                "}" if values.is_empty() => {
                    return Err(format!("{:?}: at least one value expected", seen.join(" ")));
                }
                "}" => break,
                value => values.push(value),
            }
            match next(&mut seen)? {
                "," => {}
                "}" => break,
                other => {
                    return Err(format!("{:?}: a comma expected before {other:?}", seen.join(" ")));
                }
            }
        }
    }
    let mut all = Vec::new();
    for value in values {
        let expressions = kind
            .test(family, negated, value)
            .map_err(|expected| format!("{:?}: {expected} expected", seen.join(" ")))?;
        let text = format!("{subject}{} {value}", if negated { " !=" } else { "" });
        let condition = Condition { expressions, text };
        if !all.contains(&condition) {
            all.push(condition);
        }
    }
    Ok(if negated { vec![all] } else { all.into_iter().map(|one| vec![one]).collect() })
}

/// What a condition compares.
enum Kind {
    Interface(u32),
    Network(Expr),
    Mark,
}

impl Kind {
    /// Loads and compares. The error names what is expected instead of the value.
    fn test(&self, family: Family, negated: bool, value: &str) -> Result<Vec<Expr>, &'static str> {
        let compare = |value| Expr::Cmp { negated, value };
        Ok(match self {
            Kind::Interface(key) => vec![Expr::Meta(*key), compare(interface(value)?)],
            Kind::Network(load) if value.contains('-') => {
                let range = AddressRange::parse(family, value)
                    .ok_or("a range of addresses of this family, FIRST-LAST,")?;
                let (from, to) = (octets(range.first), octets(range.last));
                vec![load.clone(), Expr::Range { negated, from, to }]
            }
            Kind::Network(load) => Expr::in_network(load.clone(), network(family, value)?, negated),
            Kind::Mark => {
                let (digits, radix) = value.strip_prefix("0x").map_or((value, 10), |hex| (hex, 16));
                // The library would take a sign.
                let is_number = digits.chars().all(|digit| digit.is_digit(radix));
                let number = is_number.then(|| u32::from_str_radix(digits, radix).ok()).flatten();
                let number = number.ok_or("a number of 32 bits")?;
                vec![Expr::Meta(meta::MARK), compare(number.to_ne_bytes().into())]
            }
        })
    }
}

fn network(family: Family, value: &str) -> Result<IpNetwork, &'static str> {
    let network: IpNetwork = value.parse().map_err(|_| "an address or network")?;
    if Family::of(network.ip()) != family {
        return Err("an address or network of this family");
    }
    Ok(network)
}

/// A name as it is compared: all 16 bytes, or as many as stand before a `*`.
fn interface(value: &str) -> Result<Vec<u8>, &'static str> {
    let name = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    let (start, is_whole) = name.strip_suffix('*').map_or((name, true), |start| (start, false));
    let is_clean = !start.contains(['"', '*', '/', '$', '@', '!', '=', '{', '}', ',']);
    if start.is_empty() || start.len() >= interface_name("").len() || !is_clean {
        return Err("the name of an interface");
    }
    Ok(if is_whole { interface_name(start) } else { start.as_bytes().to_vec() })
}
