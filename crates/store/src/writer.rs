//! The one thread that writes: it makes a batch of writes durable, then publishes and answers them.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use clock::SharedClock;
use tokio::sync::oneshot;

use crate::api::{Committed, Event, Expect, Outcome, Revision, StoreError, Write};
use crate::frame::FrameBuilder;
use crate::gather::Gatherer;
use crate::index::Index;
use crate::log::{self, Log};
use crate::log_store::Shared;
use crate::snapshot;

pub(crate) struct Request {
    pub(crate) write: Write,
    pub(crate) answer: oneshot::Sender<Result<Outcome, StoreError>>,
}

pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) log: Box<dyn Log>,
    pub(crate) requests: Gatherer,
    pub(crate) clock: SharedClock,
    /// Where snapshots go, and after how many bytes of log; `None` when nothing is kept.
    pub(crate) snapshots: Option<(PathBuf, u64)>,
    pub(crate) snapshot_thread: Option<JoinHandle<()>>,
    pub(crate) failed: Option<Arc<io::Error>>,
}

impl Writer {
    /// Runs until the last sender is gone.
    pub(crate) fn run(mut self) {
        while let Some(batch) = self.requests.next() {
            self.commit(batch);
            self.snapshot_if_due();
        }
        // It holds files of the directory, whose lock is let go after this thread.
        if let Some(thread) = self.snapshot_thread.take() {
            thread.join().ok();
        }
    }

    fn commit(&mut self, batch: Vec<Request>) {
        if let Some(error) = &self.failed {
            let error = StoreError::Failed(error.clone());
            refuse(batch, &error, &self.shared);
            return;
        }
        // Only this thread changes the index, so the clone cannot become stale.
        let mut index = self.shared.index();
        let mut frame = FrameBuilder::new(Revision(index.revision.0 + 1));
        let mut events = Vec::with_capacity(batch.len());
        let outcomes: Vec<Outcome> = batch
            .iter()
            .map(|request| stage(&request.write, &mut index, &mut frame, &mut events))
            .collect();
        if !frame.is_empty()
            && let Err(error) = self.append(frame)
        {
            refuse(batch, &error, &self.shared);
            return;
        }
        self.shared
            .metrics
            .batch_writes
            .observe(f64::from(u32::try_from(events.len()).unwrap_or(u32::MAX)));
        self.shared.publish(index, events);
        for (request, outcome) in batch.into_iter().zip(outcomes) {
            // Nobody waits any more; the write stands.
            request.answer.send(Ok(outcome)).ok();
        }
    }

    /// Makes a frame durable, or leaves the log as it was.
    fn append(&mut self, frame: FrameBuilder) -> Result<(), StoreError> {
        debug_assert!(!frame.is_empty(), "an empty frame has no revision");
        let before = self.log.length();
        if let Err(error) = self.log.append(&frame.finish()) {
            return Err(self.take_back(before, error));
        }
        let started = self.clock.monotonic();
        if let Err(error) = self.log.sync() {
            // What reached the disk is unknown, and a second fdatasync would not tell.
            return Err(self.fail(error));
        }
        let took = self.clock.monotonic().saturating_duration_since(started);
        self.shared.metrics.sync_seconds.observe(took.as_secs_f64());
        Ok(())
    }

    fn take_back(&mut self, length: u64, cause: io::Error) -> StoreError {
        let is_full = matches!(
            cause.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        );
        match self.log.truncate(length) {
            Ok(()) if is_full => StoreError::NoSpace,
            Ok(()) => self.fail(cause),
            Err(error) => self.fail(error),
        }
    }

    fn fail(&mut self, error: io::Error) -> StoreError {
        tracing::error!(%error, "the write-ahead log failed, writes are refused until restart");
        let error = Arc::new(error);
        self.failed = Some(error.clone());
        StoreError::Failed(error)
    }

    /// Starts a new segment and writes the index beside the writer's back.
    fn snapshot_if_due(&mut self) {
        let Some((directory, after_bytes)) = &self.snapshots else { return };
        let is_running = self.snapshot_thread.as_ref().is_some_and(|thread| !thread.is_finished());
        if self.log.length() < *after_bytes || is_running {
            return;
        }
        let index = self.shared.index();
        // Without space for a new segment the old one simply goes on.
        if let Err(error) = self.log.rotate(index.revision) {
            tracing::warn!(%error, "could not start a new log segment");
            return;
        }
        let directory = directory.clone();
        let started = std::thread::Builder::new()
            .name("store-snapshot".into())
            .spawn(move || write_snapshot(&directory, &index));
        match started {
            Ok(thread) => self.snapshot_thread = Some(thread),
            Err(error) => tracing::warn!(%error, "could not start a thread for the snapshot"),
        }
    }
}

fn stage(
    write: &Write,
    index: &mut Index,
    frame: &mut FrameBuilder,
    events: &mut Vec<Arc<Event>>,
) -> Outcome {
    let found = index.map.get(&write.key);
    let holds = match write.expect {
        Expect::Any => write.value.is_some() || found.is_some(),
        Expect::Absent => found.is_none() && write.value.is_some(),
        Expect::ModRevision(revision) => found.is_some_and(|kv| kv.mod_revision == revision),
    };
    if !holds {
        return Outcome::Conflict(found.cloned());
    }
    let value = write.value_at(Revision(index.revision.0 + 1));
    frame.push(&write.key, value.as_deref());
    let event = Event { note: write.note.clone(), ..index.apply(write.key.clone(), value) };
    let committed = Committed { revision: event.revision, previous: event.previous.clone() };
    events.push(Arc::new(event));
    Outcome::Committed(committed)
}

fn refuse(batch: Vec<Request>, error: &StoreError, shared: &Shared) {
    for request in batch {
        shared.metrics.refused.inc();
        request.answer.send(Err(error.clone())).ok();
    }
}

/// The newest snapshot makes everything before it superfluous.
fn write_snapshot(directory: &std::path::Path, index: &Index) {
    if let Err(error) = snapshot::write(directory, index) {
        tracing::warn!(%error, "could not write a snapshot, the log is kept");
        return;
    }
    for extension in ["wal", "snapshot"] {
        let Ok(files) = log::numbered(directory, extension) else { continue };
        for (revision, path) in files {
            if revision < index.revision
                && let Err(error) = std::fs::remove_file(&path)
            {
                tracing::warn!(%error, path = %path.display(), "could not remove an old log file");
            }
        }
    }
}
