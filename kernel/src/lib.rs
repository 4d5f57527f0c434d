//! Linux as a network plugin needs it, and no word of CNI.

pub mod error;
pub mod netlink;
pub mod netns;
pub mod rtnl;
pub mod sysctl;

pub use error::{Cause, Error, Result};
pub use netns::Netns;
pub use rtnl::Rtnl;
