//! Runs the pods of a Job until enough have succeeded or too many have failed.
//!
//! A pod that has ended is counted exactly once: its uid is written to
//! `status.uncountedTerminatedPods`, then its finalizer is taken off, and only when that is seen
//! does the uid become a number. `plan` is the pure core, `policies` says
//! what failures and successes mean to it; the driver here writes what they say.

mod indexes;
mod plan;
mod policies;
mod status;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::finalizers::JOB_TRACKING;
use client::{Change, Client, ClientError, EventType, Outcome, WorkQueue};
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use meta::ObjectKey;
use serde_json::json;

use self::plan::Plan;
use crate::context::Context;
use crate::expectations::Expectations;
use crate::pod_control::{Claim, Owner, PodControl, claim};
use crate::pod_view::PodView;
use crate::reconcile::work;
use crate::selection::{key_of, selector};
use crate::written::{PODS, Writes, Written};

/// Delay after the first failed pod; doubles with each one more: upstream's defaults.
const BACKOFF_FIRST: Duration = Duration::from_secs(10);
const BACKOFF_MAX: Duration = Duration::from_secs(600);
/// The completion mode of a Job that names none.
const NON_INDEXED: &str = "NonIndexed";
/// What upstream calls the written object itself.
const WRITTEN: Written = ("batch", "jobs");
/// Who is meant when `spec.managedBy` names this controller.
const MANAGER: &str = "kubernetes.io/job-controller";

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("job-controller");
    let recorder = ctx.recorder(&client, "job-controller");
    let writes = ctx.writes("StaleControllerConsistencyJob", &ctx.counts.stale.job);
    let controller = Arc::new(Controller {
        queue: ctx.queue("job"),
        orphans: ctx.queue("job_orphan_pod"),
        pods: PodControl { client: client.clone(), recorder, writes: Some(Arc::clone(&writes)) },
        writes,
        client,
        expectations: Expectations::default(),
        failures: Mutex::default(),
        ctx,
    });
    let informers = &controller.ctx.informers;
    tokio::join!(informers.jobs.synced(), informers.pods.synced());
    controller.follow();
    let (queue, orphans) = (controller.queue.clone(), controller.orphans.clone());
    let shutdown = controller.ctx.shutdown.clone();
    tokio::join!(
        work(&controller, &queue, &shutdown, |this, key| async move { this.sync(&key).await }),
        work(&controller, &orphans, &shutdown, |this, key| async move {
            this.release_orphan(&key).await
        }),
    );
}

struct Controller {
    ctx: Context,
    queue: WorkQueue<ObjectKey>,
    /// Pods that lost their Job and are being deleted.
    orphans: WorkQueue<ObjectKey>,
    client: Client,
    pods: PodControl,
    writes: Arc<Writes>,
    expectations: Expectations,
    /// Failures in a row, and when the last one was seen, by uid of the Job.
    failures: Mutex<HashMap<String, (u32, Instant)>>,
}

impl Controller {
    fn follow(self: &Arc<Self>) {
        let informers = &self.ctx.informers;
        let this = Arc::clone(self);
        informers.jobs.on_change(move |key, change| {
            if let Change::Added(job) = &change
                && let Some(manager) = job.spec.as_ref().and_then(of_another)
            {
                this.ctx.counts.job.of_others.with_label_values(&[manager]).inc();
            }
            this.expectations.owner_changed(&change);
            if let Change::Deleted(job) = &change {
                this.writes.forget(key);
                this.release_leftovers(job);
            }
            this.queue.add(key.clone());
        });
        let this = Arc::clone(self);
        informers.pods.on_change(move |_, change| {
            let pod = match &change {
                Change::Added(pod) | Change::Deleted(pod) | Change::Updated { new: pod, .. } => pod,
            };
            if let Change::Updated { old, new } = &change
                && old.controller != new.controller
            {
                old.controller_key("Job").into_iter().for_each(|key| this.queue.add(key));
            }
            this.count_held(&change);
            if is_tracked(pod) && this.is_abandoned(pod) {
                this.orphans.add(pod.key.clone());
            }
            let Some(key) = pod.controller_key("Job") else { return };
            match &change {
                Change::Added(_) => this.expectations.created(pod.controller_uid()),
                Change::Deleted(pod) => this.expectations.deleted(pod.controller_uid(), &pod.uid),
                Change::Updated { new, .. } if new.deleted.is_some() => {
                    this.expectations.deleted(new.controller_uid(), &new.uid);
                }
                Change::Updated { .. } => {}
            }
            this.queue.add(key);
        });
    }

