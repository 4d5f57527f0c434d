//! Links: bridges, veth pairs, ifb devices, and what they are set to.

pub(super) mod read;

use std::fmt;
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth,
    LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};

use nix::errno::Errno;

use super::Rtnl;
use super::message::{bridge_info, set_flag, with_index, with_name};
use super::vlan::BridgeVlans;
use crate::error::{Cause, Error, Result};
use crate::netlink::{Protocol, Socket};
use crate::netns::Netns;

/// A link, as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What kind of virtual link it is (`bridge`, `veth`); `None` for hardware and `lo`.
    pub kind: Option<String>,
    /// Its hardware address; `None` if that is not an Ethernet one.
    pub mac: Option<[u8; 6]>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it was set up (`IFF_UP`).
    pub up: bool,
    /// Whether it can carry packets now (`IF_OPER_UP`, RFC 2863).
    pub operational: bool,
    /// Whether it was set promiscuous (`IFF_PROMISC`).
    pub promisc: bool,
    /// Whether it was set to take all multicast packets (`IFF_ALLMULTI`).
    pub allmulti: bool,
    /// How many packets its queue takes.
    pub tx_queue_len: u32,
    /// The index of the link that it is a port of.
    pub master: Option<u32>,
    /// The index of the other end, in the other end's namespace.
    pub peer: Option<u32>,
    /// The number of the other end's namespace in this one; `None` if the other end is in this one.
    pub peer_namespace: Option<i32>,
    /// How it is set as the port of a bridge, if it is one.
    pub port: Option<BridgePort>,
    /// How it treats VLANs, if it is a bridge.
    pub vlans: Option<BridgeVlans>,
    /// Its alias (`IFLA_IFALIAS`); empty if it has none.
    pub alias: String,
}

/// A bridge to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge<'a> {
    /// Its name, at most 15 bytes.
    pub name: &'a str,
    /// Its hardware address. A bridge that is given none takes the lowest of its ports', which
    /// changes as they come and go.
    pub mac: [u8; 6],
    /// Its MTU in bytes; `None` for the kernel's default.
    pub mtu: Option<u32>,
    /// Whether to set it promiscuous.
    pub promisc: bool,
    /// Whether it keeps VLANs apart.
    pub vlan_filtering: bool,
    /// A note about it, at most 255 bytes (`IFLA_IFALIAS`).
    pub alias: Option<&'a str>,
}

/// A veth pair to be made: this end, which is up at once, and the other one.
#[derive(Debug)]
pub struct Veth<'a> {
    /// This end's name, at most 15 bytes.
    pub name: &'a str,
    /// Both ends' MTU in bytes; `None` for the kernel's default.
    pub mtu: Option<u32>,
    /// The index of the bridge that this end becomes a port of.
    pub master: Option<u32>,
    /// A note about this end, at most 255 bytes (`IFLA_IFALIAS`).
    pub alias: Option<&'a str>,
    /// The other end.
    pub peer: VethPeer<'a>,
}

/// The other end of a veth pair, born in its namespace: moving it there later would cost some
/// 20 ms, because the kernel waits until nobody can see it in the old one any more.
#[derive(Debug)]
pub struct VethPeer<'a> {
    /// Its name, at most 15 bytes.
    pub name: &'a str,
    /// Its hardware address; `None` for a random one.
    pub mac: Option<[u8; 6]>,
    /// The namespace.
    pub netns: &'a Netns,
}

/// An intermediate functional block to be made: what is redirected to it waits in its queue, and
/// goes on from where it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ifb<'a> {
    /// Its name, at most 15 bytes.
    pub name: &'a str,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// A note about it, at most 255 bytes (`IFLA_IFALIAS`).
    pub alias: Option<&'a str>,
}

