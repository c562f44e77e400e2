//! Tells pods that use one volume with different SELinux labels, or that want it labelled in
//! different ways: on one node only one of them could use it. Changes nothing.
//!
//! Off unless it is named, as upstream's: it keeps the labels of all pods. `view` reads pods and
//! volumes, `conflicts` is the pure core.
//!
//! Upstream: `pkg/controller/volume/selinuxwarning`.

mod conflicts;
mod view;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::Typed;
use client::{
    Change, ClientError, EventRecorder, EventType, Informer, InformerConfig, Lister, Outcome,
    WorkQueue,
};
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use k8s_openapi::api::storage::v1::CSIDriver;
use meta::ObjectKey;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Error, IntGaugeVec, Opts};

use self::conflicts::{Conflict, Use, Uses};
use self::view::{Labelled, PodLabels, VolumeView};
use crate::context::Context;
use crate::reconcile::reconcile;

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("selinux-warning-controller");
    let all = InformerConfig::all::<Pod>();
    let pods = Informer::spawn(&ctx.manager, &ctx.clock, all, &ctx.shutdown, |object| {
        Ok(PodLabels::of(&Pod::of(object)?))
    });
    let uses = Arc::new(Mutex::new(Uses::default()));
    ctx.measure(ConflictCounts::new(Arc::clone(&uses)));
    let controller = Arc::new(Controller {
        queue: ctx.queue("selinux_warning"),
        recorder: ctx.recorder(&client, "selinux_warning"),
        pods,
        uses,
        ctx,
    });
    let informers = &controller.ctx.informers;
    tokio::join!(
        controller.pods.synced(),
        informers.claims.synced(),
        informers.volumes.synced(),
        informers.csi_drivers.synced()
    );
    controller.follow();
    let (queue, shutdown) = (controller.queue.clone(), controller.ctx.shutdown.clone());
    reconcile(&queue, shutdown, move |key| {
        let controller = Arc::clone(&controller);
        async move { controller.sync(&key) }
    })
    .await;
}

struct Controller {
    ctx: Context,
    queue: WorkQueue<ObjectKey>,
    recorder: EventRecorder,
    pods: Lister<PodLabels>,
    uses: Arc<Mutex<Uses>>,
}

impl Controller {
    fn follow(self: &Arc<Self>) {
        let informers = &self.ctx.informers;
        let this = Arc::clone(self);
        self.pods.on_change(move |key, change| {
            // Of a pod that is there only its end matters.
            if !matches!(&change, Change::Updated { old, new } if old == new) {
                this.queue.add(key.clone());
            }
        });
        let this = Arc::clone(self);
        informers.claims.on_change(move |key, change| {
            let name = |claim| api::volumes::volume_name(claim).to_owned();
            let is_bound = match change {
                Change::Added(new) => !name(new).is_empty(),
                Change::Updated { old, new } => name(old) != name(new),
                Change::Deleted(_) => false,
            };
            if is_bound {
                this.add_pods_of(key);
            }
        });
        let this = Arc::clone(self);
        informers.volumes.on_change(move |_, change| {
            let old = match &change {
                Change::Updated { old, .. } => claim_of(old),
                Change::Added(_) | Change::Deleted(_) => None,
            };
            if let Change::Added(new) | Change::Updated { new, .. } = change
                && let Some(claim) = claim_of(new).filter(|claim| old.as_ref() != Some(claim))
            {
                this.add_pods_of(&claim.0);
            }
        });
        let this = Arc::clone(self);
        informers.csi_drivers.on_change(move |key, change| {
            let mounts = |driver: &CSIDriver| driver.spec.se_linux_mount == Some(true);
            let is_other = match change {
                Change::Added(new) | Change::Deleted(new) => mounts(new),
                Change::Updated { old, new } => mounts(old) != mounts(new),
            };
            if is_other {
                this.uses().pods_of_driver(&key.name).into_iter().for_each(|pod| {
                    this.queue.add(pod);
                });
            }
        });
    }

