//! Finds, changes and deletes links.

pub(super) mod read;

use std::fmt;
use std::time::{Duration, Instant};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridgePort, InfoPortData, InfoPortKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo,
    LinkMessage,
};

use nix::errno::Errno;

use super::Rtnl;
use super::macvlan::MacvlanMode;
use super::message::{set_flag, with_index, with_name};
use super::vlan::BridgeVlans;
use crate::error::{Error, Result};
use crate::netlink::{Protocol, Socket};

/// A link, as the kernel describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// The index of the other end of a veth pair, or of the link that this one is made on, in its own
    /// namespace (`IFLA_LINK`).
    pub peer: Option<u32>,
    /// The ID of that namespace in this one; `None` if it is this one (`IFLA_LINK_NETNSID`).
    pub peer_namespace: Option<i32>,
    /// How it is set as the port of a bridge, if it is one.
    pub port: Option<BridgePort>,
    /// How it treats VLANs, if it is a bridge.
    pub vlans: Option<BridgeVlans>,
    /// Its mode, if it is a macvlan link and the mode is known here.
    pub macvlan: Option<MacvlanMode>,
    /// Its alias (`IFLA_IFALIAS`); empty if it has none.
    pub alias: String,
}

/// What to set on a link. `None` leaves a value as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkChange {
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

/// In words, each with a space before it: ` up mtu 1400`.
impl fmt::Display for LinkChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { up, promisc, allmulti, tx_queue_len, mtu, mac, master, port } = self;
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
        })
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

    /// Waits until a link can carry packets. That can be later than its carrier is there: a worker of the
    /// kernel does the rest; from 6.9 on, the kernel does it when the link is looked up.
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

    /// Changes a link.
    pub fn set_link(&self, index: u32, change: LinkChange) -> Result<()> {
        let message = change_message(index, change);
        self.change(RouteNetlinkMessage::NewLink(message), 0, || {
            format!("set link {index}{change}")
        })
    }

    /// Deletes a link, and with it the other end of a veth pair. The kernel answers when no program can be
    /// using it, some 20 ms later.
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
}

fn change_message(index: u32, change: LinkChange) -> LinkMessage {
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

/// Omits the statistics, which are most of a link's description.
fn without_statistics() -> LinkAttribute {
    LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])
}