/// What to set on a link; what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkChange<'a> {
    /// Up or down.
    pub up: Option<bool>,
    /// Promiscuous or not.
    pub promisc: Option<bool>,
    /// Whether it takes all multicast packets.
    pub allmulti: Option<bool>,
    /// How many packets its queue takes.
    pub tx_queue_len: Option<u32>,
    /// The MTU in bytes.
    pub mtu: Option<u32>,
    /// The hardware address.
    pub mac: Option<[u8; 6]>,
    /// The index of the bridge that it becomes a port of; 0 for none.
    pub master: Option<u32>,
    /// How it is set as the port of a bridge.
    pub port: Option<BridgePort>,
    /// A note about it, at most 255 bytes.
    pub alias: Option<&'a str>,
}

/// How a link is set as the port of a bridge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BridgePort {
    /// Whether frames may leave by the port they came in by (`IFLA_BRPORT_MODE`).
    pub hairpin: bool,
    /// Whether frames go to ports that are not isolated only (`IFLA_BRPORT_ISOLATED`).
    pub isolated: bool,
}

/// rtnetlink's multicast group of changes to links (`RTNLGRP_LINK`).
const RTNLGRP_LINK: u32 = 1;
/// Packets that wait for a veth's other end wait there, so the node's end needs no queue; nor does
/// an ifb device beside that of its queueing discipline.
const NO_QUEUE: u32 = 0;
/// The kernel's own default for Ethernet (`DEFAULT_TX_QUEUE_LEN`).
const DEFAULT_QUEUE: u32 = 1000;

/// In words, each with a space before it: ` up mtu 1400`.
impl fmt::Display for LinkChange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { up, promisc, allmulti, tx_queue_len, mtu, mac, master, port, alias } = self;
        let on = |on: &bool| if *on { "on" } else { "off" };
        up.map_or(Ok(()), |up| f.write_str(if up { " up" } else { " down" }))?;
        promisc.map_or(Ok(()), |promisc| write!(f, " promisc {}", on(&promisc)))?;
        allmulti.map_or(Ok(()), |allmulti| write!(f, " allmulticast {}", on(&allmulti)))?;
        tx_queue_len.map_or(Ok(()), |length| write!(f, " txqueuelen {length}"))?;
        mtu.map_or(Ok(()), |mtu| write!(f, " mtu {mtu}"))?;
        mac.map_or(Ok(()), |mac| write!(f, " address {mac:02x?}"))?;
        master.map_or(Ok(()), |master| write!(f, " master {master}"))?;
        port.map_or(Ok(()), |port| {
            write!(f, " hairpin {} isolated {}", on(&port.hairpin), on(&port.isolated))
        })?;
        alias.map_or(Ok(()), |alias| write!(f, " alias {alias:?}"))
    }
}

impl Rtnl {
    /// The link of a name; `None` if there is none.
    pub fn link_by_name(&self, name: &str) -> Result<Option<Link>> {
        self.get_link(with_name(name), || format!("look up link {name}"))
    }

    /// The link of an index; `None` if there is none.
    pub fn link_by_index(&self, index: u32) -> Result<Option<Link>> {
        self.get_link(with_index(index), || format!("look up link {index}"))
    }

    /// Waits until a link can carry packets. Its carrier may be there before that: the kernel
    /// leaves the rest to a worker, or, from 6.9 on, does it when the link is looked up.
    ///
    /// Errors: ENODEV if it is gone, ETIMEDOUT after `limit`.
    pub fn wait_until_operational(&self, index: u32, limit: Duration) -> Result<()> {
        let operation = || format!("wait until link {index} can carry packets");
        let is_operational = || match self.link_by_index(index)? {
            Some(link) => Ok(link.operational),
            None => Err(Error::new(operation(), Errno::ENODEV)),
        };
        if is_operational()? {
            return Ok(());
        }
        let deadline = Instant::now() + limit;
        // Listening begins before looking again, so that no change is missed.
        let events = Socket::subscribe(Protocol::Route, RTNLGRP_LINK)
            .map_err(|cause| Error::new(operation(), cause))?;
        while !is_operational()? {
            events.wait_until(deadline).map_err(|cause| Error::new(operation(), cause))?;
        }
        Ok(())
    }

