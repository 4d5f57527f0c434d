//! What plugins share that attach a pod by an interface of its own: the pod's namespace, the
//! veth pair and how its ends are found again, addresses and routes of an IPAM result, forwarding,
//! masquerading.

pub mod addresses;
mod alias;
mod chain_name;
mod changes;
mod error;
mod families;
pub mod forwarding;
mod host_end;
pub mod interfaces;
pub mod macspoof;
pub mod masquerade;
mod pod;
mod pod_interface;
pub mod purge;
mod veth_pair;

pub use alias::{alias, alias_owner, alias_parts, alias_that_fits};
pub use chain_name::{chain_name, hashed_name, name_that_fits};
pub use changes::undo_unless_refused;
pub use error::{Error, code_of};
pub use families::Families;
pub use host_end::{HostEnd, veth_name};
pub use macspoof::MacSpoofCheck;
pub use masquerade::{Masquerade, MasqueradeBackend};
pub use pod::Pod;
pub use pod_interface::{Dad, Neighbours, PodInterface};
pub use veth_pair::{VethOptions, VethPair, ignore_router_advertisements};
