//! Ranges at their limits, and the order of assignment.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn range(subnet: &str) -> Range {
    Range::new(subnet.parse().unwrap(), None, None, None, Gateways::OnLink).unwrap()
}

/// A set without gateways of other sets.
fn set_of(ranges: Vec<Range>) -> Result<RangeSet, SetError> {
    let gateways: Vec<_> = ranges.iter().map(Range::gateway).collect();
    RangeSet::new(ranges, &gateways)
}

fn addresses(set: &RangeSet, last: Option<&str>) -> Vec<String> {
    set.after(last.map(ip)).map(|(ip, _)| ip.to_string()).collect()
}

#[track_caller]
fn refused(subnet: &str, values: [&str; 3], key: &str, why: &str) {
    let [start, end, gateway] =
        values.map(|value| Some(value).filter(|text| !text.is_empty()).map(ip));
    let error =
        Range::new(subnet.parse().unwrap(), start, end, gateway, Gateways::OnLink).unwrap_err();
    assert_eq!((error.key(), error.to_string().as_str()), (key, why));
}

#[test]
fn defaults() {
    for (subnet, expected, gateway) in [
        ("10.1.2.0/24", "10.1.2.1-10.1.2.254", "10.1.2.1"),
        ("10.1.2.0/30", "10.1.2.1-10.1.2.2", "10.1.2.1"),
        ("0.0.0.0/0", "0.0.0.1-255.255.255.254", "0.0.0.1"),
        ("255.255.255.0/24", "255.255.255.1-255.255.255.254", "255.255.255.1"),
        ("fd00::/126", "fd00::1-fd00::3", "fd00::1"),
        ("fd00::/64", "fd00::1-fd00::ffff:ffff:ffff:ffff", "fd00::1"),
    ] {
        let range = range(subnet);
        assert_eq!((range.to_string().as_str(), range.gateway()), (expected, ip(gateway)));
    }
}

#[test]
fn given_values() {
    let whole = Range::new(
        "10.1.2.0/24".parse().unwrap(),
        Some(ip("10.1.2.0")),
        Some(ip("10.1.2.255")),
        Some(ip("10.1.2.9")),
        Gateways::OnLink,
    );
    assert_eq!(whole.unwrap().to_string(), "10.1.2.0-10.1.2.255");
}

/// The reference plugin 1.10.0 refuses every gateway outside the subnet, also link-local ones.
#[test]
fn gateways_outside_the_subnet() {
    let new = |subnet: &str, gateway, gateways| {
        Range::new(subnet.parse().unwrap(), None, None, Some(ip(gateway)), gateways)
    };
    for (subnet, gateway) in [("10.1.2.0/24", "169.254.1.1"), ("fd00::/64", "fe80::1")] {
        assert_eq!(new(subnet, gateway, Gateways::OnLink).unwrap().gateway(), ip(gateway));
    }
    for (subnet, gateway, why) in [
        (
            "10.1.2.0/24",
            "192.0.2.1",
            "192.0.2.1 is not in subnet 10.1.2.0/24; another gateway must be link-local, such as \
             169.254.1.1",
        ),
        (
            "fd00::/64",
            "fd01::1",
            "fd01::1 is not in subnet fd00::/64; another gateway must be link-local, such as fe80::1",
        ),
    ] {
        let error = new(subnet, gateway, Gateways::OnLink).unwrap_err();
        assert_eq!((error.key(), error.to_string().as_str()), ("gateway", why));
        assert!(new(subnet, gateway, Gateways::Anywhere).is_ok());
    }
    for (subnet, gateway, what) in [
        ("10.1.2.0/24", "10.1.2.255", "the broadcast address"),
        ("10.1.2.0/24", "0.0.0.0", "the unspecified address"),
        ("10.1.2.0/24", "224.0.0.1", "a multicast address"),
        ("fd00::/64", "ff02::1", "a multicast address"),
        ("::/0", "::1", "the loopback address"),
    ] {
        let error = new(subnet, gateway, Gateways::Anywhere).unwrap_err();
        let why = format!("{gateway} is {what}, which cannot be a gateway");
        assert_eq!((error.key(), error.to_string()), ("gateway", why));
    }
}

