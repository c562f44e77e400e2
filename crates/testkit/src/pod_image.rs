//! The images of the tests' own programs.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, ensure};

use crate::{ImageBuilder, command};

/// Name of the image of `testkit-pod`.
pub const POD_IMAGE: &str = "testkit-pod:1";
/// Name of the image of `testkit-extension`.
pub const EXTENSION_IMAGE: &str = "testkit-extension:1";

/// The image of the program that most pods of tests run.
///
/// # Errors
/// When the program cannot be built.
pub fn pod_image() -> anyhow::Result<Vec<u8>> {
    image("testkit-pod", POD_IMAGE)?.build()
}

/// The same before it is an archive, to be pushed.
///
/// # Errors
/// When the program cannot be built.
pub fn pod_image_to_push() -> anyhow::Result<ImageBuilder> {
    image("testkit-pod", POD_IMAGE)
}

/// The image of the program that extends clusters.
///
/// # Errors
/// When the program cannot be built.
pub fn extension_image() -> anyhow::Result<Vec<u8>> {
    image("testkit-extension", EXTENSION_IMAGE)?.build()
}

fn image(program: &str, name: &str) -> anyhow::Result<ImageBuilder> {
    let path = format!("/{program}");
    let mut image = ImageBuilder::new(name, &[&path]);
    image.file(&built(program)?, &path)?.directory("/tmp")?;
    // This process is linked against the same libraries.
    let users = "root:x:0:0::/root:/\nuser:x:1500:1500::/:/\n";
    image.libraries_of("self")?.text("/etc/passwd", users)?;
    // The user is in a group of the image.
    image.text("/etc/group", "root:x:0:\nuser:x:1500:\nimages:x:50000:user\n")?;
    // The C library looks names up only when it is told where.
    image.text("/etc/nsswitch.conf", "hosts: files dns\n")?;
    Ok(image)
}

/// Builds a program once per process, beside the test that runs.
fn built(program: &str) -> anyhow::Result<PathBuf> {
    static PROGRAMS: Mutex<Option<HashMap<String, PathBuf>>> = Mutex::new(None);
    let mut programs = PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner);
    let programs = programs.get_or_insert_default();
    if let Some(path) = programs.get(program) {
        return Ok(path.clone());
    }
    let path = build(program)?;
    programs.insert(program.to_owned(), path.clone());
    Ok(path)
}

fn build(program: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    // target/<profile>/deps/<test>
    let profile = test.ancestors().nth(2).context("the test's directory")?;
    let target = profile.parent().context("the target directory")?;
    let name = if profile.ends_with("release") { "release" } else { "dev" };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = command(cargo);
    // The whole workspace's features, so that what the tests were built with is used again.
    build.args(["build", "--quiet", "--workspace", "--bin", program]);
    build.args(["--profile", name, "--target-dir"]);
    build.arg(target).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = build.output().context("cargo")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(profile.join(program))
}
