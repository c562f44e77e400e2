//! What an informer keeps, and its reading end.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::marker::PhantomData;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use meta::{Header, ObjectKey, ResourceVersion};
use tokio::sync::watch;

/// What is kept of an object; the lister knows the type.
pub(super) type Projection = Arc<dyn Any + Send + Sync>;
type Handler = Box<dyn Fn(&ObjectKey, Change<'_, dyn Any + Send + Sync>) + Send + Sync>;

/// A change of the cache, told to handlers after the cache has it. Of an object that another one of
/// its name has replaced unseen they are told that it is gone, and then that the other is new.
#[derive(Debug)]
pub enum Change<'a, P: ?Sized> {
    /// The object is new.
    Added(&'a Arc<P>),
    /// The object changed.
    Updated {
        /// Before.
        old: &'a Arc<P>,
        /// After.
        new: &'a Arc<P>,
    },
    /// The object is gone; its last known state.
    Deleted(&'a Arc<P>),
}

struct Entry {
    version: ResourceVersion,
    /// Tells the object from others of its name; a hash, since there are many.
    identity: u64,
    projection: Projection,
}

/// The cache and those that want to hear of its changes.
#[derive(Default)]
pub(super) struct Cache {
    entries: RwLock<BTreeMap<ObjectKey, Entry>>,
    handlers: Mutex<Vec<Handler>>,
    synced: watch::Sender<bool>,
    /// The newest version of the resource up to which all changes are in.
    seen: AtomicU64,
}

fn identity(uid: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    uid.hash(&mut hasher);
    hasher.finish()
}

impl Cache {
    /// The first list is in.
    pub(super) fn set_synced(&self) {
        self.synced.send_replace(true);
    }

    /// The version of an object that is kept.
    pub(super) fn version(&self, key: &ObjectKey) -> Option<ResourceVersion> {
        self.read().get(key).map(|entry| entry.version)
    }

    /// All changes up to a version are in.
    pub(super) fn advance(&self, to: ResourceVersion) {
        self.seen.store(to.0, Ordering::Release);
    }

    /// Keeps an object, and tells. All changes up to `seen` are in then, which handlers may rely on.
    pub(super) fn insert(
        &self,
        header: &Header,
        projection: Projection,
        seen: Option<ResourceVersion>,
    ) {
        let handlers = self.handlers();
        let (key, version) = (header.key(), header.resource_version);
        let identity = identity(&header.uid);
        let entry = Entry { version, identity, projection: Arc::clone(&projection) };
        let old = {
            let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
            entries.insert(key.clone(), entry)
        };
        seen.into_iter().for_each(|seen| self.advance(seen));
        for handler in handlers.iter() {
            match &old {
                Some(old) if old.identity == identity => {
                    handler(&key, Change::Updated { old: &old.projection, new: &projection });
                }
                Some(old) => {
                    handler(&key, Change::Deleted(&old.projection));
                    handler(&key, Change::Added(&projection));
                }
                None => handler(&key, Change::Added(&projection)),
            }
        }
    }

    /// Forgets an object, and tells, as [`Cache::insert`] does.
    pub(super) fn remove(&self, key: &ObjectKey, seen: Option<ResourceVersion>) {
        let handlers = self.handlers();
        let old = {
            let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
            entries.remove(key)
        };
        seen.into_iter().for_each(|seen| self.advance(seen));
        let Some(old) = old else { return };
        for handler in handlers.iter() {
            handler(key, Change::Deleted(&old.projection));
        }
    }

    /// Forgets everything that is not `present`.
    pub(super) fn retain(&self, present: BTreeSet<ObjectKey>) {
        let gone: Vec<ObjectKey> =
            self.read().keys().filter(|key| !present.contains(*key)).cloned().collect();
        for key in &gone {
            self.remove(key, None);
        }
    }

    fn add_handler(&self, handler: Handler) {
        // Handlers are locked first, then the entries, here and in the driver: no change can fall
        // between the replay and the registration.
        let mut handlers = self.handlers();
        let present: Vec<_> =
            self.read().iter().map(|(key, e)| (key.clone(), Arc::clone(&e.projection))).collect();
        for (key, projection) in &present {
            handler(key, Change::Added(projection));
        }
        handlers.push(handler);
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<ObjectKey, Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn handlers(&self) -> MutexGuard<'_, Vec<Handler>> {
        self.handlers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: &ObjectKey) -> Option<Projection> {
        self.read().get(key).map(|entry| Arc::clone(&entry.projection))
    }

    /// Everything, or what is in one namespace.
    fn list(&self, namespace: Option<&str>) -> Vec<Projection> {
        let entries = self.read();
        let first = namespace
            .map_or(Bound::Unbounded, |namespace| Bound::Included(ObjectKey::new(namespace, "")));
        entries
            .range((first, Bound::Unbounded))
            .take_while(|(key, _)| namespace.is_none_or(|namespace| key.namespace == namespace))
            .map(|(_, entry)| Arc::clone(&entry.projection))
            .collect()
    }
}

/// The reading end of an [`Informer`](super::Informer). Clones share the cache.
pub struct Lister<P> {
    pub(super) cache: Arc<Cache>,
    pub(super) kept: PhantomData<fn() -> Arc<P>>,
}

impl<P> Clone for Lister<P> {
    fn clone(&self) -> Self {
        Self { cache: Arc::clone(&self.cache), kept: PhantomData }
    }
}

impl<P: Send + Sync + 'static> Lister<P> {
    /// The projection of one object.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<P>> {
        self.cache.get(key).map(typed)
    }

    /// Everything, in the order of namespace and name.
    pub fn list(&self) -> Vec<Arc<P>> {
        self.cache.list(None).into_iter().map(typed).collect()
    }

    /// What is in one namespace, in the order of names.
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<P>> {
        self.cache.list(Some(namespace)).into_iter().map(typed).collect()
    }

    /// The newest version of the resource up to which all changes are in the cache.
    pub fn seen(&self) -> ResourceVersion {
        ResourceVersion(self.cache.seen.load(Ordering::Acquire))
    }

    /// The number of objects.
    pub fn len(&self) -> usize {
        self.cache.read().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Resolves when the first list is in the cache. Safe to drop.
    pub async fn synced(&self) {
        // The sender lives in the cache, which `self` keeps alive.
        self.cache.synced.subscribe().wait_for(|synced| *synced).await.ok();
    }

    /// Calls `handler` for every object that is cached now and for every later change, from the
    /// informer's task, in order. It must not block: enqueue a key and return.
    pub fn on_change(&self, handler: impl Fn(&ObjectKey, Change<'_, P>) + Send + Sync + 'static) {
        self.cache.add_handler(Box::new(move |key, change| match change {
            Change::Added(new) => handler(key, Change::Added(&typed(Arc::clone(new)))),
            Change::Updated { old, new } => {
                let (old, new) = (typed(Arc::clone(old)), typed(Arc::clone(new)));
                handler(key, Change::Updated { old: &old, new: &new });
            }
            Change::Deleted(old) => handler(key, Change::Deleted(&typed(Arc::clone(old)))),
        }));
    }
}

fn typed<P: Send + Sync + 'static>(projection: Projection) -> Arc<P> {
    // `Informer::new` makes the lister and what it keeps with the same type.
    projection.downcast().unwrap_or_else(|_| unreachable!("a cache keeps one type"))
}
