//! VLANs (802.1Q) of a bridge and its ports.

use netlink_packet_core::{
    DecodeError, DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NetlinkDeserializable, NetlinkHeader,
    NlasIterator,
};
use netlink_packet_route::link::{
    AfSpecBridge, BridgeVlanInfo, BridgeVlanInfoFlags, InfoBridge, InfoData, InfoKind,
    LinkAttribute, LinkExtentMask, LinkInfo, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use super::Rtnl;
use super::link::read::{IFINFOMSG, number};
use super::message::with_index;
use crate::error::Result;

/// Consecutive VLANs that a port treats in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanRange {
    /// The first ID.
    pub first: u16,
    /// The last ID.
    pub last: u16,
    /// Whether untagged frames that arrive belong to it. A port has at most one such VLAN.
    pub pvid: bool,
    /// Whether its frames leave untagged.
    pub untagged: bool,
}

/// The VLAN settings of a bridge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BridgeVlans {
    /// Whether it separates VLANs. Otherwise it ignores tags.
    pub filtering: bool,
    /// The VLAN that each new port gets, untagged; 0 for none.
    pub default_pvid: u16,
}

/// The VLANs of a bridge's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortVlans {
    /// The port's index. The bridge itself is one of its ports.
    pub port: u32,
    /// The bridge's index.
    pub bridge: Option<u32>,
    /// Its VLANs.
    pub ranges: Vec<VlanRange>,
}

const IFLA_MASTER: u16 = 10;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_BRIDGE_VLAN_INFO: u16 = 2;
const IFLA_BR_VLAN_PROTOCOL: u16 = 8;

impl VlanRange {
    /// A VLAN whose frames arrive and leave untagged.
    #[must_use]
    pub fn native(id: u16) -> Self {
        Self { first: id, last: id, pvid: true, untagged: true }
    }

    /// VLANs whose frames are tagged.
    #[must_use]
    pub fn tagged(first: u16, last: u16) -> Self {
        Self { first, last, pvid: false, untagged: false }
    }

    /// Whether a VLAN is in the range.
    #[must_use]
    pub fn contains(&self, id: u16) -> bool {
        (self.first..=self.last).contains(&id)
    }
}

impl Rtnl {
    /// Whether the kernel was built with VLANs of bridges (`CONFIG_BRIDGE_VLAN_FILTERING`). Changes nothing:
    /// a kernel with VLANs refuses the unknown VLAN protocol. One without them ignores it, and refuses the
    /// name.
    pub fn has_bridge_vlans(&self) -> Result<bool> {
        let request = RouteNetlinkMessage::NewLink(impossible_bridge_message());
        let operation = || "ask for VLANs of bridges".to_owned();
        match self.change(request, NLM_F_CREATE | NLM_F_EXCL, operation) {
            Err(error) if error.errno() == Some(Errno::EPROTONOSUPPORT) => Ok(true),
            Err(error) if error.errno() == Some(Errno::EINVAL) => Ok(false),
            refused => refused.map(|()| true),
        }
    }

    /// Makes a bridge separate VLANs. Its ports stay in the VLAN that they got when they were added.
    pub fn filter_vlans(&self, bridge: u32) -> Result<()> {
        let message = RouteNetlinkMessage::NewLink(filter_vlans_message(bridge));
        self.change(message, 0, || format!("make bridge {bridge} filter VLANs"))
    }

    /// Adds VLANs to a bridge's port, or changes those that it has.
    pub fn add_port_vlans(&self, port: u32, vlans: &[VlanRange]) -> Result<()> {
        let message = RouteNetlinkMessage::SetLink(vlans_message(port, vlans));
        self.change(message, 0, || format!("add VLANs to port {port}"))
    }

    /// Removes a VLAN from a bridge's port. It is not an error if the port does not have it.
    pub fn delete_port_vlan(&self, port: u32, id: u16) -> Result<()> {
        let vlans = [VlanRange::tagged(id, id)];
        let message = RouteNetlinkMessage::DelLink(vlans_message(port, &vlans));
        self.change(message, 0, || format!("delete VLAN {id} from port {port}"))
    }

