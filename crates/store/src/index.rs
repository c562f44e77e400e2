//! The ordered index: what every key holds at one revision.

use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;

use crate::api::{Event, KeyValue, Revision};

/// The revision of a store that was never written to.
pub(crate) const EMPTY_REVISION: Revision = Revision(1);

/// Cloning is O(1); a clone is a snapshot.
#[derive(Clone)]
pub(crate) struct Index {
    pub(crate) revision: Revision,
    pub(crate) map: OrdMap<Bytes, Arc<KeyValue>>,
}

impl Index {
    pub(crate) fn new() -> Self {
        Self { revision: EMPTY_REVISION, map: OrdMap::new() }
    }

    /// Applies one change at the next revision.
    pub(crate) fn apply(&mut self, key: Bytes, value: Option<Bytes>) -> Event {
        self.revision.0 += 1;
        let revision = self.revision;
        let Some(value) = value else {
            let previous = self.map.remove(&key);
            return Event { revision, previous, current: None, note: None };
        };
        let old = self.map.get(&key);
        let current = Arc::new(KeyValue {
            key: key.clone(),
            value,
            create_revision: old.map_or(revision, |kv| kv.create_revision),
            mod_revision: revision,
            version: old.map_or(1, |kv| kv.version + 1),
        });
        let previous = self.map.insert(key, current.clone());
        Event { revision, previous, current: Some(current), note: None }
    }

    /// Takes back a change that [`Index::apply`] made; must be the newest one still applied.
    pub(crate) fn undo(&mut self, event: &Event) {
        match &event.previous {
            Some(previous) => self.map.insert(event.key().clone(), previous.clone()),
            None => self.map.remove(event.key()),
        };
        self.revision = Revision(event.revision.0 - 1);
    }
}
