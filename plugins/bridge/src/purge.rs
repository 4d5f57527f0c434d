//! Removing all that this plugin and ptp made on a node.

use attach::{HostEnd, link, veth_name};
use cni::Purge;
use kernel::rtnl::Link;

use crate::device::is_ours;

/// Removes the veth pairs of pods, rules, the interfaces of VLANs, and bridges.
///
/// A bridge stays if its alias does not say that this plugin made it, or if a link of another program is a
/// port of it.
pub(crate) fn purge(purge: &mut Purge) {
    let Some((node, links)) = attach::purge(purge) else { return };
    for link in links.iter().filter(|link| is_vlan_port(link, &links)) {
        let what = format!("link {}, of a VLAN's gateway", link.name);
        purge.remove(what, || link::delete(&node, link));
    }
    for bridge in links.iter().filter(|link| link.kind.as_deref() == Some("bridge")) {
        let name = &bridge.name;
        let mut ports = links.iter().filter(|link| link.master == Some(bridge.index)).peekable();
        let has_ports = ports.peek().is_some();
        let is_of_suite =
            |port: &Link| HostEnd::recognise(port).is_some() || is_vlan_port(port, &links);
        if let Some(other) = ports.find(|port| !is_of_suite(port)) {
            if is_ours(bridge) {
                purge.leave(format!("bridge {name}: link {} is a port of it", other.name));
            }
        } else if is_ours(bridge) {
            purge.remove(format!("bridge {name}"), || link::delete(&node, bridge));
        } else if has_ports {
            purge.leave(format!(
                "bridge {name}, which does not say who made it; delete it by hand if no program uses \
                 it: ip link delete {name}"
            ));
        }
    }
}

/// Whether a link is the port of a VLAN's gateway: its name follows from that of the other end.
fn is_vlan_port(link: &Link, links: &[Link]) -> bool {
    let mut ends = links.iter().filter(|end| link.peer == Some(end.index));
    ends.any(|end| end.peer == Some(link.index) && veth_name(&end.name) == link.name)
}
