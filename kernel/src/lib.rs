//! Linux as a network plugin needs it, and no word of CNI.

#[cfg(test)]
mod captures;
pub mod conntrack;
pub mod error;
mod family;
pub mod iptables;
pub mod netlink;
pub mod netns;
pub mod nfnetlink;
pub mod nft;
pub mod obstacle;
pub mod rtnl;
pub mod sysctl;

pub use error::{Cause, Error, Result};
pub use family::Family;
pub use netns::Netns;
pub use nfnetlink::{Batch, Nfnetlink};
pub use rtnl::Rtnl;
