//! Chains of others that drop what our rules let through.

use std::net::IpAddr;

use kernel::nft::Family;
use kernel::obstacle::{self, Obstacle, Packet, Place};
use kernel::{Nfnetlink, Rtnl};

use crate::error::Error;

/// Refuses if a chain of another table is certain to drop whatever pods send, save those where our own rules
/// come first, which `is_answered` takes. This is asked for IPv4, and for IPv6 if the pod has no IPv4
/// address.
pub(crate) fn refuse(
    netlink: &Nfnetlink,
    addresses: &[IpAddr],
    is_answered: impl Fn(&Place) -> bool,
) -> Result<(), Error> {
    let is_ipv6 = !addresses.is_empty() && addresses.iter().all(IpAddr::is_ipv6);
    let family = if is_ipv6 { Family::Ipv6 } else { Family::Ipv4 };
    let packet = Packet { family, source: None, in_interface: None };
    obstacle::find(netlink, packet, is_answered)?.map_or(Ok(()), |it| Err(dropped(&it)))
}

/// Finds a chain that is certain to drop what a pod sends, by its addresses and the link that it is behind.
pub(crate) fn check(netlink: &Nfnetlink, addresses: &[IpAddr]) -> Result<(), Error> {
    if addresses.is_empty() {
        return Ok(());
    }
    let rtnl = Rtnl::open()?;
    for address in addresses {
        let link = link_of(&rtnl, *address)?;
        let packet = Packet {
            family: if address.is_ipv6() { Family::Ipv6 } else { Family::Ipv4 },
            source: Some(*address),
            in_interface: link.as_deref(),
        };
        // Our own rules are among those that are followed.
        if let Some(found) = obstacle::find(netlink, packet, |_| false)? {
            return Err(dropped(&found));
        }
    }
    Ok(())
}

/// The link that packets from a pod come in by; none if that cannot be told. Rules see a link that belongs to
/// a VRF under the name of the VRF too.
fn link_of(rtnl: &Rtnl, address: IpAddr) -> Result<Option<String>, Error> {
    let Some(index) = rtnl.direct_link_towards(address)? else { return Ok(None) };
    let link = rtnl.link_by_index(index)?;
    Ok(link.filter(|link| link.master.is_none() && link.name != "lo").map(|link| link.name))
}

fn dropped(found: &Obstacle) -> Error {
    let (command, is_iptables) = found.place.insert_command();
    let rules = if is_iptables {
        [
            "-s NETWORK -j ACCEPT".to_owned(),
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT".to_owned(),
        ]
    } else {
        let ip = if found.place.family == Family::Ipv6 { "ip6" } else { "ip" };
        [format!("{ip} saddr NETWORK accept"), "ct state established,related accept".to_owned()]
    };
    Error::Dropped {
        chain: found.place.to_string(),
        how: if found.by_policy { "its policy" } else { "a rule without conditions" },
        commands: rules.map(|rule| format!("{command} {rule}")).join(" && "),
    }
}
