//! Network namespaces for the tests of single crates: a node, its pods and a machine outside.
//!
//! This crate uses none of the crates that it helps to test. The end-to-end suites have a harness of
//! their own with private files: the crate `tests`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    reason = "a harness reports what is wrong by panicking, which fails the test that called it"
)]

mod namespace;
mod plugin;
mod server;
mod skip;
mod strace;

pub mod halfway;
pub mod routed;

pub use namespace::{Namespace, in_new_netns, on_a_node, sh};
pub use plugin::{Ended, cni_command, run};
pub use server::serve;
pub use skip::{Fate, fate, skip, skip_line};
pub use strace::run_injected;
