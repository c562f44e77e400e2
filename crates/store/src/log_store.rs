//! The embedded store.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;
use bytes::Bytes;
use clock::SharedClock;
use futures::StreamExt;
use tokio::sync::{mpsc, oneshot, watch};

use crate::api::{
    Event, EventBatch, KeyValue, Outcome, Range, RangeResult, Revision, Store, StoreError,
    WatchStream, Write,
};
use crate::gather::{Alarm, Gatherer};
use crate::history::{Bounds, History};
use crate::index::Index;
use crate::lock::{DirectoryLock, LockError};
use crate::log::{FileLog, Log, VolatileLog};
use crate::metrics::Metrics;
use crate::recovery::{self, RecoveryError};
use crate::writer::{Request, Writer};

/// Writes that may wait for the writer; more wait in their callers.
const QUEUE: usize = 4096;
/// Events handed to a watcher at once.
const WATCH_BATCH: usize = 512;
/// etcd's own limit of a request, with room for the envelope of a 3 MiB body.
const WRITE_BYTES: usize = 4 << 20;

/// How the store behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of log after which a snapshot is written and the log cut.
    pub snapshot_after_bytes: u64,
    /// Changes kept for watches and for reads of the past.
    pub history_events: usize,
    /// Bytes of replaced values kept for the same purpose.
    pub history_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            // Replays in about a second, and is rewritten rarely enough not to matter.
            snapshot_after_bytes: 64 << 20,
            history_events: 10_000,
            history_bytes: 16 << 20,
        }
    }
}

/// Why the store did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the directory.
    #[error("data directory {} is in use by another process{}", path.display(), pid(*.holder))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process, when it is known.
        holder: Option<u32>,
    },
    /// Acknowledged data is damaged.
    #[error("{} is corrupt at offset {offset}: {what}; restore it from a backup", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The file system refused.
    #[error("cannot open the store in {}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn pid(holder: Option<u32>) -> String {
    holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

/// The embedded store: an index in memory and a log on disk.
///
/// Dropping it waits for the writer thread, which first finishes what it was given: at most a batch
/// and a snapshot. Only then may another process open the directory.
pub struct LogStore {
    shared: Arc<Shared>,
    /// `None` only while the store is dropped.
    requests: Option<mpsc::Sender<Request>>,
    alarm: Alarm,
    writer: Option<JoinHandle<()>>,
    _lock: Option<DirectoryLock>,
}

impl Drop for LogStore {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the writer thread of the store panicked");
        }
    }
}

impl LogStore {
    /// Opens or creates the store in `directory`.
    ///
    /// # Errors
    /// When another process has it, when acknowledged data is damaged, or the disk refuses.
    pub fn open(
        directory: &Path,
        options: &Options,
        clock: SharedClock,
        registry: &prometheus::Registry,
    ) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: directory.to_path_buf(), source };
        std::fs::create_dir_all(directory).map_err(io)?;
        let lock = DirectoryLock::take(directory).map_err(|error| match error {
            LockError::Held(holder) => OpenError::InUse { path: directory.to_path_buf(), holder },
            LockError::Io(source) => io(source),
        })?;
        let recovered = recovery::recover(directory).map_err(|error| match error {
            RecoveryError::Io(source) => io(source),
            RecoveryError::Corrupt(path, offset, what) => OpenError::Corrupt { path, offset, what },
        })?;
        if recovered.torn > 0 {
            tracing::info!(bytes = recovered.torn, "cut an unfinished write off the log");
        }
        let log = match &recovered.tail {
            Some((segment, length)) => FileLog::resume(directory, segment, *length),
            None => FileLog::create(directory, recovered.index.revision),
        }
        .map_err(io)?;
        let mut store = Self::start(
            recovered.index,
            Box::new(log),
            Some(directory.to_path_buf()),
            options,
            clock,
        )
        .map_err(io)?;
        store.shared.metrics.register(registry);
        store._lock = Some(lock);
        Ok(store)
    }

    /// A store that is gone with the process.
    ///
    /// # Errors
    /// When the writer thread cannot be started.
    pub fn volatile(options: &Options, clock: SharedClock) -> Result<Self, OpenError> {
        Self::start(Index::new(), Box::new(VolatileLog), None, options, clock)
            .map_err(|source| OpenError::Io { path: PathBuf::new(), source })
    }

    pub(crate) fn start(
        index: Index,
        log: Box<dyn Log>,
        directory: Option<PathBuf>,
        options: &Options,
        clock: SharedClock,
    ) -> io::Result<Self> {
        let bounds = Bounds { events: options.history_events, bytes: options.history_bytes };
        let revision = index.revision;
        let shared = Arc::new(Shared {
            state: Mutex::new(State { index, history: History::new(revision, bounds) }),
            newest: watch::Sender::new(revision),
            metrics: Metrics::new(),
        });
        let (requests, receiver) = mpsc::channel(QUEUE);
        let alarm = Alarm::default();
        let writer = Writer {
            shared: shared.clone(),
            log,
            requests: Gatherer::new(receiver, alarm.clone()),
            clock,
            snapshots: directory.map(|path| (path, options.snapshot_after_bytes)),
            snapshot_thread: None,
            failed: None,
        };
        let writer =
            std::thread::Builder::new().name("store-writer".into()).spawn(move || writer.run())?;
        Ok(Self { shared, requests: Some(requests), alarm, writer: Some(writer), _lock: None })
    }
}

