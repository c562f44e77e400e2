//! Running programs, and where things are.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

/// The workspace's directory.
pub(crate) fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap_or(manifest).to_path_buf()
}

/// This cargo, in the workspace.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = testkit::command(cargo);
    command.current_dir(workspace()).args(args);
    command
}

/// Prints a command, runs it, and fails when it does.
pub(crate) fn run(mut command: Command) -> anyhow::Result<()> {
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let printed = words.join(" ");
    say(&format!("$ {printed}"));
    let status = command.status().with_context(|| format!("cannot run {printed}"))?;
    ensure!(status.success(), "{printed}: {status}");
    Ok(())
}

/// Builds the product and gives its path.
pub(crate) fn build_ironclad(release: bool) -> anyhow::Result<PathBuf> {
    let args: &[&str] = if release {
        &["build", "--package", "ironclad", "--release"]
    } else {
        // The whole workspace's features: what the tests were built with is used again.
        &["build", "--workspace", "--bin", "ironclad"]
    };
    run(cargo(args))?;
    Ok(target_dir()?.join(if release { "release" } else { "debug" }).join("ironclad"))
}

/// Where cargo builds.
pub(crate) fn target_dir() -> anyhow::Result<PathBuf> {
    let metadata = cargo_metadata::MetadataCommand::new()
        .current_dir(workspace())
        .no_deps()
        .exec()
        .context("cargo metadata")?;
    Ok(metadata.target_directory.into_std_path_buf())
}

/// Prints a line.
pub(crate) fn say(text: &str) {
    writeln!(std::io::stdout().lock(), "{text}").ok();
}
