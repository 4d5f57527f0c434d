//! The program `bandwidth`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni::run(&bandwidth::Bandwidth)
}
