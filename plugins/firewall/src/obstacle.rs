//! Chains of others that drop what our rules let through.

use std::net::IpAddr;

use kernel::nft::TableFamily;
use kernel::obstacle::{self, Obstacle, Packet, Place};
use kernel::{Family, Nfnetlink, Rtnl, sysctl};

use crate::error::Error;

/// Refuses if chains of other tables are certain to drop whatever pods send, save those where our own rules
/// come first, which `is_answered` takes. A pod with addresses of both families is refused only if both are
/// dropped. Without addresses, IPv6 is looked at if the node forwards nothing else, and IPv4 if not.
pub(crate) fn refuse(
    netlink: &Nfnetlink,
    addresses: &[IpAddr],
    is_answered: impl Fn(&Place) -> bool,
) -> Result<(), Error> {
    find(netlink, addresses, is_answered)?.map_or(Ok(()), |found| Err(dropped(&found)))
}

/// Says on stderr what [`refuse`] would refuse. The reference plugin's ADD succeeds there, and pods that only
/// talk to the node work.
pub(crate) fn warn(
    netlink: &Nfnetlink,
    addresses: &[IpAddr],
    is_answered: impl Fn(&Place) -> bool,
) {
    // The rules are made; an ADD must not fail because other tables cannot be listed.
    if let Ok(Some(found)) = find(netlink, addresses, is_answered) {
        // The program's stderr goes to the runtime's log.
        eprintln!("firewall: {}", dropped(&found));
    }
}

fn find(
    netlink: &Nfnetlink,
    addresses: &[IpAddr],
    is_answered: impl Fn(&Place) -> bool,
) -> Result<Option<Obstacle>, kernel::Error> {
    let has = |is_ipv6| addresses.iter().any(|address| address.is_ipv6() == is_ipv6);
    let is_ipv6_node = addresses.is_empty() && forwards_ipv6_only();
    let is_ipv4_node = addresses.is_empty() && !is_ipv6_node;
    let families =
        [(Family::V4, has(false) || is_ipv4_node), (Family::V6, has(true) || is_ipv6_node)];
    let mut first = None;
    for (family, is_used) in families {
        if !is_used {
            continue;
        }
        let packet = Packet { family, source: None, in_interface: None };
        let Some(found) = obstacle::find(netlink, packet, &is_answered)? else { return Ok(None) };
        first = first.or(Some(found));
    }
    Ok(first)
}

/// Whether the node forwards IPv6 and not IPv4.
fn forwards_ipv6_only() -> bool {
    let is_on = |name: &[&str]| sysctl::read(name).is_ok_and(|value| value != "0");
    is_on(&["ipv6", "conf", "all", "forwarding"]) && !is_on(&["ipv4", "ip_forward"])
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
            family: Family::of(*address),
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
        let ip = if found.place.family == TableFamily::Ip6 { "ip6" } else { "ip" };
        [format!("{ip} saddr NETWORK accept"), "ct state established,related accept".to_owned()]
    };
    Error::Dropped {
        chain: found.place.to_string(),
        how: if found.by_policy { "its policy" } else { "a rule without conditions" },
        commands: rules.map(|rule| format!("{command} {rule}")).join(" && "),
    }
}
