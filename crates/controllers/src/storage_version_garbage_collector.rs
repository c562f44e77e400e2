//! Takes out of StorageVersions what API servers said that are gone: their leases tell who is there.
//!
//! Upstream: `pkg/controller/storageversiongc`.

use api::Typed;
use client::{Client, ClientError, DeleteOptions, Informer, InformerConfig, Outcome};
use jiff::Timestamp;
use k8s_openapi::api::apiserverinternal::v1alpha1::{
    StorageVersion, StorageVersionCondition, StorageVersionStatus,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use meta::ObjectKey;

use crate::context::Context;
use crate::reconcile::reconcile;
use crate::selection::key_of;

/// Where API servers have their leases, and which these are.
const NAMESPACE: &str = "kube-system";
const COMPONENT: &str = "apiserver.kubernetes.io/identity";
const SERVER: &str = "kube-apiserver";
/// Whether all servers write a resource in the same version.
const EQUAL: &str = "AllEncodingVersionsEqual";

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("storage-version-garbage-collector");
    let queue = ctx.queue("storage_version_garbage_collector_storageversions");
    let all = InformerConfig::all::<StorageVersion>();
    let versions =
        Informer::spawn(&ctx.manager, &ctx.clock, all, &ctx.shutdown, StorageVersion::of);
    let config =
        InformerConfig { namespace: NAMESPACE.to_owned(), ..InformerConfig::all::<Lease>() };
    let leases = Informer::spawn(&ctx.manager, &ctx.clock, config, &ctx.shutdown, |object| {
        Ok(is_of_server(&Lease::of(object)?))
    });
    tokio::join!(versions.synced(), leases.synced());
    let changed = queue.clone();
    versions.on_change(move |key, _| changed.add(key.clone()));
    // All of them may name a server that is gone; those that do not are settled without a request.
    let (gone, all) = (queue.clone(), versions.clone());
    leases.on_change(move |_, change| {
        if matches!(change, client::Change::Deleted(_)) {
            all.list().iter().for_each(|one| gone.add(key_of(&one.metadata)));
        }
    });
    reconcile(&queue, ctx.shutdown.clone(), move |key| {
        let (ctx, client) = (ctx.clone(), client.clone());
        let (versions, leases) = (versions.clone(), leases.clone());
        async move {
            let Some(version) = versions.get(&key) else { return Ok(Outcome::Done) };
            let is_there = |server: &str| {
                leases.get(&ObjectKey::new(NAMESPACE, server)).is_some_and(|is_server| *is_server)
            };
            if servers(&version).all(is_there) {
                return Ok(Outcome::Done);
            }
            clean(&client, &key, ctx.clock.now()).await
        }
    })
    .await;
}

/// Takes the servers out of which the API, too, knows nothing.
async fn clean(client: &Client, key: &ObjectKey, now: Timestamp) -> Result<Outcome, ClientError> {
    let api = client.api::<StorageVersion>("");
    let Some(mut version) = api.get_opt(&key.name).await? else { return Ok(Outcome::Done) };
    let leases = client.api::<Lease>(NAMESPACE);
    let mut gone = Vec::new();
    for server in servers(&version) {
        let lease = leases.get_opt(server).await?;
        if !lease.is_some_and(|lease| is_of_server(&lease)) {
            gone.push(server.to_owned());
        }
    }
    if gone.is_empty() {
        return Ok(Outcome::Done);
    }
    remove(&mut version, &gone, now);
    let result = if servers(&version).next().is_none() {
        let uid = version.metadata.uid.clone();
        api.delete(&key.name, &DeleteOptions { uid, ..DeleteOptions::default() }).await
    } else {
        api.update_status(&version).await.map(drop)
    };
    match result {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(Outcome::Done),
    }
}

/// Who said something about the resource.
fn servers(version: &StorageVersion) -> impl Iterator<Item = &str> {
    let status = version.status.as_ref();
    let said = status.and_then(|status| status.storage_versions.as_ref()).into_iter().flatten();
    said.map(|server| server.api_server_id.as_str())
}

fn is_of_server(lease: &Lease) -> bool {
    let labels = lease.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(COMPONENT)).is_some_and(|component| component == SERVER)
}

