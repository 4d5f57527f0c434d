//! Compares requests with those of iproute2 6.1.
//!
//! The bytes are from `strace -e trace=sendmsg -e write=3 ip …` and `tc …`. A comment has the command. The
//! tests compare decoded messages, because the order of attributes and the final NUL of a string do not
//! matter.

use std::fmt::Debug;
use std::ops::Range;

use netlink_packet_core::{NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkInfo, LinkMessage};

use super::address::new_address_message;
use super::filter::redirect_message;
use super::qdisc::{ingress_message, token_bucket_message};
use super::route::route_message;
use super::*;

/// Decodes a message with its header, and formats it.
#[track_caller]
fn meaning(bytes: &[u8]) -> String {
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).unwrap();
    let NetlinkPayload::InnerMessage(message) = message.payload else {
        panic!("no message of rtnetlink: {message:?}");
    };
    match message {
        RouteNetlinkMessage::NewLink(mut link) => {
            sort_link(&mut link);
            format!("{link:#?}")
        }
        RouteNetlinkMessage::GetLink(link) => format!("get {link:#?}"),
        RouteNetlinkMessage::SetLink(link) => format!("set {link:#?}"),
        RouteNetlinkMessage::DelLink(link) => format!("delete {link:#?}"),
        RouteNetlinkMessage::NewAddress(mut address) => {
            sort(&mut address.attributes);
            format!("{address:#?}")
        }
        RouteNetlinkMessage::NewRoute(mut route) => {
            sort(&mut route.attributes);
            format!("{route:#?}")
        }
        RouteNetlinkMessage::NewQueueDiscipline(mut qdisc) => {
            sort(&mut qdisc.attributes);
            format!("{qdisc:#?}")
        }
        RouteNetlinkMessage::NewTrafficFilter(mut filter) => {
            sort(&mut filter.attributes);
            format!("{filter:#?}")
        }
        other => panic!("not one of ours: {other:?}"),
    }
}

fn sort<T: Debug>(attributes: &mut [T]) {
    attributes.sort_by_key(|attribute| format!("{attribute:?}"));
}

fn sort_link(link: &mut LinkMessage) {
    for attribute in &mut link.attributes {
        if let LinkAttribute::LinkInfo(infos) = attribute {
            for info in infos {
                if let LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))) = info {
                    sort_link(peer);
                }
            }
        }
    }
    sort(&mut link.attributes);
}

#[track_caller]
pub(super) fn same(ours: RouteNetlinkMessage, theirs: &[u8]) {
    let mut message =
        NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(ours));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    assert_eq!(meaning(&bytes), meaning(theirs));
}

#[test]
fn a_bridge() {
    // ip link add br9 address c2:00:00:00:00:01 mtu 1400 up type bridge
    let theirs = b"\
        \x4c\0\0\0\x10\0\x05\x06\xf3\x23\x01\x6b\0\0\0\0\
        \0\0\0\0\0\0\0\0\x01\0\0\0\x01\0\0\0\
        \x0a\0\x01\0\xc2\0\0\0\0\x01\0\0\x08\0\x04\0\
        \x78\x05\0\0\x08\0\x03\0br9\0\x10\0\x12\0\
        \x0a\0\x01\0bridge\0\0";
    let kind = Kind::Bridge { promisc: false, vlan_filtering: false };
    let ours = NewLink {
        mac: Some([0xc2, 0, 0, 0, 0, 1]),
        mtu: Some(1400),
        up: true,
        ..NewLink::new("br9", kind)
    };
    same(RouteNetlinkMessage::NewLink(ours.message()), theirs);
}

#[test]
fn a_veth_pair() {
    // ip link add veth0 mtu 1400 txqueuelen 0 master cni0 up type veth peer name eth0 mtu 1400
    //   txqueuelen 1000 address c2:00:00:00:00:02 netns /proc/PID/ns/net
    let mut theirs = b"\
        \x98\0\0\0\x10\0\x05\x06\xd8\x23\x01\x6b\0\0\0\0\
        \0\0\0\0\0\0\0\0\x01\0\0\0\x01\0\0\0\
        \x08\0\x04\0\x78\x05\0\0\x08\0\x0d\0\0\0\0\0\
        \x08\0\x0a\0\x02\0\0\0\x0a\0\x03\0veth\
        0\0\0\0\x54\0\x12\0\x08\0\x01\0veth\
        \x48\0\x02\0\x44\0\x01\0\0\0\0\0\0\0\0\0\
        \0\0\0\0\0\0\0\0\x08\0\x04\0\x78\x05\0\0\
        \x08\0\x0d\0\xe8\x03\0\0\x0a\0\x01\0\xc2\0\0\0\
        \0\x02\0\0\x08\0\x1c\0\x04\0\0\0\x09\0\x03\0\
        eth0\0\0\0\0"
        .to_vec();
    let netns = Netns::current().unwrap();
    // Each process has another file descriptor.
    theirs[0x88..0x8c].copy_from_slice(&netns.raw_fd().to_ne_bytes());
    let peer = VethPeer { name: "eth0", mac: Some([0xc2, 0, 0, 0, 0, 2]), netns: &netns };
    let ours = NewLink {
        mtu: Some(1400),
        up: true,
        master: Some(2),
        ..NewLink::new("veth0", Kind::Veth(peer))
    };
    same(RouteNetlinkMessage::NewLink(ours.message()), &theirs);
}

