//! The project's own tasks: `cargo xtask --help`.

#![forbid(unsafe_code)]

mod bench;
mod cluster;
mod codegen;
mod fuzz;
mod prepush;
mod replay;
mod run;
mod simulate;
mod test;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run the tests: unit, component and end-to-end ones.
    Test(test::Args),
    /// Run a cluster in namespaces of its own.
    Cluster(cluster::Args),
    /// Measure, and write docs/performance.md.
    Bench(bench::Args),
    /// A part in a measurement, played by a process of its own.
    #[command(hide = true)]
    BenchRole(bench::extend::Role),
    /// Fuzz the decoders, guided by coverage.
    Fuzz(fuzz::Args),
    /// Replay recorded requests and answers of upstream's API server.
    Replay(replay::Args),
    /// Run controllers and scheduler from many seeds, with faults.
    Simulate(simulate::Args),
    /// Check what the compiler does not: layers, documents, file heads, sizes.
    Tidy,
    /// Make the tables under crates/schema/generated from facts about the API.
    Codegen {
        /// Compare only.
        #[arg(long)]
        check: bool,
        /// The directory with types.jsonl and its companions.
        facts: PathBuf,
    },
    /// What must pass before a push: format, clippy, tidy, unit tests.
    Prepush,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Test(args) => test::run(&args),
        Task::Cluster(args) => cluster::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::BenchRole(role) => bench::extend::play(&role),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Replay(args) => replay::run(&args),
        Task::Simulate(args) => simulate::run(&args),
        Task::Tidy => tidy::run(),
        Task::Codegen { check, facts } => codegen::run(&facts, check),
        Task::Prepush => prepush::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            run::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
