//! Has volumes of CSI drivers attached to the nodes of the pods that need them, and detached
//! afterwards: by attachments, which the drivers' attachers follow.
//!
//! A volume goes from a node in this order: nobody needs it there; the node's status does not call
//! it attached any more, so that the kubelet begins nothing new; the kubelet says that it does not
//! use it, or is dead for long enough; the attachment is deleted. The status of a node is written
//! by one worker at a time, and the node is read from the server before the attachment goes.
//!
//! Upstream: `pkg/controller/volume/attachdetach`.

mod csi;
mod follow;
mod operations;
mod plan;
mod volume_counts;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::{
    Client, ClientError, DeleteOptions, EventRecorder, EventType, Outcome, Patch, WorkQueue,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, PersistentVolume};
use k8s_openapi::api::storage::v1::{
    VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use meta::ObjectKey;
use serde_json::json;

use self::csi::{CsiVolume, NodeView, is_attached, volume_of};
use self::operations::{Operation, Operations};
use self::plan::{Attachment, NodeFacts, Step, Wanted};
use self::volume_counts::VolumeCounts;
use crate::cluster::Informers;
use crate::context::Context;
use crate::reconcile::work;

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("attachdetach-controller");
    ctx.measure(VolumeCounts::new(Arc::clone(&ctx.informers)));
    let attacher = Arc::new(Attacher {
        volumes: ctx.queue("attach-detach-volumes"),
        nodes: ctx.queue("attach-detach-nodes"),
        recorder: ctx.recorder(&client, "attachdetach-controller"),
        state: Mutex::default(),
        operations: Operations::new(ctx.counts.storage.clone(), Arc::clone(&ctx.clock)),
        client,
        ctx,
    });
    let informers = &attacher.ctx.informers;
    tokio::join!(
        informers.pods.synced(),
        informers.claims.synced(),
        informers.volumes.synced(),
        informers.nodes.synced(),
        informers.attachments.synced(),
        informers.csi_drivers.synced()
    );
    attacher.follow();
    let shutdown = attacher.ctx.shutdown.clone();
    tokio::join!(
        work(&attacher, &attacher.volumes, &shutdown, |this, key| async move {
            this.sync_volume(&key).await
        }),
        work(&attacher, &attacher.nodes, &shutdown, |this, key| async move {
            this.sync_node(&key).await
        }),
    );
}

/// Volume and node.
type At = (String, String);

struct Attacher {
    ctx: Context,
    volumes: WorkQueue<ObjectKey>,
    nodes: WorkQueue<ObjectKey>,
    client: Client,
    recorder: EventRecorder,
    state: Mutex<State>,
    operations: Operations,
}

/// What no object says. All of it is about attachments that exist, or pods that wait.
#[derive(Default)]
struct State {
    /// Attachments that nobody needs.
    unneeded: BTreeMap<At, Unneeded>,
    /// Whose pods were told that another node has the volume.
    refused: BTreeSet<At>,
    /// What nodes used last that are gone, as long as something is attached to them.
    gone: BTreeMap<String, NodeView>,
}

struct Unneeded {
    since: Timestamp,
    /// Its node should not read of it any more.
    is_withdrawn: bool,
}

impl Attacher {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pods that need a volume, by node.
    fn wanted(&self, volume: &PersistentVolume) -> Wanted {
        wanted(&self.ctx.informers, volume)
    }