    /// Counts a pod that has ended and is held until it is counted, and one that is past that: once
    /// each, since the cache sees each once.
    fn count_held(&self, change: &Change<'_, PodView>) {
        let is_held = |pod: &PodView| pod.is_terminal() && is_tracked(pod);
        let (was, is) = match change {
            Change::Added(pod) => (false, is_held(pod)),
            Change::Updated { old, new } => (is_held(old), is_held(new)),
            Change::Deleted(pod) => (is_held(pod), false),
        };
        let counts = &self.ctx.counts.job;
        match (was, is) {
            (false, true) => counts.pods_held.with_label_values(&["add"]).inc(),
            (true, false) => counts.pods_held.with_label_values(&["delete"]).inc(),
            _ => return,
        }
        let (Change::Updated { old: pod, .. } | Change::Deleted(pod)) = change else { return };
        if !was || pod.phase != "Failed" {
            return;
        }
        let job = pod.controller_key("Job").and_then(|key| self.ctx.informers.jobs.get(&key));
        let job = job.filter(|job| job.metadata.uid.as_deref() == Some(pod.controller_uid()));
        let spec = job.as_ref().and_then(|job| job.spec.as_ref());
        if let Some(action) = spec.and_then(|spec| policies::action(spec, pod)) {
            counts.failures_handled.with_label_values(&[action]).inc();
        }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let informers = &self.ctx.informers;
        let seen = [(WRITTEN, informers.jobs.seen()), (PODS, informers.pods.seen())];
        if self.writes.are_unseen(key, &seen) {
            return Ok(Outcome::Requeue);
        }
        let Some(job) = informers.jobs.get(key) else {
            return Ok(Outcome::Done);
        };
        let spec = job.spec.clone().unwrap_or_default();
        if of_another(&spec).is_some() {
            return Ok(Outcome::Done);
        }
        let owner = owner(&job);
        let mode = spec.completion_mode.as_deref();
        if !matches!(mode, None | Some("NonIndexed" | "Indexed")) {
            let text = "Skipped Job sync because completion mode is unknown";
            let (kind, reason) = (EventType::Warning, "UnknownCompletionMode");
            self.pods.recorder.record(&owner.regarding(), kind, reason, text);
            return Ok(Outcome::Done);
        }
        let begun = self.ctx.clock.monotonic();
        let mut action = "reconciling";
        let synced = self.sync_ours(&job, &owner, &mut action).await;
        let labels = [action, mode.unwrap_or(NON_INDEXED), result_of(&synced)];
        let counts = &self.ctx.counts.job;
        counts.syncs.with_label_values(&labels).inc();
        let took = self.ctx.clock.monotonic().duration_since(begun).as_secs_f64();
        counts.sync_seconds.with_label_values(&labels).observe(took);
        synced
    }

    /// `action` becomes what is done about the Job's pods, as metrics call it.
    async fn sync_ours(
        &self,
        job: &Job,
        owner: &Owner,
        action: &mut &'static str,
    ) -> Result<Outcome, ClientError> {
        let now = self.ctx.clock.monotonic();
        // Asked before the pods are read, as upstream does: an expectation that is met while this
        // waits says nothing about the pods that were read before.
        let is_current = self.expectations.are_met(&owner.uid, now);
        let pods = self.claim_pods(job, owner).await?;
        let plan = Plan::new(job, &pods, self.ctx.clock.now());
        let delay = self.note_failures(&owner.uid, &plan, now);
        if plan.status != job.status.clone().unwrap_or_default() {
            let version = status::write(&self.client, job, &plan.status).await?;
            self.writes.wrote(owner, WRITTEN, version.as_deref());
            self.count(job, &plan);
            for (kind, reason, text) in &plan.events {
                let regarding = owner.regarding();
                self.pods.recorder.record(&regarding, *kind, reason, text.clone());
            }
        }
        for pod in &plan.counted {
            self.untrack(Some(owner), pod).await?;
        }
        if is_current {
            *action = match (plan.delete.is_empty(), plan.create.is_empty() || delay.is_some()) {
                (false, _) => "pods_deleted",
                (true, false) => "pods_created",
                (true, true) => "tracking",
            };
            self.manage(job, owner, &plan, delay).await?;
        }
        let unseen = self.expectations.wait(&owner.uid, self.ctx.clock.monotonic());
        let delay = delay.filter(|_| plan.is_short());
        let wait = plan.wait.into_iter().chain(delay).chain(unseen).min();
        Ok(wait.map_or(Outcome::Done, Outcome::RequeueAfter))
    }

