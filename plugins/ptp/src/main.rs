//! The program `ptp`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni::run(&ptp::Ptp)
}
