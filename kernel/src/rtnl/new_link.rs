//! Making a link of any kind.

use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};

use super::Rtnl;
use crate::error::Result;

/// A link to be made, down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewLink<'a> {
    /// Its name, at most 15 bytes.
    pub name: &'a str,
    /// Its hardware address; `None` for a random one.
    pub mac: Option<[u8; 6]>,
    /// A note about it, at most 255 bytes (`IFLA_IFALIAS`).
    pub alias: Option<&'a str>,
    /// Its kind.
    pub kind: Kind,
}

/// The kinds of links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An interface that drops all packets.
    Dummy,
}

impl Kind {
    /// The kind's name (`IFLA_INFO_KIND`), as `ip link add type` takes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dummy => "dummy",
        }
    }
}

impl<'a> NewLink<'a> {
    /// A link of a kind, with nothing but its name.
    #[must_use]
    pub fn new(name: &'a str, kind: Kind) -> Self {
        Self { name, mac: None, alias: None, kind }
    }
}

impl Rtnl {
    /// Makes a link. If its name is taken, the link that has it gets the note nevertheless: look first.
    ///
    /// Errors: EEXIST if the name is taken, whatever by; EOPNOTSUPP if the kernel does not have the kind.
    pub fn create_link(&self, new: &NewLink<'_>) -> Result<()> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(new.name.to_owned()));
        message.attributes.extend(new.mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
        let kind = match new.kind {
            Kind::Dummy => InfoKind::Dummy,
        };
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
        self.create(message, new.alias.map(|alias| (new.name, alias)), || {
            format!("create {} device {}", new.kind.name(), new.name)
        })
    }
}
