//! Writes every object of a resource as it is, so that it is stored in the version of today.
//!
//! Of several migrations of one resource the oldest runs, and the others wait. The definition of a
//! custom resource says that it is migrated.
//!
//! Upstream: `pkg/controller/storageversionmigrator`.

mod definition;

use api::Typed;
use bytes::Bytes;
use client::{
    Client, ClientError, Informer, InformerConfig, ListOptions, Lister, Outcome, ResourcePath,
};
use http::Method;
use jiff::SignedDuration;
use k8s_openapi::api::storagemigration::v1beta1::StorageVersionMigration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use meta::{Object, ObjectKey};
use serde_json::{Value, json};

use crate::context::Context;
use crate::discovery::{Discovered, discover};
use crate::reconcile::reconcile;
use crate::selection::key_of;

const NAME: &str = "storage-version-migrator-controller";
/// A resource that is new may not be known everywhere yet.
const PATIENCE: SignedDuration = SignedDuration::from_mins(1);
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_secs(5);
/// What it takes to migrate a resource, as upstream has it.
const VERBS: [&str; 3] = ["update", "patch", "list"];

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
    let (changed, all) = (queue.clone(), migrations.clone());
    migrations.on_change(move |_, _| {
        // Others may wait for this one; there are few.
        for migration in all.list() {
            changed.add(key_of(&migration.metadata));
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
    let found = StorageVersionMigration::clone(&found);
    if is_over(&found) {
        return tidy(ctx, client, found).await;
    }
    if !is_true(&found, RUNNING) && migrations.list().iter().any(|one| goes_before(one, &found)) {
        return Ok(Outcome::Done);
    }
    let mut running = found;
    if !is_true(&running, RUNNING) {
        definition::begin(client, &running, ctx.clock.now()).await?;
        set(ctx, &mut running, RUNNING, "The migration is running");
        running = client.api::<StorageVersionMigration>("").update_status(&running).await?;
    }
    let wanted = running.spec.as_ref().map(|spec| spec.resource.clone()).unwrap_or_default();
    let served = discover(client).await?.resources;
    let is_it = |one: &&Discovered| one.group == wanted.group && one.resource == wanted.resource;
    let Some(resource) = served.iter().find(is_it) else {
        let created = running.metadata.creation_timestamp.as_ref();
        let age = created.map(|created| ctx.clock.now().duration_since(created.0));
        if age.is_some_and(|age| age < PATIENCE) {
            return Ok(Outcome::RequeueAfter(LOOK_AGAIN));
        }
        let text = "resource does not exist in discovery";
        return end(ctx, client, running, FAILED, text).await;
    };
    if !resource.can(&VERBS) {
        let Discovered { group, version, resource, .. } = resource;
        let text = format!(
            "resource {:?} does not support discovery operations: [{}]",
            format!("{group}/{version}, Resource={resource}"),
            VERBS.join(" ")
        );
        return end(ctx, client, running, FAILED, &text).await;
    }
    let path = ResourcePath::new(resource.gvr());
    let objects =
        client.dynamic::<Value>(path.clone(), "").list_objects(&ListOptions::all()).await?;
    let status = running.status.get_or_insert_default();
    if status.resource_version.is_none() {
        // What is written later than this is written in the version of today.
        status.resource_version = Some(objects.resource_version.to_string());
        running = client.api::<StorageVersionMigration>("").update_status(&running).await?;
    }
    for object in &objects.items {
        match write(client, &path, resource, object).await {
            Ok(()) => {}
            // Somebody else wrote it meanwhile, or it is gone: both are as good.
            Err(error) if error.is_conflict() => {}
            Err(error) if is_passing(&error) => return Err(error),
            Err(error) => {
                tracing::warn!(%error, object = %object.header().name, "object is not migrated");
                let text = format!("migration encountered unhandled error: {error}");
                return end(ctx, client, running, FAILED, &text).await;
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

/// Whether the same may be answered otherwise the next time.
fn is_passing(error: &ClientError) -> bool {
    error.status().is_none_or(|status| matches!(status.code, 429 | 500 | 503 | 504))
}

/// Whether one of two migrations of a resource is to run, and not the other.
fn goes_before(one: &StorageVersionMigration, other: &StorageVersionMigration) -> bool {
    let wanted = |migration: &StorageVersionMigration| {
        migration.spec.as_ref().map(|spec| spec.resource.clone())
    };
    let age = |migration: &StorageVersionMigration| {
        let metadata = &migration.metadata;
        (metadata.creation_timestamp.as_ref().map(|time| time.0), metadata.name.clone())
    };
    wanted(one) == wanted(other)
        && one.metadata.uid != other.metadata.uid
        && !is_over(one)
        && (is_true(one, RUNNING) || age(one) < age(other))
}

fn is_over(migration: &StorageVersionMigration) -> bool {
    is_true(migration, SUCCEEDED) || is_true(migration, FAILED)
}

/// One that is over does not run, and its definition says how it ended.
async fn tidy(
    ctx: &Context,
    client: &Client,
    mut migration: StorageVersionMigration,
) -> Result<Outcome, ClientError> {
    if !is_true(&migration, RUNNING) {
        return Ok(Outcome::Done);
    }
    definition::end(client, &migration, is_true(&migration, SUCCEEDED), ctx.clock.now()).await?;
    let generation = migration.metadata.generation;
    let conditions = migration.status.get_or_insert_default().conditions.get_or_insert_default();
    for running in conditions.iter_mut().filter(|condition| condition.type_ == RUNNING) {
        *running = Condition {
            type_: RUNNING.to_owned(),
            status: "False".to_owned(),
            reason: "MigrationCompleted".to_owned(),
            message: "Migration completed".to_owned(),
            last_transition_time: Time(ctx.clock.now()),
            observed_generation: generation,
        };
    }
    ignore_absent(client.api::<StorageVersionMigration>("").update_status(&migration).await)
}

/// Says how it ended; it is tidied up when that is heard of.
async fn end(
    ctx: &Context,
    client: &Client,
    mut migration: StorageVersionMigration,
    kind: &str,
    message: &str,
) -> Result<Outcome, ClientError> {
    set(ctx, &mut migration, kind, message);
    ignore_absent(client.api::<StorageVersionMigration>("").update_status(&migration).await)
}

fn ignore_absent<T>(outcome: Result<T, ClientError>) -> Result<Outcome, ClientError> {
    match outcome {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(Outcome::Done),
    }
}

fn set(ctx: &Context, migration: &mut StorageVersionMigration, kind: &str, message: &str) {
    let reason = match kind {
        RUNNING => "MigrationRunning",
        SUCCEEDED => "StorageVersionMigrationSucceeded",
        _ => "StorageVersionMigrationFailed",
    };
    let conditions = migration.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != kind);
    conditions.push(Condition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: Time(ctx.clock.now()),
        observed_generation: None,
    });
}

fn is_true(migration: &StorageVersionMigration, kind: &str) -> bool {
    let conditions = migration.status.as_ref().and_then(|status| status.conditions.as_deref());
    let mut conditions = conditions.unwrap_or_default().iter();
    conditions.any(|condition| condition.type_ == kind && condition.status == "True")
}
