//! IDs of network namespaces: each namespace has its own ones for others.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};

use super::Rtnl;
use crate::error::{Cause, Error, Result};
use crate::netns::Netns;

/// Asks the kernel to choose an ID (`NETNSA_NSID_NOT_ASSIGNED`).
const NOT_ASSIGNED: i32 = -1;

impl Rtnl {
    /// The ID of another namespace in this one, for links that are made on a link there. If it has none, the
    /// kernel assigns one, as it does when a link is shown whose other end is there.
    ///
    /// This takes two messages.
    pub fn id_of(&self, netns: &Netns) -> Result<i32> {
        let operation = || format!("get the ID of network namespace {}", netns.path().display());
        let fd = u32::try_from(netns.raw_fd()).unwrap_or(u32::MAX);
        let message = |more: &[NsidAttribute]| {
            let mut message = NsidMessage::default();
            message.attributes = [&[NsidAttribute::Fd(fd)], more].concat();
            message
        };
        let assign = RouteNetlinkMessage::NewNsId(message(&[NsidAttribute::Id(NOT_ASSIGNED)]));
        match self.change(assign, 0, operation) {
            Err(error) if !error.is_exists() => return Err(error),
            _ => {}
        }
        let get = RouteNetlinkMessage::GetNsId(message(&[]));
        let replies = self.request(get, 0, operation)?;
        let id = replies.into_iter().find_map(|reply| match reply {
            RouteNetlinkMessage::NewNsId(message) => message.attributes.iter().find_map(|one| {
                if let NsidAttribute::Id(id) = one { Some(*id).filter(|id| *id >= 0) } else { None }
            }),
            _ => None,
        });
        id.ok_or_else(|| Error::new(operation(), Cause::Decode("the answer has no ID".into())))
    }
}
