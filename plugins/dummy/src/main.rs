//! The program `dummy`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni::run(&dummy::Dummy::default())
}
