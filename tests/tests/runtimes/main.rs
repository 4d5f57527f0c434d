//! Container runtimes: containerd, podman and nerdctl are run, CRI-O's calls are replayed; in the end
//! nothing must be left.
//!
//! Each case has a node of its own ([`node::Node`]). A recorder runs in front of each plugin, so that
//! a failed case prints the calls of the runtime and their answers.

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