#[test]
fn addresses() {
    // ip addr add 10.88.0.1/24 brd + dev cni0
    let theirs = b"\
        \x30\0\0\0\x14\0\x05\x06\xf3\x23\x01\x6b\0\0\0\0\
        \x02\x18\0\0\x02\0\0\0\x08\0\x02\0\x0a\x58\0\x01\
        \x08\0\x01\0\x0a\x58\0\x01\x08\0\x04\0\x0a\x58\0\xff";
    let ours = new_address_message(2, "10.88.0.1/24".parse().unwrap(), AddressOptions::default());
    same(RouteNetlinkMessage::NewAddress(ours), theirs);

    // ip addr add fd00:88::1/64 nodad dev cni0
    let theirs = b"\
        \x40\0\0\0\x14\0\x05\x06\xf3\x23\x01\x6b\0\0\0\0\
        \x0a\x40\x02\0\x02\0\0\0\x14\0\x02\0\xfd\0\0\x88\
        \0\0\0\0\0\0\0\0\0\0\0\x01\x14\0\x01\0\
        \xfd\0\0\x88\0\0\0\0\0\0\0\0\0\0\0\x01";
    let ours = new_address_message(
        2,
        "fd00:88::1/64".parse().unwrap(),
        AddressOptions { nodad: true, ..AddressOptions::default() },
    );
    same(RouteNetlinkMessage::NewAddress(ours), theirs);

    // ip addr add fd00:88::2/64 nodad noprefixroute dev cni0
    let theirs = b"\
        \x48\0\0\0\x14\0\x05\x06\x63\x2c\x01\x6b\0\0\0\0\
        \x0a\x40\0\0\x02\0\0\0\x14\0\x02\0\xfd\0\0\x88\
        \0\0\0\0\0\0\0\0\0\0\0\x02\x08\0\x08\0\
        \x02\x02\0\0\x14\0\x01\0\xfd\0\0\x88\0\0\0\0\
        \0\0\0\0\0\0\0\x02";
    let options = AddressOptions { nodad: true, no_prefix_route: true };
    let ours = new_address_message(2, "fd00:88::2/64".parse().unwrap(), options);
    same(RouteNetlinkMessage::NewAddress(ours), theirs);
}

#[test]
fn a_route() {
    // ip route add 192.0.2.0/24 via 10.88.0.9 dev cni0 table 1077 metric 50 mtu 1300 advmss 1200
    //   src 10.88.0.1 proto boot onlink
    let theirs = b"\
        \x60\0\0\0\x18\0\x05\x06\xa9\x2c\x01\x6b\0\0\0\0\
        \x02\x18\0\0\0\x03\0\x01\x04\0\0\0\x08\0\x01\0\
        \xc0\0\x02\0\x08\0\x05\0\x0a\x58\0\x09\x08\0\x0f\0\
        \x35\x04\0\0\x08\0\x06\0\x32\0\0\0\x08\0\x07\0\
        \x0a\x58\0\x01\x08\0\x04\0\x02\0\0\0\x14\0\x08\0\
        \x08\0\x02\0\x14\x05\0\0\x08\0\x08\0\xb0\x04\0\0";
    let ours = Route {
        gateway: "10.88.0.9".parse().ok(),
        onlink: true,
        source: "10.88.0.1".parse().ok(),
        table: 1077,
        priority: 50,
        mtu: Some(1300),
        advmss: Some(1200),
        ..Route::new("192.0.2.0/24".parse().unwrap(), 2)
    };
    same(RouteNetlinkMessage::NewRoute(route_message(&ours)), theirs);
}

#[test]
fn an_ifb_device() {
    // ip link add bwp0 mtu 1400 txqueuelen 0 up type ifb
    let theirs = b"\
        \x48\0\0\0\x10\0\x05\x06\xc8\x6e\x01\x6b\0\0\0\0\
        \0\0\0\0\0\0\0\0\x01\0\0\0\x01\0\0\0\
        \x08\0\x04\0\x78\x05\0\0\x08\0\x0d\0\0\0\0\0\
        \x09\0\x03\0bwp0\0\0\0\0\x0c\0\x12\0\
        \x07\0\x01\0ifb\0";
    let ours = NewLink { mtu: Some(1400), up: true, ..NewLink::new("bwp0", Kind::Ifb) };
    same(RouteNetlinkMessage::NewLink(ours.message()), theirs);
}

