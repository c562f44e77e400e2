//! A Kubernetes API in memory, as strict as the real one where controllers depend on it.
//!
//! Objects are decoded and defaulted by their tables, validated, and kept as canonical JSON;
//! resource versions, generations, uids, finalizers, grace periods, preconditions, selectors,
//! status and other subresources, evictions and quotas work as in the real one. What a run does
//! not need it lacks: fields' owners, field validation, other admission, versions of a kind.
//!
//! Everything happens at once, under one lock; what takes time or goes wrong is the transport's.

mod admission;
mod custom;
mod eviction;
mod metrics;
mod target;
mod verbs;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use meta::{GroupVersionKind, Object, Reason, Status};
use serde_json::{Value, json};

pub(crate) use admission::number as quantity;
pub(crate) use target::{Selection, Target};
pub(crate) use verbs::PatchKind;

use crate::checks::Checks;
use crate::view::Sight;

/// Collection (group and resource), namespace, name.
pub(crate) type Key = (String, String, String);

/// An answer: an object, or why not.
pub(crate) type Answer = Result<Value, Box<Status>>;

/// One version of an object.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) value: Value,
    pub(crate) object: Arc<Object>,
}

/// One change.
#[derive(Clone, Debug)]
pub(crate) struct Commit {
    pub(crate) at: tokio::time::Instant,
    /// The same as the API server's time of day.
    pub(crate) time: Timestamp,
    pub(crate) key: Key,
    pub(crate) old: Option<Arc<Stored>>,
    pub(crate) new: Option<Arc<Stored>>,
    /// The new object, or the last state of the deleted one, with the version of this change.
    pub(crate) last: Arc<Stored>,
    pub(crate) version: u64,
}

/// Who asks, and what time its server has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) by: &'a str,
    pub(crate) now: Timestamp,
    /// What the program knew, if it is one of those that are tested.
    pub(crate) sight: Option<Sight<'a>>,
}

/// Everything that is stored.
pub(crate) struct Api {
    version: u64,
    uids: u64,
    names: crate::dice::Dice,
    objects: BTreeMap<Key, Arc<Stored>>,
    log: Vec<Arc<Commit>>,
    /// The same by collection, for those who watch one.
    logs: BTreeMap<String, Vec<Arc<Commit>>>,
    /// What the pods of an app use together, by namespace and app.
    loads: BTreeMap<(String, String), i64>,
    /// Changes up to this version are no longer told.
    compacted: u64,
    pub(crate) checks: Checks,
}

impl Api {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            version: 1,
            uids: 0,
            names: crate::dice::Dice::new(seed, 1),
            objects: BTreeMap::new(),
            log: Vec::new(),
            logs: BTreeMap::new(),
            loads: BTreeMap::new(),
            compacted: 0,
            checks: Checks::default(),
        }
    }

    /// The version of the last change.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The changes there have been.
    pub(crate) fn log(&self) -> &[Arc<Commit>] {
        &self.log
    }

    /// The changes of a collection there have been.
    pub(crate) fn log_of(&self, collection: &str) -> &[Arc<Commit>] {
        self.logs.get(collection).map_or(&[], Vec::as_slice)
    }

    /// Whether changes after this version can no longer be told.
    pub(crate) fn is_expired(&self, version: u64) -> bool {
        version < self.compacted
    }

    /// Whether this change can no longer be told.
    pub(crate) fn is_forgotten(&self, version: u64) -> bool {
        version <= self.compacted
    }

    /// Forgets changes up to now.
    pub(crate) fn compact(&mut self) {
        self.compacted = self.version;
    }

    /// An object.
    pub(crate) fn get(&self, collection: &str, namespace: &str, name: &str) -> Option<&Value> {
        let key = (collection.to_owned(), namespace.to_owned(), name.to_owned());
        self.objects.get(&key).map(|stored| &stored.value)
    }

    /// All objects of a collection, in the order of namespace and name.
    pub(crate) fn all<'a>(&'a self, collection: &'a str) -> impl Iterator<Item = &'a Value> {
        self.stored(collection).map(|(_, stored)| &stored.value)
    }

    /// Everything.
    pub(crate) fn everything(&self) -> impl Iterator<Item = (&Key, &Value)> {
        self.objects.iter().map(|(key, stored)| (key, &stored.value))
    }

    pub(crate) fn stored<'a>(
        &'a self,
        collection: &'a str,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Stored>)> {
        let first = (collection.to_owned(), String::new(), String::new());
        self.objects.range(first..).take_while(move |(key, _)| key.0 == collection)
    }

    /// The objects that a list or watch is about.
    pub(crate) fn select(&self, target: &Target, selection: &Selection) -> Vec<Arc<Stored>> {
        let collection = target.collection();
        let within = |key: &Key| target.namespace.is_empty() || key.1 == target.namespace;
        self.stored(&collection)
            .filter(|(key, stored)| within(key) && selection.matches(&stored.value))
            .map(|(_, stored)| Arc::clone(stored))
            .collect()
    }

    /// Stores a version of an object, or removes it.
    fn commit(&mut self, asked: Asked<'_>, key: Key, mut value: Value, removed: bool) -> Value {
        self.version += 1;
        value["metadata"]["resourceVersion"] = self.version.to_string().into();
        let last = Arc::new(Stored { object: object_of(&value), value: value.clone() });
        let old = self.objects.get(&key).cloned();
        let new = (!removed).then(|| Arc::clone(&last));
        match &new {
            Some(new) => drop(self.objects.insert(key.clone(), Arc::clone(new))),
            None => drop(self.objects.remove(&key)),
        }
        let at = tokio::time::Instant::now();
        let commit = Commit { at, time: asked.now, key, old, new, last, version: self.version };
        let mut checks = std::mem::take(&mut self.checks);
        checks.on_commit(self, &commit, asked);
        self.checks = checks;
        let commit = Arc::new(commit);
        self.logs.entry(commit.key.0.clone()).or_default().push(Arc::clone(&commit));
        self.log.push(commit);
        value
    }
}