    async fn sync_volume(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let informers = &self.ctx.informers;
        let all = informers.attachments.list().into_iter();
        let ours: Vec<_> = all.filter(|one| volume_of(one) == key.name).collect();
        let volume = informers.volumes.get(key);
        let csi = match &volume {
            Some(volume) => match CsiVolume::of(volume) {
                Some(csi) => Some(csi),
                None => return Ok(Outcome::Done),
            },
            // Of a volume that is gone its driver is all that is known.
            None => None,
        };
        let driver = match (&csi, ours.first()) {
            (Some(csi), _) => csi.driver.clone(),
            (None, Some(attachment)) => attachment.spec.attacher.clone(),
            (None, None) => return Ok(Outcome::Done),
        };
        let description = informers.csi_drivers.get(&ObjectKey::cluster(&driver));
        if !csi::is_attachable(description.as_deref()) {
            return Ok(Outcome::Done);
        }
        // What others attached under names of their own is theirs.
        let is_named = |one: &Arc<VolumeAttachment>| {
            let name = one.metadata.name.as_deref().unwrap_or_default();
            csi.as_ref().map_or_else(
                || name.starts_with("csi-"),
                |csi| csi.attachment(&one.spec.node_name) == name,
            )
        };
        let ours: Vec<_> = ours.into_iter().filter(is_named).collect();
        let wanted = volume.as_ref().map(|volume| self.wanted(volume)).unwrap_or_default();
        let volume = Volume { name: key.name.clone(), driver, csi, wanted };
        self.carry_out(&volume, &ours).await
    }

    /// Decides about a volume and does what was decided.
    async fn carry_out(
        &self,
        volume: &Volume,
        ours: &[Arc<VolumeAttachment>],
    ) -> Result<Outcome, ClientError> {
        let now = self.ctx.clock.now();
        let attachments: Vec<_> = ours.iter().map(|one| self.facts(volume, one, now)).collect();
        let is_exclusive = volume.csi.as_ref().is_none_or(|csi| csi.is_exclusive);
        let may_force = self.ctx.config.force_detach_on_timeout;
        let steps = plan::decide(is_exclusive, &volume.wanted, &attachments, may_force, now);
        let mut again: Option<SignedDuration> = None;
        let mut failed = None;
        for (node, step) in steps {
            if !matches!(step, Step::Refused(_)) {
                self.state().refused.remove(&(volume.name.clone(), node.clone()));
            }
            let attachment = ours.iter().find(|one| one.spec.node_name == node);
            match self.take(volume, &node, attachment, step).await {
                Ok(wait) => again = [again, wait].into_iter().flatten().min(),
                Err(error) => failed = Some(error),
            }
        }
        match (failed, again) {
            (Some(error), _) => Err(error),
            (None, Some(wait)) => {
                let wait = Duration::try_from(wait).unwrap_or_default();
                Ok(Outcome::RequeueAfter(wait.max(Duration::from_millis(100))))
            }
            (None, None) => Ok(Outcome::Done),
        }
    }

