//! What the plugins share that connect a pod by an interface.
//!
//! - The pod: its namespace ([`Pod`]), its interface with addresses and routes ([`PodInterface`]).
//! - Links into the pod: the veth pair ([`veth`]), and what any link has ([`link`]).
//! - Names that follow from those of an attachment, so that DEL and GC find what it owns ([`names`]).
//! - Rules ([`Rules`]): masquerading ([`masquerade`]) and the check of hardware addresses ([`macspoof`]).
//! - The node: forwarding ([`forwarding`]) and the families in use ([`Families`]).
//! - Plugins that put one link into the pod ([`single`]).
//! - Commands: when the IPAM plugin runs ([`ipam`]), DEL and GC ([`Detach`]), removing everything
//!   ([`purge()`]).

mod detach;
mod error;
mod families;
pub mod forwarding;
pub mod ipam;
pub mod link;
pub mod macspoof;
pub mod masquerade;
pub mod names;
mod parent;
mod pod;
mod purge;
mod rules;
pub mod single;
mod undo;
pub mod veth;

pub use detach::Detach;
pub use error::{Error, code_of};
pub use families::Families;
pub use macspoof::MacSpoofCheck;
pub use masquerade::{Masquerade, MasqueradeBackend};
pub use names::{alias_that_fits, chain_name, hashed_name, name_that_fits};
pub use parent::{FoundParent, find_on_node};
pub use pod::{Dad, Neighbours, Pod, PodInterface};
pub use purge::purge;
pub use rules::{RuleKeys, Rules};
pub use single::{Driver, Single};
pub use undo::undo_unless_refused;
pub use veth::{HostEnd, VethOptions, VethPair, veth_name};
