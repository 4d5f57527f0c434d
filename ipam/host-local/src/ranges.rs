//! Ranges of addresses, and the order in which a set of them is handed out.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use cni::Cidr;

/// A range of one subnet, every value filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    subnet: Cidr,
    first: IpAddr,
    last: IpAddr,
    gateway: IpAddr,
}

/// Ranges of one family, out of which an attachment gets one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeSet(Vec<Range>);

/// Why values make no range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Nothing is left of a /31 or /32 after network, broadcast and gateway.
    #[error(
        "{0} is too small to hand out addresses of, give it a prefix of /{longest} or shorter",
        longest = if .0.is_ipv4() { 30 } else { 126 }
    )]
    TooSmall(Cidr),
    /// The address of a host in place of a network.
    #[error("{0} has host bits set, the network is {network}", network = .0.network())]
    HostBits(Cidr),
    /// An IPv4 network written as an IPv6 one.
    #[error("{0} is IPv4 in IPv6 clothes, write it as IPv4")]
    Mapped(Cidr),
    /// The first address is of another network.
    #[error("{0} is not in subnet {1}")]
    StartOutside(IpAddr, Cidr),
    /// The last address is of another network.
    #[error("{0} is not in subnet {1}")]
    EndOutside(IpAddr, Cidr),
    /// The range is upside down.
    #[error("{end} comes before the first address, {start}")]
    Reversed {
        /// The first address.
        start: IpAddr,
        /// The last one.
        end: IpAddr,
    },
    /// No packet of the one family can be sent by a gateway of the other.
    #[error("{0} is of another family than subnet {1}")]
    GatewayFamily(IpAddr, Cidr),
}

/// Why ranges make no set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// No range at all.
    #[error("the set is empty, it needs at least one range")]
    Empty,
    /// IPv4 beside IPv6.
    #[error("{0} and {1} are of different families, give each its own set")]
    Mixed(String, String),
    /// An address could be handed out twice.
    #[error("{0} and {1} overlap")]
    Overlap(String, String),
}

impl RangeError {
    /// The key whose value is wrong.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::TooSmall(_) | Self::HostBits(_) | Self::Mapped(_) => "subnet",
            Self::StartOutside(..) => "rangeStart",
            Self::EndOutside(..) | Self::Reversed { .. } => "rangeEnd",
            Self::GatewayFamily(..) => "gateway",
        }
    }
}

impl Range {
    /// A range of `subnet`.
    ///
    /// What is not given is filled in: the gateway is the first address after the network's, the
    /// range begins there (the gateway itself is never handed out) and ends at the last address,
    /// in IPv4 before the broadcast address. A gateway may be outside of the subnet.
    pub fn new(
        subnet: Cidr,
        start: Option<IpAddr>,
        end: Option<IpAddr>,
        gateway: Option<IpAddr>,
    ) -> Result<Self, RangeError> {
        if subnet.ip().to_canonical() != subnet.ip() {
            return Err(RangeError::Mapped(subnet));
        }
        let v4 = subnet.is_ipv4();
        let host_bits = (if v4 { 32 } else { 128 }) - u32::from(subnet.prefix());
        if host_bits < 2 {
            return Err(RangeError::TooSmall(subnet));
        }
        if subnet.network() != subnet {
            return Err(RangeError::HostBits(subnet));
        }
        let network = number(subnet.ip());
        let highest = network | u128::MAX.checked_shr(128 - host_bits).unwrap_or_default();
        let second = address(network + 1, v4);
        let last = address(if v4 { highest - 1 } else { highest }, v4);

        let gateway = gateway.unwrap_or(second);
        if gateway.is_ipv4() != v4 {
            return Err(RangeError::GatewayFamily(gateway, subnet));
        }
        let range =
            Self { subnet, first: start.unwrap_or(second), last: end.unwrap_or(last), gateway };
        if !subnet.contains(range.first) {
            return Err(RangeError::StartOutside(range.first, subnet));
        }
        if !subnet.contains(range.last) {
            return Err(RangeError::EndOutside(range.last, subnet));
        }
        if range.first > range.last {
            return Err(RangeError::Reversed { start: range.first, end: range.last });
        }
        Ok(range)
    }

    /// The gateway of the range's subnet.
    #[must_use]
    pub fn gateway(&self) -> IpAddr {
        self.gateway
    }

    /// An address of the range with the prefix of its subnet.
    #[must_use]
    pub fn with_prefix(&self, ip: IpAddr) -> Cidr {
        Cidr::new(ip, self.subnet.prefix()).unwrap_or(Cidr::host(ip))
    }

    fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.is_ipv4() && self.first <= ip && ip <= self.last
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.is_ipv4() == other.is_ipv4() && self.first <= other.last && other.first <= self.last
    }

    fn is_ipv4(&self) -> bool {
        self.subnet.is_ipv4()
    }
}

impl RangeSet {
    /// A set of ranges that do not overlap.
    pub fn new(ranges: Vec<Range>) -> Result<Self, SetError> {
        let first = *ranges.first().ok_or(SetError::Empty)?;
        for (at, range) in ranges.iter().enumerate() {
            if range.is_ipv4() != first.is_ipv4() {
                return Err(SetError::Mixed(first.to_string(), range.to_string()));
            }
            if let Some(other) = ranges.iter().take(at).find(|other| range.overlaps(other)) {
                return Err(SetError::Overlap(other.to_string(), range.to_string()));
            }
        }
        Ok(Self(ranges))
    }

    /// Whether the set's addresses are of IPv4.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.0.iter().all(Range::is_ipv4)
    }

    /// The range that an address is in.
    #[must_use]
    pub fn range_of(&self, ip: IpAddr) -> Option<&Range> {
        self.0.iter().find(|range| range.contains(ip))
    }

    /// Whether an address is in any of the ranges.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.range_of(ip).is_some()
    }

    /// Whether an address is in both sets.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().any(|range| other.0.iter().any(|another| range.overlaps(another)))
    }

    /// Every address that can be handed out, once: round robin, the one after `last` first and
    /// `last` itself at the end. From the beginning, if `last` is not of the set.
    pub fn after(&self, last: Option<IpAddr>) -> impl Iterator<Item = (IpAddr, &Range)> {
        let begun = last.and_then(|last| {
            Some((self.0.iter().position(|range| range.contains(last))?, number(last)))
        });
        let (before, from) = self.0.split_at(begun.map_or(0, |(at, _)| at));
        let mut spans: Vec<_> = from
            .iter()
            .chain(before)
            .map(|range| (range, number(range.first)..=number(range.last)))
            .collect();
        if let (Some((_, last)), Some((range, whole))) = (begun, spans.first_mut()) {
            let start = *whole.start();
            *whole = match last.checked_add(1) {
                Some(next) => next..=*whole.end(),
                None => RangeInclusive::new(1, 0),
            };
            let range = *range;
            spans.push((range, start..=last));
        }
        spans.into_iter().flat_map(|(range, numbers)| {
            let addresses = numbers.map(|number| address(number, range.is_ipv4()));
            addresses.filter(|ip| *ip != range.gateway).map(move |ip| (ip, range))
        })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.0.iter().enumerate() {
            write!(f, "{}{range}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// The address of a number that came from one of the same family.
fn address(number: u128, v4: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(number) if v4 => Ipv4Addr::from_bits(number).into(),
        _ => Ipv6Addr::from_bits(number).into(),
    }
}

#[cfg(test)]
mod tests;
