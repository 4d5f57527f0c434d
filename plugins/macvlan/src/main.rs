//! The program `macvlan`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni::run(&macvlan::Macvlan::default())
}
