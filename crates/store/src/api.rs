//! The contract between a store and those who use it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

/// A version of the whole store. The empty store is at 1, as etcd's is; every change adds one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Revision(pub u64);

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One key with its value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The revision that created the key.
    pub create_revision: Revision,
    /// The revision that wrote this value.
    pub mod_revision: Revision,
    /// How many times the key was written since it was created; 1 for the first value.
    pub version: u64,
}

/// What must hold for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Any,
    /// The key does not exist.
    Absent,
    /// The key exists and was last written at this revision.
    ModRevision(Revision),
}

/// A change to one key.
#[derive(Clone, Debug)]
pub struct Write {
    /// The key.
    pub key: Bytes,
    /// The new value, or `None` to delete the key.
    pub value: Option<Bytes>,
    /// The condition.
    pub expect: Expect,
    /// Where in the value the revision of this write is to stand, in decimal. Only the store knows
    /// it in time, and whoever reads the value then needs no copy of its own to put it in.
    pub revision_at: Option<usize>,
    /// What the writer knows about the value already.
    pub note: Option<Note>,
    /// Whether writes of others may come first, and need not wait for it.
    pub is_patient: bool,
}

/// Something derived from a value by who wrote it, for those of the same process who follow the
/// store and would otherwise derive it again. It goes along with the event and is not kept on disk;
/// events that are read back have none.
pub type Note = Arc<dyn std::any::Any + Send + Sync>;

impl Write {
    /// A write of a value as it is.
    pub fn new(key: Bytes, value: Option<Bytes>, expect: Expect) -> Self {
        Self { key, value, expect, revision_at: None, note: None, is_patient: false }
    }

    /// The value as it is kept when the write gets this revision.
    pub fn value_at(&self, revision: Revision) -> Option<Bytes> {
        let value = self.value.as_ref()?;
        let Some(at) = self.revision_at.filter(|at| *at <= value.len()) else {
            return Some(value.clone());
        };
        let text = revision.0.to_string();
        let mut stamped = Vec::with_capacity(value.len() + text.len());
        stamped.extend_from_slice(&value[..at]);
        stamped.extend_from_slice(text.as_bytes());
        stamped.extend_from_slice(&value[at..]);
        Some(stamped.into())
    }
}

/// A write that happened.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The revision it made.
    pub revision: Revision,
    /// What the key held before.
    pub previous: Option<Arc<KeyValue>>,
}

/// What became of a write.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It is durable.
    Committed(Committed),
    /// The condition did not hold; what the key holds instead. Nothing changed.
    Conflict(Option<Arc<KeyValue>>),
}

/// Which keys to read.
#[derive(Clone, Debug, Default)]
pub struct Range {
    /// Keys that begin with this.
    pub prefix: Bytes,
    /// Of those, the ones at or after this key.
    pub from: Option<Bytes>,
    /// At most so many; 0 for all.
    pub limit: usize,
    /// As of this revision; the newest when `None`.
    pub revision: Option<Revision>,
}

/// The keys read.
#[derive(Clone, Debug)]
pub struct RangeResult {
    /// The store's revision when the read happened.
    pub revision: Revision,
    /// In key order.
    pub items: Vec<Arc<KeyValue>>,
    /// Whether the limit cut the answer.
    pub more: bool,
}

/// One change.
#[derive(Clone, Debug)]
pub struct Event {
    /// The revision it made.
    pub revision: Revision,
    /// What the key held before.
    pub previous: Option<Arc<KeyValue>>,
    /// What it holds now; `None` when it was deleted. One of the two is always there.
    pub current: Option<Arc<KeyValue>>,
    /// What the writer knew about the value.
    pub note: Option<Note>,
}

impl Event {
    /// The key that changed.
    pub fn key(&self) -> &Bytes {
        static EMPTY: Bytes = Bytes::new();
        match self.current.as_ref().or(self.previous.as_ref()) {
            Some(kv) => &kv.key,
            None => &EMPTY,
        }
    }
}

/// Changes in order, and how far they reach.
#[derive(Clone, Debug)]
pub struct EventBatch {
    /// Everything up to this revision has now been delivered, whether it matched or not.
    pub revision: Revision,
    /// The matching changes.
    pub events: Vec<Arc<Event>>,
}

/// A watch. It ends after the first error. Safe to drop at any time.
pub type WatchStream = BoxStream<'static, Result<EventBatch, StoreError>>;

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The revision is older than what is kept.
    #[error("revision {requested} has been compacted, the oldest kept is {oldest}")]
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// The oldest revision that can be read.
        oldest: Revision,
    },
    /// The revision does not exist yet.
    #[error("revision {requested} is in the future, the store is at {current}")]
    Future {
        /// What was asked for.
        requested: Revision,
        /// The store's revision.
        current: Revision,
    },
    /// The key or value is larger than the store takes.
    #[error("request of {size} bytes is too large, the limit is {limit}")]
    TooLarge {
        /// Bytes of key and value.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The disk is full. Nothing was written; the store goes on and takes writes again when there
    /// is space.
    #[error("no space left on the device of the data directory, the write was refused")]
    NoSpace,
    /// The disk failed in a way after which its contents are not certain. The store serves reads
    /// and refuses every further write until the process is restarted.
    #[error("the write-ahead log failed, writes are refused until restart: {0}")]
    Failed(Arc<std::io::Error>),
    /// The store is closing.
    #[error("the store is shutting down")]
    Closed,
}

/// An ordered map of bytes with revisions.
///
/// Writes are linearizable. A write that was answered with [`Outcome::Committed`] survives a crash
/// of the process and of the machine. Dropping the future of a write does not undo it.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The revision that a linearizable read would see now.
    async fn revision(&self) -> Result<Revision, StoreError>;

    /// One key at the newest revision.
    async fn get(&self, key: &[u8]) -> Result<Option<Arc<KeyValue>>, StoreError>;

    /// Several keys, all at one revision.
    async fn range(&self, range: Range) -> Result<RangeResult, StoreError>;

    /// Writes or deletes one key if the condition holds. Deleting an absent key under
    /// [`Expect::Any`] is a conflict with nothing.
    async fn write(&self, write: Write) -> Result<Outcome, StoreError>;

    /// The changes after `after` to keys that begin with `prefix`, in order, without gaps.
    async fn watch(&self, prefix: Bytes, after: Revision) -> Result<WatchStream, StoreError>;

    /// Forgets history before `revision`.
    async fn compact(&self, revision: Revision) -> Result<(), StoreError>;
}