    /// Counts what a status that was written says for the first time.
    fn count(&self, job: &Job, plan: &Plan) {
        let mode = job.spec.as_ref().and_then(|spec| spec.completion_mode.as_deref());
        let mode = mode.unwrap_or(NON_INDEXED);
        let counts = &self.ctx.counts.job;
        for (result, number) in [("succeeded", plan.new_succeeded), ("failed", plan.new_failed)] {
            let finished = counts.pods_finished.with_label_values(&[mode, result]);
            finished.inc_by(u64::from(number));
        }
        if let Some(spec) = job.spec.as_ref().filter(|_| mode == "Indexed") {
            self.count_indexes(spec, job.status.as_ref(), &plan.status);
        }
        let end = |status: Option<&JobStatus>| {
            let conditions = status.and_then(|status| status.conditions.as_ref());
            let mut conditions = conditions.into_iter().flatten();
            let is_end = |kind: &str| matches!(kind, "Complete" | "Failed");
            conditions.find(|one| is_end(&one.type_) && one.status == "True").cloned()
        };
        if let (None, Some(end)) = (end(job.status.as_ref()), end(Some(&plan.status))) {
            let result = if end.type_ == "Complete" { "succeeded" } else { "failed" };
            let reason = end.reason.as_deref().unwrap_or_default();
            counts.finished.with_label_values(&[mode, reason, result]).inc();
        }
    }

    /// Counts indexes that have ended between two states.
    fn count_indexes(&self, spec: &JobSpec, old: Option<&JobStatus>, new: &JobStatus) {
        let limit = if spec.backoff_limit_per_index.is_some() { "perIndex" } else { "global" };
        let parse = |text: Option<&String>| indexes::parse(text.map_or("", String::as_str));
        let count = |status: &str, of: fn(&JobStatus) -> Option<&String>| {
            let (old, new) = (parse(old.and_then(of)), parse(of(new)));
            let ended = u64::try_from(new.difference(&old).count()).unwrap_or(u64::MAX);
            let finished = &self.ctx.counts.job.indexes_finished;
            finished.with_label_values(&[limit, status]).inc_by(ended);
        };
        count("succeeded", |status| status.completed_indexes.as_ref());
        if limit == "perIndex" {
            count("failed", |status| status.failed_indexes.as_ref());
        }
    }

