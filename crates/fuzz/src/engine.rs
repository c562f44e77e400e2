//! The loop: take an input, change it, run it, keep it if it reached new code.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use rustix::time::ClockId;

use crate::coverage::Seen;
use crate::mutate::mutate;
use crate::random::Random;
use crate::targets::Target;
use crate::watch;

/// Findings after which a target is given up: most of them are one fault.
const MAX_FINDINGS: usize = 20;
/// Attempts to make a finding smaller.
const SHRINKS: usize = 500;
/// Inputs that are kept at most; by then they reach everything that can be reached so.
const MAX_CORPUS: usize = 20_000;

/// How long to go on.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// So many executions.
    Executions(u64),
    /// So long.
    Time(Duration),
}

/// An input on which a target fails.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What happened.
    pub text: String,
    /// The input, made smaller.
    pub input: Vec<u8>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Inputs that were run.
    pub executions: u64,
    /// Inputs that reached something of their own.
    pub corpus: usize,
    /// Counters that were reached; none without counters.
    pub reached: usize,
    /// What was found, one of each sort.
    pub findings: Vec<Finding>,
}

/// Runs a target. With a directory, inputs worth keeping are read from it and written to it, and the
/// input that runs is always in its file `running`, in case it ends the process.
///
/// # Errors
/// When the directory cannot be used.
pub fn fuzz(
    target: &Target,
    limit: Limit,
    seed: u64,
    directory: Option<&Path>,
) -> anyhow::Result<Outcome> {
    let mut run = Run::new(target, directory)?;
    let begun = watch::now(ClockId::Monotonic);
    for input in run.inputs(directory)? {
        run.execute(&input, Keep::Always)?;
    }
    let mut random = Random::new(seed);
    let goes_on = |run: &Run<'_>| match limit {
        Limit::Executions(most) => run.outcome.executions < most,
        Limit::Time(most) => watch::now(ClockId::Monotonic).saturating_sub(begun) < most,
    };
    while goes_on(&run) && run.outcome.findings.len() < MAX_FINDINGS {
        let [one, other] = [(); 2].map(|()| run.pick(&mut random).to_vec());
        let input = mutate(&mut random, &one, &other, target.dictionary);
        run.execute(&input, Keep::IfNew)?;
    }
    run.outcome.corpus = run.corpus.len();
    run.outcome.reached = run.seen.reached();
    Ok(run.outcome)
}

/// What is wrong with a target on one input.
pub fn replay(target: &Target, input: &[u8]) -> Option<String> {
    watch::run(target, input)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Always,
    IfNew,
}

struct Run<'a> {
    target: &'a Target,
    seen: Seen,
    corpus: Vec<Vec<u8>>,
    directory: Option<&'a Path>,
    running: Option<File>,
    outcome: Outcome,
}

impl<'a> Run<'a> {
    fn new(target: &'a Target, directory: Option<&'a Path>) -> anyhow::Result<Self> {
        let running = match directory {
            Some(directory) => {
                fs::create_dir_all(directory).context("make the directory of the corpus")?;
                Some(File::create(directory.join("running")).context("make a file")?)
            }
            None => None,
        };
        Ok(Self {
            target,
            seen: Seen::new(),
            corpus: Vec::new(),
            directory,
            running,
            outcome: Outcome::default(),
        })
    }

    /// Seeds, and what earlier runs kept.
    fn inputs(&self, directory: Option<&Path>) -> anyhow::Result<Vec<Vec<u8>>> {
        let mut inputs = (self.target.seeds)();
        let Some(directory) = directory else { return Ok(inputs) };
        let entries = fs::read_dir(directory).context("read the corpus")?;
        let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        for path in paths.iter().filter(|path| path.extension().is_some_and(|it| it == "input")) {
            inputs.push(fs::read(path).context("read an input")?);
        }
        Ok(inputs)
    }

    /// Newer inputs are picked more often: what they reached is explored less.
    fn pick(&self, random: &mut Random) -> &[u8] {
        let len = self.corpus.len();
        let at = random.below(len).max(random.below(len));
        self.corpus.get(at).map_or(&[], Vec::as_slice)
    }

    fn execute(&mut self, input: &[u8], keep: Keep) -> anyhow::Result<()> {
        if let Some(running) = &self.running {
            running.set_len(u64::try_from(input.len())?)?;
            running.write_all_at(input, 0)?;
        }
        self.seen.reset();
        let problem = watch::run(self.target, input);
        let is_new = self.seen.absorb();
        self.outcome.executions += 1;
        if let Some(text) = problem {
            return self.found(input, &text);
        }
        // Without counters there is nothing to choose by.
        let is_kept = match keep {
            Keep::Always => is_new || !self.seen.has_counters(),
            Keep::IfNew => is_new,
        };
        if is_kept && self.corpus.len() < MAX_CORPUS {
            self.corpus.push(input.to_vec());
            if keep == Keep::IfNew {
                self.save(input, "input")?;
            }
        }
        Ok(())
    }

    /// Reports one of each sort: those that fail at the same place are the same.
    fn found(&mut self, input: &[u8], text: &str) -> anyhow::Result<()> {
        let sort = |text: &str| -> String { text.split(": ").next().unwrap_or("").to_owned() };
        let own = |text: &str| -> String {
            // Sizes and times differ from input to input.
            sort(text).chars().filter(|c| !c.is_ascii_digit() || text.contains(".rs:")).collect()
        };
        if self.outcome.findings.iter().any(|known| own(&known.text) == own(text)) {
            return Ok(());
        }
        let fails = |smaller: &[u8]| {
            watch::run(self.target, smaller).is_some_and(|other| own(&other) == own(text))
        };
        let input = shrink(input, fails);
        self.save(&input, "finding")?;
        self.outcome.findings.push(Finding { text: text.to_owned(), input });
        Ok(())
    }

    fn save(&self, input: &[u8], extension: &str) -> anyhow::Result<()> {
        let Some(directory) = self.directory else { return Ok(()) };
        let name = format!("{:016x}.{extension}", hash(input));
        fs::write(directory.join(name), input).context("keep an input")
    }
}

/// Leaves out pieces as long as the rest still fails.
fn shrink(input: &[u8], fails: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut best = input.to_vec();
    let mut size = best.len() / 2;
    let mut attempts = 0;
    while size > 0 && attempts < SHRINKS {
        let mut at = 0;
        while at < best.len() && attempts < SHRINKS {
            let mut smaller = best.clone();
            smaller.drain(at..best.len().min(at + size));
            attempts += 1;
            if fails(&smaller) {
                best = smaller;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    best
}

/// FNV-1a: only to name files.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
