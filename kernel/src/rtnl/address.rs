//! Addresses of links.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use nix::errno::Errno;

use super::Rtnl;
use crate::error::{Error, Result};
use crate::family::Family;
use crate::netlink::{Protocol, Socket};
use crate::netns::Netns;

/// An address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The index of the link.
    pub index: u32,
    /// The address and the length of its prefix.
    pub network: IpNetwork,
    /// Whether duplicate address detection (RFC 4862) has not finished.
    pub tentative: bool,
    /// Whether duplicate address detection found another machine with the address.
    pub dad_failed: bool,
}

/// Options for adding an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressOptions {
    /// Use an IPv6 address at once, without duplicate address detection (`IFA_F_NODAD`).
    pub nodad: bool,
    /// Do not add a route to the address's network (`IFA_F_NOPREFIXROUTE`).
    pub no_prefix_route: bool,
}

/// The multicast group for changes of IPv6 addresses (`RTNLGRP_IPV6_IFADDR`).
const RTNLGRP_IPV6_IFADDR: u32 = 9;

impl Rtnl {
    /// The addresses of a link. With index 0, those of all links.
    pub fn addresses(&self, index: u32, family: Option<Family>) -> Result<Vec<Address>> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        if let Some(family) = family {
            message.header.family = family.into();
        }
        let operation = || format!("list the addresses of link {index}");
        let replies = self.dump(RouteNetlinkMessage::GetAddress(message), operation)?;
        Ok(replies.into_iter().filter_map(address).collect())
    }

    /// Adds an address. IPv4 addresses get the network's broadcast address.
    ///
    /// Errors: EEXIST if the link has the address already.
    pub fn add_address(
        &self,
        index: u32,
        network: IpNetwork,
        options: AddressOptions,
    ) -> Result<()> {
        let message = new_address_message(index, network, options);
        let message = RouteNetlinkMessage::NewAddress(message);
        self.change(message, NLM_F_CREATE | NLM_F_EXCL, || {
            format!("add address {network} to link {index}")
        })
    }

    /// Deletes an address.
    ///
    /// Errors: EADDRNOTAVAIL if the link does not have the address.
    pub fn delete_address(&self, index: u32, network: IpNetwork) -> Result<()> {
        let message = RouteNetlinkMessage::DelAddress(address_message(index, network));
        self.change(message, 0, || format!("delete address {network} from link {index}"))
    }
}

/// Waits until no IPv6 address of a link is tentative. The kernel reports each change.
///
/// Errors: EADDRINUSE if another machine has one of them, ETIMEDOUT after `limit`. If the link cannot carry
/// packets then, this is no error: the detection begins when it can.
pub fn wait_for_dad(netns: &Netns, index: u32, limit: Duration) -> Result<()> {
    let operation = || format!("wait for duplicate address detection on link {index}");
    let deadline = Instant::now() + limit;
    // Subscribe before looking, so that no change is missed.
    let events = netns
        .enter(|| Socket::subscribe(Protocol::Route, RTNLGRP_IPV6_IFADDR))?
        .map_err(|cause| Error::new(operation(), cause))?;
    let rtnl = Rtnl::open_in(netns)?;
    loop {
        let addresses = rtnl.addresses(index, Some(Family::V6))?;
        if addresses.iter().any(|address| address.dad_failed) {
            return Err(Error::new(operation(), Errno::EADDRINUSE));
        }
        if !addresses.iter().any(|address| address.tentative) {
            return Ok(());
        }
        if let Err(cause) = events.wait_until(deadline) {
            let link = rtnl.link_by_index(index)?;
            let is_waiting = link.is_some_and(|link| link.up && !link.operational);
            let is_late = cause.errno() == Some(Errno::ETIMEDOUT);
            return if is_late && is_waiting {
                Ok(())
            } else {
                Err(Error::new(operation(), cause))
            };
        }
    }
}

pub(super) fn new_address_message(
    index: u32,
    network: IpNetwork,
    options: AddressOptions,
) -> AddressMessage {
    let mut message = address_message(index, network);
    if options.no_prefix_route {
        // The header has no room for this flag. The kernel reads the attribute instead.
        let mut flags = AddressFlags::Noprefixroute;
        flags.set(AddressFlags::Nodad, options.nodad);
        message.attributes.push(AddressAttribute::Flags(flags));
    } else if options.nodad {
        message.header.flags |= AddressHeaderFlags::Nodad;
    }
    if let IpNetwork::V4(v4) = network
        && v4.prefix() < 31
    {
        message.attributes.push(AddressAttribute::Broadcast(v4.broadcast()));
    }
    message
}

fn address_message(index: u32, network: IpNetwork) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = Family::of(network.ip()).into();
    message.header.prefix_len = network.prefix();
    message.header.index = index;
    message.attributes.push(AddressAttribute::Local(network.ip()));
    message.attributes.push(AddressAttribute::Address(network.ip()));
    message
}

pub(super) fn address(reply: RouteNetlinkMessage) -> Option<Address> {
    let RouteNetlinkMessage::NewAddress(message) = reply else {
        return None;
    };
    let (mut local, mut other, mut flags) = (None, None, AddressFlags::empty());
    for attribute in message.attributes {
        match attribute {
            // With a peer (point to point), `Local` is our address and `Address` the peer's.
            AddressAttribute::Local(ip) => local = Some(ip),
            AddressAttribute::Address(ip) => other = Some(ip),
            AddressAttribute::Flags(all) => flags = all,
            _ => {}
        }
    }
    let ip: IpAddr = local.or(other)?;
    Some(Address {
        index: message.header.index,
        network: IpNetwork::new(ip, message.header.prefix_len).ok()?,
        tentative: flags.contains(AddressFlags::Tentative),
        dad_failed: flags.contains(AddressFlags::Dadfailed),
    })
}