    /// Remembers failures in a row; gives how long no pod may be made.
    fn note_failures(&self, uid: &str, plan: &Plan, now: Instant) -> Option<Duration> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if plan.is_over {
            failures.remove(uid);
            return None;
        }
        if plan.new_succeeded > 0 {
            failures.remove(uid);
        }
        if plan.new_failed > 0 && !plan.waits_by_index {
            let entry = failures.entry(uid.to_owned()).or_insert((0, now));
            *entry = (entry.0 + plan.new_failed, now);
        }
        let (count, since) = failures.get(uid)?;
        let wait = BACKOFF_FIRST.saturating_mul(1 << (count - 1).min(16)).min(BACKOFF_MAX);
        (*since + wait).checked_duration_since(now).filter(|wait| !wait.is_zero())
    }

    async fn manage(
        &self,
        job: &Job,
        owner: &Owner,
        plan: &Plan,
        delay: Option<Duration>,
    ) -> Result<(), ClientError> {
        let now = self.ctx.clock.monotonic();
        if !plan.delete.is_empty() {
            let uids = plan.delete.iter().map(|pod| pod.uid.clone()).collect();
            self.expectations.expect_deletions(&owner.uid, uids, now);
            for pod in &plan.delete {
                let result = self.pods.delete(owner, pod).await;
                if result.is_err() {
                    self.expectations.deleted(&owner.uid, &pod.uid);
                }
                result?;
            }
            return Ok(());
        }
        if plan.create.is_empty() || delay.is_some() {
            return Ok(());
        }
        self.expectations.expect_creations(&owner.uid, plan.create.len(), now);
        let next = Mutex::new(plan.create.iter());
        let create = || async {
            let new = next.lock().unwrap_or_else(PoisonError::into_inner).next().copied();
            let pod = indexes::pod(job, owner, new.unwrap_or_default());
            let created = self.pods.create(owner, &pod).await;
            let labels =
                [creation_reason(job, plan), if created.is_ok() { "succeeded" } else { "failed" }];
            self.ctx.counts.job.pods_created.with_label_values(&labels).inc();
            match created {
                Ok(_) => Ok(()),
                Err(error) => {
                    self.expectations.created(&owner.uid);
                    if error.is_namespace_terminating() { Ok(()) } else { Err(error) }
                }
            }
        };
        let (skipped, result) = crate::replica_set::slow_start(plan.create.len(), 1, create).await;
        (0..skipped).for_each(|_| self.expectations.created(&owner.uid));
        result
    }

    async fn claim_pods(&self, job: &Job, owner: &Owner) -> Result<Vec<Arc<PodView>>, ClientError> {
        let informers = &self.ctx.informers;
        let selector = selector(job.spec.as_ref().and_then(|spec| spec.selector.as_ref()));
        let deleted = job.metadata.deletion_timestamp.is_some();
        let pods = informers.pod_index.within_reach(&owner.key.namespace, &owner.uid);
        let mut claimed = Vec::new();
        for pod in pods {
            match claim(&pod, owner, deleted, &selector) {
                Claim::Keep => claimed.push(pod),
                Claim::Ignore => {}
                Claim::Adopt => {
                    self.pods.adopt(owner, &pod).await?;
                    claimed.push(pod);
                }
                Claim::Release => {
                    self.untrack(Some(owner), &pod).await?;
                    self.pods.release(owner, &pod).await?;
                }
            }
        }
        Ok(claimed)
    }

    /// Takes the tracking finalizer off a pod.
    async fn untrack(&self, owner: Option<&Owner>, pod: &PodView) -> Result<(), ClientError> {
        if !is_tracked(pod) {
            return Ok(());
        }
        let patch = json!({ "metadata": {
            "uid": pod.uid, "$deleteFromPrimitiveList/finalizers": [JOB_TRACKING] } });
        self.pods.patch(owner, pod, patch).await
    }

    /// Whether nobody counts a pod's end, as far as the cache knows: its Job is gone, another one
    /// has its name, or the collector took its owner away and it is being deleted.
    fn is_abandoned(&self, pod: &PodView) -> bool {
        let Some(key) = pod.controller_key("Job") else {
            return pod.controller.is_none() && pod.deleted.is_some();
        };
        let job = self.ctx.informers.jobs.get(&key);
        job.is_none_or(|job| job.metadata.uid.as_deref() != Some(pod.controller_uid()))
    }

    /// Such a pod must not be held by its finalizer. Its Job may be newer than the cache.
    async fn release_orphan(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let Some(pod) = self.ctx.informers.pods.get(key).filter(|pod| self.is_abandoned(pod))
        else {
            return Ok(Outcome::Done);
        };
        if let Some(job) = pod.controller_key("Job") {
            let job = self.client.api::<Job>(&job.namespace).get_opt(&job.name).await?;
            let uid = job.and_then(|job| job.metadata.uid);
            if uid.as_deref() == Some(pod.controller_uid()) {
                return Ok(Outcome::Requeue);
            }
        }
        self.untrack(None, &pod).await?;
        Ok(Outcome::Done)
    }

    /// A Job is gone: its pods are nobody's. Those that are heard of later are known for that.
    fn release_leftovers(&self, job: &Job) {
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        let pods = self.ctx.informers.pod_index.controlled_by(uid);
        for pod in pods.iter().filter(|pod| is_tracked(pod)) {
            self.orphans.add(pod.key.clone());
        }
    }
}

/// The controller of a Job that is not ours.
fn of_another(spec: &JobSpec) -> Option<&str> {
    spec.managed_by.as_deref().filter(|manager| *manager != MANAGER)
}

fn result_of<T>(result: &Result<T, ClientError>) -> &'static str {
    if result.is_ok() { "success" } else { "error" }
}

/// Why pods are made, as metrics call it.
fn creation_reason(job: &Job, plan: &Plan) -> &'static str {
    let policy = job.spec.as_ref().and_then(|spec| spec.pod_replacement_policy.as_deref());
    let has_failed = plan.status.failed > Some(0);
    if policy == Some("Failed") && has_failed {
        return "recreate_failed";
    }
    if has_failed || plan.status.terminating > Some(0) {
        return "recreate_terminating_or_failed";
    }
    "new"
}

fn is_tracked(pod: &PodView) -> bool {
    pod.finalizers.iter().any(|finalizer| finalizer == JOB_TRACKING)
}

fn owner(job: &Job) -> Owner {
    Owner {
        api_version: "batch/v1",
        kind: "Job",
        key: key_of(&job.metadata),
        uid: job.metadata.uid.clone().unwrap_or_default(),
    }
}
