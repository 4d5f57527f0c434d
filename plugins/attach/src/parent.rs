//! The link that the pod's interface is made on: the key `master` of macvlan and similar plugins.

use cni::IfName;
use kernel::rtnl::{Link, Parent, table};
use kernel::{Family, Netns, Rtnl};

use crate::error::Error;
use crate::pod::Pod;

/// A link of the node or of the pod.
#[derive(Clone, Debug)]
pub struct FoundParent {
    /// The link.
    pub link: Link,
    /// How a new link of the pod names it.
    pub parent: Parent,
}

impl FoundParent {
    /// Finds the link `master` of the node, or of the pod if `in_pod` is set. If `master` is not set, finds
    /// the link of the default route in the main table: that of IPv4 if there is one.
    pub fn find(master: Option<&IfName>, in_pod: bool, pod: &Pod) -> Result<Self, Error> {
        if in_pod {
            let link = find(&pod.rtnl, master, "the pod")?;
            let parent = Parent { index: link.index, namespace: None };
            return Ok(Self { link, parent });
        }
        let link = find_on_node(master)?;
        let namespace = Some(pod.rtnl.id_of(&Netns::current()?)?);
        let parent = Parent { index: link.index, namespace };
        Ok(Self { link, parent })
    }
}

/// Finds the link `master` of the node, or that of its default route.
pub fn find_on_node(master: Option<&IfName>) -> Result<Link, Error> {
    find(&Rtnl::open()?, master, "the node")
}

fn find(rtnl: &Rtnl, master: Option<&IfName>, place: &'static str) -> Result<Link, Error> {
    if let Some(name) = master {
        let no_master = || Error::NoMaster { master: name.as_str().to_owned(), place };
        return rtnl.link_by_name(name.as_str())?.ok_or_else(no_master);
    }
    let index = link_of_default_route(rtnl)?;
    let link = index.map_or(Ok(None), |index| rtnl.link_by_index(index))?;
    link.ok_or(Error::NoDefaultRoute { place })
}

fn link_of_default_route(rtnl: &Rtnl) -> Result<Option<u32>, Error> {
    for family in Family::ALL {
        let routes = rtnl.routes(family)?.into_iter();
        let defaults =
            routes.filter(|route| route.destination.prefix() == 0 && route.table == table::MAIN);
        if let Some(route) = defaults.min_by_key(|route| route.priority) {
            return Ok(route.link);
        }
    }
    Ok(None)
}
