//! The watch cache of one resource: a persistent map, a ring of changes, and who waits for them.
//!
//! What it is: the newest objects of a resource, lists of them at exact revisions, and watches from
//! any kept revision on.
//!
//! ```text
//!   apply ──▶ map (newest objects)             a list clones it: O(1), an exact revision
//!             ring (revision, before, after)   a watch is a cursor in it
//!             interests ──wake──▶ cursors
//! ```
//!
//! Start reading at [`Cache::apply`], then [`Cursor::poll`].
//!
//! Invariants: the map is the ring's result; changes enter in revision order; an object is spliced
//! and parsed once, and every reader shares it; locks are held for operations in memory only; the
//! ring, the snapshots of paged lists and the shared batches have limits.
//!
//! What it deliberately does not do: it knows no store, no request and no kind. Who fills it says
//! which fields of an object may be selected by.
//!
//! Tested by unit tests beside the code, and with a whole server by the tests of `apiserver`.

#![forbid(unsafe_code)]

mod batch;
mod cursor;
mod interests;
mod ring;
mod selection;
pub mod splice;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use imbl::{OrdMap, OrdSet};
use meta::Object;
use tokio::sync::Notify;

pub use batch::Batch;
pub use cursor::{Cursor, Expired, Selected};
pub use interests::{Interest, Pace};
pub use ring::Change;
pub use selection::Selection;

use batch::Batches;
use interests::Interests;
use ring::Ring;

/// Objects by `namespace/name`, or by name; the order is that of upstream's keys.
pub type Map = OrdMap<Arc<str>, Arc<Object>>;

/// How long the snapshot of a paged list is kept: upstream compacts every five minutes.
const SNAPSHOT_AGE: Duration = Duration::from_secs(300);
/// Paged lists of one resource that can be under way at different revisions.
const SNAPSHOTS: usize = 64;

/// The cache of one resource; there is nothing in a new one.
#[derive(Default)]
pub struct Cache {
    state: Mutex<State>,
    interests: Mutex<Interests>,
    /// Watchers that may be part of a crowd.
    watchers: AtomicUsize,
}

#[derive(Default)]
struct State {
    map: Map,
    /// The keys of objects that name a node, by node: those of one node are asked for often, and
    /// are few among many.
    nodes: HashMap<Box<str>, Keys>,
    ring: Ring,
    batches: Batches,
    /// The revision of the newest change of this resource.
    newest: u64,
    /// Older revisions are gone for lists, also when nothing has changed since.
    compacted: u64,
    snapshots: VecDeque<(u64, Map, Instant)>,
    /// Nothing comes any more: the resource is served in another way, or not at all.
    is_closed: bool,
}

/// Keys of objects; cloning is cheap.
type Keys = OrdSet<Arc<str>>;

/// A map at an exact revision.
#[derive(Clone)]
pub struct Snapshot {
    /// The revision.
    pub revision: u64,
    /// What there was.
    pub map: Map,
}

impl Cache {
    /// Fills the cache with what the store held at `revision`.
    pub fn load(&self, map: Map, revision: u64) {
        let mut state = self.lock();
        state.nodes = HashMap::new();
        for (key, object) in &map {
            state.place(key, None, Some(object));
        }
        state.map = map;
        state.newest = revision;
        state.ring = Ring::new(revision);
        state.batches.clear();
        state.snapshots.clear();
        drop(state);
        // Who is behind what is kept now has to hear that, and nobody else would tell.
        notify(&self.interests().all());
    }

    /// Applies changes in their order and wakes who is interested; [`Cache::wake_rested`] wakes
    /// those who are not to be woken yet.
    pub fn apply(&self, changes: Vec<Change>, now: Instant) {
        let wake = self.interests().touched(&changes, now);
        {
            let mut state = self.lock();
            for change in changes {
                state.newest = change.revision;
                state.place(&change.key, change.before.as_ref(), change.after.as_ref());
                match &change.after {
                    Some(object) => state.map.insert(change.key.clone(), object.clone()),
                    None => state.map.remove(&change.key),
                };
                state.ring.push(Arc::new(change));
            }
        }
        notify(&wake);
    }

    /// Wakes crowds whose pause is over and that have something to see; tells when the next is.
    pub fn wake_rested(&self, now: Instant) -> Option<Instant> {
        let (wake, next) = self.interests().rested(now);
        notify(&wake);
        next
    }

    /// Ends every watch: what comes is not told here.
    pub fn close(&self) {
        self.lock().is_closed = true;
        notify(&self.interests().all());
    }

    /// Whether nothing comes any more.
    pub fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// The newest version of an object.
    pub fn get(&self, key: &str) -> Option<Arc<Object>> {
        self.lock().map.get(key).cloned()
    }

