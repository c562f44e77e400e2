//! Runs targets; `cargo xtask fuzz` builds this with coverage counters.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use fuzz::targets::ALL;
use fuzz::{Limit, Target};

#[global_allocator]
static MEMORY: fuzz::Counting = fuzz::Counting;

/// Fuzzes the decoders.
#[derive(Parser)]
struct Args {
    /// Only this target; may be given several times.
    #[arg(long)]
    target: Vec<String>,
    /// How long each target runs.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Decides what is tried.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where inputs are kept, a directory per target.
    #[arg(long)]
    corpus: PathBuf,
    /// Runs a target on this file instead.
    #[arg(long)]
    replay: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    fuzz::prepare();
    let known = |name: &String| ALL.iter().any(|target| target.name == *name);
    if let Some(unknown) = args.target.iter().find(|name| !known(name)) {
        let names: Vec<&str> = ALL.iter().map(|target| target.name).collect();
        anyhow::bail!("there is no target {unknown}; there are {}", names.join(", "));
    }
    let is_wanted = |target: &&Target| {
        args.target.is_empty() || args.target.iter().any(|name| name == target.name)
    };
    let mut found = 0;
    for target in ALL.iter().filter(is_wanted) {
        found += match &args.replay {
            Some(path) => replay(target, path)?,
            None => run(target, &args)?,
        };
    }
    Ok(if found == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run(target: &Target, args: &Args) -> anyhow::Result<usize> {
    let limit = Limit::Time(Duration::from_secs(args.seconds));
    let directory = args.corpus.join(target.name);
    let outcome = fuzz::fuzz(target, limit, args.seed, Some(&directory))?;
    say(&format!(
        "{}: {} executions, {} inputs, {} counters, {} findings",
        target.name,
        outcome.executions,
        outcome.corpus,
        outcome.reached,
        outcome.findings.len()
    ))?;
    for finding in &outcome.findings {
        say(&format!("  {}\n    {}", finding.text, finding.input.escape_ascii()))?;
    }
    Ok(outcome.findings.len())
}

fn replay(target: &Target, path: &PathBuf) -> anyhow::Result<usize> {
    let input = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let problem = fuzz::replay(target, &input);
    say(&format!("{}: {}", target.name, problem.as_deref().unwrap_or("nothing wrong")))?;
    Ok(usize::from(problem.is_some()))
}

fn say(text: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{text}")
}
