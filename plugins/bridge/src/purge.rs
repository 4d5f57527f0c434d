//! Removing all that this plugin made on a node. What ptp makes is of the same form.

use attach::purge::is_host_end;
use attach::veth_name;
use cni::Purge;
use kernel::Rtnl;
use kernel::rtnl::Link;

use crate::connection::is_ours;
use crate::error::Error;

/// Removes pods' veth pairs, rules, the interfaces of VLANs, and bridges.
///
/// A bridge stays if it does not say that this plugin made it, or if somebody else has a port of it.
pub(crate) fn purge(purge: &mut Purge) {
    let links = purge.look("list links", || -> Result<_, Error> {
        let node = Rtnl::open()?;
        let links = node.links()?;
        Ok((node, links))
    });
    attach::purge::purge(purge);
    let Some((node, links)) = links else { return };
    let is_ours_too = |link: &Link| is_host_end(link) || is_vlan_port(link, &links);
    for link in links.iter().filter(|link| is_vlan_port(link, &links)) {
        purge.remove(format!("link {}, of a VLAN's gateway", link.name), || delete(&node, link));
    }
    for bridge in links.iter().filter(|link| link.kind.as_deref() == Some("bridge")) {
        let ports: Vec<&Link> =
            links.iter().filter(|link| link.master == Some(bridge.index)).collect();
        let name = &bridge.name;
        if let Some(other) = ports.iter().find(|port| !is_ours_too(port)) {
            if is_ours(bridge) {
                purge.leave(format!("bridge {name}: link {} is a port of it", other.name));
            }
        } else if is_ours(bridge) {
            purge.remove(format!("bridge {name}"), || delete(&node, bridge));
        } else if !ports.is_empty() {
            purge.leave(format!(
                "bridge {name}, which does not say who made it; delete it by hand if nobody uses it: \
                 ip link delete {name}"
            ));
        }
    }
}

/// Whether a link is the port of a VLAN's gateway: its name follows from the other end's.
fn is_vlan_port(link: &Link, links: &[Link]) -> bool {
    let mut ends = links.iter().filter(|end| link.peer == Some(end.index));
    ends.any(|end| end.peer == Some(link.index) && veth_name(&end.name) == link.name)
}

/// Deletes a link; one that vanishes meanwhile is no failure.
fn delete(node: &Rtnl, link: &Link) -> Result<(), Error> {
    match node.delete_link(link.index) {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}
