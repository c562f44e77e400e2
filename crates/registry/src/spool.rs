//! A layer's bytes on the disk between the network and the unpacking, which follows at its pace.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What both ends share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes are there, and more may come.
    Growing(u64),
    /// All bytes are there.
    Whole(u64),
    /// No more will come.
    Broken,
}

/// The end that writes. Dropped before it was finished, it leaves the other end with an error.
#[derive(Debug)]
pub(crate) struct SpoolWriter {
    file: File,
    shared: Arc<Shared>,
}

/// The end that reads, waiting for what has not come yet.
#[derive(Debug)]
pub(crate) struct SpoolReader {
    file: File,
    shared: Arc<Shared>,
    at: u64,
}

/// Tells whether the end that writes gave up.
#[derive(Debug)]
pub(crate) struct SpoolState(Arc<Shared>);

impl SpoolState {
    /// Whether it did.
    pub(crate) fn is_broken(&self) -> bool {
        *self.0.lock() == State::Broken
    }
}

/// Makes both ends. The file has no name any more, so it goes with the last of them.
pub(crate) fn spool(path: &Path) -> io::Result<(SpoolWriter, SpoolReader)> {
    let file = File::options().read(true).write(true).create_new(true).open(path)?;
    std::fs::remove_file(path)?;
    let state = Mutex::new(State::Growing(0));
    let shared = Arc::new(Shared { state, changed: Condvar::new() });
    let reader = SpoolReader { file: file.try_clone()?, shared: Arc::clone(&shared), at: 0 };
    Ok((SpoolWriter { file, shared }, reader))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, change: impl FnOnce(State) -> State) {
        let mut state = self.lock();
        *state = change(*state);
        self.changed.notify_all();
    }
}

impl SpoolReader {
    /// What becomes of it.
    pub(crate) fn state(&self) -> SpoolState {
        SpoolState(Arc::clone(&self.shared))
    }
}

impl SpoolWriter {
    /// Adds bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        let more = u64::try_from(bytes.len()).unwrap_or(0);
        self.shared.set(|state| match state {
            State::Growing(length) => State::Growing(length + more),
            other => other,
        });
        Ok(())
    }

    /// That was all.
    pub(crate) fn finish(self) {
        self.shared.set(|state| match state {
            State::Growing(length) => State::Whole(length),
            other => other,
        });
    }
}

impl Drop for SpoolWriter {
    fn drop(&mut self) {
        self.shared.set(|state| match state {
            State::Growing(_) => State::Broken,
            other => other,
        });
    }
}

impl Read for SpoolReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.shared.lock();
        let there = loop {
            match *state {
                State::Growing(length) if length > self.at => break length,
                State::Whole(length) => break length,
                State::Broken => return Err(io::Error::other("the download ended too early")),
                State::Growing(_) => {
                    let waited = self.shared.changed.wait(state);
                    state = waited.unwrap_or_else(PoisonError::into_inner);
                }
            }
        };
        drop(state);
        let most = usize::try_from(there - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += u64::try_from(read).unwrap_or(0);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reader_follows_the_writer() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, mut reader) = spool(&dir.path().join("a")).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let thread = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        for _ in 0..1000 {
            writer.write(b"0123456789").unwrap();
        }
        writer.finish();
        assert_eq!(thread.join().unwrap().unwrap(), "0123456789".repeat(1000));
    }

    #[test]
    fn a_writer_that_gives_up_does_not_leave_the_reader_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, mut reader) = spool(&dir.path().join("a")).unwrap();
        writer.write(b"x").unwrap();
        drop(writer);
        assert!(reader.read_to_end(&mut Vec::new()).is_err());
    }
}
