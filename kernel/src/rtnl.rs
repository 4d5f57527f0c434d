//! Links, addresses, routes and queueing disciplines, over rtnetlink(7).
//!
//! Each function sends one message, unless its description says otherwise.

mod address;
mod clock;
mod filter;
mod link;
mod macvlan;
mod message;
mod namespace;
mod new_link;
mod qdisc;
mod route;
mod usage;
mod vlan;

pub use address::{Address, AddressOptions, wait_for_dad};
pub use clock::Clock;
pub use link::{BridgePort, Link, LinkChange};
pub use macvlan::MacvlanMode;
pub use new_link::{Kind, NewLink, Parent, VethPeer};
pub use qdisc::{Place, Qdisc, TokenBucket};
pub use route::{Route, table};
pub use usage::Usage;
pub use vlan::{BridgeVlans, PortVlans, VlanRange};

use netlink_packet_core::NetlinkDeserializable;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::error::{Cause, Error, Result};
use crate::family::Family;
use crate::netlink::{Protocol, Socket};
use crate::netns::Netns;

/// A socket for the links, addresses, routes and queueing disciplines of one namespace.
#[derive(Debug)]
pub struct Rtnl {
    socket: Socket,
}

impl Rtnl {
    /// Opens a socket in the namespace of this thread.
    pub fn open() -> Result<Self> {
        let socket = Socket::open(Protocol::Route)
            .map_err(|cause| Error::new("open a socket of rtnetlink", cause))?;
        Ok(Self { socket })
    }

    /// Opens a socket in a namespace.
    pub fn open_in(netns: &Netns) -> Result<Self> {
        netns.enter(Self::open)?
    }

    /// Sends one request. `operation` describes it in errors.
    fn request<R: NetlinkDeserializable>(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        operation: impl FnOnce() -> String,
    ) -> Result<Vec<R>> {
        self.socket.request(message, flags).map_err(|cause| Error::new(operation(), cause))
    }

    /// Sends one request whose answer is only an acknowledgement.
    fn change(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        operation: impl FnOnce() -> String,
    ) -> Result<()> {
        self.request::<RouteNetlinkMessage>(message, flags, operation).map(drop)
    }

    fn dump<R: NetlinkDeserializable>(
        &self,
        message: RouteNetlinkMessage,
        operation: impl FnOnce() -> String,
    ) -> Result<Vec<R>> {
        self.socket.dump(message).map_err(|cause: Cause| Error::new(operation(), cause))
    }
}

impl From<Family> for AddressFamily {
    fn from(family: Family) -> Self {
        family.number().into()
    }
}

#[cfg(test)]
mod tests;
