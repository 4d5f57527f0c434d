//! The `host-local` program.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    cni::run(&host_local::HostLocal::default())
}