    /// All links.
    pub fn links(&self) -> Result<Vec<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(without_statistics());
        self.dump(RouteNetlinkMessage::GetLink(message), || "list links".to_owned())
    }

    /// Makes a bridge, up. If its name is taken, the link that has it gets the note nevertheless: look first.
    ///
    /// Errors: EEXIST if the name is taken, whatever by.
    pub fn create_bridge(&self, bridge: &Bridge<'_>) -> Result<()> {
        let message = bridge_message(bridge);
        self.create(message, bridge.alias.map(|alias| (bridge.name, alias)), || {
            format!("create bridge {}", bridge.name)
        })
    }

    /// Makes a veth pair, the one end here and the other in its namespace. If the name of the end here is
    /// taken, the link that has it gets the note nevertheless: choose names that follow from the note.
    ///
    /// Errors: EEXIST if a name is taken, at whichever end.
    pub fn create_veth(&self, veth: &Veth<'_>) -> Result<()> {
        let message = veth_message(veth);
        self.create(message, veth.alias.map(|alias| (veth.name, alias)), || {
            format!(
                "create veth pair {} and {} in {}",
                veth.name,
                veth.peer.name,
                veth.peer.netns.path().display()
            )
        })
    }

    /// Makes an ifb device, up. If its name is taken, the link that has it gets the note nevertheless: choose
    /// names that follow from the note.
    ///
    /// Errors: EEXIST if the name is taken, whatever by.
    pub fn create_ifb(&self, ifb: &Ifb<'_>) -> Result<()> {
        let alias = ifb.alias.map(|alias| (ifb.name, alias));
        self.create(ifb_message(ifb), alias, || format!("create ifb device {}", ifb.name))
    }

    /// Changes a link.
    pub fn set_link(&self, index: u32, change: LinkChange<'_>) -> Result<()> {
        let message = change_message(index, change);
        self.change(RouteNetlinkMessage::NewLink(message), 0, || {
            format!("set link {index}{change}")
        })
    }

    /// Deletes a link; a veth's other end goes with it. The kernel answers after nobody can be
    /// using it any more, some 20 ms later.
    ///
    /// Errors: ENODEV if it is gone.
    pub fn delete_link(&self, index: u32) -> Result<()> {
        let message = RouteNetlinkMessage::DelLink(with_index(index));
        self.change(message, 0, || format!("delete link {index}"))
    }

    fn get_link(
        &self,
        mut message: LinkMessage,
        operation: impl FnOnce() -> String,
    ) -> Result<Option<Link>> {
        message.attributes.push(without_statistics());
        match self.request(RouteNetlinkMessage::GetLink(message), 0, operation) {
            Err(error) if error.is_not_found() => Ok(None),
            replies => Ok(replies?.into_iter().next()),
        }
    }

    /// Makes a link. The kernel takes no note (`alias`: the link's name and the note) with the link itself,
    /// so it comes in a message of its own, but in the same send(2): if this process is killed, there is no
    /// link without its note. A link whose note is refused is deleted again.
    pub(super) fn create(
        &self,
        message: LinkMessage,
        alias: Option<(&str, &str)>,
        operation: impl FnOnce() -> String,
    ) -> Result<()> {
        let message = RouteNetlinkMessage::NewLink(message);
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        let Some((name, alias)) = alias else {
            return self.change(message, flags, operation);
        };
        let note = RouteNetlinkMessage::SetLink(alias_message(name, alias));
        let outcomes = self.socket.request_both([(message, flags), (note, 0)]);
        let [made, noted] = outcomes.unwrap_or_else(|cause| [Err(cause), Ok(())]);
        let cause = match (made, noted) {
            (Ok(()), Ok(())) => return Ok(()),
            (Ok(()), Err(cause)) => self.delete_without_note(name, cause),
            (Err(cause), _) => cause,
        };
        Err(Error::new(operation(), cause))
    }

    /// Deletes a link that was made without its note, and returns why that failed.
    fn delete_without_note(&self, name: &str, cause: Cause) -> Cause {
        let message = RouteNetlinkMessage::DelLink(with_name(name));
        match self.change(message, 0, || format!("delete link {name}")) {
            Ok(()) => cause,
            Err(error) => Cause::NotUndone(format!("{cause}; {error}: {}", error.cause)),
        }
    }
}

