//! From definitions in the store to what is served.

use std::collections::BTreeSet;
use std::sync::Arc;

use meta::Object;
use store::{Event, KeyValue};

use super::served::{Change, Entry, Served};
use crate::pump;
use crate::resources::Resources;

/// Where definitions lie in the store.
const PREFIX: &str = "/registry/apiextensions.k8s.io/customresourcedefinitions/";

/// What is to be served next.
pub(crate) struct Next {
    served: Served,
    changes: Vec<(String, Option<Arc<Entry>>)>,
    /// What has to be filled before.
    pub(crate) fresh: Vec<Arc<Entry>>,
}

impl Next {
    /// The snapshot, once everything fresh is filled.
    pub(crate) fn served(mut self) -> Served {
        for (name, entry) in self.changes {
            self.served.put(&name, entry);
        }
        self.served
    }
}

/// Serves what the definitions among these values say; the caches are filled by the caller.
pub(crate) fn adopt(resources: &Resources, items: &[Arc<KeyValue>]) {
    let Some(storage) = resources.storage("apiextensions.k8s.io", "customresourcedefinitions")
    else {
        return;
    };
    let mut served = (*resources.served()).clone();
    let mut gone: BTreeSet<String> = served.entries.keys().cloned().collect();
    for kv in items {
        let Some(name) = name_of(&kv.key) else { continue };
        gone.remove(name);
        put(&mut served, name, pump::object(storage, kv).as_ref());
    }
    for name in gone {
        served.put(&name, None);
    }
    resources.serve(served);
}

fn put(served: &mut Served, name: &str, object: Option<&Arc<Object>>) {
    match served.change(name, object) {
        Change::None => {}
        Change::Gone => served.put(name, None),
        Change::New(entry) => served.put(name, Some(entry)),
    }
}

/// What changes to definitions among these events mean; `None` when there is nothing to do.
pub(crate) fn follow(resources: &Resources, events: &[Arc<Event>]) -> Option<Next> {
    let mut names: Vec<&str> = events.iter().filter_map(|event| name_of(event.key())).collect();
    if names.is_empty() {
        return None;
    }
    names.sort_unstable();
    names.dedup();
    let storage = resources.storage("apiextensions.k8s.io", "customresourcedefinitions")?;
    let served = (*resources.served()).clone();
    let (mut changes, mut fresh) = (Vec::new(), Vec::new());
    for name in names {
        // The cache has been told already.
        match served.change(name, storage.cache.get(name).as_ref()) {
            Change::None => {}
            Change::Gone => changes.push((name.to_owned(), None)),
            Change::New(entry) => {
                fresh.push(entry.clone());
                changes.push((name.to_owned(), Some(entry)));
            }
        }
    }
    (!changes.is_empty()).then_some(Next { served, changes, fresh })
}

fn name_of(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key).ok()?.strip_prefix(PREFIX)
}
