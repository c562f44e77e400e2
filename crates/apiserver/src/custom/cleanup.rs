//! Deletes the objects of a definition that goes, and then lets it go.
//!
//! Upstream: `apiextensions-apiserver/pkg/controller/finalizer/crd_finalizer.go`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use authn::UserInfo;
use http::{HeaderMap, Method};
use meta::Object;
use serde_json::{Value, json};

use super::conditions::{Conditions, PATH, call, put_status};
use crate::context::RequestContext;
use crate::handle::Handle;
use crate::query::Query;
use crate::request_info::RequestInfo;
use crate::verbs::delete::DeleteOptions;
use crate::verbs::delete_collection::delete_objects;

/// Keeps a definition until its objects are gone.
pub(crate) const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
/// How often it is looked whether all are gone.
const POLL: Duration = Duration::from_millis(100);
/// How long finalizers of the objects are waited for before it is said that they are still there.
const PATIENCE: Duration = Duration::from_secs(60);
/// Definitions whose objects would lie where built-in ones do, which must not be deleted with them.
const OVERLAPPING: [&str; 2] =
    ["apiservices.apiregistration.k8s.io", "customresourcedefinitions.apiextensions.k8s.io"];
/// Wait before it is tried anew.
const RETRY: Duration = Duration::from_secs(1);

/// The definitions that are being cleaned up.
#[derive(Clone, Default)]
pub(crate) struct Cleaning(Arc<Mutex<BTreeSet<String>>>);

/// Begins to clean up after a definition, unless that has begun.
pub(super) fn begin(handle: &Handle, user: &UserInfo, cleaning: &Cleaning, object: &Arc<Object>) {
    let header = object.header();
    if !header.finalizers.iter().any(|finalizer| **finalizer == *FINALIZER) {
        return;
    }
    let lock = |cleaning: &Cleaning| {
        // Nothing can panic while it is held.
        cleaning.0.lock().unwrap_or_else(PoisonError::into_inner).insert(header.name.clone())
    };
    if !lock(cleaning) {
        return;
    }
    let (handle, user, cleaning) = (handle.clone(), user.clone(), cleaning.clone());
    let name = header.name.clone();
    drop(stdx::task::spawn("custom resource cleanup", async move {
        let tried = async {
            while !clean(&handle, &user, &name).await {
                handle.server.clock.sleep(RETRY).await;
            }
        };
        tokio::select! {
            () = tried => {}
            () = handle.server.shutdown.begun() => {}
        }
        cleaning.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
    }));
}

/// Whether there is nothing more to do.
async fn clean(handle: &Handle, user: &UserInfo, name: &str) -> bool {
    let Some(definition) = read(handle, name) else { return true };
    let has_finalizer = finalizers(&definition).iter().any(|finalizer| finalizer == FINALIZER);
    if definition["metadata"].get("deletionTimestamp").is_none() || !has_finalizer {
        return true;
    }
    let is_established = handle.server.resources.served().entries.contains_key(name);
    let condition = |value, reason, message: &str| set(handle, name, value, reason, message);
    let begun =
        condition("True", "InstanceDeletionInProgress", "CustomResource deletion is in progress");
    if !write(handle, user, begun).await {
        return false;
    }
    if OVERLAPPING.contains(&name) {
        let message = "instances overlap with built-in resources in storage";
        let outcome = condition("False", "OverlappingBuiltInResource", message);
        return write(handle, user, outcome).await && release(handle, user, name).await;
    }
    if !is_established {
        let outcome = condition("False", "NeverEstablished", "resource was never established");
        return write(handle, user, outcome).await && release(handle, user, name).await;
    }
    match delete_all(handle, user, name).await {
        Ok(()) => {
            let done = condition("False", "InstanceDeletionCompleted", "removed all instances");
            write(handle, user, done).await && release(handle, user, name).await
        }
        Err((reason, message)) => {
            write(handle, user, condition("True", reason, &message)).await;
            false
        }
    }
}

