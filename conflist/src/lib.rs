//! The runtime's side of the Container Network Interface: runs the chain of plugins of a network as container
//! runtimes run it.
//!
//! A [`Runtime`] has the directories of network configurations, plugins and results. It finds a [`Network`],
//! derives the configuration of each plugin as the specification says, and keeps the result in the files
//! and the format of libcni, so that other programs can detach what this one attached.
//!
//! ```no_run
//! use conflist::{Attachment, Runtime};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let runtime = Runtime {
//!     net_dir: "/etc/cni/net.d".into(),
//!     plugin_path: vec!["/opt/cni/bin".into()],
//!     cache_dir: "/var/lib/cni".into(),
//! };
//! let network = runtime.network("demo")?;
//! let pod = Attachment::new("pod-1".parse()?, "eth0".parse()?, Some("/run/netns/pod-1".into()));
//! let result = runtime.add(&network, &pod)?;
//! println!("{}", result.ips[0].address);
//! runtime.del(&network, &pod)?;
//! # Ok(())
//! # }
//! ```
//!
//! [`validate`] finds the mistakes in a network's file.
//!
//! Source: <https://www.cni.dev/docs/spec/>, sections 1 and 3. This crate does not change the network of
//! the node itself: plugins do, as programs, or in [`Runtime::purge`] by functions of their crates.

pub mod attachment;
pub mod cache;
mod causes;
mod chain;
pub mod error;
pub mod files;
pub mod gc;
mod lock;
pub mod network;
mod purge;
mod registry;
mod request;
mod runtime;
pub mod validate;

pub use attachment::Attachment;
pub use cache::{Cache, Cached, Kept};
pub use causes::with_causes;
pub use error::Error;
pub use gc::{PluginVersions, Valid};
pub use network::{Network, PluginConf};
pub use runtime::Runtime;
