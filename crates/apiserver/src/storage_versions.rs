//! Says in StorageVersions in which versions this server stores, reads and serves each resource,
//! where upstream's gates are open.
//!
//! Upstream: `staging/src/k8s.io/apiserver/pkg/storageversion/manager.go`, and the storage version
//! manager of `apiextensions-apiserver`.

use std::time::Duration;

use api::Typed;
use api::storage_versions;
use http::Method;
use meta::{Reason, Status};
use serde_json::json;

use crate::handle::Handle;
use crate::resources::{Resources, Storage};
use crate::{bootstrap, errors, identity_lease};

const GROUP: &str = "internal.apiserver.k8s.io";
const PATH: &str = "/apis/internal.apiserver.k8s.io/v1alpha1/storageversions";
/// How often it is looked whether all is said: custom resources come and go, and somebody may take
/// away what was said.
const EVERY: Duration = Duration::from_secs(10);
const GATES: [&str; 2] = ["APIServerIdentity", "StorageVersionAPI"];

/// Says it until shutdown.
pub(crate) async fn run(handle: Handle) {
    let server = &handle.server;
    let is_served = server.resources.get(GROUP, "v1alpha1", "storageversions").is_some();
    if !is_served || !GATES.iter().all(|gate| server.config.features.is_enabled(gate)) {
        return;
    }
    loop {
        for storage in server.resources.storages() {
            if let Err(status) = say(&handle, &storage).await {
                let resource = storage.resource.to_string();
                tracing::warn!(%status, resource, "its storage version cannot be told");
            }
        }
        tokio::select! {
            () = server.clock.sleep(EVERY) => {}
            () = server.shutdown.begun() => return,
        }
    }
}

async fn say(handle: &Handle, storage: &Storage) -> Result<(), Status> {
    let server = &handle.server;
    let group = if storage.gvk.group.is_empty() { "core" } else { &storage.gvk.group };
    let name = format!("{group}.{}", storage.resource.resource);
    let known = server.find(GROUP, "storageversions", "", &name);
    let Some(known) = known else {
        let empty = json!({"kind": "StorageVersion", "apiVersion": format!("{GROUP}/v1alpha1"),
            "metadata": {"name": name}, "spec": {}});
        return match bootstrap::send(handle, Method::POST, PATH, &empty).await {
            // The next look finds it, and says the rest.
            Err(status) if status.is(Reason::AlreadyExists) => Ok(()),
            result => result,
        };
    };
    let mut version = Typed::of(&known).map_err(errors::internal)?;
    let stored = storage.gvk.group_version().to_string();
    let served = served(&server.resources, storage);
    let id = identity_lease::name();
    if !storage_versions::note(&mut version, id, &stored, &served, server.clock.now()) {
        return Ok(());
    }
    let path = format!("{PATH}/{name}/status");
    let object = version.to_tree().map_err(errors::internal)?;
    match bootstrap::send(handle, Method::PUT, &path, &object).await {
        // Another server said something meanwhile.
        Err(status) if status.is(Reason::Conflict) || status.is(Reason::NotFound) => Ok(()),
        result => result,
    }
}

/// The versions in which it is served.
fn served(resources: &Resources, storage: &Storage) -> Vec<String> {
    let mut versions: Vec<String> = resources
        .versions(storage)
        .iter()
        .map(|resource| resource.gvk.group_version().to_string())
        .collect();
    versions.sort_unstable();
    versions.dedup();
    versions
}
