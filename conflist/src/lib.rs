//! The runtime's side of the Container Network Interface: the chain of plugins of a network, run
//! as container runtimes run it.
//!
//! A [`Runtime`] knows three places: where networks are configured, where plugins are installed,
//! and where results are kept. It finds a [`Network`], hands every plugin of its chain the
//! configuration that the specification derives for it, and keeps the result in the format and
//! place of libcni, so that what one program attached another one can detach.
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
//! [`validate`] reads a network's file as a person would have to: every mistake, with its line.
//!
//! Source: <https://www.cni.dev/docs/spec/>, sections 1 and 3. This crate never touches the kernel's network
//! state itself: only plugins do, as programs, or in [`Runtime::purge`] by their own functions.

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
