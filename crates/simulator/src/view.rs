//! What a program has been told: the caches of its informers, as they are and as they were.
//!
//! A controller may do what it knows lets it, and nothing else. What it knew when it decided is
//! found by undoing what it was told since.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::api::{Key, Stored};

/// The collections that checks look at.
const FOLLOWED: [&str; 8] = [
    "/nodes",
    "/pods",
    "/replicationcontrollers",
    "apps/daemonsets",
    "apps/deployments",
    "apps/replicasets",
    "apps/statefulsets",
    "policy/poddisruptionbudgets",
];
/// How far back anybody looks.
const KEPT: Duration = Duration::from_secs(120);

/// The caches of one life of a program.
#[derive(Debug, Default)]
pub(crate) struct View {
    present: BTreeMap<Key, Arc<Stored>>,
    /// The last one last.
    changes: VecDeque<Change>,
}

#[derive(Debug)]
struct Change {
    at: Instant,
    key: Key,
    before: Option<Arc<Stored>>,
}

impl View {
    /// Whether a collection is followed.
    pub(crate) fn follows(collection: &str) -> bool {
        FOLLOWED.contains(&collection)
    }

    /// All objects of a collection are these.
    pub(crate) fn listed(&mut self, collection: &str, items: &[Arc<Stored>]) {
        let key = |stored: &Stored| {
            let header = stored.object.header();
            (collection.to_owned(), header.namespace.clone(), header.name.clone())
        };
        let items: BTreeMap<Key, &Arc<Stored>> =
            items.iter().map(|stored| (key(stored), stored)).collect();
        let known = self.present.keys().filter(|key| key.0 == collection);
        let gone: Vec<Key> = known.filter(|key| !items.contains_key(*key)).cloned().collect();
        gone.iter().for_each(|key| self.told(key, None));
        items.into_iter().for_each(|(key, stored)| self.told(&key, Some(stored)));
    }

    /// An object is this one now, or none.
    pub(crate) fn told(&mut self, key: &Key, object: Option<&Arc<Stored>>) {
        let before = match object {
            Some(object) => self.present.insert(key.clone(), Arc::clone(object)),
            None => self.present.remove(key),
        };
        while self.changes.front().is_some_and(|change| change.at.elapsed() > KEPT) {
            self.changes.pop_front();
        }
        self.changes.push_back(Change { at: Instant::now(), key: key.clone(), before });
    }

    /// What was known at a time.
    fn at(&self, time: Instant) -> Past<'_> {
        let mut past = Past { view: self, undone: BTreeMap::new(), left: self.changes.len() };
        while past.next().is_some_and(|change| change.at > time) {
            past.undo();
        }
        past
    }
}

/// What somebody who asks for something has been told, and since when it asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight<'a> {
    pub(crate) view: &'a View,
    pub(crate) since: Instant,
}

impl Sight<'_> {
    /// Whether something held when it was decided to ask: at any time within this one before.
    pub(crate) fn ever(&self, within: Duration, mut holds: impl FnMut(&Past<'_>) -> bool) -> bool {
        let mut past = self.view.at(self.since);
        loop {
            if holds(&past) {
                return true;
            }
            if past.next().is_none_or(|change| change.at + within < self.since) {
                return false;
            }
            past.undo();
        }
    }
}

/// A view as it once was.
pub(crate) struct Past<'a> {
    view: &'a View,
    /// What is otherwise than in the view.
    undone: BTreeMap<&'a Key, Option<&'a Arc<Stored>>>,
    /// Changes that are not undone.
    left: usize,
}

impl<'a> Past<'a> {
    /// An object.
    pub(crate) fn get(&self, collection: &str, namespace: &str, name: &str) -> Option<&'a Value> {
        let key = (collection.to_owned(), namespace.to_owned(), name.to_owned());
        let stored = match self.undone.get(&key) {
            Some(before) => *before,
            None => self.view.present.get(&key),
        };
        stored.map(|stored| &stored.value)
    }

    /// All objects of a collection.
    pub(crate) fn all(&self, collection: &'a str) -> impl Iterator<Item = &'a Value> {
        let first = (collection.to_owned(), String::new(), String::new());
        let present = self.view.present.range(first..);
        let present = present.take_while(move |(key, _)| key.0 == collection);
        let present = present.filter(|(key, _)| !self.undone.contains_key(key));
        let undone = self.undone.iter().filter(move |(key, _)| key.0 == collection);
        let undone = undone.filter_map(|(_, before)| *before);
        present.map(|(_, stored)| stored).chain(undone).map(|stored| &stored.value)
    }

    fn next(&self) -> Option<&'a Change> {
        self.view.changes.get(self.left.checked_sub(1)?)
    }

    fn undo(&mut self) {
        if let Some(change) = self.next() {
            self.left -= 1;
            self.undone.insert(&change.key, change.before.as_ref());
        }
    }
}
