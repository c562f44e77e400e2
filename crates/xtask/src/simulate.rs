//! `cargo xtask simulate`: many seeds of the simulator, each in a process of its own.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;

use crate::run::{self, cargo, say, target_dir};

/// Failing seeds whose story is printed; of the others only the number.
const STORIES: usize = 3;

/// Which seeds to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Only this seed, with all of its trace.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// How many run at once; default: one for each processor.
    #[arg(long)]
    jobs: Option<usize>,
    /// Run this program instead of building one.
    #[arg(long)]
    program: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let program = match &args.program {
        Some(program) => program.clone(),
        None => build()?,
    };
    if let Some(seed) = args.seed {
        let mut command = testkit::command(&program);
        command.args(["--trace", "--seed", &seed.to_string()]);
        return run::run(command);
    }
    let jobs = match args.jobs {
        Some(jobs) => jobs.max(1),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let failed = run_all(&program, args.from..args.from.saturating_add(args.seeds), jobs)?;
    if failed.is_empty() {
        say(&format!("{} seeds, from {} on: all well", args.seeds, args.from));
        return Ok(());
    }
    let list: Vec<String> = failed.iter().map(u64::to_string).collect();
    anyhow::bail!(
        "{} of {} seeds fail: {}; see one with --seed",
        failed.len(),
        args.seeds,
        list.join(", ")
    )
}

/// Optimised: a seed takes a tenth of the time then.
fn build() -> anyhow::Result<PathBuf> {
    run::run(cargo(&["build", "--release", "--package", "simulator"]))?;
    Ok(target_dir()?.join("release/simulator"))
}

fn run_all(program: &Path, seeds: std::ops::Range<u64>, jobs: usize) -> anyhow::Result<Vec<u64>> {
    let next = AtomicU64::new(seeds.start);
    let failed = Mutex::new(Vec::new());
    let work = || -> anyhow::Result<()> {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return Ok(());
            }
            let mut command = testkit::command(program);
            let output = command.args(["--seed", &seed.to_string()]).output();
            let output = output.with_context(|| format!("cannot run {}", program.display()))?;
            if output.status.success() {
                continue;
            }
            let mut failed = failed.lock().map_err(|_| anyhow::anyhow!("another job panicked"))?;
            failed.push(seed);
            let story = String::from_utf8_lossy(&output.stdout);
            if failed.len() <= STORIES {
                say(&story);
            } else {
                say(story.lines().last().unwrap_or_default());
            }
        }
    };
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let jobs: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        for job in jobs {
            job.join().map_err(|_| anyhow::anyhow!("a job panicked"))??;
        }
        Ok(())
    })?;
    let mut failed = failed.into_inner().map_err(|_| anyhow::anyhow!("a job panicked"))?;
    failed.sort_unstable();
    Ok(failed)
}
