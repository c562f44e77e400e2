//! Says of a definition of custom resources that its objects are migrated, and takes the versions
//! off it in which none is stored any more.
//!
//! Upstream: `pkg/controller/storageversionmigrator/migrationrunner.go`.

use client::{Api, Client, ClientError, ResourcePath};
use http::Method;
use jiff::Timestamp;
use k8s_openapi::api::storagemigration::v1beta1::StorageVersionMigration;
use meta::GroupVersionResource;
use serde_json::{Value, json};

const MANAGER: &str = "migration-runner-controller";
const CONDITION: &str = "StorageMigrating";

/// A migration begins.
pub(super) async fn begin(
    client: &Client,
    migration: &StorageVersionMigration,
    now: Timestamp,
) -> Result<(), ClientError> {
    let Some(definition) = read(client, migration).await? else { return Ok(()) };
    let name = migration.metadata.name.as_deref().unwrap_or_default();
    let message = format!("Migration {name} is running");
    let condition = condition(&definition, ["True", "MigrationRunning", &message], now);
    apply(client, &definition, json!({ "conditions": [condition] })).await
}

/// It has ended, well or not.
pub(super) async fn end(
    client: &Client,
    migration: &StorageVersionMigration,
    has_succeeded: bool,
    now: Timestamp,
) -> Result<(), ClientError> {
    let Some(definition) = read(client, migration).await? else { return Ok(()) };
    let conditions = definition["status"]["conditions"].as_array().into_iter().flatten();
    let begun = conditions.into_iter().find(|one| one["type"] == CONDITION);
    // Another generation may store another version.
    let is_same = begun.is_some_and(|begun| {
        begun["observedGeneration"].as_i64() == definition["metadata"]["generation"].as_i64()
    });
    let (reason, message) = match (has_succeeded, is_same) {
        (true, true) => (
            "MigrationSucceeded",
            "The migration has succeeded and the stored versions have been updated",
        ),
        (true, false) => (
            "MigrationSucceeded",
            "The migration has succeeded but the stored versions have not been updated due to a \
             generation mismatch",
        ),
        (false, _) => ("MigrationFailed", "The migration has failed"),
    };
    let condition = condition(&definition, ["False", reason, message], now);
    let mut status = json!({ "conditions": [condition] });
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    // Upstream says so of a migration that has failed, too.
    if let Some(stored) = versions.into_iter().find(|one| one["storage"] == true)
        && is_same
    {
        status["storedVersions"] = json!([stored["name"]]);
    }
    apply(client, &definition, status).await
}

fn condition(definition: &Value, said: [&str; 3], now: Timestamp) -> Value {
    let [status, reason, message] = said;
    json!({ "type": CONDITION, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": meta::time::rfc3339(now),
        "observedGeneration": definition["metadata"]["generation"] })
}

fn definitions(client: &Client) -> Api<Value> {
    client.dynamic(ResourcePath::new(resource()), "")
}

fn resource() -> GroupVersionResource {
    GroupVersionResource::new("apiextensions.k8s.io", "v1", "customresourcedefinitions")
}

/// The definition of what is migrated, if it is a custom resource.
async fn read(
    client: &Client,
    migration: &StorageVersionMigration,
) -> Result<Option<Value>, ClientError> {
    let Some(spec) = &migration.spec else { return Ok(None) };
    let name = format!("{}.{}", spec.resource.resource, spec.resource.group);
    definitions(client).get_opt(&name).await
}

/// Applies a part of the status to the definition as it was read: a conflict begins anew.
async fn apply(client: &Client, definition: &Value, status: Value) -> Result<(), ClientError> {
    let metadata = &definition["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let applied = json!({ "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": name, "resourceVersion": metadata["resourceVersion"] },
        "status": status });
    let path = ResourcePath::new(resource()).object("", name, "status");
    let path = format!("{path}?fieldManager={MANAGER}&force=true");
    let body = applied.to_string().into();
    client.request(Method::PATCH, &path, "application/apply-patch+yaml", body).await.map(drop)
}
