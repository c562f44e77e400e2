//! `cargo xtask tidy`: what the compiler does not check.

mod documents;
mod layers;
mod sources;

use anyhow::ensure;

use crate::run::{say, workspace};

/// Prints every finding; fails when there is one.
pub(crate) fn run() -> anyhow::Result<()> {
    let root = workspace();
    let metadata = cargo_metadata::MetadataCommand::new().current_dir(&root).no_deps().exec()?;
    let mut findings = layers::check(&root, &metadata)?;
    findings.extend(documents::check(&root, &metadata)?);
    findings.extend(sources::check(&root)?);
    for finding in &findings {
        say(&format!("tidy: {finding}"));
    }
    ensure!(findings.is_empty(), "{} findings", findings.len());
    say("tidy: nothing found");
    Ok(())
}