/// The message of tc for a token bucket filter, without what we do not send: the table of transmission times
/// (`TCA_TBF_RTAB`), the fields of the rate about it (`cell_log`, `cell_align`), and the burst in bytes
/// (`TCA_TBF_BURST`).
fn without_table(theirs: &[u8]) -> Vec<u8> {
    const TABLE: u16 = 4 + 1024;
    const BURST: Range<usize> = 0x58..0x60;
    let mut bytes = theirs.to_vec();
    bytes.drain(BURST);
    for length_at in [0, 0x2c] {
        let length = u16::from_ne_bytes(bytes[length_at..length_at + 2].try_into().unwrap());
        bytes[length_at..length_at + 2].copy_from_slice(&(length - TABLE - 8).to_ne_bytes());
    }
    bytes[0x34] = 0;
    bytes[0x38..0x3a].fill(0);
    bytes
}

#[test]
fn a_token_bucket() {
    // tc qdisc add dev veth0 root handle 1: tbf rate 3mbit burst 100000 limit 109375
    let theirs = b"\
        \x64\x04\0\0\x24\0\x05\x06\xc9\x6e\x01\x6b\0\0\0\0\
        \0\0\0\0\x03\0\0\0\0\0\x01\0\xff\xff\xff\xff\
        \0\0\0\0\x08\0\x01\0tbf\0\x38\x04\x02\0\
        \x28\0\x01\0\x03\x01\0\0\xff\xff\0\0\xd8\xb8\x05\0\
        \0\0\0\0\0\0\0\0\0\0\0\0\x3f\xab\x01\0\
        \0\x94\x3f\0\0\0\0\0\x08\0\x06\0\xa0\x86\x01\0";
    let ticks = u32::try_from(Clock::read().unwrap().ticks(266_666)).unwrap();
    let bucket = TokenBucket { rate: 375_000, limit: 109_375, buffer: ticks };
    let ours = token_bucket_message(3, &bucket);
    same(RouteNetlinkMessage::NewQueueDiscipline(ours), &without_table(theirs));

    // tc qdisc add dev ifb7 root handle 1: tbf rate 40gbit burst 1000000 limit 126000000
    let theirs = b"\
        \x70\x04\0\0\x24\0\x05\x06\xc9\x6e\x01\x6b\0\0\0\0\
        \0\0\0\0\x05\0\0\0\0\0\x01\0\xff\xff\xff\xff\
        \0\0\0\0\x08\0\x01\0tbf\0\x44\x04\x02\0\
        \x28\0\x01\0\x03\x01\0\0\xff\xff\0\0\xff\xff\xff\xff\
        \0\0\0\0\0\0\0\0\0\0\0\0\x80\x9b\x82\x07\
        \x29\x0e\0\0\0\0\0\0\x08\0\x06\0\x40\x42\x0f\0\
        \x0c\0\x04\0\0\xf2\x05\x2a\x01\0\0\0";
    // The buffer is 232 microseconds at the highest rate of 32 bits.
    let bucket = TokenBucket { rate: 5_000_000_000, limit: 126_000_000, buffer: 0x0e29 };
    let ours = token_bucket_message(5, &bucket);
    same(RouteNetlinkMessage::NewQueueDiscipline(ours), &without_table(theirs));
}

#[test]
fn what_comes_in_is_redirected() {
    // tc qdisc add dev veth0 handle ffff: ingress
    let theirs = b"\
        \x30\0\0\0\x24\0\x05\x06\xc9\x6e\x01\x6b\0\0\0\0\
        \0\0\0\0\x03\0\0\0\0\0\xff\xff\xf1\xff\xff\xff\
        \0\0\0\0\x0c\0\x01\0ingress\0";
    same(RouteNetlinkMessage::NewQueueDiscipline(ingress_message(3)), theirs);

    // tc filter add dev veth0 parent ffff: protocol all prio 1 u32 match u32 0 0 flowid 1:1
    //   action mirred egress redirect dev ifb7
    let theirs = b"\
        \x94\0\0\0\x2c\0\x05\x06\xc9\x6e\x01\x6b\0\0\0\0\
        \0\0\0\0\x03\0\0\0\0\0\0\0\0\0\xff\xff\
        \0\x03\x01\0\x08\0\x01\0u32\0\x68\0\x02\0\
        \x08\0\x01\0\x01\0\x01\0\x38\0\x07\0\x34\0\x01\0\
        \x0b\0\x01\0mirred\0\0\x24\0\x02\x80\
        \x20\0\x02\0\0\0\0\0\0\0\0\0\x04\0\0\0\
        \0\0\0\0\0\0\0\0\x01\0\0\0\x05\0\0\0\
        \x24\0\x05\0\x01\0\x01\0\0\0\0\0\0\0\0\0\
        \0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
        \0\0\0\0";
    same(RouteNetlinkMessage::NewTrafficFilter(redirect_message(3, 5)), theirs);
}
