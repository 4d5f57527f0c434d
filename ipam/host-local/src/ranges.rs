//! Ranges of addresses, and the order in which a set's addresses are assigned.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use cni::Cidr;
use cni::address::reserved;

/// A range of one subnet, with all values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    subnet: Cidr,
    first: IpAddr,
    last: IpAddr,
    gateway: IpAddr,
}

/// Whether a range's gateway can be outside the subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gateways {
    /// In the subnet or link-local, because the pod must reach it on the link.
    OnLink,
    /// Any address: `ptp` adds a route to the gateway.
    Anywhere,
}

/// Ranges of one family. An attachment gets one address of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeSet {
    ranges: Vec<Range>,
    /// The addresses to assign, in this order.
    spans: Vec<Span>,
}

/// Consecutive addresses of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    /// The index of the range in the set.
    range: usize,
    numbers: RangeInclusive<u128>,
}

/// Why values are not a valid range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// A /31 or /32 has no address besides those of network, broadcast and gateway.
    #[error(
        "{0} is too small; use a prefix of /{longest} or shorter",
        longest = if .0.is_ipv4() { 30 } else { 126 }
    )]
    TooSmall(Cidr),
    /// The address of a host instead of a network.
    #[error("{0} has host bits set; the network is {network}", network = .0.network())]
    HostBits(Cidr),
    /// A network of addresses that no pod can have.
    #[error("{0} cannot be assigned to pods: each of its addresses is {1}")]
    Reserved(Cidr, &'static str),
    /// The first address is in another network.
    #[error("{0} is not in subnet {1}")]
    StartOutside(IpAddr, Cidr),
    /// The last address is in another network.
    #[error("{0} is not in subnet {1}")]
    EndOutside(IpAddr, Cidr),
    /// The last address is lower than the first.
    #[error("{end} is lower than the first address, {start}")]
    Reversed {
        /// The first address.
        start: IpAddr,
        /// The last one.
        end: IpAddr,
    },
    /// The gateway has another family.
    #[error("{0} must have the same family as subnet {1}")]
    GatewayFamily(IpAddr, Cidr),
    /// Pods cannot reach the gateway.
    #[error(
        "{0} is not in subnet {1}; another gateway must be link-local, such as {example}",
        example = if .1.is_ipv4() { "169.254.1.1" } else { "fe80::1" }
    )]
    GatewayOutside(IpAddr, Cidr),
    /// A host cannot have the address.
    #[error("{0} is {1}, which cannot be a gateway")]
    GatewayReserved(IpAddr, &'static str),
}

/// Why ranges are not a valid set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// There is no range.
    #[error("the set is empty; it needs at least one range")]
    Empty,
    /// IPv4 and IPv6.
    #[error("{0} and {1} are of different families; write each in its own set")]
    Mixed(String, String),
    /// An address could be assigned twice.
    #[error("{0} and {1} overlap")]
    Overlap(String, String),
    /// There are only addresses that are never assigned.
    #[error("{0} has no address besides those of networks, broadcast and gateways")]
    NothingLeft(String),
}

impl RangeError {
    /// The key whose value is not valid.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::TooSmall(_) | Self::HostBits(_) | Self::Reserved(..) => "subnet",
            Self::StartOutside(..) => "rangeStart",
            Self::EndOutside(..) | Self::Reversed { .. } => "rangeEnd",
            Self::GatewayFamily(..) | Self::GatewayOutside(..) | Self::GatewayReserved(..) => {
                "gateway"
            }
        }
    }
}

impl Range {
    /// A range of `subnet`.
    ///
    /// Defaults: the gateway is the first address after the network's. The range begins there, but the
    /// gateway itself is never assigned. It ends at the last address; in IPv4, at the one before the
    /// broadcast address.
    pub fn new(
        subnet: Cidr,
        start: Option<IpAddr>,
        end: Option<IpAddr>,
        gateway: Option<IpAddr>,
        gateways: Gateways,
    ) -> Result<Self, RangeError> {
        let mut blocks = reserved();
        let whole = |(block, _): &(Cidr, _)| {
            block.contains(subnet.ip()) && block.prefix() <= subnet.prefix()
        };
        if let Some((_, what)) = blocks.find(whole) {
            return Err(RangeError::Reserved(subnet, what));
        }
        let v4 = subnet.is_ipv4();
        if subnet.prefix() > if v4 { 30 } else { 126 } {
            return Err(RangeError::TooSmall(subnet));
        }
        if subnet.network() != subnet {
            return Err(RangeError::HostBits(subnet));
        }
        let (network, highest) = numbers(subnet).into_inner();
        let second = address(network + 1, v4);
        let last = address(if v4 { highest - 1 } else { highest }, v4);

        let gateway = gateway.unwrap_or(second);
        refuse_gateway(gateway, subnet, gateways)?;
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

    /// An address of the range with the prefix length of the subnet.
    #[must_use]
    pub fn with_prefix(&self, ip: IpAddr) -> Cidr {
        Cidr::new(ip, self.subnet.prefix()).unwrap_or(Cidr::host(ip))
    }

    fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.is_ipv4() && self.first <= ip && ip <= self.last
    }

