//! `cargo xtask fuzz`: the fuzzer, built with the compiler's coverage counters.

use std::path::PathBuf;

use anyhow::Context;

use crate::run::{self, cargo, target_dir};

/// Counters in every block, and nothing that would need a runtime of the sanitizers.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3 \
                     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters";

/// Which targets to fuzz, and for how long.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this target; may be given several times.
    #[arg(long)]
    target: Vec<String>,
    /// How long each target runs.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Decides what is tried.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs a target on this file instead.
    #[arg(long)]
    replay: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    // Other flags make other libraries: they live apart, lest the usual ones be built anew.
    let directory = target_dir()?.join("fuzz");
    let host = host()?;
    let mut build = cargo(&["build", "--package", "fuzz", "--bin", "fuzz"]);
    // With a target named, the flags are not for build scripts and macros, which lack the counters.
    build.args(["--target", &host]).arg("--target-dir").arg(&directory);
    build.env("RUSTFLAGS", FLAGS);
    // Overflows and assertions are findings; without any optimisation little is tried.
    build.env("CARGO_PROFILE_DEV_OPT_LEVEL", "1");
    run::run(build)?;
    let mut fuzz = testkit::command(directory.join(host).join("debug/fuzz"));
    fuzz.arg("--corpus").arg(directory.join("corpus"));
    fuzz.args(["--seconds", &args.seconds.to_string(), "--seed", &args.seed.to_string()]);
    for target in &args.target {
        fuzz.args(["--target", target]);
    }
    if let Some(path) = &args.replay {
        fuzz.arg("--replay").arg(path);
    }
    run::run(fuzz)
}

/// The machine this is compiled for, as the compiler calls it.
fn host() -> anyhow::Result<String> {
    let output = testkit::command("rustc").arg("-vV").output().context("cannot run rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not say what it compiles for")
}
