//! The locks that processes sharing a store take before they change it.
//!
//! An import takes as long as its archive is large, and a container's start must not wait for it.
//! So there are two: one for those who change what there is, and one, never held for long, between
//! those who lease layers and the collector. Who needs both takes them in this order.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::ImageError;

/// For those who change what there is.
pub(crate) const CHANGE: &str = "lock";
/// For those who lease layers, and the collector.
pub(crate) const COLLECT: &str = "collect.lock";

/// Held while a process changes the store; ends with the process at the latest.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Whether somebody holds the lock of a file. One that does not exist is held by nobody.
    pub(crate) fn is_held(directory: &Path, name: &str) -> bool {
        let Ok(file) = OpenOptions::new().write(true).open(directory.join(name)) else {
            return false;
        };
        flock(&file, FlockOperation::NonBlockingLockExclusive).is_err()
    }

    /// Waits until no other process and no other thread holds it.
    pub(crate) fn acquire(directory: &Path, name: &str) -> Result<Self, ImageError> {
        let path = directory.join(name);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(ImageError::io("open", &path))?;
        loop {
            match flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(Self { _file: file }),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(ImageError::io("lock", &path)(error.into())),
            }
        }
    }
}
