//! Makes volumes that are directories of nodes, and has the directories removed.
//!
//! The kubelet makes the directory when the first pod mounts it. Only the node can remove it: it
//! is told so, and tells when it is done, in annotations of its own object. Why it is done like
//! this is in `docs/adr/0009-local-volumes.md`.

mod volume;

use std::sync::Arc;

use api::volumes::{self, annotation};
use client::{
    Change, Client, ClientError, DeleteOptions, EventRecorder, EventType, Outcome, Regarding,
    ResourcePath, WorkQueue,
};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use meta::ObjectKey;
use serde_json::{Value, json};

use self::volume::{End, Refusal};
use crate::context::Context;
use crate::in_the_way::InTheWay;
use crate::reconcile::work;
use crate::selection::key_of;

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("local-path-provisioner");
    let provisioner = Arc::new(Provisioner {
        claims: ctx.queue("local-path-claims"),
        volumes: ctx.queue("local-path-volumes"),
        nodes: ctx.queue("local-path-nodes"),
        recorder: ctx.recorder(&client, volumes::LOCAL_PATH),
        client,
        ctx,
    });
    let informers = &provisioner.ctx.informers;
    tokio::join!(
        informers.claims.synced(),
        informers.volumes.synced(),
        informers.storage_classes.synced(),
        informers.nodes.synced()
    );
    provisioner.follow();
    let shutdown = &provisioner.ctx.shutdown;
    tokio::join!(
        work(&provisioner, &provisioner.claims, shutdown, |this, key| async move {
            this.sync_claim(&key).await
        }),
        work(&provisioner, &provisioner.volumes, shutdown, |this, key| async move {
            this.sync_volume(&key).await
        }),
        work(&provisioner, &provisioner.nodes, shutdown, |this, key| async move {
            this.sync_node(&key).await
        }),
    );
}

struct Provisioner {
    ctx: Context,
    claims: WorkQueue<ObjectKey>,
    volumes: WorkQueue<ObjectKey>,
    nodes: WorkQueue<ObjectKey>,
    client: Client,
    recorder: EventRecorder,
}

impl Provisioner {
    fn follow(self: &Arc<Self>) {
        let informers = &self.ctx.informers;
        let this = Arc::clone(self);
        informers.claims.on_change(move |key, change| {
            let (Change::Added(claim) | Change::Updated { new: claim, .. }) = change else {
                return;
            };
            if is_asked(claim) {
                this.claims.add(key.clone());
            }
        });
        let this = Arc::clone(self);
        informers.volumes.on_change(move |key, change| {
            let (Change::Added(found)
            | Change::Deleted(found)
            | Change::Updated { new: found, .. }) = &change;
            if !volume::is_ours(found) {
                return;
            }
            this.nodes.add(ObjectKey::new("", volume::node_of(found)));
            if !matches!(change, Change::Deleted(_)) {
                this.volumes.add(key.clone());
            }
        });
        let this = Arc::clone(self);
        informers.nodes.on_change(move |key, change| {
            let removed = |node: &Node| {
                let annotations = node.metadata.annotations.as_ref();
                annotation(annotations, volumes::LOCAL_PATH_REMOVED).map(str::to_owned)
            };
            if let Change::Updated { old, new } = &change
                && removed(old) == removed(new)
            {
                return;
            }
            this.nodes.add(key.clone());
            for found in this.ctx.informers.volumes.list() {
                if volume::is_ours(&found) && volume::node_of(&found) == key.name {
                    this.volumes.add(key_of(&found.metadata));
                }
            }
        });
    }

    async fn sync_claim(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let informers = &self.ctx.informers;
        let Some(claim) = informers.claims.get(key).filter(|claim| is_asked(claim)) else {
            return Ok(Outcome::Done);
        };
        let class = ObjectKey::new("", volumes::class_of_claim(&claim));
        let Some(class) = informers.storage_classes.get(&class) else { return Ok(Outcome::Done) };
        if informers.volumes.get(&ObjectKey::new("", volume::volume_name(&claim))).is_some() {
            return Ok(Outcome::Done);
        }
        let annotations = claim.metadata.annotations.as_ref();
        let Some(name) = annotation(annotations, volumes::SELECTED_NODE) else {
            // A class that binds at once leaves nobody to choose the node.
            let text = "configuration error, no node was specified";
            self.refuse(&claim, &class.metadata.name, text);
            return Ok(Outcome::Done);
        };
        let node = informers.nodes.get(&ObjectKey::new("", name));
        match volume::make(&claim, &class, name, node.as_deref()) {
            Ok(volume) => self.create(&claim, &volume).await?,
            Err(Refusal::Claim(why)) => self.refuse(&claim, &class.metadata.name, why),
            Err(Refusal::Node(why)) => {
                self.refuse(&claim, &class.metadata.name, &why);
                let change = json!({ "metadata": { "uid": claim.metadata.uid,
                    "resourceVersion": claim.metadata.resource_version,
                    "annotations": { volumes::SELECTED_NODE: null } } });
                let path = ResourcePath::of::<PersistentVolumeClaim>();
                let api = self.client.dynamic::<Value>(path, &key.namespace);
                api.merge_update(&key.name, "", &change).await?;
            }
        }
        Ok(Outcome::Done)
    }

