//! The program `portmap`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni::run(&portmap::Portmap)
}
