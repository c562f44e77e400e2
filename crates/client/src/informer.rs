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

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use clock::SharedClock;
use futures::StreamExt;
use meta::{MalformedObject, Object, ResourceVersion, WatchEvent};
use stdx::shutdown::Shutdown;

use crate::{Backoff, Client, ClientError, ListOptions, ResourcePath};
use cache::{Cache, Projection};

mod cache;

pub use cache::{Change, Lister};

/// Page size of lists over a connection: client-go's pager.
const PAGE: u32 = 500;
/// Back-off of the reflector, as client-go's: 0.8 s to 30 s.
const BACKOFF_FIRST: Duration = Duration::from_millis(800);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A watch is asked for with a time between this and twice as much, as client-go does.
const WATCH_SECONDS_MIN: u32 = 300;

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

/// Makes what the cache keeps of an object.
type Project = Box<dyn Fn(&Object) -> Result<Projection, MalformedObject> + Send + Sync>;

/// The driving end: run it as a task.
///
/// Neither this nor the cache is generic over what is kept: a component has a dozen informers,
/// and each would be compiled anew.
pub struct Informer {
    client: Client,
    config: InformerConfig,
    clock: SharedClock,
    project: Project,
    cache: Arc<Cache>,
}

impl Informer {
    /// An informer whose cache keeps `project` of every object.
    pub fn new<P: Send + Sync + 'static>(
        client: Client,
        clock: SharedClock,
        config: InformerConfig,
        project: impl Fn(&Object) -> Result<P, MalformedObject> + Send + Sync + 'static,
    ) -> (Self, Lister<P>) {
        let cache = Arc::new(Cache::default());
        let lister = Lister { cache: Arc::clone(&cache), kept: PhantomData };
        let project: Project = Box::new(move |object| Ok(Arc::new(project(object)?)));
        (Self { client, config, clock, project, cache }, lister)
    }

    /// Starts the informer as a task of its own that ends at `shutdown`.
    pub fn spawn<P: Send + Sync + 'static>(
        client: &Client,
        clock: &SharedClock,
        config: InformerConfig,
        shutdown: &Shutdown,
        project: impl Fn(&Object) -> Result<P, MalformedObject> + Send + Sync + 'static,
    ) -> Lister<P> {
        let (informer, lister) = Self::new(client.clone(), Arc::clone(clock), config, project);
        informer.start(shutdown.clone());
        lister
    }

    fn start(self, shutdown: Shutdown) {
        drop(stdx::task::spawn("informer", async move { self.run(shutdown).await }));
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
                self.cache.advance(page.resource_version);
                self.cache.set_synced();
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
                let version = object.header().resource_version;
                self.upsert(&object, Some(version));
                version
            }
            WatchEvent::Deleted(object) => {
                let version = object.header().resource_version;
                self.cache.remove(&object.header().key(), Some(version));
                version
            }
            WatchEvent::Bookmark { resource_version, .. } => {
                self.cache.advance(resource_version);
                resource_version
            }
        }
    }

    fn upsert(&self, object: &Object, seen: Option<ResourceVersion>) {
        match (self.project)(object) {
            Ok(projection) => self.cache.insert(object.header(), projection, seen),
            // The server checks every object on its way in, so this is a defect of ours; the
            // other objects must go on.
            Err(error) => {
                let key = object.header().key();
                tracing::error!(object = %key, %error, "object cannot be read, ignored");
                seen.into_iter().for_each(|seen| self.cache.advance(seen));
            }
        }
    }

    fn replace(&self, items: &[Arc<Object>]) {
        self.cache.retain(items.iter().map(|object| object.header().key()).collect());
        for object in items {
            let header = object.header();
            if self.cache.version(&header.key()) != Some(header.resource_version) {
                self.upsert(object, None);
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