#[async_trait]
impl Store for LogStore {
    async fn revision(&self) -> Result<Revision, StoreError> {
        Ok(*self.shared.newest.borrow())
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Arc<KeyValue>>, StoreError> {
        Ok(self.shared.lock().index.map.get(key).cloned())
    }

    async fn range(&self, range: Range) -> Result<RangeResult, StoreError> {
        let (current, index) = self.shared.index_at(range.revision)?;
        let start = range.from.filter(|from| *from > range.prefix);
        let start = start.unwrap_or_else(|| range.prefix.clone());
        let limit = if range.limit == 0 { usize::MAX } else { range.limit };
        let mut under =
            index.map.range(start..).take_while(|(key, _)| key.starts_with(&range.prefix));
        let items: Vec<_> = under.by_ref().take(limit).map(|(_, kv)| kv.clone()).collect();
        let more = under.next().is_some();
        Ok(RangeResult { revision: current, items, more })
    }

    async fn write(&self, write: Write) -> Result<Outcome, StoreError> {
        let size = write.key.len() + write.value.as_ref().map_or(0, Bytes::len);
        if size > WRITE_BYTES {
            return Err(StoreError::TooLarge { size, limit: WRITE_BYTES });
        }
        let (answer, answered) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or(StoreError::Closed)?;
        let is_patient = write.is_patient;
        requests.send(Request { write, answer }).await.map_err(|_| StoreError::Closed)?;
        if !is_patient {
            self.alarm.ring();
        }
        answered.await.map_err(|_| StoreError::Closed)?
    }

    async fn watch(&self, prefix: Bytes, after: Revision) -> Result<WatchStream, StoreError> {
        self.shared.lock().history.check(after)?;
        let cursor = Cursor {
            shared: self.shared.clone(),
            newest: self.shared.newest.subscribe(),
            prefix,
            reached: after,
            ended: false,
        };
        Ok(futures::stream::unfold(cursor, Cursor::next).boxed())
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let mut state = self.shared.lock();
        let current = state.index.revision;
        if revision > current {
            return Err(StoreError::Future { requested: revision, current });
        }
        state.history.compact(revision);
        Ok(())
    }
}

/// What readers and the writer share. The lock is held for a few operations in memory only.
pub(crate) struct Shared {
    state: Mutex<State>,
    newest: watch::Sender<Revision>,
    pub(crate) metrics: Metrics,
}

struct State {
    index: Index,
    history: History,
}

impl Shared {
    pub(crate) fn index(&self) -> Index {
        self.lock().index.clone()
    }

    /// Makes a durable batch visible.
    pub(crate) fn publish(&self, index: Index, events: Vec<Arc<Event>>) {
        let revision = index.revision;
        self.metrics.revision.set(i64::try_from(revision.0).unwrap_or(i64::MAX));
        self.metrics.keys.set(i64::try_from(index.map.len()).unwrap_or(i64::MAX));
        {
            let mut state = self.lock();
            state.index = index;
            for event in events {
                state.history.push(event);
            }
        }
        self.newest.send_replace(revision);
    }

    fn index_at(&self, revision: Option<Revision>) -> Result<(Revision, Index), StoreError> {
        let state = self.lock();
        let current = state.index.revision;
        let index = match revision {
            None => state.index.clone(),
            Some(requested) if requested > current => {
                return Err(StoreError::Future { requested, current });
            }
            Some(requested) => state.history.rewind(state.index.clone(), requested)?,
        };
        Ok((current, index))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Cursor {
    shared: Arc<Shared>,
    newest: watch::Receiver<Revision>,
    prefix: Bytes,
    reached: Revision,
    ended: bool,
}

impl Cursor {
    async fn next(mut self) -> Option<(Result<EventBatch, StoreError>, Self)> {
        if self.ended {
            return None;
        }
        let after = self.reached;
        // The sender lives in `shared`, which this cursor holds.
        self.newest.wait_for(|newest| *newest > after).await.ok()?;
        let found = self.shared.lock().history.after(after, &self.prefix, WATCH_BATCH);
        match found {
            Ok((revision, events)) => {
                self.reached = revision;
                Some((Ok(EventBatch { revision, events }), self))
            }
            Err(error) => {
                self.ended = true;
                Some((Err(error), self))
            }
        }
    }
}

#[cfg(test)]
mod tests;
