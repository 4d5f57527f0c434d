//! Makes links of all kinds.

use std::fmt;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridge, InfoData, InfoKind, InfoMacVlan, InfoVeth, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};

use super::Rtnl;
use super::macvlan::MacvlanMode;
use super::message::{set_flag, with_name};
use crate::error::{Cause, Error, Result};
use crate::netns::Netns;

/// A link to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewLink<'a> {
    /// Its name, at most 15 bytes.
    pub name: &'a str,
    /// Its hardware address; `None` for a random one.
    pub mac: Option<[u8; 6]>,
    /// Its MTU in bytes; `None` for the kernel's default.
    pub mtu: Option<u32>,
    /// Whether to set it up.
    pub up: bool,
    /// The index of the bridge that it becomes a port of.
    pub master: Option<u32>,
    /// The link that it is made on, for a kind that needs one (`IFLA_LINK`).
    pub parent: Option<Parent>,
    /// Its alias, at most 255 bytes (`IFLA_IFALIAS`).
    pub alias: Option<&'a str>,
    /// Its kind.
    pub kind: Kind<'a>,
}

/// The link that another one is made on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Its index in its namespace.
    pub index: u32,
    /// The ID of its namespace in that of the new link, see [`Rtnl::id_of`]; `None` if it is the same one.
    pub namespace: Option<i32>,
}

/// The kinds of links.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'a> {
    /// A bridge. Without a hardware address, it takes the lowest one of its ports, which changes with them.
    Bridge {
        /// Whether to set it promiscuous.
        promisc: bool,
        /// Whether it keeps VLANs apart.
        vlan_filtering: bool,
    },
    /// One end of a veth pair.
    Veth(VethPeer<'a>),
    /// An intermediate functional block: packets that are redirected to it wait in its queue, and go on from
    /// where they were redirected.
    Ifb,
    /// An interface that drops all packets.
    Dummy,
    /// An interface with a hardware address of its own on the network of its parent.
    Macvlan {
        /// What it can reach, besides that network.
        mode: MacvlanMode,
        /// The length of the parent's queue for broadcast and multicast packets; `None` for the kernel's
        /// default. The kernel uses the largest value of all macvlan links of the parent.
        bc_queue_len: Option<u32>,
    },
}

/// The other end of a veth pair. It is made in its namespace with its final name: to move it there later
/// takes some 20 ms, because the kernel waits until no program uses it in the old one.
#[derive(Clone, Copy, Debug)]
pub struct VethPeer<'a> {
    /// Its name, at most 15 bytes.
    pub name: &'a str,
    /// Its hardware address; `None` for a random one.
    pub mac: Option<[u8; 6]>,
    /// The namespace.
    pub netns: &'a Netns,
}

/// The kernel's default for Ethernet (`DEFAULT_TX_QUEUE_LEN`).
const DEFAULT_QUEUE: u32 = 1000;

impl Kind<'_> {
    /// The kind's name (`IFLA_INFO_KIND`), as `ip link add type` takes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge { .. } => "bridge",
            Self::Veth(_) => "veth",
            Self::Ifb => "ifb",
            Self::Dummy => "dummy",
            Self::Macvlan { .. } => "macvlan",
        }
    }

    /// The length of the queue for packets. The end of a veth pair needs none, because packets wait at the
    /// other end, nor does an ifb device beside the queue of its queueing discipline.
    fn tx_queue_len(self) -> Option<u32> {
        match self {
            Self::Veth(_) | Self::Ifb => Some(0),
            Self::Bridge { .. } | Self::Dummy | Self::Macvlan { .. } => None,
        }
    }

    fn info(self, mtu: Option<u32>) -> LinkAttribute {
        let (kind, data) = match self {
            Self::Bridge { vlan_filtering, .. } => {
                let filter = InfoData::Bridge(vec![InfoBridge::VlanFiltering(true)]);
                (InfoKind::Bridge, vlan_filtering.then_some(filter))
            }
            Self::Veth(peer) => {
                (InfoKind::Veth, Some(InfoData::Veth(InfoVeth::Peer(peer.message(mtu)))))
            }
            Self::Ifb => (InfoKind::Ifb, None),
            Self::Dummy => (InfoKind::Dummy, None),
            Self::Macvlan { mode, bc_queue_len } => {
                let mut settings = vec![InfoMacVlan::Mode(mode.into())];
                settings.extend(bc_queue_len.map(InfoMacVlan::BcQueueLen));
                (InfoKind::MacVlan, Some(InfoData::MacVlan(settings)))
            }
        };
        let data = data.map(LinkInfo::Data);
        LinkAttribute::LinkInfo([LinkInfo::Kind(kind)].into_iter().chain(data).collect())
    }
}