#[test]
fn wrong_values_are_named() {
    let too_small = |subnet: &str, longest: &str| {
        let why = format!("{subnet} is too small; use a prefix of /{longest} or shorter");
        refused(subnet, ["", "", ""], "subnet", &why);
    };
    too_small("10.1.2.0/31", "30");
    too_small("10.1.2.0/32", "30");
    too_small("fd00::/127", "126");
    too_small("fd00::/128", "126");
    refused(
        "10.1.2.5/24",
        ["", "", ""],
        "subnet",
        "10.1.2.5/24 has host bits set; the network is 10.1.2.0/24",
    );
    for (subnet, what) in [
        ("::ffff:10.1.2.0/120", "an IPv4 address written as IPv6"),
        ("127.1.0.0/16", "a loopback address"),
        ("224.0.0.0/4", "a multicast address"),
        ("239.1.1.0/24", "a multicast address"),
        ("ff00::/64", "a multicast address"),
    ] {
        let why = format!("{subnet} cannot be assigned to pods: each of its addresses is {what}");
        refused(subnet, ["", "", ""], "subnet", &why);
    }
    let subnet = "10.1.2.0/24";
    refused(subnet, ["10.1.3.1", "", ""], "rangeStart", "10.1.3.1 is not in subnet 10.1.2.0/24");
    refused(subnet, ["fd00::1", "", ""], "rangeStart", "fd00::1 is not in subnet 10.1.2.0/24");
    refused(subnet, ["", "10.1.1.9", ""], "rangeEnd", "10.1.1.9 is not in subnet 10.1.2.0/24");
    refused(
        subnet,
        ["10.1.2.9", "10.1.2.8", ""],
        "rangeEnd",
        "10.1.2.8 is lower than the first address, 10.1.2.9",
    );
    refused(
        subnet,
        ["", "", "fd00::1"],
        "gateway",
        "fd00::1 must have the same family as subnet 10.1.2.0/24",
    );
}

#[test]
fn sets_of_one_family_without_overlap() {
    assert_eq!(set_of(Vec::new()), Err(SetError::Empty));
    let mixed = set_of(vec![range("10.1.0.0/24"), range("fd00::/64")]).unwrap_err();
    assert!(mixed.to_string().ends_with("are of different families; write each in its own set"));
    let overlap = set_of(vec![range("10.1.0.0/24"), range("10.1.0.0/16")]).unwrap_err();
    assert_eq!(overlap.to_string(), "10.1.0.1-10.1.0.254 and 10.1.0.1-10.1.255.254 overlap");

    let one = set_of(vec![range("10.1.0.0/24"), range("10.3.0.0/24")]).unwrap();
    let other = set_of(vec![range("10.2.0.0/24"), range("10.3.0.0/16")]).unwrap();
    assert!(one.overlaps(&other) && other.overlaps(&one));
    assert!(!one.overlaps(&set_of(vec![range("fd00::/64")]).unwrap()));
    assert_eq!(one.to_string(), "10.1.0.1-10.1.0.254,10.3.0.1-10.3.0.254");
}

#[test]
fn round_robin() {
    let set = set_of(vec![range("10.1.2.0/29"), range("10.1.3.0/30")]).unwrap();
    let all = ["10.1.2.2", "10.1.2.3", "10.1.2.4", "10.1.2.5", "10.1.2.6", "10.1.3.2"];
    assert_eq!(addresses(&set, None), all);
    assert_eq!(addresses(&set, Some("10.9.9.9")), all);
    assert_eq!(
        addresses(&set, Some("10.1.2.4")),
        ["10.1.2.5", "10.1.2.6", "10.1.3.2", "10.1.2.2", "10.1.2.3", "10.1.2.4"]
    );
    assert_eq!(addresses(&set, Some("10.1.3.2")), all);
    // The address was assigned before it became the gateway.
    assert_eq!(addresses(&set, Some("10.1.2.1")), all);
}

