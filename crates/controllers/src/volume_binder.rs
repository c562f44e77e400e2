//! Brings volumes and claims together, and sees to volumes whose claim is gone.
//!
//! Both sides refer to each other; the volume is written first, so that of two claims that want
//! it one loses. `claim` and `volume` are the pure cores. Volumes are made and deleted by
//! provisioners, of which `local_path` is one; what upstream does itself, for directories of its
//! host and to scrub volumes, is in `provision` and `reclaim`.

mod claim;
mod operations;
mod plugins;
mod provision;
mod reclaim;
mod recycler;
mod settings;
mod volume;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::Typed;
use api::volumes::{self, annotation};
use client::{
    Change, Client, ClientError, EventRecorder, EventType, Outcome, Regarding, ResourcePath,
    WorkQueue,
};
use k8s_openapi::Resource;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use meta::ObjectKey;
use serde_json::{Value, json};

use self::claim::World;
use self::operations::{Operation, Operations};
use self::plugins::Worker;
use crate::context::Context;
use crate::in_the_way::InTheWay;
use crate::reconcile::work;
use crate::selection::key_of;

pub use self::recycler::{Recycler, TemplateError, read_template};
pub use self::settings::{HostDirectories, VolumeSettings};

/// An event: its type, reason and text.
#[derive(Debug, PartialEq)]
struct Told(EventType, &'static str, String);

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("persistent-volume-binder");
    let binder = Arc::new(Binder {
        claims: ctx.queue("claims"),
        volumes: ctx.queue("volumes"),
        provisions: ctx.queue("volume-provisions"),
        reclaims: ctx.long_queue("volume-reclaims"),
        recorder: ctx.recorder(&client, "persistentvolume-controller"),
        given: Mutex::default(),
        operations: Operations::new(ctx.counts.binder.clone()),
        client,
        ctx,
    });
    let informers = &binder.ctx.informers;
    tokio::join!(
        informers.claims.synced(),
        informers.volumes.synced(),
        informers.storage_classes.synced(),
        informers.pods.synced()
    );
    binder.follow();
    let shutdown = binder.ctx.shutdown.clone();
    tokio::join!(
        work(
            &binder,
            &binder.claims,
            &shutdown,
            |this, key| async move { this.sync_claim(&key).await }
        ),
        work(&binder, &binder.volumes, &shutdown, |this, key| async move {
            this.sync_volume(&key).await
        }),
        work(&binder, &binder.provisions, &shutdown, |this, key| async move {
            this.provision(&key).await
        }),
        work(
            &binder,
            &binder.reclaims,
            &shutdown,
            |this, key| async move { this.reclaim(&key).await }
        ),
    );
}

struct Binder {
    ctx: Context,
    claims: WorkQueue<ObjectKey>,
    volumes: WorkQueue<ObjectKey>,
    /// Claims that get a directory of this host.
    provisions: WorkQueue<ObjectKey>,
    /// Volumes that are scrubbed or deleted here.
    reclaims: WorkQueue<ObjectKey>,
    client: Client,
    recorder: EventRecorder,
    /// Volumes that a claim was given and that the cache still takes for free, and the claim: or
    /// else all claims that come at once would want the same one.
    given: Mutex<HashMap<String, ObjectKey>>,
    operations: Operations,
}

impl Binder {
    fn follow(self: &Arc<Self>) {
        let informers = &self.ctx.informers;
        let this = Arc::clone(self);
        informers.claims.on_change(move |key, change| {
            match change {
                Change::Deleted(claim) => this.claim_gone(claim),
                Change::Added(_) | Change::Updated { .. } => this.claims.add(key.clone()),
            }
            let (Change::Added(claim)
            | Change::Deleted(claim)
            | Change::Updated { new: claim, .. }) = change;
            let name = volumes::volume_name(claim);
            if !name.is_empty() {
                this.volumes.add(ObjectKey::new("", name));
            }
        });
        let this = Arc::clone(self);
        informers.volumes.on_change(move |key, change| {
            let (Change::Added(volume)
            | Change::Deleted(volume)
            | Change::Updated { new: volume, .. }) = change;
            if matches!(change, Change::Deleted(_)) {
                let now = this.ctx.clock.monotonic();
                this.operations.end(Operation::Delete, uid_of(&volume.metadata), now);
            } else {
                this.volumes.add(key.clone());
            }
            this.volume_changed(volume, matches!(change, Change::Deleted(_)));
        });
        let this = Arc::clone(self);
        informers.storage_classes.on_change(move |_, change| {
            if !matches!(change, Change::Deleted(_)) {
                this.add_claims(|claim| volumes::volume_name(claim).is_empty());
            }
        });
        let this = Arc::clone(self);
        informers.pods.on_change(move |key, change| {
            let Change::Added(pod) = change else { return };
            for claim in &pod.claims {
                this.claims.add(ObjectKey::new(&key.namespace, claim));
            }
        });
    }

