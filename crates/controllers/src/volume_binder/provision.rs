//! Makes directories of this host into volumes, for classes of `kubernetes.io/host-path` and where
//! the operator lets it.
//!
//! The directory is called by the uid of its claim: who begins again finds what there is.
//!
//! Upstream: `provisionClaimOperation` in
//! `pkg/controller/volume/persistentvolume/pv_controller.go`, `hostPathProvisioner` in
//! `pkg/volume/hostpath/host_path.go`.

use std::path::Path;
use std::time::Duration;

use api::finalizers::PV_CONTROLLER;
use api::volumes::{self, annotation};
use client::{ClientError, EventType, Outcome};
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::Resource;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use meta::ObjectKey;
use serde_json::json;

use super::operations::Operation;
use super::{Binder, Told, claim, plugins, settings, uid_of};
use crate::selection::key_of;

/// How often a volume is tried to be saved, and what nobody knows of to be removed again: upstream
/// `createProvisionedPVRetryCount`.
const TRIES: u32 = 5;
/// Between two of them: upstream `createProvisionedPVInterval`.
const TRY_AGAIN: Duration = Duration::from_secs(10);
/// Below which directory volumes are: upstream's.
const DIRECTORY: &str = "/tmp/hostpath_pv";

impl Binder {
    /// Makes the volume for a claim, if it still wants one.
    pub(super) async fn provision(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let informers = &self.ctx.informers;
        let Some(claim) = informers.claims.get(key) else { return Ok(Outcome::Done) };
        if self.decide(key, &claim) != claim::Step::Make {
            return Ok(Outcome::Done);
        }
        let class = ObjectKey::cluster(volumes::class_of_claim(&claim));
        let Some(class) = informers.storage_classes.get(&class) else { return Ok(Outcome::Done) };
        informers.nodes.synced().await;
        let (now, uid) = (self.ctx.clock.monotonic(), uid_of(&claim.metadata));
        self.operations.begin(Operation::Provision, uid, plugins::HOST_PATH, now);
        let made = tokio::select! {
            biased;
            // Whoever comes next finds the directory.
            () = self.ctx.shutdown.begun() => return Ok(Outcome::Done),
            made = self.make_volume(&claim, &class) => made?,
        };
        if let Err(why) = made {
            self.operations.fail(Operation::Provision, plugins::HOST_PATH);
            self.tell(&*claim, Some(Told(EventType::Warning, "ProvisioningFailed", why)));
        }
        // A volume that could not be saved is tried again as well.
        Ok(Outcome::RequeueAfter(self.ctx.config.volumes.retry))
    }

    /// Makes the directory and the volume; or else why there is no directory.
    async fn make_volume(
        &self,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
    ) -> Result<Result<(), String>, ClientError> {
        let spec = claim.spec.clone().unwrap_or_default();
        let plugin = plugins::HOST_PATH;
        if spec.data_source.is_some() {
            return Ok(Err(format!(
                "plugin {plugin:?} is not a CSI plugin. Only CSI plugin can provision a claim \
                 with a datasource"
            )));
        }
        self.name_provisioner(claim, plugin).await?;
        let volume = volume_for(claim, class);
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        let api = self.client.api::<PersistentVolume>("");
        if api.get_opt(name).await?.is_some() {
            return Ok(Ok(()));
        }
        if let Err(why) = self.refusal(claim, class) {
            return Ok(Err(why));
        }
        let began = self.ctx.clock.monotonic();
        let made = self.make_directory(&volume).await;
        self.took("volume_provision", made.is_ok(), began);
        if let Err(why) = made {
            let class = class.metadata.name.as_deref().unwrap_or_default();
            self.choose_another_node(claim).await?;
            let text = format!("Failed to provision volume with StorageClass {class:?}: {why}");
            return Ok(Err(text));
        }
        self.save(claim, &volume).await;
        Ok(Ok(()))
    }

    /// Why a claim gets no directory, whatever this host says.
    fn refusal(&self, claim: &PersistentVolumeClaim, class: &StorageClass) -> Result<(), String> {
        let options = class.mount_options.as_deref().unwrap_or_default();
        let class = class.metadata.name.as_deref().unwrap_or_default();
        if !options.is_empty() {
            let options = options.join(" ");
            return Err(format!(
                "Mount options are not supported by the provisioner but StorageClass {class:?} \
                 has mount options [{options}]"
            ));
        }
        if !self.ctx.config.volumes.host_path_provisioning {
            let plugin = plugins::HOST_PATH;
            return Err(format!(
                "Failed to create provisioner: provisioning in volume plugin {plugin:?} is disabled"
            ));
        }
        let node = annotation(claim.metadata.annotations.as_ref(), volumes::SELECTED_NODE);
        match node {
            Some(node) if self.ctx.informers.nodes.get(&ObjectKey::cluster(node)).is_none() => {
                Err(format!("Failed to get target node: node {node:?} not found"))
            }
            _ => Ok(()),
        }
    }

