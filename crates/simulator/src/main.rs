//! A cluster's controllers and its scheduler on one thread, from a seed.
//!
//! What it is: the real controllers and the real scheduler against an API in memory, with nodes and
//! people that are played, and with everything going wrong that a network, a disk and an operator
//! can make go wrong. One process runs one seed; `cargo xtask simulate` runs many.
//!
//! Start reading at `run`, the course of a run; then `transport`, where things go wrong, `checks`,
//! what must hold at every change, and `settled`, what must hold in the end.
//!
//! Invariants: a seed is always the same run, to the last byte of its trace. Time is tokio's and
//! stands still while anybody works; random bytes come from the seed alone (`entropy`); there is
//! one thread.
//!
//! It deliberately does not run the API server, the store or kubelets: see
//! `docs/adr/0011-simulation.md`.
//!
//! Tested by running seeds, some of them twice, and those that once failed.

mod run;

mod programs;
mod transport;
mod world;

mod api;
mod checks;
mod settled;

mod admin;
mod nodes;
mod storage;
mod user;

mod accounts;
mod budget;
mod dice;
mod entropy;
mod panics;
mod sim_clock;
mod strikes;
mod tally;
mod view;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

/// Half of a run is small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs the controllers and the scheduler from a seed, with faults, and checks what they do.
#[derive(Parser)]
#[command(name = "simulator")]
struct Cli {
    /// Decides everything.
    #[arg(long)]
    seed: u64,
    /// How many steps the wild part has, instead of as many as the seed says.
    #[arg(long)]
    steps: Option<usize>,
    /// How many requests and events the run may take.
    #[arg(long, default_value_t = budget::STEPS_MAX)]
    budget: u64,
    /// Print the whole trace as it comes.
    #[arg(long)]
    trace: bool,
    /// Print what went wrong how often, and for whom.
    #[arg(long)]
    counts: bool,
    /// What the components log.
    #[arg(long, default_value = "off")]
    log: String,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    telemetry::init(telemetry::Format::Text, &cli.log);
    panics::keep();
    entropy::seed(cli.seed);
    // What has taken its random bytes before the seed was known must not be used: the run has a
    // thread of its own.
    let limits = run::Limits { steps: cli.steps, budget: cli.budget };
    let run = std::thread::spawn(move || run::run(cli.seed, limits, cli.trace));
    let outcome = match run.join() {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => {
            print(&format!("seed {} cannot run: {error:#}", cli.seed));
            return ExitCode::FAILURE;
        }
        Err(_) => {
            let said = panics::take().join("; ");
            print(&format!("seed {}: the simulation panicked: {said}", cli.seed));
            return ExitCode::FAILURE;
        }
    };
    if cli.counts {
        print(outcome.counts.trim_end());
    }
    let Some(failure) = outcome.failure else {
        print(&format!(
            "seed {}: well, {} changes, {} steps, at rest after {} s, trace {:016x}",
            cli.seed,
            outcome.changes,
            outcome.steps,
            outcome.settled.as_secs(),
            outcome.digest
        ));
        return ExitCode::SUCCESS;
    };
    print(&outcome.story);
    print(&format!("seed {}: {failure} (trace {:016x})", cli.seed, outcome.digest));
    ExitCode::FAILURE
}

/// Prints a line. A reader that is gone is no reason to fail.
pub(crate) fn print(line: &str) {
    writeln!(std::io::stdout().lock(), "{line}").ok();
}
