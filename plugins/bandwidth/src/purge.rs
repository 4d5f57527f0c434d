//! Removing all ifb devices that this plugin has made on a node.

use cni::{Attachment, Purge};
use kernel::Rtnl;
use kernel::rtnl::Link;

use crate::error::Error;
use crate::ifb::{self, OwnIfb};

/// Removes the ifb devices of all pods, also those of the reference plugin, which have no alias and a name of
/// the same form.
pub(crate) fn purge(purge: &mut Purge) {
    let links = purge.look("list links", || -> Result<_, Error> {
        let node = Rtnl::open()?;
        let links = node.links()?;
        Ok((node, links))
    });
    let Some((node, links)) = links else { return };
    for link in links.iter().filter(|link| is_ours(link)) {
        let what = format!("link {}, alias {}", link.name, link.alias);
        purge.remove(what, || attach::link::delete(&node, link));
    }
}

fn is_ours(link: &Link) -> bool {
    let has_form = || {
        let digits = link.name.strip_prefix(ifb::PREFIX);
        let of_hash = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        digits.is_some_and(|digits| link.name.len() == ifb::NAME_MAX && of_hash(digits))
    };
    let derived = Attachment::parse(&link.alias).map(|owner| OwnIfb::of(&owner).name);
    ifb::is_ifb(link)
        && derived.map_or_else(|| link.alias.is_empty() && has_form(), |name| name == link.name)
}
