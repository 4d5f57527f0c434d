//! Finds out which addresses this machine uses: in its namespaces, and on other machines behind its links.

use std::collections::HashSet;
use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};

use super::{Link, Rtnl};
use crate::error::Result;
use crate::family::Family;

/// The links of this namespace and the addresses of the namespaces that have a number in it.
#[derive(Debug)]
pub struct Usage {
    rtnl: Rtnl,
    links: Vec<Link>,
    namespaces: HashSet<i32>,
    addresses: HashSet<IpAddr>,
}

impl Usage {
    /// Reads the addresses of all other namespaces that have a number in this one. Every namespace that has
    /// the other end of a link of this one has a number, and every one that a link was moved to.
    pub fn read() -> Result<Self> {
        let rtnl = Rtnl::open()?;
        let namespaces = rtnl.namespaces()?;
        let mut addresses = HashSet::new();
        for namespace in &namespaces {
            addresses.extend(rtnl.addresses_in_namespace(*namespace)?);
        }
        let links = rtnl.links()?;
        Ok(Self { rtnl, links, namespaces, addresses })
    }

    /// Whether the address is certainly not in use: no namespace has it, and no link leads to it directly,
    /// except a bridge whose ports all lead to namespaces that were read.
    pub fn is_unused(&self, address: IpAddr) -> Result<bool> {
        if self.addresses.contains(&address) {
            return Ok(false);
        }
        let Some(index) = self.rtnl.direct_link_towards(address)? else { return Ok(true) };
        let link = self.links.iter().find(|link| link.index == index);
        let is_bridge = link.is_some_and(|link| link.kind.as_deref() == Some("bridge"));
        let mut ports = self.links.iter().filter(|link| link.master == Some(index));
        Ok(is_bridge && ports.all(|port| self.is_known(port)))
    }

    /// Whether the other end of a link is in a namespace that was read.
    fn is_known(&self, port: &Link) -> bool {
        port.kind.as_deref() == Some("veth")
            && port.peer_namespace.is_some_and(|number| self.namespaces.contains(&number))
    }
}

impl Rtnl {
    /// The numbers of other namespaces in this one.
    fn namespaces(&self) -> Result<HashSet<i32>> {
        let message = RouteNetlinkMessage::GetNsId(NsidMessage::default());
        let replies = self.dump(message, || "list the numbers of network namespaces".to_owned())?;
        let number = |reply| match reply {
            RouteNetlinkMessage::NewNsId(message) => {
                message.attributes.iter().find_map(|attribute| match attribute {
                    NsidAttribute::Id(number) if *number >= 0 => Some(*number),
                    _ => None,
                })
            }
            _ => None,
        };
        Ok(replies.into_iter().filter_map(number).collect())
    }

    /// The addresses of all links of another namespace.
    fn addresses_in_namespace(&self, number: i32) -> Result<Vec<IpAddr>> {
        let mut all = Vec::new();
        for family in Family::ALL {
            let mut message = AddressMessage::default();
            message.header.family = family.into();
            message.attributes.push(AddressAttribute::TargetNetNsId(number));
            let operation = || format!("list the addresses of network namespace {number}");
            let replies = self.dump(RouteNetlinkMessage::GetAddress(message), operation)?;
            all.extend(replies.into_iter().filter_map(super::address::address));
        }
        Ok(all.into_iter().map(|address| address.network.ip()).collect())
    }
}
