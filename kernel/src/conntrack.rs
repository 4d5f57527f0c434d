//! Lists and deletes the connections that the kernel tracks
//! (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`).

use std::net::IpAddr;

use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED};
use netlink_packet_netfilter::NetfilterMessageInner;
use netlink_packet_netfilter::conntrack::{
    ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple as WireTuple,
};
use nix::errno::Errno;

use crate::error::Result;
use crate::family::Family;
use crate::nfnetlink::{Nfnetlink, is_unknown_subsystem};
use crate::nft::attribute::{attribute, attributes, be_u16};

/// A tracked connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// The addresses and ports of its first packet.
    pub original: Tuple,
    /// Those of the answers. After DNAT, their source is the new destination.
    pub reply: Tuple,
    /// `CTA_TUPLE_ORIG` as the kernel sent it. It has more than [`Tuple`], for example for ICMP.
    tuple: Vec<u8>,
    /// `CTA_ID` as the kernel sent it. A later connection between the same ends has another ID.
    id: Vec<u8>,
}

/// One direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    /// The sender.
    pub source: IpAddr,
    /// The receiver.
    pub destination: IpAddr,
    /// IPPROTO number.
    pub protocol: u8,
    /// The sender's port, or 0.
    pub source_port: u16,
    /// The receiver's port, or 0.
    pub destination_port: u16,
}

/// Selects the connections that have all the values that are set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filter {
    /// IPPROTO number.
    pub protocol: Option<u8>,
    /// The sender of the first packet.
    pub original_source: Option<IpAddr>,
    /// The receiver of the first packet, before DNAT.
    pub original_destination: Option<IpAddr>,
    /// Its port. `protocol` must be set, too.
    pub original_destination_port: Option<u16>,
    /// The sender of the answers. After DNAT, this is the new destination.
    pub reply_source: Option<IpAddr>,
    /// Its port. `protocol` must be set, too.
    pub reply_source_port: Option<u16>,
}

const IPCTNL_MSG_CT_GET: u8 = 1;
const IPCTNL_MSG_CT_DELETE: u8 = 2;
const IPCTNL_MSG_CT_GET_STATS: u8 = 5;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;

// `CTA_FILTER_FLAG_*` of net/netfilter/nf_internals.h.
const IP_SRC: u32 = 1;
const IP_DST: u32 = 1 << 1;
const PROTO_NUM: u32 = 1 << 3;
const PROTO_SRC_PORT: u32 = 1 << 4;
const PROTO_DST_PORT: u32 = 1 << 5;

impl Nfnetlink {
    /// The connections of a family that a filter selects. Empty if this kernel does not track or list any.
    pub fn flows(&self, family: Family, filter: &Filter) -> Result<Vec<Flow>> {
        let what = || format!("list the {family} connections of {filter:?}");
        let list = |attributes| self.dump(family, message(IPCTNL_MSG_CT_GET, attributes), what);
        // Linux before 5.8 ignores the filter. Later kernels refuse a filter with unknown parts.
        let bodies = match list(filter.to_wire()) {
            Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => list(Vec::new())?,
            Err(error) if error.errno() == Some(Errno::EINVAL) && !self.has_conntrack()? => {
                Vec::new()
            }
            listed => listed?,
        };
        let flows = bodies.iter().filter_map(|body| Flow::parse(body));
        Ok(flows.filter(|flow| filter.matches(flow)).collect())
    }

    /// Deletes the connections that a filter selects, and returns their number.
    pub fn delete_flows(&self, family: Family, filter: &Filter) -> Result<usize> {
        let flows = self.flows(family, filter)?;
        for flow in &flows {
            self.delete_flow(family, flow)?;
        }
        Ok(flows.len())
    }

    /// Deletes a connection. It is not an error if it has ended.
    pub fn delete_flow(&self, family: Family, flow: &Flow) -> Result<()> {
        let attributes = vec![
            DefaultNla::new(CTA_TUPLE_ORIG | NLA_F_NESTED, flow.tuple.clone()),
            DefaultNla::new(CTA_ID, flow.id.clone()),
        ];
        let delete = message(IPCTNL_MSG_CT_DELETE, attributes);
        self.execute(family, delete, || format!("delete connection {:?}", flow.original)).map(drop)
    }

    /// Whether the kernel can list connections (`nf_conntrack_netlink`). It loads the module if it must.
    fn has_conntrack(&self) -> Result<bool> {
        let question = message(IPCTNL_MSG_CT_GET_STATS, Vec::new());
        match self.execute(Family::V4, question, || "look for connection tracking".to_owned()) {
            Err(error) if is_unknown_subsystem(&error) => Ok(false),
            asked => asked.map(|_| true),
        }
    }
}

impl Filter {
    /// Whether the filter selects a connection.
    #[must_use]
    pub fn matches(&self, flow: &Flow) -> bool {
        fn agrees<T: PartialEq + Copy>(wanted: Option<T>, found: T) -> bool {
            wanted.is_none_or(|wanted| wanted == found)
        }
        let Flow { original, reply, .. } = flow;
        agrees(self.protocol, original.protocol)
            && agrees(self.original_source, original.source)
            && agrees(self.original_destination, original.destination)
            && agrees(self.original_destination_port, original.destination_port)
            && agrees(self.reply_source, reply.source)
            && agrees(self.reply_source_port, reply.source_port)
    }

