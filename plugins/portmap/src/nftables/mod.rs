//! The backend `nftables`: a table of our own in each family, with maps from ports to pods.
//!
//! All containers share the rules (`table`), so that a packet passes the same few of them at any number of
//! pods. A container has elements in the maps (`elements`), which `add` adds and `check` compares. Their
//! comment names the owner, by which DEL and GC find them (`remove`). Only mappings with conditions have
//! rules of their own, in a chain for each port. Elements can expire, so that DEL need not wait until the
//! kernel has disposed of them.

mod add;
mod check;
mod claims;
mod conditions;
mod elements;
mod guard;
mod purge;
mod reference;
mod remove;
mod table;

pub(crate) use add::{add, find_holder};
pub(crate) use check::{check, status};
pub(crate) use conditions::{Conditions, read as read_conditions};
pub(crate) use guard::{has_switched_on, needs_loopback};
pub(crate) use purge::purge;
pub(crate) use reference::take as take_from_reference;
pub(crate) use remove::{collect_garbage, remove, remove_own};

#[cfg(test)]
mod tests;
