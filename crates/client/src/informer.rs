//! A cached view of a resource that follows its changes.
//!
//! The driver lists, then watches from the list's version; when the watch breaks it goes on from
//! the last version seen, and when that is no longer kept it lists again and tells handlers what
//! the difference is. State machine:
//!
//! ```text
//!  List ──ok──▶ Watch ──410──▶ List
//!   ▲ │error     │ ▲ end, error (after back-off, from the last version)
//!   └─┘back-off  └─┘
//! ```

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use clock::SharedClock;
use futures::StreamExt;
use meta::{MalformedObject, Object, ObjectKey, ResourceVersion, WatchEvent};
use stdx::shutdown::Shutdown;
use tokio::sync::watch;

use crate::{Backoff, Client, ClientError, ListOptions, ResourcePath};

/// Page size of lists over a connection: client-go's pager.
const PAGE: u32 = 500;
/// Back-off of the reflector, as client-go's: 0.8 s to 30 s.
const BACKOFF_FIRST: Duration = Duration::from_millis(800);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A watch is asked for with a time between this and twice as much, as client-go does.
const WATCH_SECONDS_MIN: u32 = 300;

/// A change of the cache, told to handlers after the cache has it.
#[derive(Debug)]
pub enum Change<'a, P> {
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

/// What to cache.
pub struct InformerConfig {
    /// The resource.
    pub path: ResourcePath,
    /// The namespace, empty for all.
    pub namespace: String,
    /// Which objects.
    pub options: ListOptions,
}

impl InformerConfig {
    /// All objects of a typed resource.
    pub fn all<K: k8s_openapi::Resource>() -> Self {
        Self {
            path: ResourcePath::of::<K>(),
            namespace: String::new(),
            options: ListOptions::all(),
        }
    }
}