    /// Looks at the volumes of a claim that is gone. One that was made for it need not be in the
    /// claim yet.
    fn claim_gone(&self, claim: &PersistentVolumeClaim) {
        self.operations.forget(Operation::Provision, uid_of(&claim.metadata));
        if !volumes::volume_name(claim).is_empty() {
            return;
        }
        for volume in self.ctx.informers.volumes.list() {
            let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
            if reference.is_some_and(|reference| reference.uid == claim.metadata.uid) {
                self.volumes.add(key_of(&volume.metadata));
            }
        }
    }

    /// Looks at the claims that a volume is of, names or could be for.
    fn volume_changed(&self, volume: &PersistentVolume, is_gone: bool) {
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        if reference.is_some() || is_gone {
            self.given().remove(volume.metadata.name.as_deref().unwrap_or_default());
        }
        if let Some(reference) = reference {
            return self.claims.add(named_by(reference));
        }
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        let class = volumes::class_of_volume(volume);
        self.add_claims(|claim| match volumes::volume_name(claim) {
            "" => volumes::class_of_claim(claim) == class,
            named => named == name,
        });
    }

    fn add_claims(&self, is_meant: impl Fn(&PersistentVolumeClaim) -> bool) {
        for claim in self.ctx.informers.claims.list().iter().filter(|claim| is_meant(claim)) {
            self.claims.add(key_of(&claim.metadata));
        }
    }

    async fn sync_claim(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let informers = &self.ctx.informers;
        let Some(claim) = informers.claims.get(key) else { return Ok(Outcome::Done) };
        if claim.metadata.deletion_timestamp.is_some() && !volumes::is_fully_bound(&claim) {
            return Ok(Outcome::Done);
        }
        let named = volumes::volume_name(&claim);
        let step = self.decide(key, &claim);
        match step {
            claim::Step::Bind(volume) => {
                let result = self.bind(&volume, &claim).await;
                if result.is_err() {
                    self.given().retain(|_, claim| claim != key);
                }
                result?;
                let now = self.ctx.clock.monotonic();
                self.operations.end(Operation::Provision, uid_of(&claim.metadata), now);
            }
            claim::Step::Wait(told) => {
                self.tell(&*claim, told);
                self.set_claim_phase(&claim, "Pending").await?;
            }
            claim::Step::Lose(told) => {
                let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
                if phase != Some("Lost") {
                    // A cache may be behind the volume that was made for it.
                    let api = self.client.api::<PersistentVolume>("");
                    if told.1 == "ClaimLost"
                        && !named.is_empty()
                        && api.get_opt(named).await?.is_some()
                    {
                        return Ok(Outcome::Requeue);
                    }
                    self.tell(&*claim, Some(told));
                    self.set_claim_phase(&claim, "Lost").await?;
                }
            }
            claim::Step::Classify(class) => {
                let change = json!({ "spec": { "storageClassName": class } });
                let counts = &self.ctx.counts.binder;
                let result = self.change(&*claim, "", change).await;
                let count =
                    if result.is_ok() { &counts.classified } else { &counts.not_classified };
                count.inc();
                result?;
            }
            claim::Step::Provision(by) => {
                let now = self.ctx.clock.monotonic();
                self.operations.begin(Operation::Provision, uid_of(&claim.metadata), &by, now);
                self.ask(&claim, &by).await?;
            }
            claim::Step::Make => self.provisions.add(key.clone()),
        }
        Ok(Outcome::Done)
    }

