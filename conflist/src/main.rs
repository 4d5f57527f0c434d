//! `conflist`: runs the plugins of a network as a container runtime does, and validates its configuration.

mod cli;
mod commands;
mod failure;
mod report;
mod uninstall;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match commands::run(&cli::Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            report::failure(&error);
            ExitCode::FAILURE
        }
    }
}
