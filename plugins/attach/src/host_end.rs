//! The node's end of a pod's veth pair: how it is called, and how it is found again.
//!
//! Its name follows from the network's name, the container's ID and the interface's name, so that
//! it can be removed when nothing else is known any more. The names themselves are noted as the
//! link's alias, where `ip link` shows them and GC reads them.

use cni::{Attachment, Call, NetworkName, Success, ValidAttachments};
use kernel::Rtnl;
use kernel::rtnl::Link;

use crate::alias;
use crate::chain_name::hashed_name;
use crate::error::Error;
use crate::pod::Pod;

/// The node's end of one attachment's veth pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEnd {
    /// Its name: `veth` and eleven hexadecimal digits, the 15 bytes that Linux has room for.
    pub name: String,
    /// Whose it is: `NETWORK/CONTAINER/IFNAME`.
    pub alias: String,
    ifname: String,
}

const PREFIX: &str = "veth";
const DIGITS: usize = 11;

impl HostEnd {
    /// The node's end of this command's attachment.
    #[must_use]
    pub fn of<C>(call: &Call<C>) -> Self {
        Self::named(&call.network.name, call.container_id().as_str(), call.ifname().as_str())
    }

    pub(crate) fn named(network: &NetworkName, container_id: &str, ifname: &str) -> Self {
        let alias = alias::alias(network, container_id, ifname);
        Self { name: veth_name(&alias), alias, ifname: ifname.to_owned() }
    }

    /// The alias, if the kernel has room for it.
    #[must_use]
    pub fn alias_that_fits(&self) -> Option<&str> {
        alias::alias_that_fits(&self.alias)
    }

    /// The name of the pod's end.
    #[must_use]
    pub fn ifname(&self) -> &str {
        &self.ifname
    }

    /// Deletes the veth pair, whichever end of it can be found: the one with this name; else one
    /// that the reference plugins made, by the pod's end or by the ADD's result. `bridge` is the one
    /// that its node's end has to be a port of, if any.
    pub fn delete(
        &self,
        node: &Rtnl,
        pod: Option<&Pod>,
        bridge: Option<&str>,
        result: Option<&Success>,
    ) -> Result<(), Error> {
        if let Some(link) = node.link_by_name(&self.name)? {
            return delete_veth(node, &link);
        }
        let told = |link: &Link| {
            let mut of_node = result.iter().flat_map(|it| &it.interfaces);
            of_node.any(|it| it.sandbox.is_empty() && it.name == link.name)
        };
        let master = match bridge {
            Some(name) => node.link_by_name(name)?.map(|bridge| bridge.index),
            None => None,
        };
        // Another network's or container's link, or the node's own, is not to be lost by mistake.
        let is_ours = |link: &Link| {
            is_random(&link.name)
                && link.master == master
                && result.is_none_or(|it| it.interfaces.is_empty() || told(link))
        };
        if let Some(pod) = pod {
            let Some(link) = pod.rtnl.link_by_name(&self.ifname)? else {
                return Ok(());
            };
            let other_end = link.peer.map_or(Ok(None), |index| node.link_by_index(index))?;
            let other_end = other_end.filter(|other| other.peer == Some(link.index));
            return match other_end.filter(is_ours) {
                Some(_) => delete_veth(&pod.rtnl, &link),
                None => Ok(()),
            };
        }
        // Other names may be longer than those that the kernel has.
        let interfaces = result.iter().flat_map(|it| &it.interfaces);
        for interface in interfaces.filter(|it| is_random(&it.name)) {
            let link = node.link_by_name(&interface.name)?;
            if let Some(link) = link.filter(is_ours) {
                delete_veth(node, &link)?;
            }
        }
        Ok(())
    }

    /// Whether the node has the ends of other interfaces of the container in the same network. Those that the
    /// reference plugins made do not say whose they are.
    pub fn has_siblings(&self, node: &Rtnl) -> Result<bool, Error> {
        let Some(of_container) = self.alias.strip_suffix(&self.ifname) else {
            return Ok(false);
        };
        let is_sibling = |link: &Link| {
            let ifname = link.alias.strip_prefix(of_container);
            ifname.is_some_and(|ifname| ifname != self.ifname && !ifname.contains('/'))
        };
        Ok(node.links()?.iter().any(is_sibling))
    }

    /// Deletes the veth pairs of a network's attachments that are not valid.
    pub fn collect_garbage(node: &Rtnl, valid: &ValidAttachments) -> Result<(), Error> {
        for link in node.links()? {
            let Some(owner) = Attachment::parse(&link.alias) else { continue };
            if veth_name(&link.alias) == link.name && valid.is_garbage(&owner) {
                delete_veth(node, &link)?;
            }
        }
        Ok(())
    }
}

/// The name of the node's end of a veth pair, which follows from what the pair is for.
#[must_use]
pub fn veth_name(purpose: &str) -> String {
    hashed_name(PREFIX, PREFIX.len() + DIGITS, &[purpose])
}

/// Deletes a link if it is a veth; one that vanishes meanwhile is none.
pub(crate) fn delete_veth(rtnl: &Rtnl, link: &Link) -> Result<(), Error> {
    if link.kind.as_deref() != Some("veth") {
        return Ok(());
    }
    match rtnl.delete_link(link.index) {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}

/// Whether a name is of the shape that the reference plugins choose by chance.
fn is_random(name: &str) -> bool {
    const DIGITS: usize = 8;
    name.strip_prefix(PREFIX).is_some_and(|digits| {
        digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_derived_and_differ() {
        let network = "kindnet".parse().unwrap();
        let one = HostEnd::named(&network, "c1", "eth0");
        assert_eq!(one, HostEnd::named(&network, "c1", "eth0"));
        assert_eq!(one.alias, "kindnet/c1/eth0");
        assert_eq!(one.name.len(), 15);
        assert!(!is_random(&one.name), "{}", one.name);
        assert!(is_random("veth0a1b2c3d") && !is_random("veth0123456g") && !is_random("eth0"));
        for other in [
            HostEnd::named(&network, "c1", "eth1"),
            HostEnd::named(&network, "c2", "eth0"),
            HostEnd::named(&"other".parse().unwrap(), "c1", "eth0"),
        ] {
            assert_ne!(one.name, other.name);
        }
    }

    #[test]
    fn a_long_alias_is_left_out() {
        let end = HostEnd::named(&"n".parse().unwrap(), &"a".repeat(300), "eth0");
        assert_eq!(end.alias_that_fits(), None);
    }
}
