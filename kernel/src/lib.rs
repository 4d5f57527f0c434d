//! Linux as a network plugin needs it, and no word of CNI.

pub mod error;
pub mod netlink;

pub use error::{Cause, Error, Result};
