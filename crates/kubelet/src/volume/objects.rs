//! ConfigMaps and Secrets that pods of this node use: one watch per object, as the node may read
//! only those, kept as long as a pod uses it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::Typed;
use client::{Client, Informer, InformerConfig, ListOptions, Lister, ResourcePath};
use clock::SharedClock;
use k8s_openapi::Resource;
use meta::ObjectKey;
use stdx::shutdown::Shutdown;

/// How long the first read of an object may take.
const SYNC_TIMEOUT: Duration = Duration::from_secs(10);

/// Told the uid of a pod whose object changed.
pub(crate) type Wake = Arc<dyn Fn(&str) + Send + Sync>;

/// The objects of one kind. Clones share them.
pub(crate) struct Objects<K> {
    client: Client,
    clock: SharedClock,
    shutdown: Shutdown,
    wake: Wake,
    entries: Arc<Mutex<BTreeMap<ObjectKey, Entry<K>>>>,
}

struct Entry<K> {
    lister: Lister<K>,
    stop: Shutdown,
    users: Arc<Mutex<BTreeSet<String>>>,
}

/// The object could not be read in time.
#[derive(Debug, thiserror::Error)]
#[error("failed to sync {kind} cache: timed out waiting for the condition")]
pub(crate) struct NotSynced {
    kind: String,
}

impl<K> Objects<K>
where
    K: Resource + Typed + Send + Sync + 'static,
{
    /// No objects yet.
    pub(crate) fn new(client: Client, clock: SharedClock, shutdown: Shutdown, wake: Wake) -> Self {
        Self { client, clock, shutdown, wake, entries: Arc::default() }
    }

    /// The object, or `None` when it does not exist. From now on the pod with this uid is woken
    /// when it changes.
    pub(crate) async fn get(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
    ) -> Result<Option<Arc<K>>, NotSynced> {
        let key = ObjectKey::new(namespace, name);
        let lister = self.entry(&key, uid);
        tokio::select! {
            () = lister.synced() => Ok(lister.get(&key)),
            () = self.clock.sleep(SYNC_TIMEOUT) => {
                Err(NotSynced { kind: K::KIND.to_lowercase() })
            }
        }
    }

    /// The pod with this uid uses nothing any more.
    pub(crate) fn release(&self, uid: &str) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, entry| {
            let mut users = entry.users.lock().unwrap_or_else(PoisonError::into_inner);
            users.remove(uid);
            if users.is_empty() {
                entry.stop.begin();
            }
            !users.is_empty()
        });
    }

    fn entry(&self, key: &ObjectKey, uid: &str) -> Lister<K> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.entry(key.clone()).or_insert_with(|| self.follow(key));
        entry.users.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned());
        entry.lister.clone()
    }

    fn follow(&self, key: &ObjectKey) -> Entry<K> {
        let stop = self.shutdown.child();
        let config = InformerConfig {
            path: ResourcePath::of::<K>(),
            namespace: key.namespace.to_string(),
            options: ListOptions::fields(format!("metadata.name={}", key.name)),
        };
        let lister = Informer::spawn(&self.client, &self.clock, config, &stop, K::of);
        let users: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let (told, wake) = (Arc::clone(&users), Arc::clone(&self.wake));
        lister.on_change(move |_, _| {
            for uid in told.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                wake(uid);
            }
        });
        Entry { lister, stop, users }
    }
}
