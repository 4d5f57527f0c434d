//! Finds and deletes connections that the program `conntrack` has made. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::net::IpAddr;

use kernel::Family;
use kernel::Nfnetlink;
use kernel::conntrack::Filter;
use kernel::iptables::{TCP, UDP};
use testbed::{in_new_netns, sh};

#[track_caller]
fn conntrack(arguments: &str) -> String {
    sh(&format!("conntrack {arguments}"))
}

fn ip(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

/// A flow to a host port, by DNAT at a pod.
fn make(protocol: &str, from: &str, host: &str, pod: &str) {
    let (address, port) = host.rsplit_once('#').unwrap();
    let (pod_address, pod_port) = pod.rsplit_once('#').unwrap();
    let state = if protocol == "tcp" { "--state ESTABLISHED " } else { "" };
    conntrack(&format!(
        "-I -t 600 -p {protocol} {state}-s {from} -d {address} -r {pod_address} -q {from} --sport 4242 \
         --dport {port} --reply-port-src {pod_port} --reply-port-dst 4242"
    ));
}

fn remaining(family: &str) -> usize {
    conntrack(&format!("-L -f {family}")).lines().count()
}

#[test]
fn flows_to_a_host_port() {
    in_new_netns(|| {
        make("udp", "192.0.2.1", "192.0.2.10#5353", "10.88.0.2#53");
        make("udp", "192.0.2.2", "192.0.2.11#5353", "10.88.0.3#53");
        make("udp", "192.0.2.3", "192.0.2.10#5354", "10.88.0.2#53");
        make("tcp", "192.0.2.4", "192.0.2.10#5353", "10.88.0.2#53");
        make("udp", "2001:db8::1", "2001:db8::10#5353", "fd00:88::2#53");
        let netlink = Nfnetlink::open().unwrap();
        let port = Some(5353);
        let filter = Filter {
            protocol: Some(UDP),
            original_destination_port: port,
            original_destination: ip("192.0.2.10"),
            ..Filter::default()
        };
        assert_eq!(netlink.delete_flows(Family::V4, &filter).unwrap(), 1);
        assert_eq!(remaining("ipv4"), 3);
        let filter = Filter { original_destination: None, ..filter };
        let flows = netlink.flows(Family::V4, &filter).unwrap();
        assert_eq!(flows.len(), 1);
        assert_eq!(Some(flows[0].original.source), ip("192.0.2.2"));
        assert_eq!((flows[0].reply.source_port, flows[0].original.source_port), (53, 4242));
        assert_eq!(netlink.delete_flows(Family::V4, &filter).unwrap(), 1);
        assert_eq!(netlink.delete_flows(Family::V4, &filter).unwrap(), 0);
        assert_eq!((remaining("ipv4"), remaining("ipv6")), (2, 1));
        assert_eq!(netlink.delete_flows(Family::V6, &filter).unwrap(), 1);
        assert_eq!((remaining("ipv4"), remaining("ipv6")), (2, 0));
    });
}

#[test]
fn flows_to_and_from_a_pod() {
    in_new_netns(|| {
        make("tcp", "192.0.2.1", "192.0.2.10#8080", "10.88.0.2#80");
        make("tcp", "192.0.2.1", "192.0.2.10#8081", "10.88.0.2#81");
        make("udp", "10.88.0.2", "192.0.2.53#53", "192.0.2.53#53");
        make("udp", "10.88.0.3", "192.0.2.53#53", "192.0.2.53#53");
        make("tcp", "2001:db8::1", "2001:db8::10#8080", "fd00:88::2#80");
        let netlink = Nfnetlink::open().unwrap();
        let to_port = Filter {
            protocol: Some(TCP),
            reply_source: ip("10.88.0.2"),
            reply_source_port: Some(80),
            ..Filter::default()
        };
        assert_eq!(netlink.delete_flows(Family::V4, &to_port).unwrap(), 1);
        let to_pod = Filter { reply_source: ip("10.88.0.2"), ..Filter::default() };
        assert_eq!(netlink.delete_flows(Family::V4, &to_pod).unwrap(), 1);
        conntrack(
            "-I -t 60 -p icmp -s 10.88.0.2 -d 192.0.2.1 --icmp-type 8 --icmp-code 0 --icmp-id 7",
        );
        let from_pod = Filter { original_source: ip("10.88.0.2"), ..Filter::default() };
        assert_eq!(netlink.delete_flows(Family::V4, &from_pod).unwrap(), 2);
        assert_eq!((remaining("ipv4"), remaining("ipv6")), (1, 1));
        let to_pod = Filter { reply_source: ip("fd00:88::2"), ..Filter::default() };
        assert_eq!(netlink.delete_flows(Family::V6, &to_pod).unwrap(), 1);
        assert_eq!((remaining("ipv4"), remaining("ipv6")), (1, 0));
    });
}
