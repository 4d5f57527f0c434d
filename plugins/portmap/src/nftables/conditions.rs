//! The keys `conditionsV4` and `conditionsV6`: matches of `nft` rules, a part of its language.

use ipnetwork::IpNetwork;
use kernel::iptables::Nat;
use kernel::nft::{Expr, meta, octets};

use super::table::{destination, mask, source};

/// The conditions of one family.
pub(crate) type Conditions = Vec<Condition>;

/// One match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(super) expressions: Vec<Expr>,
    /// As `nft` would show it.
    pub(super) text: String,
}

/// `IFNAMSIZ`.
const INTERFACE_NAME: usize = 16;

const SUPPORTED: &str = "supported are ip/ip6 saddr and daddr, iifname, oifname and meta mark, each with a \
    value or != and a value";

/// Reads conditions, which may be split into texts anywhere between words. The error says which word is
/// wrong.
pub(crate) fn read(nat: Nat, texts: &[String]) -> Result<Conditions, String> {
    let mut words = texts.iter().flat_map(|text| text.split_whitespace());
    let mut all = Vec::new();
    while let Some(word) = words.next() {
        all.push(one(nat, word, &mut words)?);
    }
    Ok(all)
}

fn one<'a>(
    nat: Nat,
    first: &'a str,
    words: &mut impl Iterator<Item = &'a str>,
) -> Result<Condition, String> {
    let mut seen = vec![first];
    let mut next = |seen: &mut Vec<&'a str>| {
        let word = words.next().ok_or_else(|| format!("{:?} lacks its end", seen.join(" ")))?;
        seen.push(word);
        Ok::<_, String>(word)
    };
    let unsupported = |word: &str| Err(format!("{word:?} is not supported; {SUPPORTED}"));
    let family = nat.family();
    let kind = match first {
        "iifname" => Kind::Interface(meta::IIFNAME),
        "oifname" => Kind::Interface(meta::OIFNAME),
        "ip" | "ip6" if first == family.name() => match next(&mut seen)? {
            "saddr" => Kind::Network(source(family)),
            "daddr" => Kind::Network(destination(family)),
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
    let mut value = next(&mut seen)?;
    let negated = value == "!=";
    if negated || value == "==" {
        value = next(&mut seen)?;
    }
    let test = kind.test(nat, negated, value);
    let expressions =
        test.map_err(|expected| format!("{:?}: {expected} expected", seen.join(" ")))?;
    Ok(Condition { expressions, text: seen.join(" ") })
}

/// What a condition is about.
enum Kind {
    Interface(u32),
    Network(Expr),
    Mark,
}

impl Kind {
    /// Loads and compares; the error is what should be there instead of the value.
    fn test(self, nat: Nat, negated: bool, value: &str) -> Result<Vec<Expr>, &'static str> {
        let compare = |value| Expr::Cmp { negated, value };
        Ok(match self {
            Kind::Interface(key) => vec![Expr::Meta(key), compare(interface(value)?)],
            Kind::Network(load) => {
                let network: IpNetwork = value.parse().map_err(|_| "an address or network")?;
                if Nat::of(network.ip()) != nat {
                    return Err("an address or network of this family");
                }
                let mut address = octets(network.network());
                let Expr::Payload { base, offset, .. } = load else { return Err("a network") };
                // As nft does it: whole bytes are loaded alone.
                if network.prefix() > 0 && network.prefix().is_multiple_of(8) {
                    address.truncate(usize::from(network.prefix() / 8));
                    let len = u32::from(network.prefix() / 8);
                    return Ok(vec![Expr::Payload { base, offset, len }, compare(address)]);
                }
                let mask = mask(nat.family(), network.prefix());
                let masked = Expr::Bitwise { xor: vec![0; mask.len()], mask };
                vec![load, masked, compare(address)]
            }
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

/// A name as it is compared: all 16 bytes, or as many as stand before a `*`.
fn interface(value: &str) -> Result<Vec<u8>, &'static str> {
    let name = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    let (start, is_whole) = name.strip_suffix('*').map_or((name, true), |start| (start, false));
    let is_clean = !start.contains(['"', '{', '*', '/', '$', '@']);
    if start.is_empty() || start.len() >= INTERFACE_NAME || !is_clean {
        return Err("the name of an interface");
    }
    let mut bytes = start.as_bytes().to_vec();
    if is_whole {
        bytes.resize(INTERFACE_NAME, 0);
    }
    Ok(bytes)
}