    /// The range's addresses, except the network's, those that no host can have, and `gateways`.
    fn usable(&self, gateways: &[IpAddr]) -> Vec<RangeInclusive<u128>> {
        let single = [Some(self.subnet.ip()), self.subnet.broadcast()].into_iter().flatten();
        let single = single.chain(gateways.iter().copied()).map(Cidr::host);
        let blocks = reserved().map(|(block, _)| block);
        let holes = single.chain(blocks).filter(|hole| hole.is_ipv4() == self.is_ipv4());
        holes.map(numbers).fold(vec![number(self.first)..=number(self.last)], without)
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.is_ipv4() == other.is_ipv4() && self.first <= other.last && other.first <= self.last
    }

    fn is_ipv4(&self) -> bool {
        self.subnet.is_ipv4()
    }
}

impl RangeSet {
    /// A set of ranges that do not overlap. The addresses in `gateways` are never assigned.
    pub fn new(ranges: Vec<Range>, gateways: &[IpAddr]) -> Result<Self, SetError> {
        let first = *ranges.first().ok_or(SetError::Empty)?;
        for (at, range) in ranges.iter().enumerate() {
            if range.is_ipv4() != first.is_ipv4() {
                return Err(SetError::Mixed(first.to_string(), range.to_string()));
            }
            if let Some(other) = ranges.iter().take(at).find(|other| range.overlaps(other)) {
                return Err(SetError::Overlap(other.to_string(), range.to_string()));
            }
        }
        let mut spans = Vec::new();
        for (at, range) in ranges.iter().enumerate() {
            let usable = range.usable(gateways).into_iter();
            spans.extend(usable.map(|numbers| Span { range: at, numbers }));
        }
        let set = Self { ranges, spans };
        if set.spans.is_empty() { Err(SetError::NothingLeft(set.to_string())) } else { Ok(set) }
    }

    /// Whether the set's addresses are IPv4.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.ranges.iter().all(Range::is_ipv4)
    }

    /// The range that contains an address, even if the address is never assigned.
    #[must_use]
    pub fn range_of(&self, ip: IpAddr) -> Option<&Range> {
        self.ranges.iter().find(|range| range.contains(ip))
    }

    /// Whether the set assigns an address.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.is_ipv4() && self.span_of(ip).is_some()
    }

    /// Whether an address is in both sets.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.ranges.iter().any(|range| other.ranges.iter().any(|another| range.overlaps(another)))
    }

    /// Every address that the set assigns, once, in round-robin order: first the one after `last`, at the end
    /// `last` itself. If the set does not assign `last`, the order begins with its first address.
    pub fn after(&self, last: Option<IpAddr>) -> impl Iterator<Item = (IpAddr, &Range)> {
        let last = last.filter(|last| last.is_ipv4() == self.is_ipv4());
        let begun = last.and_then(|last| Some((self.span_of(last)?, number(last))));
        let (before, from) = self.spans.split_at(begun.map_or(0, |(at, _)| at));
        let mut spans: Vec<Span> = from.iter().chain(before).cloned().collect();
        if let (Some((_, last)), Some(Span { range, numbers })) = (begun, spans.first_mut()) {
            let until_last = Span { range: *range, numbers: *numbers.start()..=last };
            *numbers = match last.checked_add(1) {
                Some(next) => next..=*numbers.end(),
                None => RangeInclusive::new(1, 0),
            };
            spans.push(until_last);
        }
        spans.into_iter().flat_map(|Span { range, numbers }| {
            let range = self.ranges.get(range).into_iter();
            range.flat_map(move |range| {
                numbers.clone().map(move |number| (address(number, range.is_ipv4()), range))
            })
        })
    }

    fn span_of(&self, ip: IpAddr) -> Option<usize> {
        self.spans.iter().position(|span| span.numbers.contains(&number(ip)))
    }
}

fn refuse_gateway(gateway: IpAddr, subnet: Cidr, gateways: Gateways) -> Result<(), RangeError> {
    let link_local = match gateway {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    if gateway.is_ipv4() != subnet.is_ipv4() {
        return Err(RangeError::GatewayFamily(gateway, subnet));
    }
    if let Some(what) = subnet.why_not_for_hosts(gateway) {
        return Err(RangeError::GatewayReserved(gateway, what));
    }
    if subnet.contains(gateway) || link_local || gateways == Gateways::Anywhere {
        return Ok(());
    }
    Err(RangeError::GatewayOutside(gateway, subnet))
}

/// The parts of `spans` that are not in `hole`.
fn without(
    spans: Vec<RangeInclusive<u128>>,
    hole: RangeInclusive<u128>,
) -> Vec<RangeInclusive<u128>> {
    let parts = |span: RangeInclusive<u128>| {
        let before = hole.start().checked_sub(1).map(|end| *span.start()..=end.min(*span.end()));
        let after = hole.end().checked_add(1).map(|start| start.max(*span.start())..=*span.end());
        [before, after].into_iter().flatten().filter(|part| !part.is_empty())
    };
    spans.into_iter().flat_map(parts).collect()
}

/// All addresses of a network, as numbers.
fn numbers(network: Cidr) -> RangeInclusive<u128> {
    let length: u32 = if network.is_ipv4() { 32 } else { 128 };
    let host_bits = length - u32::from(network.prefix());
    let first = number(network.network().ip());
    first..=first | u128::MAX.checked_shr(128 - host_bits).unwrap_or_default()
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.ranges.iter().enumerate() {
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

/// The address with a number, which must be that of an address of the same family.
fn address(number: u128, v4: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(number) if v4 => Ipv4Addr::from_bits(number).into(),
        _ => Ipv6Addr::from_bits(number).into(),
    }
}

#[cfg(test)]
mod tests;