    fn add_pods_of(&self, claim: &ObjectKey) {
        for pod in self.ctx.informers.pod_index.with_claim(claim) {
            self.queue.add(pod.key.clone());
        }
    }

    fn uses(&self) -> MutexGuard<'_, Uses> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sync(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let Some(pod) = self.pods.get(key).filter(|pod| !pod.is_over) else {
            self.uses().forget(key);
            return Ok(Outcome::Done);
        };
        for volume in &pod.volumes {
            match volume {
                Labelled::Twice { name } => {
                    let text = format!(
                        "Volume {name:?} is mounted twice with different SELinux labels inside \
                         this pod"
                    );
                    let (kind, reason) = (EventType::Warning, "MultipleSELinuxLabels");
                    self.recorder.record(&pod.regarding, kind, reason, text);
                }
                Labelled::Claim { claim, label } => self.sync_volume(key, &pod, claim, label),
            }
        }
        Ok(Outcome::Done)
    }

    /// A claim or volume that is not there yet brings the pod back.
    fn sync_volume(&self, key: &ObjectKey, pod: &PodLabels, claim: &str, label: &str) {
        let informers = &self.ctx.informers;
        let claim = informers.claims.get(&ObjectKey::new(&key.namespace, claim));
        let name = claim.as_ref().map_or("", |claim| api::volumes::volume_name(claim));
        let Some(volume) = informers.volumes.get(&ObjectKey::cluster(name)) else { return };
        let driver = |name: &str| informers.csi_drivers.get(&ObjectKey::cluster(name));
        let Some(view) = VolumeView::of(&volume, driver) else { return };
        let using = Use::new(label, pod.policy.as_deref(), view.takes_labels);
        let conflicts = self.uses().add(&view.id, &view.driver, key, using);
        conflicts.iter().for_each(|conflict| self.tell(conflict));
    }

    fn tell(&self, conflict: &Conflict) {
        // One of them may be gone by now, and the other one needs no warning then.
        let (Some(pod), Some(_)) = (self.pods.get(&conflict.pod), self.pods.get(&conflict.other))
        else {
            return;
        };
        let (kind, reason) = (EventType::Normal, conflict.property.reason());
        self.recorder.record(&pod.regarding, kind, reason, conflict.text());
    }
}

/// The claim that a volume is bound to, and its uid.
fn claim_of(volume: &PersistentVolume) -> Option<(ObjectKey, String)> {
    let reference = volume.spec.as_ref()?.claim_ref.as_ref()?;
    let uid = reference.uid.clone().filter(|uid| !uid.is_empty())?;
    let namespace = reference.namespace.as_deref().unwrap_or_default();
    let name = reference.name.as_deref().unwrap_or_default();
    Some((ObjectKey::new(namespace, name), uid))
}

/// The conflicts that there are, listed when somebody asks.
struct ConflictCounts {
    uses: Arc<Mutex<Uses>>,
    conflicts: IntGaugeVec,
}

impl ConflictCounts {
    fn new(uses: Arc<Mutex<Uses>>) -> Result<Self, Error> {
        let opts = Opts::new(
            "selinux_warning_controller_selinux_volume_conflict",
            "Two pods that use one volume in different ways.",
        );
        let labels = [
            "property",
            "pod1_namespace",
            "pod1_name",
            "pod1_value",
            "pod2_namespace",
            "pod2_name",
            "pod2_value",
        ];
        Ok(Self { uses, conflicts: IntGaugeVec::new(opts, &labels)? })
    }
}

impl Collector for ConflictCounts {
    fn desc(&self) -> Vec<&Desc> {
        self.conflicts.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.conflicts.reset();
        for conflict in self.uses.lock().unwrap_or_else(PoisonError::into_inner).all() {
            let Conflict { property, pod, value, other, other_value } = &conflict;
            let labels = [
                property.as_str(),
                pod.namespace.as_str(),
                pod.name.as_str(),
                value,
                other.namespace.as_str(),
                other.name.as_str(),
                other_value,
            ];
            self.conflicts.with_label_values(&labels).set(1);
        }
        self.conflicts.collect()
    }
}