    fn refuse(&self, claim: &PersistentVolumeClaim, class: &Option<String>, why: &str) {
        let class = class.as_deref().unwrap_or_default();
        let text = format!("failed to provision volume with StorageClass {class:?}: {why}");
        self.tell(claim, EventType::Warning, "ProvisioningFailed", text);
    }

    async fn create(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
    ) -> Result<(), ClientError> {
        let key = key_of(&claim.metadata);
        let text = format!("External provisioner is provisioning volume for claim \"{key}\"");
        self.tell(claim, EventType::Normal, "Provisioning", text);
        match self.client.api::<PersistentVolume>("").create(volume).await {
            Err(error) if error.is_already_exists() => Ok(()),
            Err(error) => Err(error),
            Ok(_) => {
                let name = volume.metadata.name.as_deref().unwrap_or_default();
                let text = format!("Successfully provisioned volume {name}");
                self.tell(claim, EventType::Normal, "ProvisioningSucceeded", text);
                Ok(())
            }
        }
    }

    fn tell(&self, claim: &PersistentVolumeClaim, kind: EventType, reason: &str, text: String) {
        self.recorder.record(&Regarding::object(claim), kind, reason, text);
    }

    async fn sync_volume(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let informers = &self.ctx.informers;
        let found = informers.volumes.get(key).filter(|found| volume::is_ours(found));
        let Some(found) = found else { return Ok(Outcome::Done) };
        let node = self.node(volume::node_of(&found)).await?;
        match volume::end(&found, node.as_deref()) {
            End::Stays => {}
            End::Waits => self.nodes.add(ObjectKey::new("", volume::node_of(&found))),
            End::Delete => {
                let uid = found.metadata.uid.clone();
                let options = DeleteOptions { uid, ..DeleteOptions::default() };
                let api = self.client.api::<PersistentVolume>("");
                match api.delete(&key.name, &options).await {
                    Err(error) if !error.is_not_found() => return Err(error),
                    _ => {}
                }
            }
            End::Free => {
                let finalizers = found.metadata.finalizers.iter().flatten();
                let rest: Vec<_> = finalizers.filter(|one| *one != volumes::LOCAL_PATH).collect();
                let change = json!({ "metadata": { "uid": found.metadata.uid,
                    "resourceVersion": found.metadata.resource_version, "finalizers": rest } });
                let path = ResourcePath::of::<PersistentVolume>();
                let api = self.client.dynamic::<Value>(path, "");
                match api.merge_update(&key.name, "", &change).await {
                    Err(error) if !error.is_not_found() => return Err(error),
                    _ => {}
                }
            }
        }
        let is_unseen =
            node.is_some_and(|node| informers.nodes.get(&key_of(&node.metadata)).is_none());
        Ok(InTheWay::of(!is_unseen).outcome())
    }

    /// A node. That it is gone, and its directories with it, is believed the server only.
    async fn node(&self, name: &str) -> Result<Option<Arc<Node>>, ClientError> {
        if let Some(node) = self.ctx.informers.nodes.get(&ObjectKey::new("", name)) {
            return Ok(Some(node));
        }
        Ok(self.client.api::<Node>("").get_opt(name).await?.map(Arc::new))
    }

    async fn sync_node(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let informers = &self.ctx.informers;
        let Some(node) = informers.nodes.get(key) else { return Ok(Outcome::Done) };
        let wanted = volume::to_remove(&node, &informers.volumes.list());
        let annotations = node.metadata.annotations.as_ref();
        let known = annotation(annotations, volumes::LOCAL_PATH_REMOVE).unwrap_or_default();
        if known == wanted {
            return Ok(Outcome::Done);
        }
        let wanted = (!wanted.is_empty()).then_some(wanted);
        let change =
            json!({ "metadata": { "annotations": { volumes::LOCAL_PATH_REMOVE: wanted } } });
        let api = self.client.api::<Node>("");
        match api.patch(&key.name, &client::Patch::Merge(change)).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(Outcome::Done),
        }
    }
}

/// Whether a claim waits for a volume from here.
fn is_asked(claim: &PersistentVolumeClaim) -> bool {
    let annotations = claim.metadata.annotations.as_ref();
    volumes::volume_name(claim).is_empty()
        && claim.metadata.deletion_timestamp.is_none()
        && annotation(annotations, volumes::STORAGE_PROVISIONER) == Some(volumes::LOCAL_PATH)
}