type Failure = (&'static str, String);

async fn delete_all(handle: &Handle, user: &UserInfo, name: &str) -> Result<(), Failure> {
    let served = handle.server.resources.served();
    let Some(entry) = served.entries.get(name) else { return Ok(()) };
    // A version that is not served is no way in; its objects are found through any that is.
    let Some(resource) = entry.resources.first() else {
        return delete_unserved(handle, &entry.storage).await;
    };
    let objects: Vec<_> = entry.storage.cache.snapshot(0).map.values().cloned().collect();
    let info = RequestInfo { verb: "deletecollection".to_owned(), ..RequestInfo::default() };
    let (query, headers) = (Query::default(), HeaderMap::new());
    let server = handle.server.clone();
    let ctx = RequestContext::new(server, user.clone(), Method::DELETE, info, query, headers);
    // Nobody is asked whether they may go: there is no way back for the definition.
    let options = DeleteOptions { is_unasked: true, ..DeleteOptions::default() };
    delete_objects(&ctx, resource, &objects, &options).await.map_err(|status| {
        ("InstanceDeletionFailed", format!("could not issue all deletes: {}", status.message))
    })?;
    let started = handle.server.clock.monotonic();
    while entry.storage.cache.count() > 0 {
        let waited = handle.server.clock.monotonic().saturating_duration_since(started);
        if waited > PATIENCE || handle.server.shutdown.is_begun() {
            let message = "could not confirm zero CustomResources remaining: context deadline \
                           exceeded";
            return Err(("InstanceDeletionCheck", message.to_owned()));
        }
        handle.server.clock.sleep(POLL).await;
    }
    Ok(())
}

/// Objects of a definition of which no version is served are taken out of the store itself: nobody
/// can reach them, nor remove their finalizers.
async fn delete_unserved(
    handle: &Handle,
    storage: &crate::resources::Storage,
) -> Result<(), Failure> {
    for object in storage.cache.snapshot(0).map.values() {
        let header = object.header();
        let key = storage.store_key(&header.namespace, &header.name);
        let write = store::Write::new(key, None, store::Expect::Any);
        handle.server.store.write(write).await.map_err(|error| {
            ("InstanceDeletionFailed", format!("could not issue all deletes: {error}"))
        })?;
    }
    Ok(())
}

fn read(handle: &Handle, name: &str) -> Option<Value> {
    let found =
        handle.server.find("apiextensions.k8s.io", "customresourcedefinitions", "", name)?;
    found.decode().ok()
}

fn finalizers(definition: &Value) -> Vec<Value> {
    definition["metadata"]["finalizers"].as_array().cloned().unwrap_or_default()
}

/// The definition with its condition; `None` when it has it, or is gone.
fn set(handle: &Handle, name: &str, value: &str, reason: &str, message: &str) -> Option<Value> {
    let mut definition = read(handle, name)?;
    let now = meta::time::rfc3339(handle.server.clock.now());
    let mut conditions = Conditions::of(&definition["status"], &now);
    conditions.set("Terminating", value, reason, message);
    let list = Value::Array(conditions.list);
    if definition["status"]["conditions"] == list {
        return None;
    }
    definition["status"]["conditions"] = list;
    Some(definition)
}

async fn write(handle: &Handle, user: &UserInfo, definition: Option<Value>) -> bool {
    match definition {
        Some(definition) => put_status(handle, user, &definition).await.is_ok(),
        None => true,
    }
}

/// Removes the finalizer; whether the definition is released.
async fn release(handle: &Handle, user: &UserInfo, name: &str) -> bool {
    let Some(mut definition) = read(handle, name) else { return true };
    let mut kept = finalizers(&definition);
    kept.retain(|finalizer| finalizer != FINALIZER);
    definition["metadata"]["finalizers"] = Value::Array(kept);
    call(handle, user, Method::PUT, &format!("{PATH}/{name}"), definition.to_string()).await.is_ok()
}

/// Marks a definition that is deleted for the first time.
pub(crate) fn mark(object: &mut Value, now: &str) {
    object["metadata"]["deletionTimestamp"] = json!(now);
    let mut list = finalizers(object);
    if !list.iter().any(|finalizer| finalizer == FINALIZER) {
        list.push(json!(FINALIZER));
    }
    object["metadata"]["finalizers"] = Value::Array(list);
    let mut conditions = Conditions::of(&object["status"], now);
    conditions.set(
        "Terminating",
        "True",
        "InstanceDeletionPending",
        "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
    );
    object["status"]["conditions"] = Value::Array(conditions.list);
}
