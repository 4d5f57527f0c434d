//! The program `loopback`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni::run(&loopback::Loopback)
}
