//! The parts of Linux that network plugins use: namespaces, links, addresses, routes, queueing disciplines,
//! packet filters, tracked connections and sysctls.
//!
//! This crate does not use the crate `cni`. It knows the names that CNI plugins and Kubernetes give their
//! chains only where it finds out which iptables a node uses (`iptables`).

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
