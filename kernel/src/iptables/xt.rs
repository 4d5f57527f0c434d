//! The C structures of `x_tables` extensions (`include/uapi/linux/netfilter/xt_*.h`, `nf_nat.h`).
//!
//! They are written in the revisions of iptables 1.8.9, and read in older revisions, too.

use std::net::IpAddr;

use super::info::{Info, View};
use super::{Bits, COMMENT_MAX, Is, Match, Ports, Target, iprange};
use crate::family::Family;
use crate::nft::{Expr, Xt, octets};

/// `XT_MULTI_PORTS`.
pub(super) const MULTIPORT_MAX: usize = 15;

const XT_ADDRTYPE_INVERT_SOURCE: u32 = 1;
const XT_ADDRTYPE_INVERT_DEST: u32 = 2;
const XT_CONNTRACK_STATE: u16 = 1;
const XT_CONNTRACK_STATE_ALIAS: u16 = 1 << 13;
const XT_MULTIPORT_DESTINATION: u8 = 1;
const XT_SCTP_SRC_PORTS: u32 = 1;
const XT_SCTP_DEST_PORTS: u32 = 2;
const NF_NAT_RANGE_MAP_IPS: u32 = 1;
const NF_NAT_RANGE_PROTO_SPECIFIED: u32 = 1 << 1;
const NF_NAT_RANGE_PROTO_RANDOM_FULLY: u32 = 1 << 4;

/// `struct xt_multiport_v1`: flags, count, 15 ports, 15 flags for the first port of a range, invert.
pub(super) fn multiport(ports: &Is<Vec<Ports>>) -> Expr {
    let (mut numbers, mut ranges) = (Vec::new(), Vec::new());
    for Ports { first, last } in &ports.value {
        numbers.push(*first);
        ranges.push(u8::from(first != last));
        if first != last {
            numbers.push(*last);
            ranges.push(0);
        }
    }
    numbers.truncate(MULTIPORT_MAX);
    let mut info = Info::new(48);
    info.u8(0, XT_MULTIPORT_DESTINATION);
    info.u8(1, u8::try_from(numbers.len()).unwrap_or(u8::MAX));
    for (index, (number, range)) in numbers.iter().zip(&ranges).enumerate() {
        info.u16(2 + 2 * index, *number);
        info.u8(32 + index, *range);
    }
    info.u8(47, ports.negated.into());
    info.into_match("multiport", 1)
}

/// `struct xt_addrtype_info_v1`: source, dest, flags.
pub(super) fn address_type(source: Option<Is<u16>>, destination: Option<Is<u16>>) -> Expr {
    let mut info = Info::new(8);
    let mut flags = 0;
    if let Some(is) = source {
        info.u16(0, is.value);
        flags |= if is.negated { XT_ADDRTYPE_INVERT_SOURCE } else { 0 };
    }
    if let Some(is) = destination {
        info.u16(2, is.value);
        flags |= if is.negated { XT_ADDRTYPE_INVERT_DEST } else { 0 };
    }
    info.u32(4, flags);
    info.into_match("addrtype", 1)
}

/// `struct xt_comment_info`: 256 characters.
pub(super) fn comment(text: &str) -> Expr {
    let mut info = Info::new(256);
    let len = text.len().min(COMMENT_MAX);
    info.bytes(0, &text.as_bytes()[..len]);
    info.into_match("comment", 0)
}

/// `struct xt_conntrack_mtinfo3`. Only the state is used.
pub(super) fn conntrack_state(states: Is<u16>) -> Expr {
    let mut info = Info::new(168);
    info.u16(146, XT_CONNTRACK_STATE);
    info.u16(148, if states.negated { XT_CONNTRACK_STATE } else { 0 });
    info.u16(150, states.value);
    info.into_match("conntrack", 3)
}

/// `struct xt_sctp_info`: destination ports, source ports, 64 words of chunk types, the kind of chunk match,
/// four flag entries (not used), their count, flags, inverted flags.
pub(super) fn sctp(source: Option<Is<Ports>>, destination: Option<Is<Ports>>) -> Expr {
    let mut info = Info::new(296);
    let (mut flags, mut inverted) = (0, 0);
    for (at, bit, ports) in [(0, XT_SCTP_DEST_PORTS, destination), (4, XT_SCTP_SRC_PORTS, source)] {
        let Some(Is { value: Ports { first, last }, negated }) = ports else { continue };
        info.u16(at, first);
        info.u16(at + 2, last);
        flags |= bit;
        inverted |= if negated { bit } else { 0 };
    }
    for entry in 0..4 {
        info.u8(SCTP_FLAG_ENTRIES + 3 * entry, u8::MAX);
    }
    info.u32(SCTP_FLAGS, flags);
    info.u32(SCTP_FLAGS + 4, inverted);
    info.into_match("sctp", 0)
}