pub(super) fn bridge_message(bridge: &Bridge<'_>) -> LinkMessage {
    let mut message = LinkMessage::default();
    set_flag(&mut message, LinkFlags::Up, true);
    if bridge.promisc {
        set_flag(&mut message, LinkFlags::Promisc, true);
    }
    message.attributes.push(LinkAttribute::IfName(bridge.name.to_owned()));
    message.attributes.push(LinkAttribute::Address(bridge.mac.to_vec()));
    message.attributes.extend(bridge.mtu.map(LinkAttribute::Mtu));
    let vlan_filtering = bridge.vlan_filtering.then_some(InfoBridge::VlanFiltering(true));
    message.attributes.push(bridge_info(vlan_filtering.into_iter().collect()));
    message
}

pub(super) fn veth_message(veth: &Veth<'_>) -> LinkMessage {
    let mut peer = LinkMessage::default();
    peer.attributes.push(LinkAttribute::IfName(veth.peer.name.to_owned()));
    peer.attributes.extend(veth.peer.mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
    peer.attributes.extend(veth.mtu.map(LinkAttribute::Mtu));
    peer.attributes.push(LinkAttribute::TxQueueLen(DEFAULT_QUEUE));
    peer.attributes.push(LinkAttribute::NetNsFd(veth.peer.netns.raw_fd()));

    let mut message = LinkMessage::default();
    set_flag(&mut message, LinkFlags::Up, true);
    message.attributes.push(LinkAttribute::IfName(veth.name.to_owned()));
    message.attributes.extend(veth.mtu.map(LinkAttribute::Mtu));
    message.attributes.push(LinkAttribute::TxQueueLen(NO_QUEUE));
    message.attributes.extend(veth.master.map(LinkAttribute::Controller));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    message
}

pub(super) fn ifb_message(ifb: &Ifb<'_>) -> LinkMessage {
    let mut message = LinkMessage::default();
    set_flag(&mut message, LinkFlags::Up, true);
    message.attributes.push(LinkAttribute::IfName(ifb.name.to_owned()));
    message.attributes.push(LinkAttribute::Mtu(ifb.mtu));
    message.attributes.push(LinkAttribute::TxQueueLen(NO_QUEUE));
    message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Ifb)]));
    message
}

fn alias_message(name: &str, alias: &str) -> LinkMessage {
    let mut message = with_name(name);
    message.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
    message
}

fn change_message(index: u32, change: LinkChange<'_>) -> LinkMessage {
    let mut message = with_index(index);
    if let Some(up) = change.up {
        set_flag(&mut message, LinkFlags::Up, up);
    }
    if let Some(promisc) = change.promisc {
        set_flag(&mut message, LinkFlags::Promisc, promisc);
    }
    if let Some(allmulti) = change.allmulti {
        set_flag(&mut message, LinkFlags::Allmulti, allmulti);
    }
    message.attributes.extend(change.tx_queue_len.map(LinkAttribute::TxQueueLen));
    message.attributes.extend(change.mtu.map(LinkAttribute::Mtu));
    message.attributes.extend(change.mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
    message.attributes.extend(change.master.map(LinkAttribute::Controller));
    message.attributes.extend(change.alias.map(|text| LinkAttribute::IfAlias(text.to_owned())));
    if let Some(port) = change.port {
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![
                InfoBridgePort::HairpinMode(port.hairpin),
                InfoBridgePort::Isolated(port.isolated),
            ])),
        ]));
    }
    message
}

/// The statistics are most of a link's description, and nobody here reads them.
fn without_statistics() -> LinkAttribute {
    LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])
}
