//! The backend `nftables`: a table of our own, where sets hold the addresses of pods.
//!
//! The rules are the same whatever pods there are, and a packet passes the same few of them at any number of
//! pods. What a pod has is elements of the sets, each with the pod's names as its comment.
//!
//! The backend `firewalld` has its place here too: the bridges that are kept apart, and in sets that no rule
//! asks, which sources it has given to firewalld and for whom.

mod add;
mod check;
mod held;
mod plan;
mod remove;
mod table;

pub(crate) use add::{add, restore};
pub(crate) use check::{check, status};
pub(crate) use plan::Plan;
pub(crate) use remove::{addresses, collect_garbage, purge, remove, remove_sources, sources};
