//! Ranges at their edges, and the order of handing out.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn range(subnet: &str) -> Range {
    Range::new(subnet.parse().unwrap(), None, None, None).unwrap()
}

fn addresses(set: &RangeSet, last: Option<&str>) -> Vec<String> {
    set.after(last.map(ip)).map(|(ip, _)| ip.to_string()).collect()
}

#[track_caller]
fn refused(subnet: &str, values: [&str; 3], key: &str, why: &str) {
    let [start, end, gateway] =
        values.map(|value| Some(value).filter(|text| !text.is_empty()).map(ip));
    let error = Range::new(subnet.parse().unwrap(), start, end, gateway).unwrap_err();
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
        ("::/0", "::1-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::1"),
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
        Some(ip("192.0.2.1")),
    );
    assert_eq!(whole.unwrap().to_string(), "10.1.2.0-10.1.2.255");
}

#[test]
fn wrong_values_are_named() {
    let too_small = |subnet: &str, longest: &str| {
        let why = format!(
            "{subnet} is too small to hand out addresses of, give it a prefix of /{longest} or \
             shorter"
        );
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
        "10.1.2.5/24 has host bits set, the network is 10.1.2.0/24",
    );
    refused(
        "::ffff:10.1.2.0/120",
        ["", "", ""],
        "subnet",
        "::ffff:10.1.2.0/120 is IPv4 in IPv6 clothes, write it as IPv4",
    );
    let subnet = "10.1.2.0/24";
    refused(subnet, ["10.1.3.1", "", ""], "rangeStart", "10.1.3.1 is not in subnet 10.1.2.0/24");
    refused(subnet, ["fd00::1", "", ""], "rangeStart", "fd00::1 is not in subnet 10.1.2.0/24");
    refused(subnet, ["", "10.1.1.9", ""], "rangeEnd", "10.1.1.9 is not in subnet 10.1.2.0/24");
    refused(
        subnet,
        ["10.1.2.9", "10.1.2.8", ""],
        "rangeEnd",
        "10.1.2.8 comes before the first address, 10.1.2.9",
    );
    refused(
        subnet,
        ["", "", "fd00::1"],
        "gateway",
        "fd00::1 is of another family than subnet 10.1.2.0/24",
    );
}

#[test]
fn sets_of_one_family_without_overlap() {
    assert_eq!(RangeSet::new(Vec::new()), Err(SetError::Empty));
    let mixed = RangeSet::new(vec![range("10.1.0.0/24"), range("fd00::/64")]).unwrap_err();
    assert!(mixed.to_string().ends_with("are of different families, give each its own set"));
    let overlap = RangeSet::new(vec![range("10.1.0.0/24"), range("10.1.0.0/16")]).unwrap_err();
    assert_eq!(overlap.to_string(), "10.1.0.1-10.1.0.254 and 10.1.0.1-10.1.255.254 overlap");

    let one = RangeSet::new(vec![range("10.1.0.0/24"), range("10.3.0.0/24")]).unwrap();
    let other = RangeSet::new(vec![range("10.2.0.0/24"), range("10.3.0.0/16")]).unwrap();
    assert!(one.overlaps(&other) && other.overlaps(&one));
    assert!(!one.overlaps(&RangeSet::new(vec![range("fd00::/64")]).unwrap()));
    assert_eq!(one.to_string(), "10.1.0.1-10.1.0.254,10.3.0.1-10.3.0.254");
}

#[test]
fn round_robin() {
    let set = RangeSet::new(vec![range("10.1.2.0/29"), range("10.1.3.0/30")]).unwrap();
    let all = ["10.1.2.2", "10.1.2.3", "10.1.2.4", "10.1.2.5", "10.1.2.6", "10.1.3.2"];
    assert_eq!(addresses(&set, None), all);
    assert_eq!(addresses(&set, Some("10.9.9.9")), all);
    assert_eq!(
        addresses(&set, Some("10.1.2.4")),
        ["10.1.2.5", "10.1.2.6", "10.1.3.2", "10.1.2.2", "10.1.2.3", "10.1.2.4"]
    );
    assert_eq!(addresses(&set, Some("10.1.3.2")), all);
    // The gateway was requested by an administrator before it became the gateway.
    assert_eq!(addresses(&set, Some("10.1.2.1")), all);
}

#[test]
fn the_last_addresses_of_all() {
    let top = |subnet: &str, start: &str, end: &str| {
        let range =
            Range::new(subnet.parse().unwrap(), Some(ip(start)), Some(ip(end)), None).unwrap();
        addresses(&RangeSet::new(vec![range]).unwrap(), Some(end))
    };
    assert_eq!(
        top("255.255.255.0/24", "255.255.255.254", "255.255.255.255"),
        ["255.255.255.254", "255.255.255.255"]
    );
    let last = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let before = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe";
    assert_eq!(top("ffff::/16", before, last), [before, last]);
}

/// Subnets whose addresses can be counted, next to each other.
fn some_ranges(v4: bool, prefixes: &[u8]) -> Vec<Range> {
    let mut next = if v4 { number(ip("10.0.0.0")) } else { number(ip("fd00::")) };
    let range = |prefix: &u8| {
        let (prefix, bits) = if v4 { (*prefix, 32) } else { (prefix + 96, 128) };
        let size = 1_u128 << (bits - prefix);
        next = next.next_multiple_of(size);
        let subnet = Cidr::new(address(next, v4), prefix).unwrap();
        next += size;
        Range::new(subnet, None, None, None).unwrap()
    };
    prefixes.iter().map(range).collect()
}

proptest! {
    #[test]
    fn every_address_comes_once(
        v4: bool, prefixes in prop::collection::vec(26u8..=30, 1..4), last in 0u32..256,
    ) {
        let ranges = some_ranges(v4, &prefixes);
        let set = RangeSet::new(ranges.clone()).unwrap();
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

    #[test]
    fn no_values_panic(
        v4: bool, bits: u128, prefix in 0u8..=128, others: [Option<(bool, u128)>; 3],
    ) {
        let any = |(v4, bits): (bool, u128)| address(if v4 { bits >> 96 } else { bits }, v4);
        if let Some(subnet) = Cidr::new(any((v4, bits)), prefix) {
            for subnet in [subnet, subnet.network()] {
                let [start, end, gateway] = others.map(|other| other.map(any));
                if let Ok(range) = Range::new(subnet, start, end, gateway) {
                    let set = RangeSet::new(vec![range]).unwrap();
                    let first = set.after(start.or(end)).take(3);
                    prop_assert!(first.into_iter().all(|(ip, _)| set.contains(ip)));
                }
            }
        }
    }
}
