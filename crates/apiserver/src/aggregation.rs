//! Other servers' APIs under this one's paths: the API aggregation layer.
//!
//! An `APIService` with a service says who answers a group and version. Requests for it are forwarded
//! with the user's name in headers, over TLS with the front proxy's certificate, by which the other
//! server knows that the headers can be believed. `APIService` objects without a service stand for
//! what is served here; [`registration`] keeps them, and [`availability`] says of all of them whether
//! they answer.
//!
//! Upstream: `kube-aggregator`.

mod availability;
mod backend;
mod discovery;
mod forward;
mod registration;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use meta::Status;

use crate::handle::Handle;
use crate::resources::{Resources, Storage};
use crate::server::Server;
use cache::{Cursor, Pace, Selection};

pub(crate) use backend::Backend;
pub(crate) use discovery::{add_aggregated, add_documents, add_groups, foreign_documents};
pub(crate) use forward::serve;

pub(crate) const GROUP: &str = "apiregistration.k8s.io";
pub(crate) const RESOURCE: &str = "apiservices";
const PATH: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

/// Availability is looked at anew at least this often; upstream's resync.
const EVERY: Duration = Duration::from_secs(30);
/// Changes that come together are looked at together.
const GATHER: Duration = Duration::from_millis(100);
/// Wait before what could not be written is written again.
const RETRY: Duration = Duration::from_secs(1);

/// The servers of other APIs, as the `APIService` objects name them.
pub(crate) struct Backends {
    storage: Option<Arc<Storage>>,
    compiled: Mutex<(u64, Arc<Table>)>,
}

type Table = HashMap<(String, String), Arc<Backend>>;

impl Backends {
    pub(crate) fn new(resources: &Resources) -> Self {
        let storage = resources.storage(GROUP, RESOURCE).cloned();
        Self { storage, compiled: Mutex::default() }
    }

    /// Who serves a group and version, when it is not this server.
    pub(crate) fn find(&self, group: &str, version: &str) -> Option<Arc<Backend>> {
        let table = self.table();
        if table.is_empty() {
            return None;
        }
        table.get(&(group.to_owned(), version.to_owned())).cloned()
    }

    /// All of them, in the order of their groups and versions.
    pub(crate) fn all(&self) -> Vec<Arc<Backend>> {
        let mut all: Vec<_> = self.table().values().cloned().collect();
        all.sort_by(|a, b| (&a.group, &a.version).cmp(&(&b.group, &b.version)));
        all
    }

    fn table(&self) -> Arc<Table> {
        let Some(cache) = self.storage.as_ref().map(|storage| &storage.cache) else {
            return Arc::default();
        };
        let newest = cache.newest();
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if compiled.0 != newest {
            let objects = cache.snapshot(0).map;
            let mut table = Table::new();
            for object in objects.values() {
                let Some(backend) = Backend::of(object) else { continue };
                let key = (backend.group.clone(), backend.version.clone());
                // Connections outlive changes that are not about them, such as of the status.
                let kept = compiled.1.get(&key).filter(|kept| kept.is_same(&backend));
                let backend = match kept {
                    Some(kept) => Arc::new(backend.with_connection_of(kept)),
                    None => Arc::new(backend),
                };
                table.insert(key, backend);
            }
            *compiled = (newest, Arc::new(table));
        }
        compiled.1.clone()
    }
}

/// What says which APIs there are.
const REGISTRATIONS: [(&str, &str); 2] =
    [(GROUP, RESOURCE), ("apiextensions.k8s.io", "customresourcedefinitions")];
/// What leads to other servers. It changes all the time, and matters only when there are any.
const WAYS: [(&str, &str); 2] = [("", "services"), ("discovery.k8s.io", "endpointslices")];

/// Keeps the `APIService` objects of what is served here, and the conditions of all, until the
/// server shuts down.
pub(crate) async fn run(handle: Handle) {
    let server = handle.server.clone();
    let mut registered = None;
    while !server.shutdown.is_begun() {
        let has_backends = !server.backends.table().is_empty();
        let ways = if has_backends { &WAYS[..] } else { &[] };
        // Before anything is read: what changes while it is looked at is looked at again.
        let watched = REGISTRATIONS.iter().chain(ways);
        let cursors: Vec<Cursor> =
            watched.filter_map(|(group, name)| cursor(&server, group, name)).collect();
        let newest = REGISTRATIONS.map(|(group, name)| newest(&server, group, name));
        let is_registered = registered == Some(newest);
        let kept = tokio::select! {
            kept = keep(&handle, is_registered) => kept,
            // After that nobody follows the store any more, and each write would wait in vain.
            () = server.shutdown.begun() => return,
        };
        registered = kept.is_ok().then_some(newest);
        let wait = match kept {
            Ok(()) => EVERY,
            Err(status) => {
                tracing::debug!(%status, "an APIService could not be written");
                RETRY
            }
        };
        let changed = cursors.iter().map(|cursor| Box::pin(cursor.changed()));
        tokio::select! {
            _ = futures::future::select_all(changed) => server.clock.sleep(GATHER).await,
            () = server.clock.sleep(wait) => {}
            () = server.shutdown.begun() => {}
        }
    }
}

/// One round. When nothing was registered since the last one, only other servers are looked at.
async fn keep(handle: &Handle, is_registered: bool) -> Result<(), Status> {
    if !is_registered {
        registration::keep(handle).await?;
    }
    if is_registered && handle.server.backends.table().is_empty() {
        return Ok(());
    }
    availability::keep(handle).await
}

fn newest(server: &Server, group: &str, resource: &str) -> u64 {
    server.resources.storage(group, resource).map_or(0, |storage| storage.cache.newest())
}

fn cursor(server: &Server, group: &str, resource: &str) -> Option<Cursor> {
    let storage = server.resources.storage(group, resource)?;
    let after = storage.cache.newest().max(storage.cache.oldest());
    let everything = Selection::all("");
    let cache = storage.cache.clone();
    Cursor::new(cache, everything, after, storage.is_namespaced, Pace::AtOnce).ok()
}
