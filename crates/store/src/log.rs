//! The files of the log, behind a trait so that tests can make the disk fail.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::api::Revision;

/// First bytes of every segment; the last one is the version of the format.
pub(crate) const SEGMENT_MAGIC: [u8; 8] = *b"ironwal\x01";

/// Where frames go.
pub(crate) trait Log: Send {
    /// Appends bytes; on error an unknown part of them may have been written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything appended durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Takes back everything after `length` bytes.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
    /// Bytes in the current segment.
    fn length(&self) -> u64;
    /// Starts a new segment whose first frame will have a revision above `after`.
    fn rotate(&mut self, after: Revision) -> io::Result<()>;
}

/// What a segment is filled up with ahead of its frames: as much as it holds, within these bounds.
const AHEAD: std::ops::RangeInclusive<u64> = 64 << 10..=256 << 10;
const ZEROS: &[u8] = &[0; 64 << 10];

/// A segment file per snapshot interval.
///
/// Frames overwrite zeros that are there already. A file that grows with every frame changes its size
/// and its blocks, too, and makes each `fdatasync` wait for threads of the file system.
pub(crate) struct FileLog {
    directory: PathBuf,
    file: File,
    /// Bytes of frames.
    length: u64,
    /// Where the zeros after them end; never before `length`, or zeros would come over frames.
    filled: u64,
}

impl FileLog {
    /// Continues a segment that recovery has read and cut to `length`.
    pub(crate) fn resume(directory: &Path, segment: &Path, length: u64) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).open(segment)?;
        if file.metadata()?.len() != length {
            file.set_len(length)?;
            file.sync_all()?;
        }
        Ok(Self { directory: directory.to_path_buf(), file, length, filled: length })
    }

    /// Starts a fresh segment.
    pub(crate) fn create(directory: &Path, after: Revision) -> io::Result<Self> {
        let path = segment_path(directory, after);
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        // A leftover of a rotation that failed halfway has no frame in it.
        file.set_len(0)?;
        let written = file
            .write_all(&SEGMENT_MAGIC)
            .and_then(|()| file.sync_all())
            .and_then(|()| sync_directory(directory));
        if let Err(error) = written {
            fs::remove_file(&path).ok();
            return Err(error);
        }
        let length = SEGMENT_MAGIC.len() as u64;
        Ok(Self { directory: directory.to_path_buf(), file, length, filled: length })
    }

    /// Sees to it that so many bytes have a place, and more after them.
    fn fill_ahead(&mut self, bytes: u64) -> io::Result<()> {
        let needed = self.length + bytes;
        if needed <= self.filled {
            return Ok(());
        }
        let until = needed + self.length.clamp(*AHEAD.start(), *AHEAD.end());
        let mut at = self.filled.max(self.length);
        while at < until {
            let count = usize::try_from(until - at).map_or(ZEROS.len(), |n| n.min(ZEROS.len()));
            self.file.write_all_at(&ZEROS[..count], at)?;
            at += count as u64;
        }
        self.filled = until;
        Ok(())
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        (self.length, self.filled) = (length, length);
        Ok(())
    }
}

impl Drop for FileLog {
    fn drop(&mut self) {
        // Zeros at the end mean nothing, and only take room.
        self.cut(self.length).ok();
    }
}

impl Log for FileLog {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.fill_ahead(bytes.len() as u64).is_err() {
            // Without room for more there may still be some for this.
            self.cut(self.length)?;
        }
        self.file.write_all_at(bytes, self.length)?;
        self.length += bytes.len() as u64;
        // It may have been written without zeros before it.
        self.filled = self.filled.max(self.length);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.cut(length)
    }

    fn length(&self) -> u64 {
        self.length
    }

    fn rotate(&mut self, after: Revision) -> io::Result<()> {
        *self = Self::create(&self.directory, after)?;
        Ok(())
    }
}

/// Keeps nothing: for a store that lives as long as its process.
#[derive(Default)]
pub(crate) struct VolatileLog;

impl Log for VolatileLog {
    fn append(&mut self, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&mut self, _length: u64) -> io::Result<()> {
        Ok(())
    }

    fn length(&self) -> u64 {
        0
    }

    fn rotate(&mut self, _after: Revision) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn segment_path(directory: &Path, after: Revision) -> PathBuf {
    directory.join(format!("{:020}.wal", after.0))
}

/// Files `<revision>.<extension>` of the directory, by revision.
pub(crate) fn numbered(directory: &Path, extension: &str) -> io::Result<Vec<(Revision, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_none_or(|e| e != extension) {
            continue;
        }
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        if let Some(number) = stem.and_then(|stem| stem.parse().ok()) {
            found.push((Revision(number), path));
        }
    }
    found.sort();
    Ok(found)
}

pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
