//! Where clients of other languages are installed.

use std::path::{Path, PathBuf};

/// A directory of the build, which cargo marks: what is installed there goes with it.
pub fn real_clients() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    let target = program.ancestors().find(|directory| directory.join("CACHEDIR.TAG").exists());
    target.unwrap_or_else(|| Path::new("target")).join("real-clients")
}
