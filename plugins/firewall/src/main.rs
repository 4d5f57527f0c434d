//! The program `firewall`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni::run(&firewall::Firewall)
}
