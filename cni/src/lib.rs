//! The Container Network Interface specification, version 1.1.0, on the plugin's side.
//!
//! This crate implements the protocol between runtimes and plugins; it configures nothing in the kernel. A
//! plugin implements [`Plugin`] and calls [`run`], which reads the environment and stdin, validates both,
//! calls the method of the command, and prints the result or the error in the version of the network's
//! configuration.
//!
//! Source: <https://www.cni.dev/docs/spec/>, sections 2 (execution protocol), 4 (delegation) and
//! 5 (result types).

pub mod address;
pub mod args;
pub mod attachment;
pub mod call;
pub mod dns;
pub mod environment;
pub mod error;
pub mod exec;
pub mod failures;
pub mod file;
pub mod ipam;
pub mod json;
pub mod name;
pub mod plugin;
pub mod purge;
pub mod result;
#[cfg(feature = "schema")]
pub mod schema;
mod text;
pub mod undo;
pub mod version;

pub use address::{Cidr, Mac, RequestedAddress, address_or_nothing};
pub use args::Args;
pub use attachment::{Attachment, ValidAttachments};
pub use call::{Call, Network};
pub use dns::{Dns, DnsKeys};
pub use environment::{Command, Environment};
pub use error::{Code, Error};
pub use failures::Failures;
pub use name::{ContainerId, IfName, NetworkName};
pub use plugin::{Plugin, run, validate};
pub use purge::Purge;
pub use result::{Interface, IpConfig, Route, Success};
pub use undo::Undo;
pub use version::Version;