type Handler<P> = Box<dyn Fn(&ObjectKey, Change<'_, P>) + Send + Sync>;
type Project<P> = Box<dyn Fn(&Object) -> Result<P, MalformedObject> + Send + Sync>;

struct Shared<P> {
    cache: RwLock<BTreeMap<ObjectKey, Entry<P>>>,
    handlers: Mutex<Vec<Handler<P>>>,
    synced: watch::Sender<bool>,
}

struct Entry<P> {
    version: ResourceVersion,
    projection: Arc<P>,
}

/// The reading end of an [`Informer`]. Clones share the cache.
pub struct Lister<P> {
    shared: Arc<Shared<P>>,
}

impl<P> Clone for Lister<P> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<P> Lister<P> {
    /// The projection of one object.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<P>> {
        let cache = self.shared.cache.read().unwrap_or_else(PoisonError::into_inner);
        cache.get(key).map(|entry| Arc::clone(&entry.projection))
    }

    /// Everything, in the order of namespace and name.
    pub fn list(&self) -> Vec<Arc<P>> {
        let cache = self.shared.cache.read().unwrap_or_else(PoisonError::into_inner);
        cache.values().map(|entry| Arc::clone(&entry.projection)).collect()
    }

    /// What is in one namespace, in the order of names.
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<P>> {
        let first = ObjectKey::new(namespace, "");
        let cache = self.shared.cache.read().unwrap_or_else(PoisonError::into_inner);
        cache
            .range((Bound::Included(first), Bound::Unbounded))
            .take_while(|(key, _)| key.namespace == namespace)
            .map(|(_, entry)| Arc::clone(&entry.projection))
            .collect()
    }

    /// The number of objects.
    pub fn len(&self) -> usize {
        self.shared.cache.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Resolves when the first list is in the cache. Safe to drop.
    pub async fn synced(&self) {
        // The sender lives in `shared`, which `self` keeps alive.
        self.shared.synced.subscribe().wait_for(|synced| *synced).await.ok();
    }

    /// Calls `handler` for every object that is cached now and for every later change, from the
    /// informer's task, in order. It must not block: enqueue a key and return.
    pub fn on_change(&self, handler: impl Fn(&ObjectKey, Change<'_, P>) + Send + Sync + 'static) {
        // Handlers are locked first, then the cache, here and in the driver: no change can fall
        // between the replay and the registration.
        let mut handlers = self.shared.handlers.lock().unwrap_or_else(PoisonError::into_inner);
        let present: Vec<_> = {
            let cache = self.shared.cache.read().unwrap_or_else(PoisonError::into_inner);
            cache.iter().map(|(key, e)| (key.clone(), Arc::clone(&e.projection))).collect()
        };
        for (key, projection) in &present {
            handler(key, Change::Added(projection));
        }
        handlers.push(Box::new(handler));
    }
}

/// The driving end: run it as a task.
pub struct Informer<P> {
    client: Client,
    config: InformerConfig,
    clock: SharedClock,
    project: Project<P>,
    shared: Arc<Shared<P>>,
}

impl<P: Send + Sync + 'static> Informer<P> {
    /// An informer whose cache keeps `project` of every object.
    pub fn new(
        client: Client,
        clock: SharedClock,
        config: InformerConfig,
        project: impl Fn(&Object) -> Result<P, MalformedObject> + Send + Sync + 'static,
    ) -> (Self, Lister<P>) {
        let shared = Arc::new(Shared {
            cache: RwLock::default(),
            handlers: Mutex::default(),
            synced: watch::Sender::new(false),
        });
        let lister = Lister { shared: Arc::clone(&shared) };
        (Self { client, config, clock, project: Box::new(project), shared }, lister)
    }

    /// Starts the informer as a task of its own that ends at `shutdown`.
    pub fn spawn(
        client: &Client,
        clock: &SharedClock,
        config: InformerConfig,
        shutdown: &Shutdown,
        project: impl Fn(&Object) -> Result<P, MalformedObject> + Send + Sync + 'static,
    ) -> Lister<P> {
        let (informer, lister) = Self::new(client.clone(), Arc::clone(clock), config, project);
        let shutdown = shutdown.clone();
        drop(stdx::task::spawn("informer", async move { informer.run(shutdown).await }));
        lister
    }

    /// Follows the resource until `shutdown`. Safe to drop: the cache then stands still.
    pub async fn run(self, shutdown: Shutdown) {
        tokio::select! {
            biased;
            () = shutdown.begun() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&self) {
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_MAX);
        let mut version = None;
        loop {
            let result = match version {
                None => self.list().await.map(Some),
                Some(from) => self.watch(from, &mut backoff).await,
            };
            let error = match result {
                Ok(next) => {
                    version = next;
                    continue;
                }
                Err(error) => error,
            };
            tracing::warn!(
                resource = %self.config.path.gvr(),
                error = %Causes(&error),
                "informer cannot follow its resource, trying again"
            );
            self.clock.sleep(backoff.next_delay()).await;
        }
    }

    async fn list(&self) -> Result<ResourceVersion, ClientError> {
        let mut options = ListOptions { limit: PAGE, ..self.config.options.clone() };
        let mut items = Vec::new();
        loop {
            let page =
                self.client.list_page(&self.config.path, &self.config.namespace, &options).await?;
            items.extend(page.items);
            if page.continue_token.is_empty() {
                self.replace(&items);
                self.shared.synced.send_replace(true);
                return Ok(page.resource_version);
            }
            options.continue_token = page.continue_token;
        }
    }

    /// Follows one watch; gives the version to go on from, or `None` to list again.
    async fn watch(
        &self,
        from: ResourceVersion,
        backoff: &mut Backoff,
    ) -> Result<Option<ResourceVersion>, ClientError> {
        let seconds = WATCH_SECONDS_MIN + rand::random::<u32>() % WATCH_SECONDS_MIN;
        let InformerConfig { path, namespace, options } = &self.config;
        let mut events = match self.client.watch(path, namespace, options, from, seconds).await {
            Ok(events) => events,
            Err(error) if error.is_expired() => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut version = from;
        let mut is_silent = true;
        while let Some(event) = events.next().await {
            is_silent = false;
            match event {
                Ok(event) => version = self.apply(event),
                Err(error) if error.is_expired() => return Ok(None),
                Err(error) => {
                    tracing::debug!(error = %Causes(&error), "watch ended");
                    self.clock.sleep(backoff.next_delay()).await;
                    return Ok(Some(version));
                }
            }
            backoff.reset();
        }
        if is_silent {
            // A server that ends watches at once is ending itself: asking again without a pause
            // would keep both busy.
            self.clock.sleep(backoff.next_delay()).await;
        }
        Ok(Some(version))
    }

    fn apply(&self, event: WatchEvent) -> ResourceVersion {
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                self.upsert(&object);
                object.header().resource_version
            }
            WatchEvent::Deleted(object) => {
                self.remove(&object.header().key());
                object.header().resource_version
            }
            WatchEvent::Bookmark { resource_version, .. } => resource_version,
        }
    }

    fn upsert(&self, object: &Object) {
        let key = object.header().key();
        let projection = match (self.project)(object) {
            Ok(projection) => Arc::new(projection),
            Err(error) => {
                // The server checks every object on its way in, so this is a defect of ours; the
                // other objects must go on.
                tracing::error!(object = %key, %error, "object cannot be read, ignored");
                return;
            }
        };
        let version = object.header().resource_version;
        let handlers = self.shared.handlers.lock().unwrap_or_else(PoisonError::into_inner);
        let old = {
            let mut cache = self.shared.cache.write().unwrap_or_else(PoisonError::into_inner);
            cache.insert(key.clone(), Entry { version, projection: Arc::clone(&projection) })
        };
        for handler in handlers.iter() {
            match &old {
                None => handler(&key, Change::Added(&projection)),
                Some(old) => {
                    handler(&key, Change::Updated { old: &old.projection, new: &projection });
                }
            }
        }
    }

    fn remove(&self, key: &ObjectKey) {
        let handlers = self.shared.handlers.lock().unwrap_or_else(PoisonError::into_inner);
        let old = {
            let mut cache = self.shared.cache.write().unwrap_or_else(PoisonError::into_inner);
            cache.remove(key)
        };
        let Some(old) = old else { return };
        for handler in handlers.iter() {
            handler(key, Change::Deleted(&old.projection));
        }
    }

    fn replace(&self, items: &[Arc<Object>]) {
        let present: std::collections::BTreeSet<ObjectKey> =
            items.iter().map(|object| object.header().key()).collect();
        let gone: Vec<ObjectKey> = {
            let cache = self.shared.cache.read().unwrap_or_else(PoisonError::into_inner);
            cache.keys().filter(|key| !present.contains(*key)).cloned().collect()
        };
        for key in &gone {
            self.remove(key);
        }
        for object in items {
            let known = {
                let cache = self.shared.cache.read().unwrap_or_else(PoisonError::into_inner);
                cache.get(&object.header().key()).map(|entry| entry.version)
            };
            if known != Some(object.header().resource_version) {
                self.upsert(object);
            }
        }
    }
}

/// An error and what caused it, for a log line.
struct Causes<'a>(&'a ClientError);

impl std::fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = std::error::Error::source(self.0);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
