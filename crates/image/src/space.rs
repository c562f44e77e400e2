//! The disk that the store is on.

use std::path::{Path, PathBuf};

use rustix::fs::statvfs;

use crate::ImageError;

/// What is left to everybody else at least: a twentieth of the disk, but of a large one no more
/// than an image of common size needs.
const RESERVE_BYTES_MAX: u64 = 1 << 30;
const RESERVE_PART: u64 = 20;
/// So many small files are a small image.
const RESERVE_FILES_MAX: u64 = 10_000;
/// How much may be written between two looks.
pub(crate) const LOOK_EVERY_BYTES: u64 = 8 << 20;
/// How many files may be made between two looks.
pub(crate) const LOOK_EVERY_FILES: u64 = 1_000;

/// The free space of a disk.
#[derive(Clone, Debug)]
pub(crate) struct Space {
    directory: PathBuf,
}

impl Space {
    /// Of the disk that `directory` is on.
    pub(crate) fn of(directory: &Path) -> Self {
        Self { directory: directory.to_path_buf() }
    }

    /// Refuses when, with so many bytes more, less than the reserve would be left.
    pub(crate) fn require(&self, bytes: u64) -> Result<(), ImageError> {
        let disk = statvfs(&self.directory)
            .map_err(|e| ImageError::io("measure", &self.directory)(e.into()))?;
        let available = disk.f_bavail.saturating_mul(disk.f_frsize);
        let size = disk.f_blocks.saturating_mul(disk.f_frsize);
        let reserve = (size / RESERVE_PART).min(RESERVE_BYTES_MAX);
        if available < reserve.saturating_add(bytes) {
            let path = self.directory.clone();
            return Err(ImageError::NoSpace { path, needed: bytes, reserve, available });
        }
        // Some file systems do not count files.
        let reserve = (disk.f_files / RESERVE_PART).min(RESERVE_FILES_MAX);
        if disk.f_files > 0 && disk.f_favail < reserve {
            return Err(ImageError::NoInodes { path: self.directory.clone(), reserve });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_disk_has_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::of(dir.path());
        space.require(1).unwrap();
        let error = space.require(1 << 60).unwrap_err().to_string();
        assert!(error.contains("no space left on device"), "{error}");
    }
}