fn object_of(value: &Value) -> Arc<Object> {
    let bytes = Bytes::from(value.to_string());
    Arc::new(Object::from_json(bytes).expect("what is stored has metadata"))
}

fn gvk_of(target: &Target) -> Result<GroupVersionKind, Box<Status>> {
    if let Some(gvk) = custom::gvk(target) {
        return Ok(gvk);
    }
    let registry = schema::registry();
    let resource = registry.resource(&target.group, &target.version, &target.resource);
    resource.map(schema::Resource::gvk).ok_or_else(|| {
        failure(Reason::NotFound, "the server could not find the requested resource")
    })
}

fn failure(reason: Reason, message: impl Into<String>) -> Box<Status> {
    Box::new(Status::failure(reason, message))
}

fn not_found(target: &Target) -> Box<Status> {
    failure(Reason::NotFound, format!("{} {:?} not found", target.resource, target.name))
}

/// Those whose number of pods can be changed without knowing what they are.
const SCALED: [&str; 4] = ["deployments", "replicasets", "replicationcontrollers", "statefulsets"];

/// Discovery, of what the tables know. Asked for so often that the answers are kept.
pub(crate) fn discovery(path: &str) -> Option<Bytes> {
    static KNOWN: Mutex<BTreeMap<String, Option<Bytes>>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if !known.contains_key(path) {
        let document = discover(path).map(|document| Bytes::from(document.to_string()));
        known.insert(path.to_owned(), document);
    }
    known.get(path).cloned().flatten()
}

fn discover(path: &str) -> Option<Value> {
    let groups = schema::registry().groups();
    if path == "/apis" {
        let group = |group: &schema::Group| {
            let version = |version: &str| json!({ "groupVersion": format!("{}/{version}", group.name), "version": version });
            let versions: Vec<_> = group.versions.iter().map(|v| version(&v.version)).collect();
            json!({ "name": &*group.name, "versions": versions,
                "preferredVersion": version(&group.preferred_version) })
        };
        let named = groups.iter().filter(|group| !group.name.is_empty());
        let named = named.map(group).chain([custom::group()]);
        return Some(json!({ "groups": named.collect::<Vec<_>>() }));
    }
    let target = Target::parse(path);
    if !target.resource.is_empty() {
        return None;
    }
    if let Some(resources) = custom::resources(&target) {
        return Some(resources);
    }
    let group = groups.iter().find(|group| *group.name == *target.group)?;
    let version = group.versions.iter().find(|version| *version.version == *target.version)?;
    let resource = |resource: &schema::Resource| {
        json!({ "name": &*resource.name, "kind": &*resource.kind, "singularName": "",
            "namespaced": resource.namespaced, "verbs": resource.verbs })
    };
    let scales = version.resources.iter().filter(|resource| SCALED.contains(&&*resource.name));
    let scale = |resource: &schema::Resource| {
        json!({ "name": format!("{}/scale", resource.name), "kind": "Scale", "singularName": "",
            "group": "autoscaling", "version": "v1", "namespaced": true,
            "verbs": ["get", "patch", "update"] })
    };
    let resources = version.resources.iter().map(resource);
    let resources: Vec<_> = resources.chain(scales.map(scale)).collect();
    Some(json!({ "groupVersion": path, "resources": resources }))
}