/// The reference plugin 1.10.0 assigns all of these: network and broadcast addresses, gateways of other
/// ranges, loopback and multicast addresses.
#[test]
fn addresses_that_are_never_assigned() {
    let given = |ranges: &[[&str; 4]]| {
        let range = |[subnet, start, end, gateway]: [&str; 4]| {
            let gateway = Some(gateway).filter(|gateway| !gateway.is_empty()).map(ip);
            let (start, end) = (Some(ip(start)), Some(ip(end)));
            Range::new(subnet.parse().unwrap(), start, end, gateway, Gateways::OnLink).unwrap()
        };
        set_of(ranges.iter().copied().map(range).collect()).map(|set| addresses(&set, None))
    };
    let one = |subnet, start, end| given(&[[subnet, start, end, ""]]);
    assert_eq!(one("10.1.2.0/24", "10.1.2.0", "10.1.2.3").unwrap(), ["10.1.2.2", "10.1.2.3"]);
    assert_eq!(one("10.1.2.0/24", "10.1.2.254", "10.1.2.255").unwrap(), ["10.1.2.254"]);
    assert_eq!(one("fd00::/64", "fd00::", "fd00::2").unwrap(), ["fd00::2"]);
    assert_eq!(
        one("0.0.0.0/0", "126.255.255.255", "128.0.0.0").unwrap(),
        ["126.255.255.255", "128.0.0.0"]
    );
    assert_eq!(one("192.0.0.0/2", "223.255.255.255", "224.0.0.9").unwrap(), ["223.255.255.255"]);
    let two = [
        ["10.1.2.0/24", "10.1.2.2", "10.1.2.4", ""],
        ["10.1.2.0/24", "10.1.2.5", "10.1.2.6", "10.1.2.3"],
    ];
    assert_eq!(given(&two).unwrap(), ["10.1.2.2", "10.1.2.4", "10.1.2.5", "10.1.2.6"]);
    for only in ["10.1.2.0", "10.1.2.1", "10.1.2.255"] {
        let error = one("10.1.2.0/24", only, only).unwrap_err();
        assert_eq!(error, SetError::NothingLeft(format!("{only}-{only}")));
    }
    // One range of a set can have no address, as in the reference plugin 1.10.0.
    let gateway_alone =
        [["10.1.2.0/24", "10.1.2.1", "10.1.2.1", ""], ["10.1.3.0/24", "10.1.3.2", "10.1.3.2", ""]];
    assert_eq!(given(&gateway_alone).unwrap(), ["10.1.3.2"]);
}

#[test]
fn the_highest_addresses() {
    let top = |subnet: &str, start: &str, end: &str| {
        let (start, last) = (Some(ip(start)), Some(ip(end)));
        let range = Range::new(subnet.parse().unwrap(), start, last, None, Gateways::OnLink);
        addresses(&set_of(vec![range.unwrap()]).unwrap(), Some(end))
    };
    assert_eq!(
        top("223.255.255.0/24", "223.255.255.253", "223.255.255.254"),
        ["223.255.255.253", "223.255.255.254"]
    );
    let last = "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let before = "feff:ffff:ffff:ffff:ffff:ffff:ffff:fffe";
    assert_eq!(top("feff::/16", before, last), [before, last]);
}

/// Small adjacent subnets.
fn some_ranges(v4: bool, prefixes: &[u8]) -> Vec<Range> {
    let mut next = if v4 { number(ip("10.0.0.0")) } else { number(ip("fd00::")) };
    let range = |prefix: &u8| {
        let (prefix, bits) = if v4 { (*prefix, 32) } else { (prefix + 96, 128) };
        let size = 1_u128 << (bits - prefix);
        next = next.next_multiple_of(size);
        let subnet = Cidr::new(address(next, v4), prefix).unwrap();
        next += size;
        Range::new(subnet, None, None, None, Gateways::OnLink).unwrap()
    };
    prefixes.iter().map(range).collect()
}