const SCTP_CHUNKS: usize = 8;
const SCTP_FLAG_ENTRIES: usize = SCTP_CHUNKS + 64 * 4 + 4;
const SCTP_FLAGS: usize = SCTP_FLAG_ENTRIES + 12 + 4;

/// `struct nf_nat_range2`: flags, lowest and highest address, lowest and highest port, base port.
pub(super) fn dnat(address: IpAddr, port: Option<u16>) -> Expr {
    let mut info = Info::new(48);
    let octets = octets(address);
    info.bytes(4, &octets);
    info.bytes(20, &octets);
    let mut flags = NF_NAT_RANGE_MAP_IPS;
    if let Some(port) = port {
        flags |= NF_NAT_RANGE_PROTO_SPECIFIED;
        info.bytes(36, &port.to_be_bytes());
        info.bytes(38, &port.to_be_bytes());
    }
    info.u32(0, flags);
    info.into_target("DNAT", 2)
}

/// IPv4: `struct nf_nat_ipv4_multi_range_compat` of one range; IPv6: `struct nf_nat_range`.
pub(super) fn masquerade(family: Family, random_fully: bool) -> Expr {
    let flags = if random_fully { NF_NAT_RANGE_PROTO_RANDOM_FULLY } else { 0 };
    let mut info;
    if family == Family::V6 {
        info = Info::new(40);
        info.u32(0, flags);
    } else {
        info = Info::new(24);
        info.u32(0, 1);
        info.u32(4, flags);
    }
    info.into_target("MASQUERADE", 0)
}

/// `struct xt_mark_tginfo2`: mark, mask.
pub(super) fn set_mark(bits: Bits) -> Expr {
    let mut info = Info::new(8);
    info.u32(0, bits.value);
    info.u32(4, bits.mask);
    info.into_target("MARK", 2)
}

/// Decodes an `x_tables` match. None if its extension, revision or an option is not known here.
pub(super) fn read_match(family: Family, xt: &Xt) -> Option<Vec<Match>> {
    let info = View(&xt.info);
    Some(match (xt.name.as_str(), xt.revision) {
        ("comment", 0) => vec![Match::Comment(info.text()?)],
        ("addrtype", 1) => read_address_type(info.u16(0)?, info.u16(2)?, info.u32(4)?)?,
        ("addrtype", 0) => {
            let inverted = |at, bit| Some(if info.u32(at)? == 0 { 0 } else { bit });
            let flags =
                inverted(4, XT_ADDRTYPE_INVERT_SOURCE)? | inverted(8, XT_ADDRTYPE_INVERT_DEST)?;
            read_address_type(info.u16(0)?, info.u16(2)?, flags)?
        }
        ("multiport", revision @ (0 | 1)) => vec![read_multiport(info, revision)?],
        ("mark", 1) => {
            let value = Bits { value: info.u32(0)?, mask: info.u32(4)? };
            vec![Match::Mark(Is { value, negated: info.u8(8)? != 0 })]
        }
        ("iprange", 1) => vec![iprange::read(family, info)?],
        ("conntrack", 3) => vec![read_conntrack(info)?],
        ("tcp", 0) if info.u8(8)? == 0 && info.u8(9)? == 0 => {
            read_ports(info, (0, 4), info.u8(11)?.into())?
        }
        ("udp", 0) => read_ports(info, (0, 4), info.u8(8)?.into())?,
        ("sctp", 0) => read_sctp(info)?,
        _ => return None,
    })
}

/// Decodes an `x_tables` target. None if its extension, revision or an option is not known here.
pub(super) fn read_target(family: Family, xt: &Xt) -> Option<Target> {
    let info = View(&xt.info);
    match (xt.name.as_str(), xt.revision) {
        ("MARK", 2) => Some(Target::Mark(Bits { value: info.u32(0)?, mask: info.u32(4)? })),
        ("MASQUERADE", 0) => {
            let at = if family == Family::V6 { 0 } else { 4 };
            match info.u32(at)? {
                0 => Some(Target::Masquerade { random_fully: false }),
                NF_NAT_RANGE_PROTO_RANDOM_FULLY => Some(Target::Masquerade { random_fully: true }),
                _ => None,
            }
        }
        ("DNAT", 0) if family == Family::V4 && info.u32(0)? == 1 => {
            read_dnat(info.u32(4)?, (info.v4(8)?, info.v4(12)?), (info.be16(16)?, info.be16(18)?))
        }
        ("DNAT", 1 | 2) => {
            let address = |at| match family {
                Family::V6 => info.v6(at),
                Family::V4 => info.v4(at),
            };
            read_dnat(info.u32(0)?, (address(4)?, address(20)?), (info.be16(36)?, info.be16(38)?))
        }
        _ => None,
    }
}

