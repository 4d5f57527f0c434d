//! Parts of messages about links.

use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

/// The start of a message about the link of an index.
pub(super) fn with_index(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

/// The start of a message about the link of a name.
pub(super) fn with_name(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

/// Sets or clears a flag of the link.
pub(super) fn set_flag(message: &mut LinkMessage, flag: LinkFlags, on: bool) {
    message.header.change_mask |= flag;
    message.header.flags.set(flag, on);
}
