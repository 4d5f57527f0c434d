//! The backend `nftables`: a table of our own in each family, where maps lead ports to pods.
//!
//! The rules are the same whatever is mapped, and a packet passes the same few of them at any number of pods.
//! What a container has is elements of the maps, each with the container's name as its comment; only mappings
//! with conditions have rules of their own, in a chain for each port. Elements can be made to expire, so that
//! DEL need not wait until the kernel has disposed of them.

mod add;
mod check;
mod conditions;
mod guard;
mod held;
mod plan;
mod purge;
mod reference;
mod remove;
mod table;

pub(crate) use add::{add, find_holder, take_from_iptables};
pub(crate) use check::{check, status};
pub(crate) use conditions::{Conditions, read as read_conditions};
pub(crate) use guard::{has_switched_on, needs_loopback};
pub(crate) use plan::Plan;
pub(crate) use purge::purge;
pub(crate) use reference::take as take_from_reference;
pub(crate) use remove::{collect_garbage, remove, remove_elements};

#[cfg(test)]
mod tests;
