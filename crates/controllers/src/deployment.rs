//! Rolls out the template of a Deployment through ReplicaSets.
//!
//! Start reading at [`Controller::sync`]. `revision` finds or makes the ReplicaSet of the template,
//! `rolling` and `scaling` are the pure cores that say how large each ReplicaSet should be,
//! `progress` computes status and conditions.

mod apply;
mod progress;
mod revision;
mod rollback;
mod rolling;
mod scaling;

pub(crate) use self::revision::template_hash;

use std::sync::Arc;
use std::time::Duration;

use api::annotations::DEPLOYMENT_DESIRED_REPLICAS;
use client::{
    Change, Client, ClientError, EventRecorder, EventType, Outcome, Regarding, WorkQueue,
};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use meta::{LabelSelector, ObjectKey};

use crate::context::Context;
use crate::reconcile::work;
use crate::selection::{controller_of, key_of, selector};

const ACCOUNT: &str = "deployment-controller";
const QUEUE: &str = "deployment";

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client(ACCOUNT);
    let recorder = ctx.recorder(&client, ACCOUNT);
    let controller = Arc::new(Controller { queue: ctx.queue(QUEUE), client, recorder, ctx });
    let informers = &controller.ctx.informers;
    let (deployments, sets) = (&informers.deployments, &informers.replica_sets);
    tokio::join!(deployments.synced(), sets.synced(), informers.pods.synced());
    controller.follow();
    work(&controller, &controller.queue, &controller.ctx.shutdown, |this, key| async move {
        this.sync(&key).await
    })
    .await;
}

/// A Deployment with its ReplicaSets.
pub(crate) struct Rollout {
    pub(crate) deployment: Deployment,
    /// The ReplicaSet of the current template.
    pub(crate) new: Option<ReplicaSet>,
    /// All others, oldest first.
    pub(crate) old: Vec<ReplicaSet>,
}

impl Rollout {
    pub(crate) fn spec(&self) -> &DeploymentSpec {
        static EMPTY: std::sync::LazyLock<DeploymentSpec> =
            std::sync::LazyLock::new(DeploymentSpec::default);
        self.deployment.spec.as_ref().unwrap_or(&EMPTY)
    }

    pub(crate) fn replicas(&self) -> i32 {
        self.spec().replicas.unwrap_or(1)
    }

    pub(crate) fn is_rolling(&self) -> bool {
        let strategy = self.spec().strategy.as_ref().and_then(|s| s.type_.as_deref());
        strategy != Some("Recreate")
    }

    /// All ReplicaSets.
    pub(crate) fn all(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.old.iter().chain(&self.new)
    }

    /// How many pods there may be beyond, and how many may be missing, of the wanted number:
    /// a share of pods is rounded up for one and down for the other, and both cannot be zero.
    fn fenceposts(&self) -> (i32, i32) {
        let rolling = self.spec().strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
        let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref());
        let missing = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        let surge = portion(surge, self.replicas(), Round::Up);
        let missing = portion(missing, self.replicas(), Round::Down);
        if surge == 0 && missing == 0 { (0, 1) } else { (surge, missing) }
    }

    pub(crate) fn max_surge(&self) -> i32 {
        if self.is_rolling() { self.fenceposts().0 } else { 0 }
    }

    pub(crate) fn max_unavailable(&self) -> i32 {
        if !self.is_rolling() || self.replicas() == 0 {
            return 0;
        }
        self.fenceposts().1.min(self.replicas())
    }
}

/// What becomes of a part of a pod.
#[derive(Clone, Copy)]
pub(crate) enum Round {
    /// A whole one.
    Up,
    /// None.
    Down,
}

/// A number, or a percentage of another.
pub(crate) fn portion(value: Option<&IntOrString>, of: i32, round: Round) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => {
            let percent = text.strip_suffix('%').and_then(|number| number.parse::<i64>().ok());
            let product = percent.unwrap_or(0) * i64::from(of);
            let rounded = match round {
                Round::Up => (product + 99).div_euclid(100),
                Round::Down => product.div_euclid(100),
            };
            i32::try_from(rounded).unwrap_or(i32::MAX)
        }
    }
}

/// `spec.replicas` of a ReplicaSet.
pub(crate) fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// `status.availableReplicas` of a ReplicaSet.
pub(crate) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

