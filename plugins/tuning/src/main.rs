//! The program `tuning`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni::run(&tuning::Tuning::default())
}
