//! The newest changes of one resource, bounded by count and by bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use meta::Object;

use super::Map;

/// Changes kept; upstream's default window grows up to about as many.
const CHANGES: usize = 10_000;
/// Bytes of objects that only the ring may still need.
const BYTES: usize = 32 << 20;

/// One change of one object.
#[derive(Debug)]
pub struct Change {
    /// The revision of the write.
    pub revision: u64,
    /// The key in the cache.
    pub key: Arc<str>,
    /// The object until then; absent when it is new.
    pub before: Option<Arc<Object>>,
    /// The object since then; absent when it is gone.
    pub after: Option<Arc<Object>>,
}

impl Change {
    fn bytes(&self) -> usize {
        self.before.as_ref().map_or(0, |object| object.json().len()) + 256
    }
}

#[derive(Default)]
pub(crate) struct Ring {
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
    /// Every change after this revision is in the ring.
    oldest: u64,
}

impl Ring {
    pub(crate) fn new(oldest: u64) -> Self {
        Self { changes: VecDeque::new(), bytes: 0, oldest }
    }

    pub(crate) fn push(&mut self, change: Arc<Change>) {
        self.bytes += change.bytes();
        self.changes.push_back(change);
        while self.changes.len() > CHANGES || self.bytes > BYTES {
            if !self.pop() {
                break;
            }
        }
    }

    pub(crate) fn forget(&mut self, revision: u64) {
        while self.changes.front().is_some_and(|change| change.revision <= revision) && self.pop() {
        }
    }

    pub(crate) fn oldest(&self) -> u64 {
        self.oldest
    }

    /// The changes after `after`; `None` when some of them are gone.
    pub(crate) fn after(&self, after: u64) -> Option<impl Iterator<Item = &Arc<Change>>> {
        if after < self.oldest {
            return None;
        }
        let start = self.changes.partition_point(|change| change.revision <= after);
        Some(self.changes.range(start..))
    }

    /// The map as it was at `revision`; `None` when that is no longer known.
    pub(crate) fn rewind(&self, mut map: Map, revision: u64) -> Option<Map> {
        if revision < self.oldest {
            return None;
        }
        for change in self.changes.iter().rev().take_while(|change| change.revision > revision) {
            match &change.before {
                Some(object) => map.insert(change.key.clone(), object.clone()),
                None => map.remove(&change.key),
            };
        }
        Some(map)
    }

    fn pop(&mut self) -> bool {
        let Some(change) = self.changes.pop_front() else { return false };
        self.bytes -= change.bytes();
        self.oldest = change.revision;
        true
    }
}
