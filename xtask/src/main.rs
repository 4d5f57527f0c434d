//! The project's own commands, run as `cargo xtask COMMAND`.

mod bench;
mod build;
mod command;
mod conformance;
mod demo;
mod deny;
mod lint;
mod needs;
mod report;
mod schema;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use command::Failure;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "The project's own commands", version)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Time our plugins and the Go ones side by side
    Bench(bench::Options),
    /// Build static release binaries into dist/bin, a folder to copy to /opt/cni/bin
    Build,
    /// Make a node and a pod out of namespaces, and watch a hostPort work and vanish
    Demo(demo::Options),
    /// Check format, lints, documentation, dependencies and the tree's own rules
    Lint,
    /// Write the JSON Schemas of conflist/schemas from the types that plugins read
    Schema,
    /// Lint, then run unit, property and end-to-end tests, fetching what they need
    Test,
}

fn main() -> ExitCode {
    match run(&Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("cargo xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: &Task) -> Result<(), Failure> {
    match task {
        Task::Bench(options) => bench::run(options),
        Task::Build => build::run(),
        Task::Demo(options) => demo::run(options),
        Task::Lint => lint::run(),
        Task::Schema => schema::write(),
        Task::Test => test::run(),
    }
}
