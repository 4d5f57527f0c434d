//! What plugins share that attach a pod by an interface of its own: the pod's namespace, the
//! node's end of the veth pair, addresses and routes of an IPAM result, forwarding.

#![forbid(unsafe_code)]

mod error;
pub mod forwarding;
mod host_end;
mod pod;
mod pod_interface;

pub use error::Error;
pub use host_end::HostEnd;
pub use pod::Pod;
pub use pod_interface::{Dad, PodInterface};
