//! Runtimes: containerd, podman and nerdctl for real, CRI-O by its calls, from the first one to
//! nothing left.
//!
//! Each case has a node of its own ([`node::Node`]); a recorder stands in front of each plugin, so
//! that a failing case prints what the runtime asked and what was answered.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod calls;
mod containerd;
mod cri;
mod crio;
mod libcni;
mod nerdctl;
mod nerdctl_calls;
mod node;
mod podman;
mod recorded;
mod remains;
mod stage;
mod table;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut stage = stage::Stage::default();
    containerd::cases(&mut stage);
    podman::cases(&mut stage);
    nerdctl::cases(&mut stage);
    nerdctl_calls::cases(&mut stage);
    crio::cases(&mut stage);
    recorded::cases(&mut stage);
    stage.run()
}