    /// The VLANs of all ports of all bridges. The kernel cannot list fewer.
    pub fn port_vlans(&self) -> Result<Vec<PortVlans>> {
        let message = RouteNetlinkMessage::GetLink(port_vlans_message());
        self.dump(message, || "list the VLANs of bridges".to_owned())
    }
}

pub(super) fn filter_vlans_message(bridge: u32) -> LinkMessage {
    let mut message = with_index(bridge);
    message.attributes.push(bridge_setting(InfoBridge::VlanFiltering(true)));
    message
}

fn bridge_setting(setting: InfoBridge) -> LinkAttribute {
    LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Bridge),
        LinkInfo::Data(InfoData::Bridge(vec![setting])),
    ])
}

fn impossible_bridge_message() -> LinkMessage {
    let no_protocol = DefaultNla::new(IFLA_BR_VLAN_PROTOCOL, vec![0, 0]);
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName("/".to_owned()));
    message.attributes.push(bridge_setting(InfoBridge::Other(no_protocol)));
    message
}

pub(super) fn vlans_message(port: u32, vlans: &[VlanRange]) -> LinkMessage {
    let mut message = with_index(port);
    message.header.interface_family = AddressFamily::Bridge;
    message.attributes.push(LinkAttribute::AfSpecBridge(
        vlans.iter().copied().flat_map(infos).map(AfSpecBridge::VlanInfo).collect(),
    ));
    message
}

pub(super) fn port_vlans_message() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Bridge;
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::BrvlanCompressed]));
    message
}

/// A single VLAN is one entry, a range is two.
fn infos(range: VlanRange) -> Vec<BridgeVlanInfo> {
    let mut flags = BridgeVlanInfoFlags::empty();
    flags.set(BridgeVlanInfoFlags::Pvid, range.pvid);
    flags.set(BridgeVlanInfoFlags::Untagged, range.untagged);
    let info = |vid, more| BridgeVlanInfo { flags: flags | more, vid };
    if range.first == range.last {
        return vec![info(range.first, BridgeVlanInfoFlags::empty())];
    }
    vec![
        info(range.first, BridgeVlanInfoFlags::RangeBegin),
        info(range.last, BridgeVlanInfoFlags::RangeEnd),
    ]
}

impl NetlinkDeserializable for PortVlans {
    type Error = DecodeError;

    fn deserialize(
        _header: &NetlinkHeader,
        payload: &[u8],
    ) -> std::result::Result<Self, DecodeError> {
        let cut_off = || DecodeError::from("the description of a port is cut off");
        let (header, rest) = payload.split_first_chunk::<IFINFOMSG>().ok_or_else(cut_off)?;
        let mut port = Self { port: number(&header[4..]), bridge: None, ranges: Vec::new() };
        for attribute in NlasIterator::new(rest) {
            let attribute = attribute?;
            match attribute.kind() {
                IFLA_MASTER => port.bridge = Some(number(attribute.value())),
                IFLA_AF_SPEC => port.ranges = ranges(attribute.value())?,
                _ => {}
            }
        }
        Ok(port)
    }
}

fn ranges(value: &[u8]) -> std::result::Result<Vec<VlanRange>, DecodeError> {
    let (mut ranges, mut begun) = (Vec::new(), None);
    for attribute in NlasIterator::new(value) {
        let attribute = attribute?;
        if attribute.kind() != IFLA_BRIDGE_VLAN_INFO {
            continue;
        }
        let info = BridgeVlanInfo::try_from(attribute.value())?;
        if info.flags.contains(BridgeVlanInfoFlags::RangeBegin) {
            begun = Some(info.vid);
            continue;
        }
        ranges.push(VlanRange {
            first: begun.take().unwrap_or(info.vid),
            last: info.vid,
            pvid: info.flags.contains(BridgeVlanInfoFlags::Pvid),
            untagged: info.flags.contains(BridgeVlanInfoFlags::Untagged),
        });
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests;
