//! Writes every object of a resource as it is, so that it is stored in the version of today.
//!
//! Upstream: `pkg/controller/storageversionmigrator`.

use api::Typed;
use bytes::Bytes;
use client::{Change, ResourcePath};
use client::{Client, ClientError, Informer, InformerConfig, ListOptions, Lister, Outcome};
use http::Method;
use jiff::SignedDuration;
use k8s_openapi::api::storagemigration::v1beta1::StorageVersionMigration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use meta::{Object, ObjectKey};
use serde_json::{Value, json};

use crate::context::Context;
use crate::discovery::{Discovered, discover};
use crate::reconcile::reconcile;

const NAME: &str = "storage-version-migrator-controller";
/// A resource that is new may not be known everywhere yet.
const PATIENCE: SignedDuration = SignedDuration::from_mins(1);
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_secs(5);

const RUNNING: &str = "Running";
const SUCCEEDED: &str = "Succeeded";
const FAILED: &str = "Failed";

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client(NAME);
    let queue = ctx.queue("storage-version-migrator-controller");
    let all = InformerConfig::all::<StorageVersionMigration>();
    let migrations =
        Informer::spawn(&ctx.manager, &ctx.clock, all, &ctx.shutdown, StorageVersionMigration::of);
    migrations.synced().await;
    let changed = queue.clone();
    migrations.on_change(move |key, change| {
        if !matches!(change, Change::Deleted(_)) {
            changed.add(key.clone());
        }
    });
    reconcile(&queue, ctx.shutdown.clone(), move |key| {
        let (ctx, client, migrations) = (ctx.clone(), client.clone(), migrations.clone());
        async move { sync(&ctx, &client, &migrations, &key).await }
    })
    .await;
}

async fn sync(
    ctx: &Context,
    client: &Client,
    migrations: &Lister<StorageVersionMigration>,
    key: &ObjectKey,
) -> Result<Outcome, ClientError> {
    let Some(found) = migrations.get(key) else { return Ok(Outcome::Done) };
    if is_true(&found, SUCCEEDED) || is_true(&found, FAILED) {
        return Ok(Outcome::Done);
    }
    let found = StorageVersionMigration::clone(&found);
    let wanted = found.spec.as_ref().map(|spec| spec.resource.clone()).unwrap_or_default();
    let served = discover(client).await?.resources;
    let is_it = |one: &&Discovered| one.group == wanted.group && one.resource == wanted.resource;
    let Some(resource) = served.iter().find(is_it) else {
        let created = found.metadata.creation_timestamp.as_ref();
        let age = created.map(|created| ctx.clock.now().duration_since(created.0));
        if age.is_some_and(|age| age < PATIENCE) {
            return Ok(Outcome::RequeueAfter(LOOK_AGAIN));
        }
        return end(ctx, client, found, FAILED, "resource not found").await;
    };
    let path = ResourcePath::new(resource.gvr());
    let objects =
        client.dynamic::<Value>(path.clone(), "").list_objects(&ListOptions::all()).await?;
    let mut running = found;
    let status = running.status.get_or_insert_default();
    if status.resource_version.is_none() || !has(status.conditions.as_deref(), RUNNING) {
        // What is written later than this is written in the version of today.
        status.resource_version.get_or_insert(objects.resource_version.to_string());
        set(ctx, &mut running, RUNNING, "");
        running = client.api::<StorageVersionMigration>("").update_status(&running).await?;
    }
    for object in &objects.items {
        match write(client, &path, resource, object).await {
            Ok(()) => {}
            // Somebody else wrote it meanwhile, or it is gone: both are as good.
            Err(error) if error.is_conflict() => {}
            Err(error) => {
                tracing::warn!(%error, object = %object.header().name, "object is not migrated");
                let text = "migration encountered unhandled error";
                return end(ctx, client, running, FAILED, text).await;
            }
        }
    }
    end(ctx, client, running, SUCCEEDED, "").await
}

/// Applies nothing to the object, which is written if it is stored in another version.
async fn write(
    client: &Client,
    path: &ResourcePath,
    resource: &Discovered,
    object: &Object,
) -> Result<(), ClientError> {
    let header = object.header();
    let version = meta::GroupVersion::new(&*resource.group, &*resource.version).to_string();
    // With uid and version a deleted object is not made again, and a newer one left alone.
    let nothing = json!({ "apiVersion": version, "kind": resource.kind, "metadata": {
        "uid": header.uid, "resourceVersion": header.resource_version.to_string() } });
    let path = path.object(&header.namespace, &header.name, "");
    let path = format!("{path}?fieldManager={NAME}");
    let body = Bytes::from(nothing.to_string());
    client.request(Method::PATCH, &path, "application/apply-patch+yaml", body).await.map(drop)
}

async fn end(
    ctx: &Context,
    client: &Client,
    mut migration: StorageVersionMigration,
    kind: &str,
    message: &str,
) -> Result<Outcome, ClientError> {
    set(ctx, &mut migration, kind, message);
    match client.api::<StorageVersionMigration>("").update_status(&migration).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(Outcome::Done),
    }
}

fn set(ctx: &Context, migration: &mut StorageVersionMigration, kind: &str, message: &str) {
    let now = Time(ctx.clock.now());
    let generation = migration.metadata.generation;
    let conditions = migration.status.get_or_insert_default().conditions.get_or_insert_default();
    if kind != RUNNING
        && let Some(running) = conditions.iter_mut().find(|condition| condition.type_ == RUNNING)
    {
        "False".clone_into(&mut running.status);
        running.last_transition_time = now.clone();
    }
    let reason = match kind {
        RUNNING => "StorageVersionMigrationInProgress",
        SUCCEEDED => "StorageVersionMigrationSucceeded",
        _ => "StorageVersionMigrationFailed",
    };
    conditions.retain(|condition| condition.type_ != kind);
    conditions.push(Condition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: now,
        observed_generation: generation,
    });
}

fn is_true(migration: &StorageVersionMigration, kind: &str) -> bool {
    has(migration.status.as_ref().and_then(|status| status.conditions.as_deref()), kind)
}

fn has(conditions: Option<&[Condition]>, kind: &str) -> bool {
    let mut conditions = conditions.unwrap_or_default().iter();
    conditions.any(|condition| condition.type_ == kind && condition.status == "True")
}
