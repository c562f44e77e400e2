//! One process per data directory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// Held as long as the store is open; the kernel lets go when the process ends, however it ends.
pub(crate) struct DirectoryLock {
    _file: File,
}

/// Why the lock was not taken.
pub(crate) enum LockError {
    /// Another process has it; its id, when it could be read.
    Held(Option<u32>),
    Io(io::Error),
}

impl DirectoryLock {
    pub(crate) fn take(directory: &Path) -> Result<Self, LockError> {
        let path = directory.join("LOCK");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(LockError::Io)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                file.read_to_string(&mut text).map_err(LockError::Io)?;
                return Err(LockError::Held(text.trim().parse().ok()));
            }
            Err(errno) => return Err(LockError::Io(errno.into())),
        }
        write_pid(&mut file).map_err(LockError::Io)?;
        Ok(Self { _file: file })
    }
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}
