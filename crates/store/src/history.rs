//! The newest changes, kept so that watches can replay and reads can go back.
//!
//! Bounded by count and by bytes; what falls out is compacted.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::api::{Event, Revision, StoreError};
use crate::index::Index;

/// How much history is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
}

pub(crate) struct History {
    bounds: Bounds,
    /// Revisions are dense: `events[i].revision == oldest + 1 + i`.
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// The oldest revision that can be read or watched from.
    oldest: Revision,
}

impl History {
    pub(crate) fn new(oldest: Revision, bounds: Bounds) -> Self {
        Self { bounds, events: VecDeque::new(), bytes: 0, oldest }
    }

    pub(crate) fn push(&mut self, event: Arc<Event>) {
        self.bytes += size(&event);
        self.events.push_back(event);
        while self.events.len() > self.bounds.events || self.bytes > self.bounds.bytes {
            if !self.drop_oldest() {
                break;
            }
        }
    }

    pub(crate) fn compact(&mut self, revision: Revision) {
        while self.oldest < revision && self.drop_oldest() {}
    }

    /// Refuses a revision that is no longer kept.
    pub(crate) fn check(&self, revision: Revision) -> Result<(), StoreError> {
        if revision < self.oldest {
            return Err(StoreError::Compacted { requested: revision, oldest: self.oldest });
        }
        Ok(())
    }

    /// At most `limit` changes after `after` under `prefix`, and the revision that was reached.
    pub(crate) fn after(
        &self,
        after: Revision,
        prefix: &Bytes,
        limit: usize,
    ) -> Result<(Revision, Vec<Arc<Event>>), StoreError> {
        self.check(after)?;
        let skip = usize::try_from(after.0 - self.oldest.0).unwrap_or(usize::MAX);
        let mut reached = after;
        let mut found = Vec::new();
        for event in self.events.iter().skip(skip) {
            if found.len() == limit {
                break;
            }
            reached = event.revision;
            if event.key().starts_with(prefix) {
                found.push(event.clone());
            }
        }
        Ok((reached, found))
    }

    /// The index as it was at `revision`.
    pub(crate) fn rewind(&self, mut index: Index, revision: Revision) -> Result<Index, StoreError> {
        self.check(revision)?;
        for event in self.events.iter().rev().take_while(|event| event.revision > revision) {
            index.undo(event);
        }
        Ok(index)
    }

    fn drop_oldest(&mut self) -> bool {
        let Some(event) = self.events.pop_front() else { return false };
        self.bytes -= size(&event);
        self.oldest = event.revision;
        true
    }
}

/// What an event keeps alive that nothing else may need any more.
fn size(event: &Event) -> usize {
    event.previous.as_ref().map_or(0, |kv| kv.value.len()) + event.key().len() + 96
}
