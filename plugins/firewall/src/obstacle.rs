//! Chains of other programs that drop what our rules accept.

use std::net::IpAddr;

use kernel::nft::TableFamily;
use kernel::obstacle::{self, Obstacle, Packet, Place};
use kernel::{Family, Nfnetlink, Rtnl, sysctl};

use crate::error::{Dropped, Error};

/// Fails if chains are certain to drop every packet of a pod. `is_answered` tells the chains to ignore: those
/// where our own rules come first.
///
/// A pod with addresses of both families is refused only if both are dropped. Without addresses, this looks
/// at IPv6 if the node forwards only IPv6, and at IPv4 otherwise.
pub(crate) fn refuse(
    netlink: &Nfnetlink,
    addresses: &[IpAddr],
    is_answered: impl Fn(&Place) -> bool,
) -> Result<(), Error> {
    let families: Vec<Family> = if addresses.is_empty() {
        vec![if forwards_ipv6_only() { Family::V6 } else { Family::V4 }]
    } else {
        let has = |family: &Family| addresses.iter().any(|it| Family::of(*it) == *family);
        Family::ALL.into_iter().filter(has).collect()
    };
    let mut found = Vec::new();
    for family in families {
        let packet = Packet { family, source: None, in_interface: None };
        match obstacle::find(netlink, packet, &is_answered)? {
            Some(obstacle) => found.push(dropped(&obstacle)),
            None => return Ok(()),
        }
    }
    // A chain of both families is found twice.
    found.dedup();
    Err(Error::Dropped(found))
}

/// Writes to stderr what [`refuse`] finds, for the runtime's log. The reference plugin's ADD succeeds, and
/// pods that only talk to the node work.
pub(crate) fn warn(
    netlink: &Nfnetlink,
    addresses: &[IpAddr],
    is_answered: impl Fn(&Place) -> bool,
) {
    // The rules are made. An ADD must not fail because other tables cannot be listed.
    if let Err(dropped @ Error::Dropped(_)) = refuse(netlink, addresses, is_answered) {
        eprintln!("firewall: {dropped}");
    }
}

/// Whether the node forwards IPv6 and not IPv4.
fn forwards_ipv6_only() -> bool {
    let is_on = |name: &[&str]| sysctl::read(name).is_ok_and(|value| value != "0");
    is_on(&["ipv6", "conf", "all", "forwarding"]) && !is_on(&["ipv4", "ip_forward"])
}

/// Finds chains that are certain to drop what a pod sends from its addresses, one for each address. Our own
/// rules are among those that are followed.
pub(crate) fn check(netlink: &Nfnetlink, addresses: &[IpAddr]) -> Result<(), Error> {
    if addresses.is_empty() {
        return Ok(());
    }
    let rtnl = Rtnl::open()?;
    let mut found = Vec::new();
    for address in addresses {
        let link = link_of(&rtnl, *address)?;
        let packet = Packet {
            family: Family::of(*address),
            source: Some(*address),
            in_interface: link.as_deref(),
        };
        found.extend(obstacle::find(netlink, packet, |_| false)?.as_ref().map(dropped));
    }
    found.dedup();
    if found.is_empty() { Ok(()) } else { Err(Error::Dropped(found)) }
}

/// The input interface of packets from a pod; `None` if it is not known. A link of a VRF is not used, because
/// rules also see its packets under the name of the VRF.
fn link_of(rtnl: &Rtnl, address: IpAddr) -> Result<Option<String>, Error> {
    let Some(index) = rtnl.direct_link_towards(address)? else { return Ok(None) };
    let link = rtnl.link_by_index(index)?;
    Ok(link.filter(|link| link.master.is_none() && link.name != "lo").map(|link| link.name))
}

fn dropped(found: &Obstacle) -> Dropped {
    let (command, is_iptables) = found.place.insert_command();
    let rules = if is_iptables {
        [
            "-s NETWORK -j ACCEPT".to_owned(),
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT".to_owned(),
        ]
    } else {
        let ip = if found.place.family == TableFamily::Ip6 { "ip6" } else { "ip" };
        [format!("{ip} saddr NETWORK accept"), "ct state established,related accept".to_owned()]
    };
    Dropped {
        chain: found.place.to_string(),
        how: if found.by_policy { "its policy" } else { "a rule without conditions" },
        commands: rules.map(|rule| format!("{command} {rule}")).join(" && "),
    }
}
