//! From the store to the caches: one task follows the store and feeds every cache in order.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clock::SharedClock;
use futures::StreamExt;
use meta::{Header, Object, ResourceVersion, Status};
use prometheus::IntCounterVec;
use serde_json::Value;
use stdx::shutdown::Shutdown;
use store::{KeyValue, Range, Revision, Store};
use tokio::sync::watch;

use crate::custom;
use crate::errors;
use crate::fields;
use crate::resources::{Resources, Storage};
use cache::splice::with_resource_version;
use cache::{Change, Map};

/// Keys of objects begin with this.
const PREFIX: &str = "/registry/";
/// How long a read waits for the caches to catch up before it answers with a timeout; upstream's.
const CATCH_UP: Duration = Duration::from_secs(3);
/// How often old history is let go. Paged lists expire between one and two of them.
const COMPACT_EVERY: Duration = Duration::from_secs(150);
/// Wait before the store is read anew after a failed watch.
const RETRY: Duration = Duration::from_secs(1);

/// How far the caches are.
pub(crate) struct Pump {
    applied: watch::Sender<u64>,
    store: Arc<dyn Store>,
    clock: SharedClock,
    received: IntCounterVec,
    /// Nobody follows the store after that.
    ended: Shutdown,
}

impl Pump {
    /// `received` counts changes by group and resource.
    pub(crate) fn new(store: Arc<dyn Store>, clock: SharedClock, received: IntCounterVec) -> Self {
        Self { applied: watch::Sender::new(0), store, clock, received, ended: Shutdown::new() }
    }

    /// The revision up to which every cache is complete.
    pub(crate) fn applied(&self) -> u64 {
        *self.applied.borrow()
    }

    /// Waits until the caches hold everything that was acknowledged before this call.
    pub(crate) async fn fresh(&self) -> Result<u64, Status> {
        let newest = self.store.revision().await.map_err(|error| errors::from_store(&error))?;
        self.reach(newest.0).await?;
        Ok(self.applied())
    }

    /// Waits until the caches hold this revision.
    pub(crate) async fn reach(&self, revision: u64) -> Result<(), Status> {
        if self.applied() >= revision {
            return Ok(());
        }
        let mut applied = self.applied.subscribe();
        tokio::select! {
            reached = applied.wait_for(|applied| *applied >= revision) => {
                reached.map(|_| ()).map_err(|_| errors::internal("the watch cache has ended"))
            }
            () = self.clock.sleep(CATCH_UP) => Err(too_large(revision, self.applied())),
            () = self.ended.begun() => Err(errors::internal("the watch cache has ended")),
        }
    }

    /// Fills every cache from the store.
    pub(crate) async fn load(&self, resources: &Resources) -> Result<Revision, store::StoreError> {
        let range = Range { prefix: Bytes::from_static(PREFIX.as_bytes()), ..Range::default() };
        let result = self.store.range(range).await?;
        custom::definitions::adopt(resources, &result.items);
        let mut maps: BTreeMap<String, Map> = BTreeMap::new();
        for kv in &result.items {
            if let Some((storage, key, object)) = read(resources, kv) {
                maps.entry(storage.prefix.clone()).or_default().insert(key, object);
            }
        }
        for storage in resources.storages() {
            let map = maps.remove(&storage.prefix).unwrap_or_default();
            fill(&storage, map, result.revision.0);
        }
        self.applied.send_replace(result.revision.0);
        Ok(result.revision)
    }

    /// Ends following the store.
    pub(crate) fn end(&self) {
        self.ended.begin();
    }

    /// Follows the store from `after` until it is told to end.
    pub(crate) async fn run(&self, resources: &Resources, after: Revision) {
        let mut after = after;
        loop {
            tokio::select! {
                () = self.ended.begun() => return,
                () = self.compact(resources) => {}
                error = self.follow(resources, after) => {
                    tracing::error!(%error, "the watch of the store ended, reading it anew");
                    self.clock.sleep(RETRY).await;
                    match self.load(resources).await {
                        Ok(revision) => after = revision,
                        Err(error) => tracing::error!(%error, "the store cannot be read"),
                    }
                }
            }
        }
    }

