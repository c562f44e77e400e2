//! `cargo xtask prepush`

use crate::run::{self, cargo};
use crate::tidy;

pub(crate) fn run() -> anyhow::Result<()> {
    lint()?;
    run::run(cargo(&["test", "--workspace", "--lib", "--bins"]))
}

/// Format, clippy with warnings as errors, tidy.
pub(crate) fn lint() -> anyhow::Result<()> {
    run::run(cargo(&["fmt", "--all", "--check"]))?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"];
    run::run(cargo(&clippy))?;
    tidy::run()
}
