//! From files to an index.
//!
//! The newest whole snapshot is loaded and the segments after it are replayed. A damaged end of the
//! last segment is what a crash leaves: it is cut off, and nothing in it was acknowledged. Zeros at
//! the end of a segment are what it was filled up with. Damage that is followed by a valid frame, or
//! that lies in an older segment, is not what a crash leaves: then the store refuses to open rather
//! than forget acknowledged writes.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::api::Revision;
use crate::frame;
use crate::index::Index;
use crate::log::{self, SEGMENT_MAGIC};
use crate::snapshot;

pub(crate) struct Recovered {
    pub(crate) index: Index,
    /// The segment to continue and how much of it is good; `None` when there is none yet.
    pub(crate) tail: Option<(PathBuf, u64)>,
    /// Bytes that were cut off.
    pub(crate) torn: u64,
}

/// Why the files could not be read.
#[derive(Debug)]
pub(crate) enum RecoveryError {
    Io(io::Error),
    /// The file, the offset, and what is wrong there.
    Corrupt(PathBuf, u64, &'static str),
}

impl From<io::Error> for RecoveryError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

pub(crate) fn recover(directory: &Path) -> Result<Recovered, RecoveryError> {
    fs::remove_file(directory.join("snapshot.tmp")).ok();
    let mut index = load_snapshot(directory)?;
    let snapshot_revision = index.revision;
    let segments = log::numbered(directory, "wal")?;
    let mut tail = None;
    let mut torn = 0;
    for (position, (after, path)) in segments.iter().enumerate() {
        let next_starts = segments.get(position + 1).map(|(after, _)| *after);
        // Wholly covered by the snapshot.
        if next_starts.is_some_and(|next| next <= snapshot_revision) {
            continue;
        }
        if *after > index.revision {
            return Err(RecoveryError::Corrupt(path.clone(), 0, "revisions before it are missing"));
        }
        let data = Bytes::from(fs::read(path)?);
        let good = replay(path, &data, &mut index, next_starts.is_none())?;
        torn = unfinished(&data, good).len() as u64;
        tail = Some((path.clone(), good as u64));
    }
    // A last segment without even its magic was torn while being created.
    if tail.as_ref().is_some_and(|(_, good)| *good < SEGMENT_MAGIC.len() as u64) {
        tail = None;
    }
    Ok(Recovered { index, tail, torn })
}

fn load_snapshot(directory: &Path) -> Result<Index, RecoveryError> {
    let Some((_, path)) = log::numbered(directory, "snapshot")?.pop() else {
        return Ok(Index::new());
    };
    // It got its name only after it was durable, so a bad one is damage, not a crash.
    snapshot::read(&path)?.ok_or(RecoveryError::Corrupt(path, 0, "the snapshot is damaged"))
}

/// Applies the frames of one segment and returns where the good part ends.
fn replay(
    path: &Path,
    data: &Bytes,
    index: &mut Index,
    is_last: bool,
) -> Result<usize, RecoveryError> {
    let corrupt = |at: usize, what| RecoveryError::Corrupt(path.to_path_buf(), at as u64, what);
    if !data.starts_with(&SEGMENT_MAGIC) {
        let is_torn = is_last && SEGMENT_MAGIC.starts_with(data);
        return if is_torn { Ok(0) } else { Err(corrupt(0, "it is not a log segment")) };
    }
    let mut at = SEGMENT_MAGIC.len();
    while at < data.len() {
        let Some((frame, end)) = frame::read(data, at) else {
            let rest = unfinished(data, at);
            if rest.is_empty() {
                return Ok(at);
            }
            if !is_last {
                return Err(corrupt(at, "a frame is damaged and later segments exist"));
            }
            if valid_frame_follows(data, at + 1..at + rest.len(), index.revision) {
                return Err(corrupt(at, "a frame is damaged and valid frames follow it"));
            }
            return Ok(at);
        };
        apply(frame, index).map_err(|what| corrupt(at, what))?;
        at = end;
    }
    Ok(at)
}

/// What was written after the good part, without the zeros that a segment is filled up with.
fn unfinished(data: &[u8], good: usize) -> &[u8] {
    let rest = &data[good..];
    let end = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &rest[..end]
}

fn apply(frame: frame::Frame, index: &mut Index) -> Result<(), &'static str> {
    let mut revision = frame.first;
    for record in frame.records {
        // Already in the snapshot.
        if revision > index.revision {
            if revision.0 != index.revision.0 + 1 {
                return Err("revisions are missing before this frame");
            }
            // Copied, so that one small value does not keep the whole segment in memory.
            let value = record.value.map(|value| Bytes::copy_from_slice(&value));
            index.apply(Bytes::copy_from_slice(&record.key), value);
        }
        revision.0 += 1;
    }
    Ok(())
}

/// Whether at one of these offsets is a frame that was written after the damaged one.
fn valid_frame_follows(data: &[u8], offsets: Range<usize>, last: Revision) -> bool {
    // Far more writes than fit between two snapshots.
    const PLAUSIBLE: u64 = 1 << 32;
    let end = data.len().saturating_sub(frame::HEADER + frame::MIN_PAYLOAD).min(offsets.end);
    (offsets.start..end).any(|offset| {
        frame::peek_revision(data, offset)
            .is_some_and(|first| first > last && first.0 - last.0 < PLAUSIBLE)
            && frame::end_of_valid(data, offset).is_some()
    })
}