    /// What counts of an attachment; notes since when nobody needs it.
    fn facts(&self, volume: &Volume, one: &VolumeAttachment, now: Timestamp) -> Attachment {
        let name = &one.spec.node_name;
        let mut state = self.state();
        let at = (volume.name.clone(), name.clone());
        let unneeded = if volume.wanted.contains_key(name) {
            if state.unneeded.remove(&at).is_some() {
                self.nodes.add(ObjectKey::cluster(name));
            }
            None
        } else {
            let new = Unneeded { since: now, is_withdrawn: false };
            Some(state.unneeded.entry(at).or_insert(new).since)
        };
        let unique = volume.csi.as_ref().map(CsiVolume::unique_name);
        let view = self.ctx.informers.nodes.get(&ObjectKey::cluster(name));
        let is_foreign = view.as_ref().is_some_and(|node| !csi::is_managed(node));
        let node = match (view, state.gone.get(name)) {
            (Some(node), _) => NodeView::of(&node).facts(name, &volume.driver, unique.as_deref()),
            // Nobody reads the status of a node that is gone, and it will never be ready.
            (None, gone) => NodeFacts {
                name: name.clone(),
                is_in_use: gone.is_none_or(|view| {
                    view.facts(name, &volume.driver, unique.as_deref()).is_in_use
                }),
                ..NodeFacts::default()
            },
        };
        Attachment {
            node,
            is_foreign,
            is_attached: is_attached(one),
            is_deleted: one.metadata.deletion_timestamp.is_some(),
            created: one.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0),
            unneeded,
        }
    }

    /// Does one step; after which time the volume is looked at again.
    async fn take(
        &self,
        volume: &Volume,
        node: &str,
        attachment: Option<&Arc<VolumeAttachment>>,
        step: Step,
    ) -> Result<Option<SignedDuration>, ClientError> {
        let Volume { name, driver, .. } = volume;
        match step {
            Step::Keep | Step::Hold(None) => {}
            Step::Hold(wait) => return Ok(wait),
            Step::Pending(wait) => return Ok(Some(wait)),
            Step::Attach => return self.attach(volume, node).await.map(|()| None),
            Step::Going => {
                let text = "volume attachment is being deleted";
                self.tell_failure(volume, node, text);
            }
            Step::Refused(why) => {
                if self.state().refused.insert((name.clone(), node.to_owned())) {
                    let text = format!("Multi-Attach error for volume {name:?} {why}");
                    self.tell(volume, node, &text);
                }
            }
            Step::Overdue => {
                if let Some(csi) = &volume.csi {
                    self.operations.time_out(&csi.attachment(node), driver);
                }
                let handle = volume.csi.as_ref().map(|csi| csi.handle.as_str());
                let text = format!(
                    "timed out waiting for external-attacher of {driver} CSI driver to attach \
                     volume {}",
                    handle.unwrap_or_default()
                );
                self.tell_failure(volume, node, &text);
                return Ok(Some(plan::ATTACH_MAX));
            }
            Step::Withdraw => {
                let at = (name.clone(), node.to_owned());
                if let Some(unneeded) = self.state().unneeded.get_mut(&at) {
                    unneeded.is_withdrawn = true;
                }
                self.nodes.add(ObjectKey::cluster(node));
            }
            Step::Detach(forced) => {
                if let Some(attachment) = attachment {
                    self.detach(volume, attachment, forced).await?;
                }
            }
        }
        Ok(None)
    }

    async fn attach(&self, volume: &Volume, node: &str) -> Result<(), ClientError> {
        let Some(csi) = &volume.csi else { return Ok(()) };
        let name = csi.attachment(node);
        self.operations.begin(Operation::Attach, &name);
        let attachment = VolumeAttachment {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            spec: VolumeAttachmentSpec {
                attacher: csi.driver.clone(),
                node_name: node.to_owned(),
                source: VolumeAttachmentSource {
                    persistent_volume_name: Some(volume.name.clone()),
                    inline_volume_spec: None,
                },
            },
            status: None,
        };
        match self.client.api::<VolumeAttachment>("").create(&attachment).await {
            Err(error) if error.is_already_exists() => Ok(()),
            Err(error) => {
                self.operations.give_up(Operation::Attach, &name, &csi.driver);
                self.tell_failure(volume, node, &error.to_string());
                Err(error)
            }
            Ok(_) => Ok(()),
        }
    }

    /// Detaches, if the server says that the node is ready for it.
    async fn detach(
        &self,
        volume: &Volume,
        attachment: &VolumeAttachment,
        forced: Option<&str>,
    ) -> Result<(), ClientError> {
        let node = &attachment.spec.node_name;
        let unique = volume.csi.as_ref().map(CsiVolume::unique_name);
        if let Some(fresh) = self.client.api::<Node>("").get_opt(node).await? {
            let facts = NodeView::of(&fresh).facts(node, &volume.driver, unique.as_deref());
            // The cache is behind: the event that makes it current brings the volume back.
            if facts.is_reported || facts.is_in_use && forced.is_none() {
                return Ok(());
            }
        }
        if let Some(reason) = forced {
            self.ctx.counts.forced_detaches.with_label_values(&[reason]).inc();
            tracing::warn!(volume = volume.name, node, reason, "volume is detached by force");
        }
        let uid = attachment.metadata.uid.clone();
        let options = DeleteOptions { uid, ..DeleteOptions::default() };
        let name = attachment.metadata.name.as_deref().unwrap_or_default();
        self.operations.begin(Operation::Detach, name);
        match self.client.api::<VolumeAttachment>("").delete(name, &options).await {
            Err(error) if error.is_not_found() || error.is_conflict() => {
                self.operations.forget(Operation::Detach, name);
                Ok(())
            }
            Err(error) => {
                self.operations.give_up(Operation::Detach, name, &volume.driver);
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    fn tell_failure(&self, volume: &Volume, node: &str, why: &str) {
        let name = &volume.name;
        let text = format!("AttachVolume.Attach failed for volume {name:?} : {why}");
        self.tell(volume, node, &text);
    }

    fn tell(&self, volume: &Volume, node: &str, text: &str) {
        for pod in volume.wanted.get(node).into_iter().flatten() {
            let regarding = pod.regarding();
            self.recorder.record(&regarding, EventType::Warning, "FailedAttachVolume", text);
        }
    }

    /// Writes into a node's status what is attached to it.
    async fn sync_node(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let informers = &self.ctx.informers;
        let Some(node) = informers.nodes.get(key).filter(|node| csi::is_managed(node)) else {
            return Ok(Outcome::Done);
        };
        let mut attached = BTreeSet::new();
        let mut withdrawn = Vec::new();
        for one in informers.attachments.list() {
            let name = volume_of(&one);
            if one.spec.node_name != key.name {
                continue;
            }
            let at = (name.to_owned(), key.name.clone());
            if self.state().unneeded.get(&at).is_some_and(|one| one.is_withdrawn) {
                withdrawn.push(ObjectKey::cluster(name));
            } else if is_attached(&one)
                && one.metadata.deletion_timestamp.is_none()
                && let Some(volume) = informers.volumes.get(&ObjectKey::cluster(name))
                && let Some(csi) = CsiVolume::of(&volume)
            {
                attached.insert(csi.unique_name());
            }
        }
        if NodeView::of(&node).attached == attached {
            return Ok(Outcome::Done);
        }
        let attached: Vec<_> =
            attached.iter().map(|name| json!({ "name": name, "devicePath": "" })).collect();
        let patch = Patch::Merge(json!({ "metadata": { "uid": node.metadata.uid },
            "status": { "volumesAttached": attached } }));
        match self.client.api::<Node>("").patch_subresource(&key.name, "status", &patch).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => withdrawn.into_iter().for_each(|volume| self.volumes.add(volume)),
        }
        Ok(Outcome::Done)
    }
}

/// The pods that need a volume, by node.
fn wanted(informers: &Informers, volume: &PersistentVolume) -> Wanted {
    let mut wanted = Wanted::new();
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    let Some(reference) = reference else { return wanted };
    let key = ObjectKey::new(
        reference.namespace.clone().unwrap_or_default(),
        reference.name.clone().unwrap_or_default(),
    );
    let claim = informers.claims.get(&key).filter(|claim| {
        let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
        phase == Some("Bound")
            && claim.metadata.uid == reference.uid
            && Some(api::volumes::volume_name(claim)) == volume.metadata.name.as_deref()
    });
    if claim.is_none() {
        return wanted;
    }
    for pod in informers.pod_index.with_claim(&key) {
        let node = informers.nodes.get(&ObjectKey::cluster(&pod.node));
        if !pod.is_stopped() && node.is_some_and(|node| csi::is_managed(&node)) {
            wanted.entry(pod.node.clone()).or_default().push(pod);
        }
    }
    wanted
}

/// A volume, and who needs it.
struct Volume {
    name: String,
    driver: String,
    /// `None` when the volume itself is gone.
    csi: Option<CsiVolume>,
    wanted: Wanted,
}