    async fn make_directory(&self, volume: &PersistentVolume) -> Result<(), String> {
        let spec = volume.spec.clone().unwrap_or_default();
        if spec.volume_mode.as_deref() == Some("Block") {
            let plugin = plugins::HOST_PATH;
            return Err(format!("{plugin} does not support block volume provisioning"));
        }
        let path = spec.host_path.map(|directory| directory.path).unwrap_or_default();
        let made = self.ctx.directories.make(Path::new(&path)).await;
        made.map_err(|error| settings::failure("mkdir", &path, &error))
    }

    /// Has the scheduler choose another node, if it chose one. Upstream `rescheduleProvisioning`.
    async fn choose_another_node(&self, claim: &PersistentVolumeClaim) -> Result<(), ClientError> {
        let annotations = claim.metadata.annotations.as_ref();
        if annotation(annotations, volumes::SELECTED_NODE).is_none() {
            return Ok(());
        }
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        let change = json!({ "metadata": { "uid": claim.metadata.uid,
            "annotations": { volumes::SELECTED_NODE: null } } });
        let api = self.api::<PersistentVolumeClaim>(claim.metadata.namespace.as_deref());
        super::gone(api.merge_update(name, "", &change).await)
    }

    /// Saves a volume whose directory is there; where that does not succeed the directory goes.
    async fn save(&self, claim: &PersistentVolumeClaim, volume: &PersistentVolume) {
        let key = key_of(&claim.metadata);
        let tell = |kind, reason, text| self.tell(claim, Some(Told(kind, reason, text)));
        let Err(why) = self.several_times(|| self.create(volume).boxed()).await else {
            let name = volume.metadata.name.as_deref().unwrap_or_default();
            let text =
                format!("Successfully provisioned volume {name} using {}", plugins::HOST_PATH);
            return tell(EventType::Normal, "ProvisioningSucceeded", text);
        };
        let text = format!(
            "Error creating provisioned PV object for claim {key}: {why}. Deleting the volume."
        );
        tell(EventType::Warning, "ProvisioningFailed", text);
        let removed = self.several_times(|| self.remove_directory(volume).boxed());
        if let Err(why) = removed.await {
            let text = format!(
                "Error cleaning provisioned volume for claim {key}: {why}. Please delete manually."
            );
            tell(EventType::Warning, "ProvisioningCleanupFailed", text);
        }
    }

    async fn create(&self, volume: &PersistentVolume) -> Result<(), String> {
        match self.client.api::<PersistentVolume>("").create(volume).await {
            Err(error) if error.is_already_exists() => Ok(()),
            created => created.map(drop).map_err(|error| error.to_string()),
        }
    }

    /// Does something until it succeeds, at most [`TRIES`] times.
    async fn several_times<'a>(
        &self,
        what: impl Fn() -> BoxFuture<'a, Result<(), String>> + Send + Sync,
    ) -> Result<(), String> {
        for _ in 1..TRIES {
            if what().await.is_ok() {
                return Ok(());
            }
            self.ctx.clock.sleep(TRY_AGAIN).await;
        }
        what().await
    }
}

/// The volume for a claim, as it is saved when its directory is there.
fn volume_for(claim: &PersistentVolumeClaim, class: &StorageClass) -> PersistentVolume {
    let spec = claim.spec.clone().unwrap_or_default();
    let policy = class.reclaim_policy.as_deref().unwrap_or("Delete");
    let finalizers = if policy == "Delete" { vec![PV_CONTROLLER] } else { Vec::new() };
    let uid = uid_of(&claim.metadata);
    let modes = spec.access_modes.filter(|modes| !modes.is_empty());
    let modes = modes.unwrap_or_else(|| vec!["ReadWriteOnce".to_owned()]);
    let volume = json!({
        "metadata": {
            "name": format!("pvc-{uid}"), "finalizers": finalizers,
            "annotations": { "kubernetes.io/createdby": "hostpath-dynamic-provisioner",
                volumes::BOUND_BY_CONTROLLER: "yes", volumes::PROVISIONED_BY: plugins::HOST_PATH },
        },
        "spec": {
            "capacity": { "storage": volumes::request(claim).to_string() },
            "accessModes": modes, "volumeMode": spec.volume_mode,
            "persistentVolumeReclaimPolicy": policy,
            "storageClassName": volumes::class_of_claim(claim),
            "hostPath": { "path": format!("{DIRECTORY}/{uid}") },
            "claimRef": { "apiVersion": "v1", "kind": PersistentVolumeClaim::KIND,
                "namespace": claim.metadata.namespace, "name": claim.metadata.name, "uid": uid,
                "resourceVersion": claim.metadata.resource_version },
        },
    });
    serde_json::from_value(volume).expect("a volume is written as volumes are read")
}
