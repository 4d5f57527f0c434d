//! The match `iprange`: a range of addresses (`include/uapi/linux/netfilter/xt_iprange.h`).

use std::net::IpAddr;

use super::info::{Info, View};
use super::{Is, Match, Rule};
use crate::family::Family;
use crate::nft::{Expr, octets};

/// A range of addresses of one family, with its first and its last address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressRange {
    /// First address.
    pub first: IpAddr,
    /// Last address.
    pub last: IpAddr,
}

const SOURCE: (usize, u8, u8) = (0, 1, 1 << 4);
const DESTINATION: (usize, u8, u8) = (32, 1 << 1, 1 << 5);
const FLAGS: usize = 64;

impl AddressRange {
    /// Reads `FIRST-LAST` or one address. None if an address is not of this family, or if the last one is
    /// lower than the first.
    #[must_use]
    pub fn parse(family: Family, text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = Self { first: first.parse().ok()?, last: last.parse().ok()? };
        let is_of_family = |ip: IpAddr| ip.is_ipv6() == (family == Family::V6);
        let fits = is_of_family(range.first) && is_of_family(range.last);
        (fits && range.first <= range.last).then_some(range)
    }
}

impl std::fmt::Display for AddressRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// `struct xt_iprange_mtinfo`: lowest and highest source, lowest and highest destination, flags.
pub(super) fn encode(
    source: Option<Is<AddressRange>>,
    destination: Option<Is<AddressRange>>,
) -> Expr {
    let (mut info, mut flags) = (Info::new(72), 0);
    for (range, (at, bit, inverted)) in [(source, SOURCE), (destination, DESTINATION)] {
        let Some(Is { value, negated }) = range else { continue };
        info.bytes(at, &octets(value.first));
        info.bytes(at + 16, &octets(value.last));
        flags |= bit | if negated { inverted } else { 0 };
    }
    info.u8(FLAGS, flags);
    info.into_match("iprange", 1)
}

/// Decodes the structure, in a rule of this family.
pub(super) fn read(family: Family, info: View<'_>) -> Option<Match> {
    let flags = info.u8(FLAGS)?;
    let address = |at| if family == Family::V6 { info.v6(at) } else { info.v4(at) };
    let side = |(at, bit, inverted): (usize, u8, u8)| {
        if flags & bit == 0 {
            return Some(None);
        }
        let value = AddressRange { first: address(at)?, last: address(at + 16)? };
        Some(Some(Is { value, negated: flags & inverted != 0 }))
    };
    Some(Match::AddressRange { source: side(SOURCE)?, destination: side(DESTINATION)? })
}

/// The match as `iptables -S` shows it.
pub(super) fn show(
    source: Option<Is<AddressRange>>,
    destination: Option<Is<AddressRange>>,
) -> String {
    let side = |name, side: Option<Is<AddressRange>>| {
        let shown = |is: Is<AddressRange>| {
            format!(" {}{name} {}", if is.negated { "! " } else { "" }, is.value)
        };
        side.map(shown).unwrap_or_default()
    };
    format!("-m iprange{}{}", side("--src-range", source), side("--dst-range", destination))
}

/// Adds a range to a rule. The two ranges of one `-m iprange` are one match. None if the range is already
/// set.
pub(super) fn add(rule: &mut Rule, of_source: bool, is: Is<AddressRange>) -> Option<()> {
    if let Some(Match::AddressRange { source, destination }) = rule.matches.last_mut() {
        let place = if of_source { source } else { destination };
        return place.is_none().then(|| *place = Some(is));
    }
    let (source, destination) = if of_source { (Some(is), None) } else { (None, Some(is)) };
    rule.matches.push(Match::AddressRange { source, destination });
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(family: Family, arguments: &str) {
        let words: Vec<String> = arguments.split(' ').map(Into::into).collect();
        let rule = crate::iptables::parse_matches(Rule::default(), family, &words).unwrap();
        assert_eq!(rule.to_string(), arguments);
        assert_eq!(Rule::decode(family, &rule.encode(family)), rule);
        assert_eq!(Rule::parse(family, arguments), rule);
    }

    #[test]
    fn what_is_written_is_read_back() {
        check(Family::V4, "-m iprange --src-range 192.0.2.1-192.0.2.9");
        check(
            Family::V4,
            "-m iprange ! --src-range 192.0.2.1-192.0.2.9 --dst-range 198.51.100.7-203.0.113.1",
        );
        check(Family::V6, "-m iprange ! --dst-range 2001:db8::1-2001:db8::ffff");
    }
}