    async fn follow(&self, resources: &Resources, after: Revision) -> store::StoreError {
        let prefix = Bytes::from_static(PREFIX.as_bytes());
        let mut watch = match self.store.watch(prefix, after).await {
            Ok(watch) => watch,
            Err(error) => return error,
        };
        let mut late = Late::default();
        loop {
            let next = tokio::select! {
                next = watch.next() => next,
                () = late.pause(&self.clock) => {
                    late.wake(self.clock.monotonic());
                    continue;
                }
            };
            match next {
                Some(Ok(batch)) => {
                    let now = self.clock.monotonic();
                    for storage in apply(resources, &batch.events, &self.received, now) {
                        late.add(storage);
                    }
                    late.wake(now);
                    if let Err(error) = self.follow_definitions(resources, &batch.events).await {
                        return error;
                    }
                    self.applied.send_replace(batch.revision.0);
                }
                Some(Err(error)) => return error,
                None => return store::StoreError::Closed,
            }
        }
    }

    /// Serves custom resources as their definitions say, before anybody knows that these changed.
    async fn follow_definitions(
        &self,
        resources: &Resources,
        events: &[Arc<store::Event>],
    ) -> Result<(), store::StoreError> {
        let Some(next) = custom::definitions::follow(resources, events) else { return Ok(()) };
        for entry in &next.fresh {
            let storage = &entry.storage;
            let prefix = Bytes::from(storage.prefix.clone());
            let result = self.store.range(Range { prefix, ..Range::default() }).await?;
            let mut map = Map::new();
            for kv in &result.items {
                let key = std::str::from_utf8(&kv.key).ok();
                let key = key.and_then(|key| key.strip_prefix(storage.prefix.as_str()));
                if let (Some(key), Some(object)) = (key, object(storage, kv)) {
                    map.insert(key.into(), object);
                }
            }
            fill(storage, map, result.revision.0);
        }
        resources.serve(next.served());
        Ok(())
    }

    /// Lets history older than one round go, for ever.
    async fn compact(&self, resources: &Resources) {
        let mut previous = 0;
        loop {
            self.clock.sleep(COMPACT_EVERY).await;
            let now = self.clock.monotonic();
            for storage in resources.storages() {
                storage.cache.expire(now, previous);
            }
            previous = self.applied();
        }
    }
}

fn fill(storage: &Storage, map: Map, revision: u64) {
    storage.loaded.store(revision, Ordering::Relaxed);
    storage.cache.load(map, revision);
}

fn too_large(requested: u64, current: u64) -> Status {
    let cause = meta::Cause {
        reason: "ResourceVersionTooLarge".to_owned(),
        message: "Too large resource version".to_owned(),
        field: String::new(),
    };
    let details = meta::StatusDetails {
        causes: vec![cause],
        retry_after_seconds: 1,
        ..meta::StatusDetails::default()
    };
    let message = format!("Too large resource version: {requested}, current: {current}");
    Status::failure(meta::Reason::Timeout, format!("Timeout: {message}")).with_details(details)
}

/// Caches with watchers that are not to be woken yet.
#[derive(Default)]
struct Late {
    storages: Vec<Arc<Storage>>,
    next: Option<Instant>,
}

impl Late {
    fn add(&mut self, storage: Arc<Storage>) {
        if !self.storages.iter().any(|known| Arc::ptr_eq(known, &storage)) {
            self.storages.push(storage);
        }
    }

    /// Resolves when somebody may be woken; never when nobody waits. Safe to drop.
    async fn pause(&self, clock: &SharedClock) {
        match self.next {
            Some(next) => clock.sleep(next.saturating_duration_since(clock.monotonic())).await,
            None => std::future::pending().await,
        }
    }

    fn wake(&mut self, now: Instant) {
        self.next = None;
        self.storages.retain(|storage| {
            let next = storage.cache.wake_rested(now);
            self.next = [self.next, next].into_iter().flatten().min();
            next.is_some()
        });
    }
}

