//! `cargo xtask simulate`: many seeds of the simulator, each in a process of its own.

mod counts;

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Context;

use self::counts::Counts;
use crate::run::{self, cargo, say, target_dir};

/// So many seeds meet every controller with every fault, several times.
const ENOUGH: u64 = 500;
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
    let begun = now();
    let seeds = args.from..args.from.saturating_add(args.seeds);
    let Found { failed, counts } = run_all(&program, seeds, jobs)?;
    say(&counts.to_string());
    let took = now().duration_since(begun).as_secs();
    let missed = if args.seeds < ENOUGH { Vec::new() } else { counts.missed() };
    if failed.is_empty() && !missed.is_empty() {
        anyhow::bail!("all seeds are well, but some never met a fault: {}", missed.join(", "));
    }
    if failed.is_empty() {
        say(&format!("{} seeds, from {} on, in {took} s: all well", args.seeds, args.from));
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

/// Optimised: a seed takes a fraction of the time then.
fn build() -> anyhow::Result<PathBuf> {
    run::run(cargo(&["build", "--profile", "simulate", "--package", "simulator"]))?;
    Ok(target_dir()?.join("simulate/simulator"))
}

#[expect(clippy::disallowed_methods, reason = "how long it took in truth")]
fn now() -> Instant {
    Instant::now()
}

/// What many seeds came to.
#[derive(Default)]
struct Found {
    failed: Vec<u64>,
    counts: Counts,
}

fn run_all(program: &Path, seeds: std::ops::Range<u64>, jobs: usize) -> anyhow::Result<Found> {
    let next = AtomicU64::new(seeds.start);
    let found = Mutex::new(Found::default());
    let work = || -> anyhow::Result<()> {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return Ok(());
            }
            let mut command = testkit::command(program);
            let output = command.args(["--counts", "--seed", &seed.to_string()]).output();
            let output = output.with_context(|| format!("cannot run {}", program.display()))?;
            let said = String::from_utf8_lossy(&output.stdout);
            let (counts, story): (Vec<&str>, Vec<&str>) =
                said.lines().partition(|line| line.starts_with(counts::LINE));
            let mut found = found.lock().map_err(|_| anyhow::anyhow!("another job panicked"))?;
            counts.into_iter().for_each(|line| found.counts.add(line));
            let Some(failure) = failure(seed, &story, &output) else { continue };
            found.failed.push(seed);
            if found.failed.len() <= STORIES {
                say(&story.join("\n"));
            }
            say(&failure);
        }
    };
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let jobs: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        for job in jobs {
            job.join().map_err(|_| anyhow::anyhow!("a job panicked"))??;
        }
        Ok(())
    })?;
    let mut found = found.into_inner().map_err(|_| anyhow::anyhow!("a job panicked"))?;
    found.failed.sort_unstable();
    Ok(found)
}

/// Why a seed failed; none when it is well. One that says neither did not end by itself.
fn failure(seed: u64, story: &[&str], output: &Output) -> Option<String> {
    let last = story.last().copied().unwrap_or_default();
    let says = last.strip_prefix(&format!("seed {seed}: "));
    match says {
        Some(says) if output.status.success() && says.starts_with("well") => None,
        Some(_) if !output.status.success() => Some(last.to_owned()),
        _ => Some(format!(
            "seed {seed}: gives no verdict: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn failure_of(raw: i32, said: &str) -> Option<String> {
        let status = ExitStatus::from_raw(raw);
        let output = Output { status, stdout: Vec::new(), stderr: b"why\n".to_vec() };
        failure(7, &said.lines().collect::<Vec<_>>(), &output)
    }

    #[test]
    fn a_seed_without_a_verdict_has_failed() {
        assert_eq!(failure_of(0, "a\nseed 7: well, 3 changes"), None);
        assert_eq!(failure_of(256, "seed 7: an orphan").unwrap(), "seed 7: an orphan");
        let killed = failure_of(9, "").unwrap();
        assert!(killed.contains("no verdict") && killed.contains("signal: 9"), "{killed}");
        assert!(killed.ends_with("why"), "{killed}");
        assert!(failure_of(0, "").is_some());
        assert!(failure_of(256, "seed 7: well").is_some());
        assert!(failure_of(0, "seed 7: an orphan").is_some());
    }
}