/// Forgets what these servers said, and says anew whether the others agree. Upstream
/// `SetCommonEncodingVersion`.
fn remove(version: &mut StorageVersion, gone: &[String], now: Timestamp) {
    let generation = version.metadata.generation;
    let status = version.status.get_or_insert_default();
    if let Some(said) = &mut status.storage_versions {
        said.retain(|server| !gone.contains(&server.api_server_id));
    }
    let before = status.common_encoding_version.take();
    status.common_encoding_version = common(status);
    let after = status.common_encoding_version.as_ref();
    let (is, reason, message) = match after {
        Some(_) => ("True", "CommonEncodingVersionSet", "Common encoding version set"),
        None => ("False", "CommonEncodingVersionUnset", "Common encoding version unset"),
    };
    let is_other = before.is_some() && after.is_some() && before.as_ref() != after;
    let conditions = status.conditions.get_or_insert_default();
    let known = conditions.iter().find(|condition| condition.type_ == EQUAL);
    let since = known
        .filter(|condition| condition.status == is && !is_other)
        .and_then(|condition| condition.last_transition_time.clone());
    let condition = StorageVersionCondition {
        type_: EQUAL.to_owned(),
        status: is.to_owned(),
        observed_generation: generation,
        last_transition_time: since.or(Some(Time(now))),
        reason: reason.to_owned(),
        message: message.to_owned(),
    };
    match conditions.iter_mut().find(|condition| condition.type_ == EQUAL) {
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
}

/// The version that all write.
fn common(status: &StorageVersionStatus) -> Option<String> {
    let mut said = status.storage_versions.iter().flatten().map(|one| &one.encoding_version);
    let first = said.next()?;
    said.all(|version| version == first).then(|| first.clone())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn cleaned(status: Value, gone: &[&str]) -> Value {
        let version = json!({ "metadata": { "name": "apps.deployments", "generation": 3 },
            "spec": {}, "status": status });
        let mut version: StorageVersion = serde_json::from_value(version).unwrap();
        let gone: Vec<_> = gone.iter().map(|name| (*name).to_owned()).collect();
        remove(&mut version, &gone, NOW.parse().unwrap());
        serde_json::to_value(version.status).unwrap()
    }

    fn server(name: &str, version: &str) -> Value {
        json!({ "apiServerID": name, "encodingVersion": version, "decodableVersions": [version] })
    }

    fn condition(status: &str, since: &str) -> Value {
        let is_set = if status == "True" { "set" } else { "unset" };
        let reason = if status == "True" {
            "CommonEncodingVersionSet"
        } else {
            "CommonEncodingVersionUnset"
        };
        json!([{ "type": EQUAL, "status": status, "reason": reason, "observedGeneration": 3,
            "message": format!("Common encoding version {is_set}"), "lastTransitionTime": since }])
    }

    #[test]
    fn those_who_are_left_agree_or_not() {
        let before = "2020-01-01T00:00:00Z";
        let all = json!([server("a", "v1"), server("b", "v2"), server("c", "v2")]);
        // Who disagreed is gone.
        let status = cleaned(
            json!({ "storageVersions": all, "conditions": condition("False", before) }),
            &["a"],
        );
        assert_eq!(status["storageVersions"], json!([server("b", "v2"), server("c", "v2")]));
        assert_eq!(status["commonEncodingVersion"], "v2");
        assert_eq!(status["conditions"], condition("True", NOW));
        // They disagree as before.
        let status = cleaned(
            json!({ "storageVersions": all, "conditions": condition("False", before) }),
            &["b"],
        );
        assert_eq!(status["commonEncodingVersion"], Value::Null);
        assert_eq!(status["conditions"], condition("False", before));
        // They agree as before.
        let two = json!([server("b", "v2"), server("c", "v2")]);
        let agreed = json!({ "storageVersions": two, "commonEncodingVersion": "v2",
            "conditions": condition("True", before) });
        assert_eq!(cleaned(agreed, &["b"])["conditions"], condition("True", before));
        // They agree on something else.
        let other = json!({ "storageVersions": two, "commonEncodingVersion": "v1",
            "conditions": condition("True", before) });
        assert_eq!(cleaned(other, &["b"])["conditions"], condition("True", NOW));
        // Nobody is left.
        let status = cleaned(json!({ "storageVersions": two }), &["b", "c"]);
        assert_eq!(status["conditions"], condition("False", NOW));
    }
}