/// A number in an annotation of a ReplicaSet.
pub(crate) fn annotated(set: &ReplicaSet, key: &str) -> Option<i32> {
    set.metadata.annotations.as_ref()?.get(key)?.parse().ok()
}

struct Controller {
    ctx: Context,
    queue: WorkQueue<ObjectKey>,
    client: Client,
    recorder: EventRecorder,
}

impl Controller {
    fn follow(self: &Arc<Self>) {
        let informers = &self.ctx.informers;
        let this = Arc::clone(self);
        informers.deployments.on_change(move |key, _| this.queue.add(key.clone()));
        let this = Arc::clone(self);
        informers.replica_sets.on_change(move |_, change| match change {
            Change::Added(set) | Change::Deleted(set) => this.set_changed(&set.metadata),
            Change::Updated { old, new } => {
                if controller_of(&old.metadata) != controller_of(&new.metadata) {
                    this.set_changed(&old.metadata);
                }
                this.set_changed(&new.metadata);
            }
        });
        let this = Arc::clone(self);
        // Recreate waits until the last old pod is gone.
        informers.pods.on_change(move |_, change| {
            let (Change::Deleted(pod) | Change::Updated { new: pod, .. }) = change else { return };
            let Some(set) = pod.controller_key("ReplicaSet") else { return };
            let Some(set) = this.ctx.informers.replica_sets.get(&set) else { return };
            let key = owner_key(&set.metadata);
            let recreates = key.as_ref().and_then(|key| this.ctx.informers.deployments.get(key));
            let recreates = recreates.is_some_and(|deployment| {
                let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
                strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate")
            });
            if recreates {
                key.into_iter().for_each(|key| this.queue.add(key));
            }
        });
    }

    fn set_changed(&self, set: &ObjectMeta) {
        if let Some(key) = owner_key(set) {
            return self.queue.add(key);
        }
        if controller_of(set).is_some() {
            return;
        }
        let namespace = set.namespace.as_deref().unwrap_or_default();
        for deployment in self.ctx.informers.deployments.list_namespace(namespace) {
            if matches(&deployment_selector(&deployment), set) {
                self.queue.add(key_of(&deployment.metadata));
            }
        }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let Some(deployment) = self.ctx.informers.deployments.get(key) else {
            return Ok(Outcome::Done);
        };
        let selector = deployment_selector(&deployment);
        if selector.is_empty() {
            let text = "This deployment is selecting all pods. A non-empty selector is required.";
            let regarding = Regarding::object(&*deployment);
            self.recorder.record(&regarding, EventType::Warning, "SelectingAll", text);
            return self.observe_generation(&deployment).await;
        }
        let sets = self.claim_sets(&deployment, &selector).await?;
        let mut rollout = revision::sort(Deployment::clone(&deployment), sets);
        if rollout.deployment.metadata.deletion_timestamp.is_some() {
            self.sync_status(&mut rollout).await?;
            return Ok(Outcome::Done);
        }
        self.note_pause(&mut rollout).await?;
        if rollout.spec().paused != Some(true)
            && let Some(revision) = rollback::wanted(&rollout.deployment)
        {
            self.sync_revision(&mut rollout, revision::Create::Yes).await?;
            self.roll_back(&rollout, revision).await?;
            return Ok(Outcome::Done);
        }
        if rollout.spec().paused == Some(true) || is_scaling(&rollout) {
            self.sync_revision(&mut rollout, revision::Create::No).await?;
            self.scale(&mut rollout).await?;
            if rollout.spec().paused == Some(true) {
                self.clean_up(&rollout).await?;
            }
            self.sync_status(&mut rollout).await?;
            return Ok(Outcome::Done);
        }
        if rollout.is_rolling() { self.roll(rollout).await } else { self.recreate(rollout).await }
    }

    async fn roll(&self, mut rollout: Rollout) -> Result<Outcome, ClientError> {
        self.sync_revision(&mut rollout, revision::Create::Yes).await?;
        if let (Some(wanted), Some(new)) = (rolling::new_size(&rollout), rollout.new.clone()) {
            rollout.new = Some(self.resize(&rollout, &new, wanted).await?);
            return self.finish(&mut rollout).await;
        }
        let resized = rolling::old_sizes(&rollout);
        if !resized.is_empty() {
            for (at, wanted) in resized {
                let scaled = self.resize(&rollout, &rollout.old[at].clone(), wanted).await?;
                rollout.old[at] = scaled;
            }
            return self.finish(&mut rollout).await;
        }
        if progress::is_complete(&rollout, rollout.deployment.status.as_ref()) {
            self.clean_up(&rollout).await?;
        }
        self.finish(&mut rollout).await
    }

