//! How the nodes of a fleet come and go.

use std::sync::Arc;

use anyhow::Context;
use client::{Client, ClientError, DeleteOptions, ListOptions, Patch};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use meta::Object;
use serde_json::{Value, json};
use stdx::shutdown::Shutdown;

use super::fleet::Fleet;
use super::node_object::{LABEL, LEASES};
use super::tally::count;

/// Nodes that are listed at once when they are removed.
const PAGE: u32 = 500;

impl Fleet {
    /// Registers all nodes. Those that are there already, of an earlier run, are taken over.
    ///
    /// # Errors
    /// When the API refuses, or a node of such a name exists that is no simulated one.
    pub(crate) async fn register(&self, shutdown: &Shutdown) -> anyhow::Result<()> {
        let nodes = stream::iter(0..self.options.shape.count).map(Ok);
        nodes
            .try_for_each_concurrent(self.options.in_flight, |index| async move {
                if shutdown.is_begun() {
                    return Ok(());
                }
                let name = self.options.shape.name(index);
                self.register_one(index)
                    .await
                    .with_context(|| format!("node {name} cannot be registered"))
            })
            .await
    }

    async fn register_one(&self, index: usize) -> anyhow::Result<()> {
        let now = self.clock.now();
        let node: Node = serde_json::from_value(self.options.shape.node(index, now))?;
        let nodes = self.client.api::<Node>("");
        self.pace.turn().await;
        let uid = match nodes.create(&node).await {
            Ok(created) => created.metadata.uid,
            Err(error) if error.is_already_exists() => {
                let name = self.options.shape.name(index);
                let present = nodes.get(&name).await?;
                let labels = present.metadata.labels.unwrap_or_default();
                anyhow::ensure!(
                    labels.get(LABEL) == Some(&self.options.shape.prefix),
                    "there is a node of this name that is not simulated; choose another \
                     --name-prefix"
                );
                self.beat(index).await?;
                present.metadata.uid
            }
            Err(error) => return Err(error.into()),
        };
        self.put_lease(index, &uid.unwrap_or_default()).await?;
        count(&self.tally.registered);
        Ok(())
    }

    /// Makes the lease of a node, or renews the one that is there.
    pub(super) async fn put_lease(&self, index: usize, uid: &str) -> Result<(), ClientError> {
        let body = self.options.shape.lease(index, uid, self.clock.now());
        let lease: Lease = serde_json::from_value(body.clone()).map_err(ClientError::decode)?;
        let leases = self.client.api::<Lease>(LEASES);
        self.pace.turn().await;
        match leases.create(&lease).await {
            Err(error) if error.is_already_exists() => {
                let owners: Value = body["metadata"]["ownerReferences"].clone();
                let patch = Patch::Merge(json!({ "metadata": { "ownerReferences": owners },
                    "spec": body["spec"] }));
                leases.patch(&self.options.shape.name(index), &patch).await.map(drop)
            }
            result => result.map(drop),
        }
    }
}

/// Removes the simulated nodes of a prefix and their leases; how many there were.
///
/// # Errors
/// When the API refuses.
pub(crate) async fn remove(
    client: &Client,
    prefix: &str,
    in_flight: usize,
) -> anyhow::Result<usize> {
    let ours = ListOptions::labels(format!("{LABEL}={prefix}"));
    let mut options = ListOptions { limit: PAGE, ..ours };
    let mut removed = 0;
    loop {
        let page = client.api::<Node>("").list_objects(&options).await?;
        removed += page.items.len();
        let one = |node: Arc<Object>| async move {
            let (name, how) = (&node.header().name, DeleteOptions::default());
            gone(client.api::<Node>("").delete(name, &how).await)?;
            gone(client.api::<Lease>(LEASES).delete(name, &how).await)
        };
        stream::iter(page.items).map(Ok).try_for_each_concurrent(in_flight, one).await?;
        if page.continue_token.is_empty() {
            return Ok(removed);
        }
        options.continue_token = page.continue_token;
    }
}

fn gone(result: Result<(), ClientError>) -> Result<(), ClientError> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        result => result,
    }
}
