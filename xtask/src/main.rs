//! The project's own commands, run as `cargo xtask COMMAND`.

mod bench;
mod build;
mod command;
mod conformance;
mod demo;
mod deny;
mod lint;
mod needs;
mod paths;
mod registry;
mod report;
mod root;
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
    /// Measure our plugins and the Go ones
    Bench(bench::Options),
    /// Build static release binaries into dist/bin, a folder to copy to /opt/cni/bin
    Build,
    /// Attach a pod in network namespaces, visit its hostPort, detach it and show that nothing is left
    Demo(demo::Options),
    /// Check format, lints, documentation, dependencies and the rules of the tree
    Lint,
    /// Write what is derived from the plugins: the JSON Schemas of conflist/schemas, README's table
    Schema,
    /// Run lint, unit, property, end-to-end and conformance tests; install what they need
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
