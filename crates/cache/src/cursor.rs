//! One watcher: a place in the ring and a selection.

use std::sync::Arc;

use meta::Object;
use tokio::sync::Notify;

use super::batch::{Batch, Kept};
use super::{Cache, Change, Interest, Pace, Selection};
use crate::splice::with_resource_version;

/// Changes looked at while the ring is locked once, and handed out together.
const STEP: usize = 64;

/// A change as a watcher sees it.
#[derive(Clone, Debug)]
pub enum Selected {
    /// It came into sight.
    Added(Arc<Object>),
    /// It was in sight and has changed.
    Modified(Arc<Object>),
    /// With the revision of the change that removed it from sight.
    Deleted(Arc<Object>),
}

impl Selected {
    /// The object, whatever happened to it.
    pub fn object(&self) -> &Arc<Object> {
        match self {
            Self::Added(object) | Self::Modified(object) | Self::Deleted(object) => object,
        }
    }

    /// The same with the object in another form.
    pub fn with(&self, object: Arc<Object>) -> Self {
        match self {
            Self::Added(_) => Self::Added(object),
            Self::Modified(_) => Self::Modified(object),
            Self::Deleted(_) => Self::Deleted(object),
        }
    }

    /// The word in a watch event.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Added(_) => "ADDED",
            Self::Modified(_) => "MODIFIED",
            Self::Deleted(_) => "DELETED",
        }
    }
}

/// The cursor fell off the ring.
#[derive(Debug)]
pub struct Expired {
    /// Where it was.
    pub requested: u64,
    /// The oldest revision that a cursor can be at.
    pub oldest: u64,
}

/// A place in the ring of a cache.
pub struct Cursor {
    cache: Arc<Cache>,
    selection: Selection,
    interest: Interest,
    pace: Pace,
    notify: Arc<Notify>,
    reached: u64,
}

impl Cursor {
    /// A cursor that will see every change after `after`.
    pub fn new(
        cache: Arc<Cache>,
        selection: Selection,
        after: u64,
        is_namespaced: bool,
        pace: Pace,
    ) -> Result<Self, Expired> {
        let oldest = cache.oldest();
        if after < oldest {
            return Err(Expired { requested: after, oldest });
        }
        let interest = match selection.interest() {
            // Cluster-scoped objects have their name as key.
            _ if !is_namespaced => match selection.fields.exact("metadata.name") {
                Some(name) => Interest::Key(name.to_owned()),
                None => Interest::All,
            },
            interest => interest,
        };
        let notify = cache.register(&interest, pace);
        Ok(Self { cache, selection, interest, pace, notify, reached: after })
    }

    /// What has happened since the last call; empty when nothing did. `true` when there is more.
    pub fn poll(&mut self) -> Result<(Arc<Batch>, bool), Expired> {
        let shares = self.pace == Pace::Crowd && self.cache.has_crowd();
        let changes = {
            let state = self.cache.lock();
            let Some(changes) = state.ring.after(self.reached) else {
                return Err(Expired { requested: self.reached, oldest: state.ring.oldest() });
            };
            let mut changes = changes.peekable();
            let first = changes.peek().map(|change| change.revision);
            let known = first.filter(|_| shares);
            if let Some(kept) = known.and_then(|first| state.batches.find(first, &self.selection)) {
                self.reached = kept.last;
                return Ok((kept.batch.clone(), kept.more));
            }
            changes.take(STEP).cloned().collect::<Vec<_>>()
        };
        let more = changes.len() == STEP;
        let selected = changes.iter().filter_map(|change| select(&self.selection, change));
        let batch = Arc::new(Batch::new(selected.collect()));
        let (Some(first), Some(last)) = (changes.first(), changes.last()) else {
            return Ok((batch, false));
        };
        self.reached = last.revision;
        if shares && !batch.changes.is_empty() {
            let (first, last) = (first.revision, last.revision);
            let (selection, batch) = (self.selection.clone(), batch.clone());
            self.cache.lock().batches.keep(Kept { first, last, more, selection, batch });
        }
        Ok((batch, more))
    }

    /// Whether nothing comes any more.
    pub fn is_closed(&self) -> bool {
        self.cache.is_closed()
    }

    /// Resolves when an interesting change may have happened since the last poll. Safe to drop.
    pub async fn changed(&self) {
        self.notify.notified().await;
    }

    /// Moves over revisions that are known to hold nothing for this cursor.
    pub fn skip_to(&mut self, revision: u64) {
        self.reached = self.reached.max(revision);
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.cache.unregister(&self.interest, self.pace, &self.notify);
    }
}

fn select(selection: &Selection, change: &Change) -> Option<Selected> {
    let matching = |object: &Option<Arc<Object>>| {
        object.as_ref().filter(|object| selection.matches(object.header())).cloned()
    };
    match (matching(&change.before), matching(&change.after)) {
        (None, None) => None,
        (None, Some(after)) => Some(Selected::Added(after)),
        (Some(_), Some(after)) => Some(Selected::Modified(after)),
        (Some(before), None) => Some(Selected::Deleted(at_revision(&before, change.revision))),
    }
}

/// The last state of an object with the revision that ended it.
fn at_revision(object: &Arc<Object>, revision: u64) -> Arc<Object> {
    let Some(json) = with_resource_version(object.json(), revision) else {
        return object.clone();
    };
    let mut header = object.header().clone();
    header.resource_version = meta::ResourceVersion(revision);
    Arc::new(Object::new(header, json))
}