    /// The attributes of the filter: tuples, and flags for the fields that are set.
    ///
    /// IPv6 addresses are left out, because `ctnetlink_filter_match_tuple` compares them wrongly (seen on
    /// Linux 6.18). The caller applies the filter to the list again.
    fn to_wire(self) -> Vec<DefaultNla> {
        let v4 = |address: Option<IpAddr>| address.filter(IpAddr::is_ipv4);
        let original = Side {
            protocol: self.protocol,
            source: v4(self.original_source),
            destination: v4(self.original_destination),
            destination_port: self.original_destination_port,
            ..Side::default()
        };
        let reply = Side {
            protocol: self.reply_source_port.and(self.protocol),
            source: v4(self.reply_source),
            source_port: self.reply_source_port,
            ..Side::default()
        };
        let sides = [(original, CTA_TUPLE_ORIG), (reply, CTA_TUPLE_REPLY)].into_iter();
        let sides = sides.filter(|(side, _)| side.flags() != 0);
        let mut out: Vec<_> = sides.map(|(side, kind)| side.to_wire(kind)).collect();
        if out.is_empty() {
            return out;
        }
        let flags = vec![
            DefaultNla::new(CTA_FILTER_ORIG_FLAGS, original.flags().to_ne_bytes().to_vec()),
            DefaultNla::new(CTA_FILTER_REPLY_FLAGS, reply.flags().to_ne_bytes().to_vec()),
        ];
        out.push(DefaultNla::new(CTA_FILTER | NLA_F_NESTED, bytes(&flags.as_slice())));
        out
    }
}

/// The values of one direction that are set.
#[derive(Debug, Clone, Copy, Default)]
struct Side {
    protocol: Option<u8>,
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    source_port: Option<u16>,
    destination_port: Option<u16>,
}

impl Side {
    fn flags(&self) -> u32 {
        let bit = |known: bool, bit| if known { bit } else { 0 };
        bit(self.source.is_some(), IP_SRC)
            | bit(self.destination.is_some(), IP_DST)
            | bit(self.protocol.is_some(), PROTO_NUM)
            | bit(self.source_port.is_some(), PROTO_SRC_PORT)
            | bit(self.destination_port.is_some(), PROTO_DST_PORT)
    }

    fn to_wire(self, kind: u16) -> DefaultNla {
        let addresses = [
            self.source.map(IPTuple::SourceAddress),
            self.destination.map(IPTuple::DestinationAddress),
        ];
        let ports = [
            self.protocol.map(|number| ProtoTuple::Protocol(Protocol::from(number))),
            self.source_port.map(ProtoTuple::SourcePort),
            self.destination_port.map(ProtoTuple::DestinationPort),
        ];
        let addresses: Vec<_> = addresses.into_iter().flatten().collect();
        let ports: Vec<_> = ports.into_iter().flatten().collect();
        let mut nested = Vec::new();
        nested.extend((!addresses.is_empty()).then_some(WireTuple::Ip(addresses)));
        nested.extend((!ports.is_empty()).then_some(WireTuple::Proto(ports)));
        DefaultNla::new(kind | NLA_F_NESTED, bytes(&nested.as_slice()))
    }
}

impl Flow {
    /// Reads the attributes of an `IPCTNL_MSG_CT_NEW`.
    fn parse(body: &[u8]) -> Option<Self> {
        let tuple = attribute(body, CTA_TUPLE_ORIG)?;
        Some(Flow {
            original: Tuple::parse(tuple)?,
            reply: Tuple::parse(attribute(body, CTA_TUPLE_REPLY)?)?,
            tuple: tuple.to_vec(),
            id: attribute(body, CTA_ID)?.to_vec(),
        })
    }
}

impl Tuple {
    fn parse(tuple: &[u8]) -> Option<Self> {
        let (mut source, mut destination) = (None, None);
        let (mut protocol, mut source_port, mut destination_port) = (None, 0, 0);
        for (kind, value) in attributes(tuple) {
            for (field, value) in attributes(value) {
                match (kind, field) {
                    (1, 1 | 3) => source = Some(address(value)?),
                    (1, 2 | 4) => destination = Some(address(value)?),
                    (2, 1) => protocol = value.first().copied(),
                    (2, 2) => source_port = be_u16(value)?,
                    (2, 3) => destination_port = be_u16(value)?,
                    _ => {}
                }
            }
        }
        Some(Tuple {
            source: source?,
            destination: destination?,
            protocol: protocol?,
            source_port,
            destination_port,
        })
    }
}

/// Not with the library's own types: they omit the `NLA_F_NESTED` of `CTA_FILTER`, and the kernel refuses
/// that.
fn message(message_type: u8, attributes: Vec<DefaultNla>) -> NetfilterMessageInner {
    ConntrackMessage::Other { message_type, attributes }.into()
}

fn bytes(attributes: &impl Emitable) -> Vec<u8> {
    let mut out = vec![0; attributes.buffer_len()];
    attributes.emit(&mut out);
    out
}

fn address(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
}
