//! The backend `nftables`: a table of our own, with sets of the addresses of pods.
//!
//! All pods share the rules, so that a packet passes the same few of them at any number of pods. A pod has
//! elements in the sets. The comment of each element names its owner.
//!
//! The backend `firewalld` uses the table too: for the isolation of bridges, and to record in sets that no
//! rule uses which sources it has added to firewalld, and their owners.

mod add;
mod check;
mod plan;
mod remove;
mod table;

pub(crate) use add::{add, restore};
pub(crate) use check::{check, status};
pub(crate) use plan::Plan;
pub(crate) use remove::{addresses, collect_garbage, purge, remove, remove_sources, sources};
