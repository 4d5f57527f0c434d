//! The harness of the end-to-end suites: namespaces, processes, and the state of the kernel as other
//! tools show it.
//!
//! A test runs plugins in a [`World`] of its own as a runtime does ([`Chain`]), and looks at the
//! outcome with tools that share no code with the plugins ([`World::snapshot`]). It does not touch the
//! machine's own network or files, and leaves nothing behind when the process ends.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    reason = "a harness reports what is wrong by panicking, which fails the test that called it"
)]

mod binaries;
mod chain;
mod compare;
mod daemon;
mod echo;
mod host_ports;
mod normalise;
mod observe;
mod process;
mod server;
mod suite;
mod visit;
mod world;

pub mod configs;
pub mod docs;
pub mod kind;
pub mod reference;
pub mod vm;

pub use binaries::{Plugins, conflist_program, tool, workspace};
pub use chain::{Chain, Pod, call, call_with};
pub use compare::{Difference, differences, matches_pattern};
pub use daemon::Daemon;
pub use echo::{Response, TcpEcho, UdpEcho, UdpStream, answers, fetch, fetch_udp};
pub use echo::{fetch_udp_at_last, request};
pub use normalise::Normaliser;
pub use process::{Cmd, Output, search_path};
pub use suite::{Known, Needs, Suite, panic_message};
pub use visit::{Mirror, while_visited};
pub use world::{NODE, STATE_DIR, World, netns_path};
