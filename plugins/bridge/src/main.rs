//! The program `bridge`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni::run(&bridge::Bridge)
}
