//! What directories take on disk.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::ImageError;

/// A number of file names; more of them are not read, so that a damaged store costs bounded work.
const NAMES_MAX: usize = 100_000;

/// What the store takes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

/// What a directory takes on disk. What has several names is counted once.
///
/// # Errors
/// When it cannot be read.
pub fn measure(directory: &Path) -> Result<Usage, ImageError> {
    let mut usage = Usage::default();
    measure_into(directory, &mut usage, &mut BTreeSet::new())?;
    Ok(usage)
}

/// The same for several directories.
pub(crate) fn measure_into(
    directory: &Path,
    usage: &mut Usage,
    seen: &mut BTreeSet<u64>,
) -> Result<(), ImageError> {
    for path in entries(directory)? {
        // What disappears while the walk goes on is not counted.
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.nlink() > 1 && !metadata.is_dir() && !seen.insert(metadata.ino()) {
            continue;
        }
        usage.bytes += metadata.blocks() * 512;
        usage.inodes += 1;
        if metadata.is_dir() {
            measure_into(&path, usage, seen)?;
        }
    }
    Ok(())
}

/// What is in a directory.
pub(crate) fn entries(directory: &Path) -> Result<Vec<PathBuf>, ImageError> {
    let read = fs::read_dir(directory).map_err(ImageError::io("list", directory))?;
    let mut paths = Vec::new();
    for entry in read.take(NAMES_MAX) {
        paths.push(entry.map_err(ImageError::io("list", directory))?.path());
    }
    Ok(paths)
}
