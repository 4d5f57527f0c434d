//! The backend `iptables`: the chains and rules of the reference plugin, in the table `nat`.
//!
//! `PREROUTING` and `OUTPUT` send packets for the node itself to `CNI-HOSTPORT-DNAT`. There, each container
//! has an entry for each protocol and 15 ports, which jumps to the container's own chain. `rules` computes
//! all of this, `add` makes it and `check` compares it. DEL (`remove`) finds a container's chain by its name,
//! a hash of the owner's names, and the entries that jump to it. GC (`garbage`) reads the owners from the
//! comments on the entries; see `names`.

mod add;
mod check;
mod claims;
mod garbage;
mod guard;
mod names;
mod purge;
mod remove;
mod rules;

pub(crate) use add::add;
pub(crate) use check::{check, status};
pub(crate) use claims::{find_holder, take};
pub(crate) use garbage::collect_garbage;
pub(crate) use guard::{GUARD_TABLE, has_switched_on, is_needed as needs_loopback};
pub(crate) use names::{CHAIN_PREFIX, SHARED_CHAINS};
pub(crate) use purge::purge;
pub(crate) use remove::remove;
