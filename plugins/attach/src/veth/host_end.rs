//! The node's end of a pod's veth pair: its name, and how it is found again.
//!
//! The name follows from the names of the attachment, so that DEL finds the pair when it knows nothing else.
//! The attachment's names are also in the link's alias, where `ip link` shows them and GC reads them.

use cni::{Attachment, Failures, Success, ValidAttachments};
use kernel::Rtnl;
use kernel::rtnl::Link;

use super::reference;
use crate::error::Error;
use crate::link::{self, is_veth};
use crate::names::hashed_name;
use crate::pod::Pod;

/// The node's end of one attachment's veth pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEnd {
    /// Its name: `veth` and eleven hexadecimal digits, the 15 bytes that Linux has room for.
    pub name: String,
    /// The attachment that owns it.
    pub attachment: Attachment,
}

const PREFIX: &str = "veth";
const DIGITS: usize = 11;

impl HostEnd {
    /// The node's end of an attachment.
    #[must_use]
    pub fn of(attachment: Attachment) -> Self {
        Self { name: veth_name(&attachment.to_string()), attachment }
    }

    /// Recognises the node's end of any attachment: a veth whose alias names an attachment, and whose name
    /// follows from that. `None` for all other links.
    #[must_use]
    pub fn recognise(link: &Link) -> Option<Self> {
        let end = Self::of(Attachment::parse(&link.alias)?);
        (is_veth(link) && end.name == link.name).then_some(end)
    }

    /// The name of the pod's end.
    #[must_use]
    pub fn ifname(&self) -> &str {
        self.attachment.ifname.as_str()
    }

    /// Deletes the veth pair: the one with this name, or else one that the reference plugins made, which is
    /// found by the pod's end or by the ADD's result. `bridge` is the one that its node's end must be a port
    /// of, if any.
    pub fn delete(
        &self,
        node: &Rtnl,
        pod: Option<&Pod>,
        bridge: Option<&str>,
        result: Option<&Success>,
    ) -> Result<(), Error> {
        if delete_by_name(node, &self.name)? {
            return Ok(());
        }
        reference::delete(node, pod, self.ifname(), bridge, result)
    }

    /// Whether the node has the ends of other interfaces of the container in the same network. Links that the
    /// reference plugins made do not say who owns them.
    pub fn has_siblings(&self, node: &Rtnl) -> Result<bool, Error> {
        let Attachment { network, container_id, ifname } = &self.attachment;
        let is_sibling = |Self { attachment: it, .. }: Self| {
            it.network == *network && it.container_id == *container_id && it.ifname != *ifname
        };
        Ok(node.links()?.iter().filter_map(Self::recognise).any(is_sibling))
    }
}

/// Deletes the veth pairs of a network's attachments that are not valid.
pub fn collect_garbage(node: &Rtnl, valid: &ValidAttachments) -> Result<(), cni::Error> {
    let mut failures = Failures::new();
    for link in &node.links().map_err(Error::from)? {
        let end = HostEnd::recognise(link);
        if end.is_some_and(|end| valid.is_garbage(&end.attachment)) {
            failures.try_to(format!("delete {}", link.name), || link::delete(node, link));
        }
    }
    failures.into_result()
}

/// The name of the node's end of a veth pair, which follows from what the pair is for.
#[must_use]
pub fn veth_name(purpose: &str) -> String {
    hashed_name(PREFIX, PREFIX.len() + DIGITS, &[purpose])
}

/// Deletes the link of a name if it is a veth. Returns whether there is a link of this name.
pub(super) fn delete_by_name(node: &Rtnl, name: &str) -> Result<bool, Error> {
    let Some(link) = node.link_by_name(name)? else { return Ok(false) };
    if is_veth(&link) {
        link::delete(node, &link)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(attachment: &str) -> HostEnd {
        HostEnd::of(Attachment::parse(attachment).unwrap())
    }

    #[test]
    fn names_are_derived_and_differ() {
        let one = end("kindnet/c1/eth0");
        assert_eq!(one, end("kindnet/c1/eth0"));
        assert_eq!((one.name.len(), one.ifname()), (15, "eth0"));
        for other in ["kindnet/c1/eth1", "kindnet/c2/eth0", "other/c1/eth0"] {
            assert_ne!(one.name, end(other).name);
        }
    }
}