impl VethPeer<'_> {
    fn message(self, mtu: Option<u32>) -> LinkMessage {
        let mut message = with_name(self.name);
        message.attributes.extend(self.mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
        message.attributes.extend(mtu.map(LinkAttribute::Mtu));
        message.attributes.push(LinkAttribute::TxQueueLen(DEFAULT_QUEUE));
        message.attributes.push(LinkAttribute::NetNsFd(self.netns.raw_fd()));
        message
    }
}

impl<'a> NewLink<'a> {
    /// A link of a kind, down, with its name only.
    #[must_use]
    pub fn new(name: &'a str, kind: Kind<'a>) -> Self {
        Self {
            name,
            mac: None,
            mtu: None,
            up: false,
            master: None,
            parent: None,
            alias: None,
            kind,
        }
    }

    pub(super) fn message(&self) -> LinkMessage {
        let mut message = with_name(self.name);
        if self.up {
            set_flag(&mut message, LinkFlags::Up, true);
        }
        if let Kind::Bridge { promisc: true, .. } = self.kind {
            set_flag(&mut message, LinkFlags::Promisc, true);
        }
        message.attributes.extend(self.mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
        message.attributes.extend(self.mtu.map(LinkAttribute::Mtu));
        message.attributes.extend(self.kind.tx_queue_len().map(LinkAttribute::TxQueueLen));
        message.attributes.extend(self.master.map(LinkAttribute::Controller));
        if let Some(Parent { index, namespace }) = self.parent {
            message.attributes.push(LinkAttribute::Link(index));
            message.attributes.extend(namespace.map(LinkAttribute::LinkNetNsId));
        }
        message.attributes.push(self.kind.info(self.mtu));
        message
    }
}

/// As the object of an operation: `veth pair A and B in /run/netns/pod`.
impl fmt::Display for NewLink<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Bridge { .. } => write!(f, "bridge {}", self.name),
            Kind::Veth(VethPeer { name, netns, .. }) => {
                write!(f, "veth pair {} and {name} in {}", self.name, netns.path().display())
            }
            Kind::Ifb | Kind::Dummy | Kind::Macvlan { .. } => {
                write!(f, "{} device {}", self.kind.name(), self.name)
            }
        }
    }
}

impl Rtnl {
    /// Makes a link. The kernel does not take the alias with the link itself, so it comes in a message of its
    /// own, but in the same send(2): if this process is killed, no link is left without its alias. A link
    /// whose alias is refused is deleted again.
    ///
    /// If the name is taken, the link that has it gets the alias nevertheless: look first, or use names that
    /// follow from the alias.
    ///
    /// Errors: EEXIST if a name is taken, also at the other end of a veth pair; EOPNOTSUPP if the kernel does
    /// not have the kind.
    pub fn create_link(&self, new: &NewLink<'_>) -> Result<()> {
        let operation = || format!("create {new}");
        let message = RouteNetlinkMessage::NewLink(new.message());
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        let Some(alias) = new.alias else {
            return self.change(message, flags, operation);
        };
        let mut note = with_name(new.name);
        note.attributes.push(LinkAttribute::IfAlias(alias.to_owned()));
        let note = RouteNetlinkMessage::SetLink(note);
        let outcomes = self.socket.request_both([(message, flags), (note, 0)]);
        let [made, noted] = outcomes.unwrap_or_else(|cause| [Err(cause), Ok(())]);
        let cause = match (made, noted) {
            (Ok(()), Ok(())) => return Ok(()),
            (Ok(()), Err(cause)) => self.delete_without_alias(new.name, cause),
            (Err(cause), _) => cause,
        };
        Err(Error::new(operation(), cause))
    }

    /// Deletes a link that was made without its alias, and returns why that failed.
    fn delete_without_alias(&self, name: &str, cause: Cause) -> Cause {
        let message = RouteNetlinkMessage::DelLink(with_name(name));
        match self.change(message, 0, || format!("delete link {name}")) {
            Ok(()) => cause,
            Err(error) => Cause::NotUndone(format!("{cause}; {error}: {}", error.cause)),
        }
    }
}