/// Brings the caches up to date; those that had changes are given back.
fn apply(
    resources: &Resources,
    events: &[Arc<store::Event>],
    received: &IntCounterVec,
    now: Instant,
) -> Vec<Arc<Storage>> {
    // Runs of one resource go in together; order within a resource is what matters.
    let mut by_prefix: BTreeMap<String, (Arc<Storage>, Vec<Change>)> = BTreeMap::new();
    for event in events {
        let Ok(key) = std::str::from_utf8(event.key()) else { continue };
        let Some((storage, rest)) = resources.of_key(key) else { continue };
        if event.revision.0 <= storage.loaded.load(Ordering::Relaxed) {
            continue;
        }
        let (storage, changes) =
            by_prefix.entry(storage.prefix.clone()).or_insert_with(|| (storage, Vec::new()));
        let before = changes
            .iter()
            .rev()
            .find(|change| *change.key == *rest)
            .map_or_else(|| storage.cache.get(rest), |change| change.after.clone());
        let prepared = event.note.as_ref().and_then(Prepared::take);
        let after = event.current.as_ref().and_then(|kv| match prepared {
            Some(header) => with_header(kv, header),
            None => object(storage, kv),
        });
        changes.push(Change { revision: event.revision.0, key: rest.into(), before, after });
    }
    let tell = |(storage, changes): (Arc<Storage>, Vec<Change>)| {
        let labels = [&*storage.resource.group, &*storage.resource.resource];
        received.with_label_values(&labels).inc_by(changes.len() as u64);
        storage.cache.apply(changes, now);
        storage
    };
    by_prefix.into_values().map(tell).collect()
}

fn read(resources: &Resources, kv: &KeyValue) -> Option<(Arc<Storage>, Arc<str>, Arc<Object>)> {
    let key = std::str::from_utf8(&kv.key).ok()?;
    let (storage, rest) = resources.of_key(key)?;
    let object = object(&storage, kv)?;
    Some((storage, rest.into(), object))
}

/// The object of a stored value, with its revision in it.
pub(crate) fn object(storage: &Storage, kv: &KeyValue) -> Option<Arc<Object>> {
    let made = with_resource_version(&kv.value, kv.mod_revision.0)
        .and_then(|json| make(storage, json, kv.mod_revision.0));
    if made.is_none() {
        tracing::error!(key = ?kv.key, "a stored value is not an object, it is left out");
    }
    made
}

/// The header of an object that is being written, made from its working form: it goes along with
/// the write, and saves parsing the JSON again when that comes back.
pub(crate) struct Prepared(Mutex<Option<Header>>);

impl Prepared {
    pub(crate) fn note(storage: &Storage, object: &Value) -> Option<store::Note> {
        // What is stored of custom resources is brought into form when it is read.
        if storage.custom.is_some() {
            return None;
        }
        Some(Arc::new(Self(Mutex::new(Some(header(storage, object)?)))))
    }

    /// The header is taken out: the note may live as long as the store's history.
    fn take(note: &store::Note) -> Option<Header> {
        let prepared = note.downcast_ref::<Self>()?;
        prepared.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The header of a working form in the stored version, without a resource version.
pub(crate) fn header(storage: &Storage, object: &Value) -> Option<Header> {
    let mut header = Header::of(object)?;
    let gvk = &storage.gvk;
    if fields::has_fields(&gvk.group, &gvk.kind) {
        header.fields = fields::read_value(&gvk.group, &gvk.kind, object);
    }
    Some(header)
}

fn with_header(kv: &KeyValue, mut header: Header) -> Option<Arc<Object>> {
    let json = with_resource_version(&kv.value, kv.mod_revision.0)?;
    header.resource_version = ResourceVersion(kv.mod_revision.0);
    Some(Arc::new(Object::new(header, json)))
}

/// An object with its selectable fields.
pub(crate) fn make(storage: &Storage, json: Bytes, revision: u64) -> Option<Arc<Object>> {
    if let Some(kind) = &storage.custom {
        let (json, fields) = kind.restored(&json)?;
        let object = Object::from_json(json).ok()?;
        let mut header = object.header().clone();
        header.resource_version = ResourceVersion(revision);
        header.fields = fields;
        return Some(Arc::new(Object::new(header, object.json().clone())));
    }
    let object = Object::from_json(json).ok()?;
    let mut header = object.header().clone();
    header.resource_version = ResourceVersion(revision);
    if fields::has_fields(&storage.gvk.group, &storage.gvk.kind) {
        header.fields = fields::read(&storage.gvk.group, &storage.gvk.kind, object.json())?;
    }
    Some(Arc::new(Object::new(header, object.json().clone())))
}
