//! The ifb device of a pod: its name, how it is made, found and deleted.

use attach::link::delete;
use attach::{alias_that_fits, hashed_name, undo_unless_refused};
use cni::{Attachment, Failures, Undo, ValidAttachments};
use kernel::Rtnl;
use kernel::rtnl::{Kind, Link, NewLink};

use crate::error::Error;

/// The ifb device of one attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnIfb {
    /// The reference plugin uses the same name, so that each plugin can remove what the other one made. It
    /// does not depend on the interface's name.
    pub(crate) name: String,
    /// The owner, as `NETWORK/CONTAINER/IFNAME`.
    pub(crate) alias: String,
}

pub(crate) const PREFIX: &str = "bwp";
/// The longest name that Linux accepts, in bytes (`IFNAMSIZ` without the final zero).
pub(crate) const NAME_MAX: usize = 15;
const KIND: &str = "ifb";

impl OwnIfb {
    /// The ifb device of an attachment.
    pub(crate) fn of(attachment: &Attachment) -> Self {
        let names = [attachment.network.as_str(), attachment.container_id.as_str()];
        Self { name: hashed_name(PREFIX, NAME_MAX, &names), alias: attachment.to_string() }
    }

    /// Makes it, sets it up and sets its alias.
    pub(crate) fn create<'a>(
        &self,
        node: &'a Rtnl,
        mtu: u32,
        undo: &mut Undo<'a>,
    ) -> Result<Link, Error> {
        // Creating the device would overwrite the alias of a link with the same name.
        if let Some(there) = node.link_by_name(&self.name)? {
            return Err(Error::Attached { name: there.name, owner: there.alias });
        }
        let alias = alias_that_fits(&self.alias);
        let new = NewLink::new(&self.name, Kind::Ifb);
        let created = node.create_link(&NewLink { mtu: Some(mtu), up: true, alias, ..new });
        let made = self.clone();
        let undo_it = move || made.delete(node);
        undo_unless_refused(undo, created, "delete the ifb device", undo_it)?;
        self.find(node)
    }

    /// Finds it.
    pub(crate) fn find(&self, node: &Rtnl) -> Result<Link, Error> {
        let link = node.link_by_name(&self.name)?.filter(is_ifb);
        Ok(link.ok_or_else(|| attach::Error::missing(format!("ifb device {}", self.name)))?)
    }

    /// Deletes it, unless its alias names another owner.
    pub(crate) fn delete(&self, node: &Rtnl) -> Result<(), Error> {
        let link = node.link_by_name(&self.name)?.filter(is_ifb);
        let is_own = |link: &Link| link.alias.is_empty() || link.alias == self.alias;
        Ok(link.filter(is_own).map_or(Ok(()), |link| delete(node, &link))?)
    }
}

/// Deletes the ifb devices of the network's attachments that no longer exist.
pub(crate) fn collect_garbage(node: &Rtnl, valid: &ValidAttachments) -> Result<(), cni::Error> {
    let mut failures = Failures::new();
    let links = node.links().map_err(Error::from)?;
    for link in links.iter().filter(|link| is_ifb(link)) {
        let Some(owner) = Attachment::parse(&link.alias) else { continue };
        if OwnIfb::of(&owner).name == link.name && valid.is_garbage(&owner) {
            failures.try_to(format!("delete {}", link.name), || delete(node, link));
        }
    }
    failures.into_result()
}

pub(crate) fn is_ifb(link: &Link) -> bool {
    link.kind.as_deref() == Some(KIND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_reference_plugin() {
        let of = |alias| OwnIfb::of(&Attachment::parse(alias).unwrap());
        let one = of("testnet/pod-a/eth0");
        assert_eq!(one.name, "bwp9b8cc9dd5d53");
        assert_eq!(one.alias, "testnet/pod-a/eth0");
        assert_eq!(of("testnet/pod-a/eth1").name, one.name);
        assert_ne!(of("testnet/pod-b/eth0").name, one.name);
    }
}