proptest! {
    #[test]
    fn every_address_comes_once(
        v4: bool, prefixes in prop::collection::vec(26u8..=30, 1..4), last in 0u32..256,
    ) {
        let ranges = some_ranges(v4, &prefixes);
        let set = set_of(ranges.clone()).unwrap();
        let last = address(number(ranges[0].subnet.ip()) + u128::from(last), v4);
        let order: Vec<_> = set.after(Some(last)).collect();
        let distinct: HashSet<_> = order.iter().map(|(ip, _)| *ip).collect();
        let count = |range: &Range| number(range.last) - number(range.first);
        prop_assert_eq!(order.len(), distinct.len());
        prop_assert_eq!(order.len() as u128, ranges.iter().map(count).sum::<u128>());
        for (ip, range) in &order {
            prop_assert_eq!(set.range_of(*ip), Some(*range));
            prop_assert!(*ip != range.gateway() && range.with_prefix(*ip).contains(*ip));
        }
        if set.contains(last) && set.range_of(last).is_some_and(|range| range.gateway() != last) {
            prop_assert_eq!(order.last().map(|(ip, _)| *ip), Some(last));
        }
    }

    /// Compares with a model that looks at each address alone.
    #[test]
    fn only_addresses_are_assigned_that_a_pod_can_have(
        base in prop::sample::select(
            vec!["10.1.2.0", "126.255.255.0", "223.255.255.0", "fd00::", "::", "feff::"],
        ),
        length in 3u8..=6,
        spread in prop::collection::vec((0u32..64, 0u32..64, prop::option::of(0u32..80)), 1..4),
        last in 0u32..64,
    ) {
        let base = ip(base);
        let at = |offset: u32| address(number(base) + u128::from(offset), base.is_ipv4());
        let bits = if base.is_ipv4() { 32 } else { 128 };
        let subnet = Cidr::new(base, bits - length).unwrap();
        let range = |(start, end, gateway): &(u32, u32, Option<u32>)| {
            let gateway = gateway.map(at);
            Range::new(subnet, Some(at(*start)), Some(at(*end)), gateway, Gateways::Anywhere).ok()
        };
        let ranges: Vec<Range> = spread.iter().filter_map(range).collect();
        let gateways: Vec<IpAddr> = ranges.iter().map(Range::gateway).collect();
        let in_any = |ip: IpAddr| ranges.iter().any(|range| range.first <= ip && ip <= range.last);
        let broadcast = base.is_ipv4().then(|| at((1 << length) - 1));
        let is_for_pods = |ip: IpAddr| {
            let special = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast();
            !special && ip != base && Some(ip) != broadcast && !gateways.contains(&ip)
        };
        let expected: HashSet<IpAddr> =
            (0..1 << length).map(at).filter(|ip| in_any(*ip) && is_for_pods(*ip)).collect();
        match RangeSet::new(ranges.clone(), &gateways) {
            Ok(set) => {
                let order: Vec<IpAddr> = set.after(Some(at(last))).map(|(ip, _)| ip).collect();
                prop_assert_eq!(order.len(), expected.len());
                prop_assert!(order.iter().all(|ip| set.contains(*ip) && subnet.contains(*ip)));
                if expected.contains(&at(last)) {
                    prop_assert_eq!(order.last(), Some(&at(last)));
                }
                prop_assert_eq!(order.into_iter().collect::<HashSet<_>>(), expected);
            }
            Err(SetError::NothingLeft(_)) => prop_assert!(expected.is_empty()),
            Err(_) => {}
        }
    }

    #[test]
    fn no_values_panic(
        v4: bool, bits: u128, prefix in 0u8..=128, others: [Option<(bool, u128)>; 3],
    ) {
        let any = |(v4, bits): (bool, u128)| address(if v4 { bits >> 96 } else { bits }, v4);
        if let Some(subnet) = Cidr::new(any((v4, bits)), prefix) {
            for subnet in [subnet, subnet.network()] {
                let [start, end, gateway] = others.map(|other| other.map(any));
                let range = Range::new(subnet, start, end, gateway, Gateways::OnLink);
                if let Some(set) = range.ok().and_then(|range| set_of(vec![range]).ok()) {
                    let first = set.after(start.or(end)).take(3);
                    prop_assert!(first.into_iter().all(|(ip, _)| set.contains(ip)));
                }
            }
        }
    }
}