    async fn recreate(&self, mut rollout: Rollout) -> Result<Outcome, ClientError> {
        self.sync_revision(&mut rollout, revision::Create::No).await?;
        let mut scaled_down = false;
        for at in 0..rollout.old.len() {
            if size(&rollout.old[at]) > 0 {
                rollout.old[at] = self.resize(&rollout, &rollout.old[at].clone(), 0).await?;
                scaled_down = true;
            }
        }
        if scaled_down || self.old_pods_run(&rollout) {
            return self.finish(&mut rollout).await;
        }
        if rollout.new.is_none() {
            self.sync_revision(&mut rollout, revision::Create::Yes).await?;
        }
        let other_size = |new: &ReplicaSet| size(new) != rollout.replicas();
        if let Some(new) = rollout.new.clone().filter(other_size) {
            rollout.new = Some(self.resize(&rollout, &new, rollout.replicas()).await?);
        }
        if progress::is_complete(&rollout, rollout.deployment.status.as_ref()) {
            self.clean_up(&rollout).await?;
        }
        self.finish(&mut rollout).await
    }

    fn old_pods_run(&self, rollout: &Rollout) -> bool {
        let informers = &self.ctx.informers;
        rollout.old.iter().any(|set| {
            let uid = set.metadata.uid.as_deref().unwrap_or_default();
            let pods = informers.pod_index.controlled_by(uid);
            pods.iter().any(|pod| !pod.is_terminal())
        })
    }

    /// Writes the status, and comes back when the deadline for progress may have passed.
    async fn finish(&self, rollout: &mut Rollout) -> Result<Outcome, ClientError> {
        let now = self.ctx.clock.now();
        let status = progress::rollout_status(rollout, now);
        self.write_status(rollout, &status).await?;
        let wait = progress::time_to_deadline(rollout, &status, now);
        Ok(wait.map_or(Outcome::Done, |wait| {
            // One second more, as upstream: the deadline must have passed by then.
            Outcome::RequeueAfter(wait + Duration::from_secs(1))
        }))
    }

    async fn scale(&self, rollout: &mut Rollout) -> Result<(), ClientError> {
        for (uid, wanted) in scaling::sizes(rollout) {
            let set = rollout.all().find(|set| set.metadata.uid == uid).cloned();
            let Some(set) = set else { continue };
            let scaled = self.resize(rollout, &set, wanted).await?;
            let all = rollout.old.iter_mut().chain(&mut rollout.new);
            for set in all.filter(|set| set.metadata.uid == uid) {
                *set = scaled.clone();
            }
        }
        Ok(())
    }
}

fn owner_key(set: &ObjectMeta) -> Option<ObjectKey> {
    let owner = controller_of(set).filter(|owner| owner.kind == "Deployment")?;
    Some(ObjectKey::new(set.namespace.clone().unwrap_or_default(), &owner.name))
}

fn deployment_selector(deployment: &Deployment) -> LabelSelector {
    selector(deployment.spec.as_ref().map(|spec| &spec.selector))
}

fn matches(selector: &LabelSelector, meta: &ObjectMeta) -> bool {
    selector.matches(|key| meta.labels.as_ref()?.get(key).map(String::as_str))
}

/// Whether `spec.replicas` changed since the ReplicaSets were sized. After an adoption there may be
/// nothing that scaling would size, as with several sets of a Recreate, or one that somebody else
/// brought to the size: the roll-out goes on then, where upstream would wait for ever.
fn is_scaling(rollout: &Rollout) -> bool {
    let changed = rollout.all().filter(|set| size(set) > 0).any(|set| {
        annotated(set, DEPLOYMENT_DESIRED_REPLICAS)
            .is_some_and(|desired| desired != rollout.replicas())
    });
    changed && !scaling::sizes(rollout).is_empty()
}

#[cfg(test)]
mod tests;