    /// The newest versions of the objects that name a node, in the order of their keys.
    pub fn on_node(&self, node: &str) -> Vec<Arc<Object>> {
        self.snapshot_of_node(0, node).map.values().cloned().collect()
    }

    /// As [`Cache::snapshot`], of the objects that name a node alone.
    pub fn snapshot_of_node(&self, applied: u64, node: &str) -> Snapshot {
        let (revision, keys, map) = {
            let state = self.lock();
            let keys = state.nodes.get(node).cloned().unwrap_or_default();
            (applied.max(state.newest), keys, state.map.clone())
        };
        let found = keys.iter().filter_map(|key| Some((key.clone(), map.get(key)?.clone())));
        Snapshot { revision, map: found.collect() }
    }

    /// Everything, at the newest revision that is at least `applied`.
    ///
    /// `applied` must have been read from the pump before the call: then every change of this
    /// resource up to it is in the map, and the larger of both revisions is exact.
    pub fn snapshot(&self, applied: u64) -> Snapshot {
        let state = self.lock();
        Snapshot { revision: applied.max(state.newest), map: state.map.clone() }
    }

    /// Everything, at exactly this revision; `None` when it is no longer kept.
    pub fn snapshot_at(&self, revision: u64) -> Option<Snapshot> {
        let state = self.lock();
        if revision < state.compacted {
            return None;
        }
        if revision >= state.newest {
            return Some(Snapshot { revision, map: state.map.clone() });
        }
        if let Some((_, map, _)) = state.snapshots.iter().find(|(kept, ..)| *kept == revision) {
            return Some(Snapshot { revision, map: map.clone() });
        }
        let map = state.ring.rewind(state.map.clone(), revision)?;
        Some(Snapshot { revision, map })
    }

    /// Keeps a snapshot for the next page of a list.
    pub fn keep(&self, snapshot: &Snapshot, now: Instant) {
        let mut state = self.lock();
        if state.snapshots.iter().any(|(kept, ..)| *kept == snapshot.revision) {
            return;
        }
        state.snapshots.push_back((snapshot.revision, snapshot.map.clone(), now));
        if state.snapshots.len() > SNAPSHOTS {
            state.snapshots.pop_front();
        }
    }

    /// Lets go of snapshots and changes that upstream would have compacted by now.
    pub fn expire(&self, now: Instant, compacted: u64) {
        let mut state = self.lock();
        state.snapshots.retain(|(.., since)| now.saturating_duration_since(*since) < SNAPSHOT_AGE);
        state.snapshots.retain(|(kept, ..)| *kept >= compacted);
        state.ring.forget(compacted);
        state.batches.clear();
        state.compacted = state.compacted.max(compacted);
    }

    /// The oldest revision a watch can start from.
    pub fn oldest(&self) -> u64 {
        self.lock().ring.oldest()
    }

    /// The number of objects.
    pub fn count(&self) -> usize {
        self.lock().map.len()
    }

    /// The revision of the newest change.
    pub fn newest(&self) -> u64 {
        self.lock().newest
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, interest: &Interest, pace: Pace) -> Arc<Notify> {
        if pace == Pace::Crowd {
            self.watchers.fetch_add(1, Ordering::Relaxed);
        }
        self.interests().add(interest, pace)
    }

    fn unregister(&self, interest: &Interest, pace: Pace, notify: &Arc<Notify>) {
        if pace == Pace::Crowd {
            self.watchers.fetch_sub(1, Ordering::Relaxed);
        }
        self.interests().remove(interest, pace, notify);
    }

    /// Whether so many watch that it pays to share what they see.
    fn has_crowd(&self) -> bool {
        self.watchers.load(Ordering::Relaxed) > interests::FEW
    }

    fn interests(&self) -> MutexGuard<'_, Interests> {
        self.interests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Keeps the index of nodes.
    fn place(&mut self, key: &Arc<str>, before: Option<&Arc<Object>>, after: Option<&Arc<Object>>) {
        let (before, after) = (before.and_then(|it| node_of(it)), after.and_then(|it| node_of(it)));
        if before == after {
            return;
        }
        if let Some(node) = before
            && let Some(keys) = self.nodes.get_mut(node)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.nodes.remove(node);
            }
        }
        if let Some(node) = after {
            match self.nodes.get_mut(node) {
                Some(keys) => drop(keys.insert(key.clone())),
                None => drop(self.nodes.insert(node.into(), Keys::unit(key.clone()))),
            }
        }
    }
}

/// The node that an object names, if it names one.
fn node_of(object: &Object) -> Option<&str> {
    let fields = &object.header().fields;
    let (_, node) = fields.iter().find(|(path, _)| *path == "spec.nodeName")?;
    Some(&**node).filter(|node| !node.is_empty())
}

fn notify(wake: &[Arc<Notify>]) {
    wake.iter().for_each(|notify| notify.notify_one());
}

#[cfg(test)]
mod tests;
