//! The `static` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni::run(&static_addresses::Static)
}
