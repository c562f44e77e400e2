//! Gives every namespace its `default` ServiceAccount.

use std::time::Duration;

use client::{Change, ClientError, Outcome};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use meta::ObjectKey;

use crate::context::Context;

const NAME: &str = "default";

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let queue = ctx.queue("serviceaccount");
    let client = ctx.client("service-account-controller");
    let informers = &ctx.informers;
    tokio::join!(informers.namespaces.synced(), informers.service_accounts.synced());
    informers.namespaces.on_change({
        let queue = queue.clone();
        move |key, change| {
            if !matches!(change, Change::Deleted(_)) {
                queue.add(key.clone());
            }
        }
    });
    informers.service_accounts.on_change({
        let queue = queue.clone();
        move |key, change| {
            if key.name == NAME && matches!(change, Change::Deleted(_)) {
                queue.add(ObjectKey::cluster(&key.namespace));
            }
        }
    });
    let shutdown = ctx.shutdown.clone();
    let sync = move |key: ObjectKey| {
        let (ctx, client) = (ctx.clone(), client.clone());
        async move {
            let informers = &ctx.informers;
            let account = ObjectKey::new(&key.name, NAME);
            let there = informers.service_accounts.get(&account).is_some();
            if there || !informers.namespaces.get(&key).is_some_and(|ns| is_active(&ns)) {
                return Ok(Outcome::Done);
            }
            create(&client, &key.name).await
        }
    };
    queue.run(shutdown, sync).await;
}

/// After this time what was created is looked for: what is deleted again while a watch is broken
/// was never there for an informer, and nothing tells of its end.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Whether objects can be created in the namespace.
pub(crate) fn is_active(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_none()
}

async fn create(client: &client::Client, namespace: &str) -> Result<Outcome, ClientError> {
    let account = ServiceAccount {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        ..ServiceAccount::default()
    };
    match client.api(namespace).create(&account).await {
        Ok(_) => Ok(Outcome::RequeueAfter(LOOK_AGAIN)),
        Err(error) if error.is_already_exists() => Ok(Outcome::RequeueAfter(LOOK_AGAIN)),
        Err(error) if error.is_namespace_terminating() => Ok(Outcome::Done),
        Err(error) => Err(error),
    }
}
