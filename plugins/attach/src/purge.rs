//! Removing all that attaching plugins made on a node: veth pairs, masquerading, the rules of `macspoofchk`.

use cni::Purge;
use kernel::rtnl::Link;
use kernel::{Nfnetlink, Rtnl};

use crate::alias::alias_parts;
use crate::error::Error;
use crate::host_end::{self, HostEnd};
use crate::{macspoof, masquerade};

/// Removes the veth pairs of all pods, and the rules that belong to them.
pub fn purge(purge: &mut Purge) {
    let links = purge.look("list links", || -> Result<_, Error> {
        let node = Rtnl::open()?;
        let links = node.links()?;
        Ok((node, links))
    });
    if let Some((node, links)) = links {
        for link in links.iter().filter(|link| is_host_end(link)) {
            let what = format!("link {}, alias {}", link.name, link.alias);
            purge.remove(what, || host_end::delete_veth(&node, link));
        }
    }
    let netlink = purge.look("open netlink", || masquerade::open_to_remove(false));
    if let Some(netlink) = netlink.flatten() {
        rules(purge, &netlink);
    }
}

/// Whether a link is the node's end of a pod's veth pair, by its alias and by its name, which follows from
/// that.
#[must_use]
pub fn is_host_end(link: &Link) -> bool {
    let is_veth = link.kind.as_deref() == Some("veth");
    let derived = alias_parts(&link.alias)
        .map(|(network, id, ifname)| HostEnd::named(&network, id, ifname).name);
    is_veth && derived.as_ref() == Some(&link.name)
}

fn rules(purge: &mut Purge, netlink: &Nfnetlink) {
    purge.all("rules of macspoofchk", |is_dry_run| macspoof::purge(netlink, is_dry_run));
    purge.all("rules of ipMasq", |is_dry_run| masquerade::purge(netlink, is_dry_run));
}