fn read_address_type(source: u16, destination: u16, flags: u32) -> Option<Vec<Match>> {
    if flags & !(XT_ADDRTYPE_INVERT_SOURCE | XT_ADDRTYPE_INVERT_DEST) != 0 {
        return None;
    }
    let is = |value: u16, bit| (value != 0).then_some(Is { value, negated: flags & bit != 0 });
    Some(vec![Match::AddressType {
        source: is(source, XT_ADDRTYPE_INVERT_SOURCE),
        destination: is(destination, XT_ADDRTYPE_INVERT_DEST),
    }])
}

fn read_multiport(info: View<'_>, revision: u32) -> Option<Match> {
    if info.u8(0)? != XT_MULTIPORT_DESTINATION {
        return None;
    }
    let count = usize::from(info.u8(1)?).min(MULTIPORT_MAX);
    let (mut value, mut index) = (Vec::with_capacity(count), 0);
    while index < count {
        let first = info.u16(2 + 2 * index)?;
        let is_range = revision == 1 && info.u8(32 + index)? != 0;
        index += usize::from(is_range);
        value.push(Ports { first, last: info.u16(2 + 2 * index)? });
        index += 1;
    }
    let negated = revision == 1 && info.u8(47)? != 0;
    Some(Match::DestinationPorts(Is { value, negated }))
}

fn read_conntrack(info: View<'_>) -> Option<Match> {
    if info.u16(146)? != XT_CONNTRACK_STATE {
        return None;
    }
    let negated = info.u16(148)? & XT_CONNTRACK_STATE != 0;
    Some(Match::ConntrackState(Is { value: info.u16(150)?, negated }))
}

/// The states in `-m conntrack --ctstate`, or in its older form `-m state --state`.
pub(crate) fn states_of(xt: &Xt) -> Option<Is<u16>> {
    let mut plain = xt.clone();
    let flags = View(&xt.info).u16(146)? & !XT_CONNTRACK_STATE_ALIAS;
    plain.info.get_mut(146..148)?.copy_from_slice(&flags.to_ne_bytes());
    // This match is the same in both families.
    match read_match(Family::V4, &plain)?.as_slice() {
        [Match::ConntrackState(states)] => Some(*states),
        _ => None,
    }
}

/// Reads the source and destination ports at two offsets. Bits 1 and 2 of `inverted` invert them.
fn read_ports(info: View<'_>, at: (usize, usize), inverted: u32) -> Option<Vec<Match>> {
    let ports = |at| Some(Ports { first: info.u16(at)?, last: info.u16(at + 2)? });
    let is = |value, bit| Is { value, negated: inverted & bit != 0 };
    let any = Ports { first: 0, last: u16::MAX };
    let source = is(ports(at.0)?, 1);
    let destination = is(ports(at.1)?, 2);
    let mut out = Vec::new();
    if source != Is::equal(any) {
        out.push(Match::SourcePort(source));
    }
    if destination != Is::equal(any) {
        out.push(Match::DestinationPort(destination));
    }
    Some(out)
}

fn read_sctp(info: View<'_>) -> Option<Vec<Match>> {
    let (flags, inverted) = (info.u32(SCTP_FLAGS)?, info.u32(SCTP_FLAGS + 4)?);
    let ports_only = flags & !(XT_SCTP_SRC_PORTS | XT_SCTP_DEST_PORTS) == 0;
    let all = read_ports(info, (4, 0), inverted).filter(|_| ports_only)?;
    let in_use = |one: &Match| match one {
        Match::SourcePort(_) => flags & XT_SCTP_SRC_PORTS != 0,
        _ => flags & XT_SCTP_DEST_PORTS != 0,
    };
    Some(all.into_iter().filter(in_use).collect())
}

fn read_dnat(flags: u32, addresses: (IpAddr, IpAddr), ports: (u16, u16)) -> Option<Target> {
    let port = match flags {
        NF_NAT_RANGE_MAP_IPS => None,
        all if all == NF_NAT_RANGE_MAP_IPS | NF_NAT_RANGE_PROTO_SPECIFIED => Some(ports.0),
        _ => return None,
    };
    let one = addresses.0 == addresses.1 && (port.is_none() || ports.0 == ports.1);
    one.then_some(Target::Dnat { address: addresses.0, port })
}
