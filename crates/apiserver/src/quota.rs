//! Resource quota: what a new object uses is charged before it is written.
//!
//! Writes of one namespace that has a quota go one after the other from the check to the store, so
//! that two of them cannot both take the last of it. The controller repairs what failed writes
//! leave charged.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use api::quota::{Usage, covers, missing, of, quantity_of, restricted};
use meta::{Object, Status};
use serde_json::{Value, json};
use store::{Expect, Outcome};
use tokio::sync::OwnedMutexGuard;

use crate::errors;
use crate::ownership;
use crate::render;
use crate::server::Server;
use crate::write;

/// Attempts to charge against a controller that writes too.
const ATTEMPTS: usize = 5;

/// One lock per namespace that has quotas.
#[derive(Default)]
pub(crate) struct Quotas {
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// Held from the check until the object is written.
pub(crate) struct Charge {
    _lock: Option<OwnedMutexGuard<()>>,
}

impl Server {
    /// Checks the quotas of a namespace and charges what the write adds.
    pub(crate) async fn charge_quota(
        &self,
        request: &admission::Request<'_>,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<Charge, Status> {
        let free = Charge { _lock: None };
        let is_resize = request.resource.resource == "pods" && request.subresource == "resize";
        if request.namespace.is_empty() || !(request.subresource.is_empty() || is_resize) {
            return Ok(free);
        }
        let quotas = admission::View::list(self, "", "resourcequotas", request.namespace);
        if quotas.is_empty() {
            return Ok(free);
        }
        let now = self.clock.now();
        let added = of(request.resource, object, now);
        let had = old.map(|old| of(request.resource, old, now)).unwrap_or_default();
        let delta: Usage = added
            .into_iter()
            .map(|(name, quantity)| {
                let had = had.get(&name).cloned().unwrap_or_default();
                (name, quantity - had)
            })
            .filter(|(_, quantity)| !quantity.is_zero())
            .collect();
        if delta.is_empty() {
            return Ok(free);
        }
        let lock = self.quotas.lock(request.namespace).lock_owned().await;
        for quota in quotas {
            self.charge(request, &quota, &delta, object).await?;
        }
        Ok(Charge { _lock: Some(lock) })
    }

    async fn charge(
        &self,
        request: &admission::Request<'_>,
        quota: &Arc<Object>,
        delta: &Usage,
        object: &Value,
    ) -> Result<(), Status> {
        let Some(resource) = self.resources.get("", "v1", "resourcequotas") else { return Ok(()) };
        let storage = write::storage(&resource)?;
        let key = storage.store_key(request.namespace, &quota.header().name);
        for _ in 0..ATTEMPTS {
            let found = self.store.get(&key).await.map_err(|error| errors::from_store(&error))?;
            let Some(found) = found else { return Ok(()) };
            let mut stored = write::stored(storage, &found)?;
            if !covers(&stored, request.resource, object) {
                return Ok(());
            }
            if !check(request, &stored, delta, object)? || request.is_dry_run {
                return Ok(());
            }
            let live = stored.clone();
            for (name, quantity) in delta {
                if stored["status"]["hard"].get(name).is_some() {
                    let used = quantity_of(&stored["status"]["used"][name]) + *quantity;
                    stored["status"]["used"][name] = json!(used.to_string());
                }
            }
            ownership::record_own_status(self, &resource, &live, &mut stored);
            crate::strategy::remove(&mut stored["metadata"], "resourceVersion");
            let value = render::encode(storage.ty, &stored);
            let expect = Expect::ModRevision(found.mod_revision);
            let write = write::stamped(key.clone(), Some(&value), expect);
            let outcome =
                self.store.write(write).await.map_err(|error| errors::from_store(&error))?;
            if matches!(outcome, Outcome::Committed(_)) {
                return Ok(());
            }
        }
        let name = &quota.header().name;
        Err(errors::modified(&storage.resource, name))
    }
}

impl Quotas {
    fn lock(&self, namespace: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        // Locks nobody holds are of no use; this keeps the map as small as the work under way.
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        locks.entry(namespace.to_owned()).or_default().clone()
    }
}

/// Resource, requested, used, limit.
type Exceeded<'a> = (&'a str, String, String, String);

/// Whether the quota constrains anything in the delta; an error when it would be exceeded.
fn check(
    request: &admission::Request<'_>,
    quota: &Value,
    delta: &Usage,
    object: &Value,
) -> Result<bool, Status> {
    let name = write::text(quota, "/metadata/name");
    let hard = &quota["status"]["hard"];
    // Before the controller has seen a quota, it limits nothing.
    let (names, is_known) = restricted(quota, request.resource);
    if names.is_empty() {
        return Ok(false);
    }
    if request.resource.resource == "pods"
        && let Some(missing) = missing(object, &names)
    {
        let why = format!("failed quota: {name}: {missing}");
        return Err(errors::forbidden(request.resource, request.name, &why));
    }
    if !is_known {
        let names: Vec<&str> = names.into_iter().collect();
        let why = format!("status unknown for quota: {name}, resources: {}", names.join(","));
        return Err(errors::forbidden(request.resource, request.name, &why));
    }
    let mut exceeded: Vec<Exceeded<'_>> = Vec::new();
    let mut is_constrained = false;
    for (resource, requested) in delta {
        let Some(limit) = hard.get(resource) else { continue };
        is_constrained = true;
        let used = quantity_of(&quota["status"]["used"][resource]);
        let limit = quantity_of(limit);
        // Who takes less than before may do so, even from a quota that has been lowered.
        if requested.signum() > 0 && used + *requested > limit {
            exceeded.push((resource, requested.to_string(), used.to_string(), limit.to_string()));
        }
    }
    if exceeded.is_empty() {
        return Ok(is_constrained);
    }
    let join = |pick: fn(&Exceeded<'_>) -> String| {
        exceeded.iter().map(|row| format!("{}={}", row.0, pick(row))).collect::<Vec<_>>().join(",")
    };
    let why = format!(
        "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
        join(|row| row.1.clone()),
        join(|row| row.2.clone()),
        join(|row| row.3.clone())
    );
    Err(errors::forbidden(request.resource, request.name, &why))
}
