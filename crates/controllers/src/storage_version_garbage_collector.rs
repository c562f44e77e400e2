//! Takes out of StorageVersions what API servers said that are gone: their leases tell who is there.
//!
//! Upstream: `pkg/controller/storageversiongc`.

use api::Typed;
use api::storage_versions::{forget, servers};
use client::{Client, ClientError, DeleteOptions, Informer, InformerConfig, Outcome};
use jiff::Timestamp;
use k8s_openapi::api::apiserverinternal::v1alpha1::StorageVersion;
use k8s_openapi::api::coordination::v1::Lease;
use meta::ObjectKey;

use crate::context::Context;
use crate::reconcile::reconcile;
use crate::selection::key_of;

/// Where API servers have their leases, and which these are.
const NAMESPACE: &str = "kube-system";
const COMPONENT: &str = "apiserver.kubernetes.io/identity";
const SERVER: &str = "kube-apiserver";

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
    forget(&mut version, &gone, now);
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

fn is_of_server(lease: &Lease) -> bool {
    let labels = lease.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(COMPONENT)).is_some_and(|component| component == SERVER)
}
