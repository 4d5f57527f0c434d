//! Tests with recorded answers of a kernel.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use nix::sys::socket::{setsockopt, sockopt::RcvBuf};

use super::*;
use crate::error::Error;
use crate::nft::{Chain, TableFamily};
use crate::rtnl::{Kind, NewLink};
use crate::{Batch, Nfnetlink, Rtnl};

fn outcome(kind: u16, flags: u16, payload: &[u8]) -> Option<Result<(), Cause>> {
    Reply { sequence: 1, kind, flags, payload }.outcome()
}

#[test]
fn acknowledgement() {
    // `strace -e recvmsg -xx ip link set lo up`: errno 0, then the request's header.
    let payload = b"\0\0\0\0\x20\0\0\0\x10\0\x05\0\x01\0\0\0\0\0\0\0";
    assert!(matches!(outcome(NLMSG_ERROR, NLM_F_CAPPED, payload), Some(Ok(()))));
}

#[test]
fn refusal_with_the_kernels_text() {
    // `strace -e recvmsg -xx ip route add 192.0.2.0/24 via 172.16.0.1` (Linux 6.18): -ENETUNREACH,
    // capped to the request's header, then NLMSGERR_ATTR_MSG.
    let mut payload = (-101i32).to_ne_bytes().to_vec();
    payload.extend(b"\x34\0\0\0\x18\0\x05\x06\x01\0\0\0\0\0\0\0");
    payload.extend(b"\x20\0\x01\0Nexthop has invalid gateway\0");
    let Some(Err(cause)) = outcome(NLMSG_ERROR, NLM_F_CAPPED | NLM_F_ACK_TLVS, &payload) else {
        panic!("no refusal");
    };
    assert_eq!(cause.to_string(), "Network is unreachable (Nexthop has invalid gateway)");
}

#[test]
fn a_list_that_ends_in_an_error() {
    let payload = (-16i32).to_ne_bytes();
    let Some(Err(cause)) = outcome(NLMSG_DONE, 0, &payload) else { panic!("no refusal") };
    assert_eq!(cause.errno(), Some(Errno::EBUSY));
}

#[test]
fn odd_answers_do_not_panic() {
    for payload in [&[][..], &[1], &[0xff; 4], &[0xff; 5], &[0xff; 24], &[0, 0, 0, 0x80]] {
        for kind in [NLMSG_ERROR, NLMSG_DONE] {
            for flags in [0, NLM_F_ACK_TLVS, NLM_F_ACK_TLVS | NLM_F_CAPPED] {
                let _ =
                    outcome(kind, flags, payload).map(|outcome| outcome.map_err(|e| e.to_string()));
            }
        }
    }
}

/// A request that sets the loopback interface up.
fn set_up() -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = 1;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    RouteNetlinkMessage::SetLink(message)
}

fn look_up() -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = 1;
    RouteNetlinkMessage::GetLink(message)
}

fn is_up(socket: &Socket) -> bool {
    let found = socket.request::<RouteNetlinkMessage>(look_up(), 0).unwrap();
    let [RouteNetlinkMessage::NewLink(link)] = found.as_slice() else { panic!("{found:?}") };
    link.header.flags.contains(LinkFlags::Up)
}

/// Earlier versions waited forever.
#[test]
fn an_acknowledgement_that_is_lost() {
    testbed::in_new_netns(|| {
        let socket = Socket::open(Protocol::Route).unwrap();
        setsockopt(&socket, RcvBuf, &4096).unwrap();
        for _ in 0..10 {
            socket.send(&encode(look_up(), NLM_F_REQUEST).unwrap()).unwrap();
        }
        let cause = socket.request::<RouteNetlinkMessage>(set_up(), 0).unwrap_err();
        assert!(matches!(cause, Cause::Unanswered(Errno::ENOBUFS)), "{cause:?}");
        assert!(!Error::new("set link", cause).is_refusal());
        // The request was carried out, and the socket can still be used.
        assert!(is_up(&socket));
    });
}

#[test]
fn no_answer_at_all() {
    testbed::in_new_netns(|| {
        let socket = Socket::open(Protocol::Route).unwrap();
        let cause = socket.answers(|_| Ok(true)).unwrap_err();
        assert!(matches!(cause, Cause::Unanswered(Errno::ENOMSG)), "{cause:?}");
    });
}

/// Earlier versions panicked in netlink-packet-core.
#[test]
fn names_that_no_message_can_hold() {
    testbed::in_new_netns(|| {
        let (rtnl, netlink) = (Rtnl::open().unwrap(), Nfnetlink::open().unwrap());
        for length in [65_520, 65_532, 65_536, 70_000] {
            let name = &"a".repeat(length);
            let ifb = NewLink { alias: Some(name), ..NewLink::new(name, Kind::Ifb) };
            let mut batch = Batch::new();
            let chain = Chain { family: TableFamily::Inet, table: "t", name };
            batch.add_chain(chain, None);
            for error in [
                rtnl.link_by_name(name).unwrap_err(),
                rtnl.create_link(&ifb).unwrap_err(),
                netlink.has_chain(chain).unwrap_err(),
                netlink.rules(chain).map(drop).unwrap_err(),
                netlink.commit(&batch).unwrap_err(),
            ] {
                assert!(error.errno().is_some() && error.is_refusal(), "{length}: {error:?}");
            }
        }
    });
}
