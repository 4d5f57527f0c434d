//! Removing all that the plugins with veth pairs made on a node.

use cni::Purge;
use kernel::rtnl::Link;
use kernel::{Nfnetlink, Rtnl};

use crate::error::Error;
use crate::veth::HostEnd;
use crate::{link, macspoof, masquerade};

/// Removes the veth pairs of all pods, and the rules of masquerading and `macspoofchk`. Returns the links of
/// the node before that, if they could be listed.
pub fn purge(purge: &mut Purge) -> Option<(Rtnl, Vec<Link>)> {
    let links = purge.look("list links", || -> Result<_, Error> {
        let node = Rtnl::open()?;
        let links = node.links()?;
        Ok((node, links))
    });
    if let Some((node, links)) = &links {
        for link in links.iter().filter(|link| HostEnd::recognise(link).is_some()) {
            let what = format!("link {}, alias {}", link.name, link.alias);
            purge.remove(what, || link::delete(node, link));
        }
    }
    let netlink = purge.look("open netlink", || masquerade::open_to_remove(false));
    if let Some(netlink) = netlink.flatten() {
        rules(purge, &netlink);
    }
    links
}

fn rules(purge: &mut Purge, netlink: &Nfnetlink) {
    purge.all("rules of macspoofchk", |is_dry_run| macspoof::purge(netlink, is_dry_run));
    purge.all("rules of ipMasq", |is_dry_run| masquerade::purge(netlink, is_dry_run));
}
