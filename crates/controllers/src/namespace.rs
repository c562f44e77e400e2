//! Empties a namespace that is being deleted, then lets it go.
//!
//! Pods go first and must be gone before anything else is touched, so that nothing they depend on
//! (a policy, a token) disappears while they run.

mod conditions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Change, Client, ClientError, DeleteOptions, ListOptions, Outcome};
use client::{Propagation, ResourcePath};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use meta::ObjectKey;
use serde_json::{Value, json};

use self::conditions::Findings;
use crate::context::Context;
use crate::discovery::{Discovered, discover};

/// Resources emptied at once.
const CONCURRENCY: usize = 16;
/// How long to wait for others' finalizers: upstream `finalizerEstimateSeconds`.
const FINALIZER_WAIT: Duration = Duration::from_secs(15);
/// How soon to look again when neither grace periods nor finalizers explain what is left.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("namespace-controller");
    let queue = ctx.queue("namespace");
    let informers = &ctx.informers;
    tokio::join!(informers.namespaces.synced(), informers.pods.synced());
    let changed = queue.clone();
    informers.namespaces.on_change(move |key, change| {
        let (Change::Added(namespace) | Change::Updated { new: namespace, .. }) = change else {
            return;
        };
        if namespace.metadata.deletion_timestamp.is_some() {
            changed.add(key.clone());
        }
    });
    // The last pod to go is what the rest waits for.
    let (namespaces, gone) = (informers.namespaces.clone(), queue.clone());
    informers.pods.on_change(move |key, change| {
        if !matches!(change, Change::Deleted(_)) {
            return;
        }
        let namespace = ObjectKey::cluster(&key.namespace);
        let deleted = |ns: Arc<Namespace>| ns.metadata.deletion_timestamp.is_some();
        if namespaces.get(&namespace).is_some_and(deleted) {
            gone.add(namespace);
        }
    });
    let shutdown = ctx.shutdown.clone();
    queue
        .run(shutdown, move |key| {
            let (ctx, client) = (ctx.clone(), client.clone());
            async move {
                match sync(&ctx, &client, &key).await {
                    Err(error) if error.is_conflict() => Ok(Outcome::Requeue),
                    result => result,
                }
            }
        })
        .await;
}

async fn sync(ctx: &Context, client: &Client, key: &ObjectKey) -> Result<Outcome, ClientError> {
    // The cache may be behind what this controller itself wrote a moment ago.
    let Some(namespace) = client.api::<Namespace>("").get_opt(&key.name).await? else {
        return Ok(Outcome::Done);
    };
    let ours = |name: &String| name == api::finalizers::KUBERNETES;
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
    let has_ours = finalizers.is_some_and(|all| all.iter().any(ours));
    if namespace.metadata.deletion_timestamp.is_none() || !has_ours {
        return Ok(Outcome::Done);
    }
    let findings = empty(client, &key.name).await?;
    write_status(ctx, client, &namespace, &findings).await?;
    if let Some(wait) = findings.wait() {
        return Ok(wait);
    }
    finalize(client, namespace).await?;
    Ok(Outcome::Done)
}

/// Deletes everything in the namespace and says what is left.
async fn empty(client: &Client, namespace: &str) -> Result<Findings, ClientError> {
    let discovery = discover(client).await?;
    let unparsed = discovery
        .unparsed(|resource| resource.namespaced && resource.can(&["delete"]))
        .map(str::to_owned);
    let mut findings = Findings::new(discovery.failures, unparsed);
    if findings.is_unparsed() {
        // What is there cannot be told, and nothing may be left behind.
        return Ok(findings);
    }
    let deletable =
        |resource: &Discovered| resource.namespaced && resource.can(&["list", "delete"]);
    let (pods, others): (Vec<_>, Vec<_>) = discovery
        .resources
        .into_iter()
        .filter(deletable)
        .partition(|resource| resource.group.is_empty() && resource.resource == "pods");
    for resource in pods {
        let left = empty_resource(client, namespace, &resource).await;
        findings.add(namespace, &resource, left);
    }
    // Whatever the pods need stays until they are gone.
    if findings.is_anything_left() {
        return Ok(findings);
    }
    let results = futures::stream::iter(others)
        .map(|resource| {
            let (client, namespace) = (client.clone(), namespace.to_owned());
            async move {
                let left = empty_resource(&client, &namespace, &resource).await;
                (resource, left)
            }
        })
        .buffer_unordered(CONCURRENCY)
        .collect::<Vec<_>>()
        .await;
    for (resource, left) in results {
        findings.add(namespace, &resource, left);
    }
    Ok(findings)
}

/// What is left of one resource.
#[derive(Debug, Default)]
pub(crate) struct Left {
    count: usize,
    /// How many objects have each finalizer.
    finalizers: BTreeMap<String, usize>,
    /// The longest grace period that is running.
    grace_secs: i64,
}

async fn empty_resource(
    client: &Client,
    namespace: &str,
    resource: &Discovered,
) -> Result<Left, ClientError> {
    let api = client.dynamic::<Value>(ResourcePath::new(resource.gvr()), namespace);
    let first = ListOptions { limit: 1, ..ListOptions::all() };
    if api.list_objects(&first).await?.items.is_empty() {
        return Ok(Left::default());
    }
    let options =
        DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
    if resource.can(&["deletecollection"]) {
        api.delete_collection(&options, &ListOptions::all()).await?;
    } else {
        for object in api.list_objects(&ListOptions::all()).await?.items {
            match api.delete(&object.header().name, &options).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
    }
    let mut left = Left::default();
    for object in api.list_objects(&ListOptions::all()).await?.items {
        left.count += 1;
        for finalizer in &object.header().finalizers {
            *left.finalizers.entry(finalizer.to_string()).or_insert(0) += 1;
        }
        if resource.resource == "pods" {
            let pod: Value = object.decode().map_err(ClientError::decode)?;
            let grace = pod["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
            left.grace_secs = left.grace_secs.max(grace);
        }
    }
    Ok(left)
}

async fn write_status(
    ctx: &Context,
    client: &Client,
    namespace: &Namespace,
    findings: &Findings,
) -> Result<(), ClientError> {
    let known = namespace.status.clone().unwrap_or_default();
    let before = known.conditions.unwrap_or_default();
    let after = conditions::update(&before, findings, ctx.clock.now());
    if before == after && known.phase.as_deref() == Some("Terminating") {
        return Ok(());
    }
    let change = json!({
        "metadata": { "uid": namespace.metadata.uid },
        "status": { "phase": "Terminating", "conditions": after },
    });
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    let api = client.dynamic::<Value>(ResourcePath::of::<Namespace>(), "");
    match api.merge_update(name, "status", &change).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

async fn finalize(client: &Client, namespace: Namespace) -> Result<(), ClientError> {
    let name = namespace.metadata.name.clone().unwrap_or_default();
    let api = client.api::<Namespace>("");
    // The status may have just been written: finalize the version that is there now.
    let Some(mut fresh) = api.get_opt(&name).await? else { return Ok(()) };
    if fresh.metadata.uid != namespace.metadata.uid {
        return Ok(());
    }
    if let Some(finalizers) = fresh.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
        finalizers.retain(|name| name != api::finalizers::KUBERNETES);
    }
    match api.update_subresource("finalize", &fresh).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}
