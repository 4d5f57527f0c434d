//! Compares requests with those of iproute2 6.1, and reads an answer of Linux 6.1.
//!
//! The bytes are from `strace -e write=3 bridge …`. A comment has the command.

use proptest::prelude::*;

use super::super::new_link::{Kind, NewLink};
use super::super::tests::same;
use super::*;

#[test]
fn a_bridge_that_filters() {
    // ip link add br8 address c2:00:00:00:00:01 mtu 1400 up type bridge vlan_filtering 1
    let theirs = b"\
        \x58\0\0\0\x10\0\x05\x06\x8e\x7d\x01\x6b\0\0\0\0\
        \0\0\0\0\0\0\0\0\x01\0\0\0\x01\0\0\0\
        \x0a\0\x01\0\xc2\0\0\0\0\x01\0\0\x08\0\x04\0\
        \x78\x05\0\0\x08\0\x03\0br8\0\x1c\0\x12\0\
        \x0a\0\x01\0bridge\0\0\x0c\0\x02\0\
        \x05\0\x07\0\x01\0\0\0";
    let mac = [0xc2, 0, 0, 0, 0, 1];
    let kind = Kind::Bridge { promisc: false, vlan_filtering: true };
    let ours = NewLink { mac: Some(mac), mtu: Some(1400), up: true, ..NewLink::new("br8", kind) };
    same(RouteNetlinkMessage::NewLink(ours.message()), theirs);
}

#[test]
fn a_bridge_that_shall_filter() {
    // ip link set br9 type bridge vlan_filtering 1
    let theirs = b"\
        \x3c\0\0\0\x10\0\x05\0\x8c\x7d\x01\x6b\0\0\0\0\
        \0\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\
        \x1c\0\x12\0\x0a\0\x01\0bridge\0\0\
        \x0c\0\x02\0\x05\0\x07\0\x01\0\0\0";
    same(RouteNetlinkMessage::NewLink(filter_vlans_message(2)), theirs);
}

#[test]
fn vlans_of_a_port() {
    // bridge vlan add dev veth9 vid 100 pvid untagged
    let theirs = b"\
        \x2c\0\0\0\x13\0\x05\0\x8a\x7d\x01\x6b\0\0\0\0\
        \x07\0\0\0\x04\0\0\0\0\0\0\0\0\0\0\0\
        \x0c\0\x1a\0\x08\0\x02\0\x06\0\x64\0";
    let ours = vlans_message(4, &[VlanRange::native(100)]);
    same(RouteNetlinkMessage::SetLink(ours), theirs);

    // bridge vlan add dev veth9 vid 200-300
    let theirs = b"\
        \x34\0\0\0\x13\0\x05\0\x8b\x7d\x01\x6b\0\0\0\0\
        \x07\0\0\0\x04\0\0\0\0\0\0\0\0\0\0\0\
        \x14\0\x1a\0\x08\0\x02\0\x08\0\xc8\0\x08\0\x02\0\
        \x10\0\x2c\x01";
    let ours = vlans_message(4, &[VlanRange::tagged(200, 300)]);
    same(RouteNetlinkMessage::SetLink(ours), theirs);

    // bridge vlan del dev veth9 vid 1
    let theirs = b"\
        \x2c\0\0\0\x11\0\x05\0\x8c\x7d\x01\x6b\0\0\0\0\
        \x07\0\0\0\x04\0\0\0\0\0\0\0\0\0\0\0\
        \x0c\0\x1a\0\x08\0\x02\0\0\0\x01\0";
    let ours = vlans_message(4, &[VlanRange::tagged(1, 1)]);
    same(RouteNetlinkMessage::DelLink(ours), theirs);
}

#[test]
fn what_ports_have() {
    // bridge -compressvlans vlan show
    let theirs = b"\
        \x28\0\0\0\x12\0\x01\x03\x0d\x7e\x01\x6b\0\0\0\0\
        \x07\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
        \x08\0\x1d\0\x04\0\0\0";
    same(RouteNetlinkMessage::GetLink(port_vlans_message()), theirs);

    // What Linux 6.1 says of a port after the first two commands of `vlans_of_a_port`, and
    // bridge vlan add dev veth9 vid 400
    let answer = b"\
        \x07\0\x01\0\x04\0\0\0\x02\x10\0\0\0\0\0\0\
        \x0a\0\x03\0\x76\x65\x74\x68\x39\0\0\0\x08\0\x0a\0\
        \x02\0\0\0\x08\0\x04\0\xdc\x05\0\0\x05\0\x10\0\
        \x02\0\0\0\x0a\0\x01\0\x5e\xdf\xbb\x7d\x8d\x17\0\0\
        \x08\0\x05\0\x03\0\0\0\x30\x01\x0c\x80\x05\0\x01\0\
        \0\0\0\0\x06\0\x02\0\x20\0\0\0\x08\0\x03\0\
        \x02\0\0\0\x05\0\x04\0\0\0\0\0\x05\0\x05\0\
        \0\0\0\0\x05\0\x06\0\0\0\0\0\x05\0\x07\0\
        \0\0\0\0\x05\0\x1c\0\0\0\0\0\x05\0\x08\0\
        \x01\0\0\0\x05\0\x09\0\x01\0\0\0\x05\0\x1b\0\
        \x01\0\0\0\x05\0\x1e\0\x01\0\0\0\x05\0\x0a\0\
        \0\0\0\0\x05\0\x0c\0\0\0\0\0\x0c\0\x0d\0\
        \x80\0\x5e\xdf\xbb\x7d\x8d\x17\x0c\0\x0e\0\x80\0\x5e\xdf\
        \xbb\x7d\x8d\x17\x06\0\x0f\0\x01\x80\0\0\x06\0\x10\0\
        \0\0\0\0\x06\0\x11\0\x01\x80\0\0\x06\0\x12\0\
        \x01\0\0\0\x05\0\x13\0\0\0\0\0\x05\0\x14\0\
        \0\0\0\0\x05\0\x1d\0\0\0\0\0\x06\0\x1f\0\
        \0\0\0\0\x05\0\x20\0\0\0\0\0\x05\0\x23\0\
        \0\0\0\0\x05\0\x24\0\0\0\0\0\x05\0\x21\0\
        \0\0\0\0\x05\0\x27\0\0\0\0\0\x0c\0\x15\0\
        \0\0\0\0\0\0\0\0\x0c\0\x16\0\0\0\0\0\
        \0\0\0\0\x0c\0\x17\0\0\0\0\0\0\0\0\0\
        \x05\0\x19\0\x01\0\0\0\x08\0\x25\0\0\x02\0\0\
        \x08\0\x26\0\0\0\0\0\x2c\0\x1a\0\x08\0\x02\0\
        \x04\0\x01\0\x08\0\x02\0\x06\0\x64\0\x08\0\x02\0\
        \x08\0\xc8\0\x08\0\x02\0\x10\0\x2c\x01\x08\0\x02\0\
        \0\0\x90\x01";
    let ports = PortVlans::deserialize(&NetlinkHeader::default(), answer).unwrap();
    let untagged = VlanRange { untagged: true, ..VlanRange::tagged(1, 1) };
    let ranges = vec![
        untagged,
        VlanRange::native(100),
        VlanRange::tagged(200, 300),
        VlanRange::tagged(400, 400),
    ];
    assert_eq!(ports, PortVlans { port: 4, bridge: Some(2), ranges });
}

proptest! {
    #[test]
    fn no_bytes_are_a_panic(bytes: Vec<u8>) {
        let _ = PortVlans::deserialize(&NetlinkHeader::default(), &bytes);
    }
}