    /// Decides about a claim, and keeps the volume that it gets from others.
    fn decide(&self, key: &ObjectKey, claim: &PersistentVolumeClaim) -> claim::Step {
        let informers = &self.ctx.informers;
        let named = volumes::volume_name(claim);
        let mut given = self.given();
        let is_free = |volume: &Arc<PersistentVolume>| {
            let name = volume.metadata.name.as_deref().unwrap_or_default();
            given.get(name).is_none_or(|claim| claim == key)
        };
        let volumes = if named.is_empty() {
            informers.volumes.list().into_iter().filter(is_free).collect()
        } else {
            informers.volumes.get(&ObjectKey::new("", named)).into_iter().collect()
        };
        let classes = informers.storage_classes.list();
        let (pods, provisions) = (self.pods_of(key), self.ctx.config.volumes.provisioning);
        let step = claim::decide(claim, &World { volumes, classes, pods, provisions });
        if let claim::Step::Bind(volume) = &step
            && volume.spec.as_ref().is_none_or(|spec| spec.claim_ref.is_none())
        {
            given.insert(volume.metadata.name.clone().unwrap_or_default(), key.clone());
        }
        step
    }

    fn given(&self) -> MutexGuard<'_, HashMap<String, ObjectKey>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pods_of(&self, key: &ObjectKey) -> Vec<Arc<crate::pod_view::PodView>> {
        let mut pods = self.ctx.informers.pods.list_namespace(&key.namespace);
        pods.retain(|pod| pod.claims.contains(&key.name));
        pods
    }

    /// Names the provisioner in the claim.
    async fn name_provisioner(
        &self,
        claim: &PersistentVolumeClaim,
        by: &str,
    ) -> Result<(), ClientError> {
        let known = claim.metadata.annotations.as_ref();
        let keys = [volumes::STORAGE_PROVISIONER_BETA, volumes::STORAGE_PROVISIONER];
        if keys.iter().all(|key| annotation(known, key) == Some(by)) {
            return Ok(());
        }
        let annotations = json!({ keys[0]: by, keys[1]: by });
        let change = json!({ "metadata": { "annotations": annotations } });
        self.change(claim, "", change).await.map(drop)
    }

    /// Names the provisioner in the claim, and tells that it is waited for.
    async fn ask(&self, claim: &PersistentVolumeClaim, by: &str) -> Result<(), ClientError> {
        if let Err(error) = self.name_provisioner(claim, by).await {
            // Who was overtaken comes again at once.
            let told = (!error.is_conflict()).then(|| {
                let text = format!("Error saving claim: {error}");
                Told(EventType::Warning, "ProvisioningFailed", text)
            });
            self.tell(claim, told);
            return Err(error);
        }
        let text = format!(
            "Waiting for a volume to be created either by the external provisioner '{by}' or \
             manually by the system administrator. If volume creation is delayed, please verify \
             that the provisioner is running and correctly registered."
        );
        self.tell(claim, Some(Told(EventType::Normal, "ExternalProvisioning", text)));
        self.set_claim_phase(claim, "Pending").await
    }

    /// Makes both sides refer to each other, and both phases Bound; what is done already is left.
    async fn bind(
        &self,
        volume: &PersistentVolume,
        claim: &PersistentVolumeClaim,
    ) -> Result<(), ClientError> {
        let volume = self.bind_volume(volume, claim).await?;
        let claim = self.bind_claim(claim, &volume).await?;
        let status = claim.status.clone().unwrap_or_default();
        let spec = volume.spec.clone().unwrap_or_default();
        let is_bound = status.phase.as_deref() == Some("Bound");
        if is_bound && status.access_modes == spec.access_modes && status.capacity.is_some() {
            return Ok(());
        }
        let mut change = json!({ "phase": "Bound", "accessModes": spec.access_modes });
        // Of a claim that is bound the size is what its volume was made, or grown, to.
        if !is_bound || status.capacity.is_none() {
            let size = spec.capacity.as_ref().and_then(|all| all.get("storage")).map(|q| &q.0);
            change["capacity"] = json!({ "storage": size });
            change["currentVolumeAttributesClassName"] =
                json!(claim.spec.and_then(|spec| spec.volume_attributes_class_name));
        }
        let api = self.api::<PersistentVolumeClaim>(claim.metadata.namespace.as_deref());
        let change = json!({ "metadata": { "uid": claim.metadata.uid }, "status": change });
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        api.merge_update(name, "status", &change).await.map(drop)
    }

    async fn bind_volume(
        &self,
        volume: &PersistentVolume,
        claim: &PersistentVolumeClaim,
    ) -> Result<PersistentVolume, ClientError> {
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        let mut written = None;
        if reference.is_none_or(|known| known.uid != claim.metadata.uid) {
            let mut change = json!({ "spec": { "claimRef": {
                "apiVersion": "v1", "kind": PersistentVolumeClaim::KIND,
                "namespace": claim.metadata.namespace, "name": claim.metadata.name,
                "uid": claim.metadata.uid,
                "resourceVersion": claim.metadata.resource_version } } });
            if reference.is_none() {
                change["metadata"]["annotations"] = json!({ volumes::BOUND_BY_CONTROLLER: "yes" });
            }
            written = Some(self.change(volume, "", change).await?);
        }
        let volume = written.unwrap_or_else(|| volume.clone());
        if phase_of(&volume) == "Bound" {
            return Ok(volume);
        }
        self.change(&volume, "status", json!({ "status": { "phase": "Bound" } })).await
    }

    async fn bind_claim(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
    ) -> Result<PersistentVolumeClaim, ClientError> {
        if volumes::is_fully_bound(claim) {
            return Ok(claim.clone());
        }
        let mut annotations = json!({ volumes::BIND_COMPLETED: "yes" });
        if volumes::volume_name(claim).is_empty() {
            annotations[volumes::BOUND_BY_CONTROLLER] = "yes".into();
        }
        let change = json!({ "metadata": { "annotations": annotations },
            "spec": { "volumeName": volume.metadata.name } });
        self.change(claim, "", change).await
    }

    async fn sync_volume(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let informers = &self.ctx.informers;
        let Some(mut volume) = informers.volumes.get(key) else { return Ok(Outcome::Done) };
        if let Some(left) = volume::finalizers_left(&volume) {
            let change = json!({ "metadata": { "finalizers": left } });
            match self.change(&*volume, "", change).await {
                Ok(changed) => volume = Arc::new(changed),
                Err(error) if error.is_not_found() => return Ok(Outcome::Done),
                Err(error) => return Err(error),
            }
        }
        let claim = self.claim_of(&volume).await?;
        let in_the_way = self.in_the_way(claim.as_deref());
        let step = volume::decide(&volume, claim.as_deref());
        if volume::is_to_be_deleted(&volume, &step) {
            let (by, now) = (self.provisioner_of(&volume), self.ctx.clock.monotonic());
            self.operations.begin(Operation::Delete, uid_of(&volume.metadata), &by, now);
        }
        match step {
            volume::Step::Phase(phase) => self.set_volume_phase(&volume, phase, None).await?,
            volume::Step::Keep => {}
            volume::Step::Recycle | volume::Step::Delete => self.reclaims.add(key.clone()),
            volume::Step::Fail(told) => self.fail(&volume, told).await?,
            volume::Step::Claim(told) => {
                self.tell(&*volume, told);
                if let Some(claim) = claim {
                    self.claims.add(key_of(&claim.metadata));
                }
            }
            volume::Step::Release => self.release(&volume).await?,
        }
        Ok(in_the_way.outcome())
    }

    /// Whether the claim of a volume is one whose end will be heard of.
    fn in_the_way(&self, claim: Option<&PersistentVolumeClaim>) -> InTheWay {
        let Some(claim) = claim else { return InTheWay::Nothing };
        let known = self.ctx.informers.claims.get(&key_of(&claim.metadata));
        InTheWay::of(known.is_some_and(|known| known.metadata.uid == claim.metadata.uid))
    }

    /// Says why a volume cannot be reclaimed; one that has failed before says it no more.
    async fn fail(&self, volume: &PersistentVolume, told: Told) -> Result<(), ClientError> {
        if phase_of(volume) == "Failed" {
            return Ok(());
        }
        self.set_volume_phase(volume, "Failed", Some(&told.2)).await?;
        self.tell(volume, Some(told));
        Ok(())
    }

    /// Makes a volume free again, for any claim or for the one of the name that the user said.
    async fn release(&self, volume: &PersistentVolume) -> Result<(), ClientError> {
        let annotations = volume.metadata.annotations.as_ref();
        let change = if annotation(annotations, volumes::BOUND_BY_CONTROLLER).is_some() {
            let annotations = json!({ volumes::BOUND_BY_CONTROLLER: null });
            json!({ "spec": { "claimRef": null }, "metadata": { "annotations": annotations } })
        } else {
            json!({ "spec": { "claimRef": { "uid": null, "resourceVersion": null } } })
        };
        let volume = self.change(volume, "", change).await?;
        self.set_volume_phase(&volume, "Available", None).await
    }

    /// Who deletes a volume, as metrics call it: of those outside whoever its class names.
    fn provisioner_of(&self, volume: &PersistentVolume) -> String {
        match plugins::deleter(volume) {
            Worker::External => {}
            Worker::HostPath => return plugins::HOST_PATH.to_owned(),
            Worker::Nobody(_) => return "N/A".to_owned(),
        }
        let class = ObjectKey::cluster(volumes::class_of_volume(volume));
        let class = self.ctx.informers.storage_classes.get(&class);
        class.map_or_else(|| "N/A".to_owned(), |class| class.provisioner.clone())
    }

    /// The claim that a volume is bound to. That it is gone is believed the server only.
    async fn claim_of(
        &self,
        volume: &PersistentVolume,
    ) -> Result<Option<Arc<PersistentVolumeClaim>>, ClientError> {
        let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        let Some(reference) = reference else { return Ok(None) };
        let Some(uid) = reference.uid.as_ref().filter(|uid| !uid.is_empty()) else {
            return Ok(None);
        };
        let key = named_by(reference);
        let known = self.ctx.informers.claims.get(&key);
        let is_it = |claim: &PersistentVolumeClaim| claim.metadata.uid.as_ref() == Some(uid);
        if let Some(claim) = known.filter(|claim| is_it(claim)) {
            return Ok(Some(claim));
        }
        let api = self.client.api::<PersistentVolumeClaim>(&key.namespace);
        let fresh = api.get_opt(&key.name).await?;
        Ok(fresh.filter(is_it).map(Arc::new))
    }

    async fn set_claim_phase(
        &self,
        claim: &PersistentVolumeClaim,
        phase: &str,
    ) -> Result<(), ClientError> {
        let known = claim.status.as_ref().and_then(|status| status.phase.as_deref());
        if known == Some(phase) {
            return Ok(());
        }
        let api = self.api::<PersistentVolumeClaim>(claim.metadata.namespace.as_deref());
        let change =
            json!({ "metadata": { "uid": claim.metadata.uid }, "status": { "phase": phase } });
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        gone(api.merge_update(name, "status", &change).await)
    }

    async fn set_volume_phase(
        &self,
        volume: &PersistentVolume,
        phase: &str,
        message: Option<&str>,
    ) -> Result<(), ClientError> {
        if phase_of(volume) == phase && message.is_none() {
            return Ok(());
        }
        let change = json!({ "status": { "phase": phase, "message": message } });
        gone(self.change(volume, "status", change).await)
    }

    /// Merges a change into an object, if it still is what it was read as.
    async fn change<K>(
        &self,
        object: &K,
        subresource: &str,
        mut change: Value,
    ) -> Result<K, ClientError>
    where
        K: Typed + Resource + k8s_openapi::Metadata<Ty = Meta>,
    {
        let metadata = object.metadata();
        change["metadata"]["uid"] = json!(metadata.uid);
        change["metadata"]["resourceVersion"] = json!(metadata.resource_version);
        let name = metadata.name.as_deref().unwrap_or_default();
        let api = self.api::<K>(metadata.namespace.as_deref());
        api.merge_update(name, subresource, &change).await
    }

    fn api<K: Resource>(&self, namespace: Option<&str>) -> client::Api<K> {
        self.client.dynamic::<K>(ResourcePath::of::<K>(), namespace.unwrap_or_default())
    }

    fn tell<K: k8s_openapi::Metadata<Ty = Meta>>(&self, object: &K, told: Option<Told>) {
        if let Some(Told(kind, reason, text)) = told {
            self.recorder.record(&Regarding::object(object), kind, reason, text);
        }
    }
}

type Meta = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

fn uid_of(meta: &Meta) -> &str {
    meta.uid.as_deref().unwrap_or_default()
}

fn named_by(reference: &ObjectReference) -> ObjectKey {
    ObjectKey::new(
        reference.namespace.as_deref().unwrap_or_default(),
        reference.name.as_deref().unwrap_or_default(),
    )
}

fn phase_of(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// What is gone needs no phase.
fn gone<T>(result: Result<T, ClientError>) -> Result<(), ClientError> {
    match result {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
