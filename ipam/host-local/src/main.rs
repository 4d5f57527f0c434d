//! The `host-local` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni::run(&host_local::HostLocal::default())
}
