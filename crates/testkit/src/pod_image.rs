//! The image of the tests' own pod program.

use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Context, ensure};

use crate::{ImageBuilder, command};

/// Name of the image.
pub const POD_IMAGE: &str = "testkit-pod:1";

/// Builds the program once per process, beside the test that runs, and packs it.
///
/// # Errors
/// When it cannot be built.
pub fn pod_image() -> anyhow::Result<Vec<u8>> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    let program = program.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut image = ImageBuilder::new(POD_IMAGE, &["/testkit-pod"]);
    image.file(program, "/testkit-pod")?.directory("/tmp")?;
    // This process is linked against the same libraries.
    image.libraries_of("self")?.text("/etc/passwd", "root:x:0:0::/root:/\n")?;
    // The C library looks names up only when it is told where.
    image.text("/etc/nsswitch.conf", "hosts: files dns\n")?;
    image.build()
}

fn build() -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    // target/<profile>/deps/<test>
    let profile = test.ancestors().nth(2).context("the test's directory")?;
    let target = profile.parent().context("the target directory")?;
    let name = if profile.ends_with("release") { "release" } else { "dev" };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = command(cargo);
    // The whole workspace's features, so that what the tests were built with is used again.
    build.args(["build", "--quiet", "--workspace", "--bin", "testkit-pod"]);
    build.args(["--profile", name, "--target-dir"]);
    build.arg(target).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = build.output().context("cargo")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(profile.join("testkit-pod"))
}
