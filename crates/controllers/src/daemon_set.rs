//! Runs a pod of a DaemonSet on every node that should have one.
//!
//! Start reading at [`Controller::sync`]. `placement` says which nodes those are and what the pod
//! of a node is, `plan` is the pure core, `history` keeps the templates that there have been.

mod history;
mod placement;
mod plan;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use client::{Change, Client, ClientError, EventType, Outcome, ResourcePath, WorkQueue};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::Node;
use meta::ObjectKey;
use serde_json::{Value, json};

use self::history::{History, Revisions};
use self::plan::{Plan, View};
use crate::context::Context;
use crate::expectations::Expectations;
use crate::pod_control::{Owner, PodControl};
use crate::pod_view::PodView;
use crate::reconcile::work;
use crate::revisions::{self, RevisionControl};
use crate::selection::{controller_of, key_of, selector};
use crate::written::{PODS, Writes, Written};

/// Label of pods and revisions: which template they are of.
const HASH: &str = "controller-revision-hash";
/// Label of pods from before there were revisions, and what it comes from.
const TEMPLATE_GENERATION: &str = "pod-template-generation";
const TEMPLATE_GENERATION_OF: &str = "deprecated.daemonset.template.generation";
/// Pods created or deleted in one pass: upstream `BurstReplicas`.
const BURST: usize = 250;
/// How long a pod that failed again stays: upstream's back-off per node.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(900);

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("daemon-set-controller");
    let recorder = ctx.recorder(&client, "daemonset-controller");
    let writes = ctx.writes("StaleControllerConsistencyDaemonSet", &ctx.counts.stale.daemon_set);
    let controller = Arc::new(Controller {
        queue: ctx.queue("daemonset"),
        pods: PodControl { client: client.clone(), recorder, writes: Some(Arc::clone(&writes)) },
        writes,
        client,
        expectations: Expectations::default(),
        failures: Mutex::default(),
        ctx,
    });
    let informers = &controller.ctx.informers;
    tokio::join!(
        informers.daemon_sets.synced(),
        informers.controller_revisions.synced(),
        informers.nodes.synced(),
        informers.pods.synced()
    );
    controller.follow();
    work(&controller, &controller.queue, &controller.ctx.shutdown, |this, key| async move {
        this.sync(&key).await
    })
    .await;
}

/// Failures of one node: how long the next deletion waits, and since when.
#[derive(Clone, Copy)]
struct Failures {
    wait: Duration,
    since: Instant,
}

struct Controller {
    ctx: Context,
    queue: WorkQueue<ObjectKey>,
    client: Client,
    pods: PodControl,
    writes: Arc<Writes>,
    expectations: Expectations,
    /// By uid and generation of the set, and node: a new template is tried at once.
    failures: Mutex<HashMap<(String, i64, String), Failures>>,
}

impl Controller {
    fn follow(self: &Arc<Self>) {
        let informers = &self.ctx.informers;
        let this = Arc::clone(self);
        informers.daemon_sets.on_change(move |key, change| {
            this.expectations.owner_changed(&change);
            if matches!(change, Change::Deleted(_)) {
                this.writes.forget(key);
            }
            this.queue.add(key.clone());
        });
        let this = Arc::clone(self);
        informers.controller_revisions.on_change(move |key, change| {
            let (Change::Added(revision)
            | Change::Deleted(revision)
            | Change::Updated { new: revision, .. }) = change;
            if let Some(owner) = controller_of(&revision.metadata).filter(|o| o.kind == KIND) {
                this.queue.add(ObjectKey::new(&key.namespace, &owner.name));
            }
        });
        let this = Arc::clone(self);
        informers.nodes.on_change(move |_, change| {
            if let Change::Updated { old, new } = &change
                && is_same_place(old, new)
            {
                return;
            }
            for set in this.ctx.informers.daemon_sets.list() {
                this.queue.add(key_of(&set.metadata));
            }
        });
        let this = Arc::clone(self);
        informers.pods.on_change(move |_, change| this.pod_changed(&change));
    }

    fn pod_changed(&self, change: &Change<'_, PodView>) {
        let (Change::Added(pod) | Change::Deleted(pod) | Change::Updated { new: pod, .. }) = change;
        if let Change::Updated { old, new } = change
            && old.controller != new.controller
        {
            old.controller_key(KIND).into_iter().for_each(|key| self.queue.add(key));
        }
        if pod.controller.is_none() && !matches!(change, Change::Deleted(_)) {
            for set in self.ctx.informers.daemon_sets.list_namespace(&pod.key.namespace) {
                if pod.matches(&selector(set.spec.as_ref().map(|spec| &spec.selector))) {
                    self.queue.add(key_of(&set.metadata));
                }
            }
        }
        let Some(key) = pod.controller_key(KIND) else { return };
        let uid = pod.controller_uid();
        match change {
            Change::Added(pod) if pod.deleted.is_none() => self.expectations.created(uid),
            Change::Added(pod) | Change::Deleted(pod) => self.expectations.deleted(uid, &pod.uid),
            Change::Updated { new, .. } if new.deleted.is_some() => {
                self.expectations.deleted(uid, &new.uid);
            }
            Change::Updated { .. } => {}
        }
        self.queue.add(key);
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let informers = &self.ctx.informers;
        let seen = [(WRITTEN, informers.daemon_sets.seen()), (PODS, informers.pods.seen())];
        if self.writes.are_unseen(key, &seen) {
            return Ok(Outcome::Requeue);
        }
        let Some(set) = informers.daemon_sets.get(key) else {
            return Ok(Outcome::Done);
        };
        let owner = owner(&set);
        if selects_all(&set) {
            let text = "This daemon set is selecting all pods. A non-empty selector is required.";
            let (regarding, text) = (owner.regarding(), text.to_owned());
            self.pods.recorder.record(&regarding, EventType::Warning, "SelectingAll", text);
            return Ok(Outcome::Done);
        }
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let is_current = self.expectations.are_met(&owner.uid, self.ctx.clock.monotonic());
        let pods = self.claim_pods(&set, &owner).await?;
        let history = self.history(&set, &owner, &pods).await?;
        let hash = history::hash_of(&history.current).cloned().unwrap_or_default();
        let nodes = self.ctx.informers.nodes.list();
        let view = View::new(&set, &nodes, &pods, &hash, self.ctx.clock.now());
        let (mut wait, mut result) = (None, Ok(()));
        if is_current {
            (wait, result) = self.act(&view, &owner).await;
            if result.is_ok() {
                let control = RevisionControl { client: &self.client, owner: &owner };
                for revision in history::surplus(&set, &history.old, &pods) {
                    control.delete(&revision).await?;
                }
            }
        }
        let status = view.status(is_current);
        self.write_status(&set, &owner, &status).await?;
        result?;
        let seconds = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
        if seconds > 0 && status.number_ready != status.number_available.unwrap_or(0) {
            let ready = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            wait = wait.into_iter().chain([ready]).min();
        }
        let unseen = self.expectations.wait(&owner.uid, self.ctx.clock.monotonic());
        Ok(wait.into_iter().chain(unseen).min().map_or(Outcome::Done, Outcome::RequeueAfter))
    }

    /// Puts pods where they belong; then, if nothing had to be done, replaces old ones.
    async fn act(
        &self,
        view: &View<'_>,
        owner: &Owner,
    ) -> (Option<Duration>, Result<(), ClientError>) {
        let now = self.ctx.clock.monotonic();
        let generation = view.set.metadata.generation.unwrap_or(0);
        let at = |node: &str| (owner.uid.clone(), generation, node.to_owned());
        let plan = view.manage(|node| self.failures_left(&at(node), now));
        for node in &plan.failed {
            self.note_failure(at(node), now);
        }
        for (kind, reason, text) in &plan.events {
            self.pods.recorder.record(&owner.regarding(), *kind, reason, text.clone());
        }
        let wait = plan.wait;
        if let Err(error) = self.carry_out(view, owner, plan).await {
            return (wait, Err(error));
        }
        if !self.expectations.are_met(&owner.uid, now) {
            return (wait, Ok(()));
        }
        (wait, self.carry_out(view, owner, view.roll()).await)
    }

    async fn carry_out(
        &self,
        view: &View<'_>,
        owner: &Owner,
        mut plan: Plan,
    ) -> Result<(), ClientError> {
        plan.create.truncate(BURST);
        plan.delete.truncate(BURST);
        if plan.create.is_empty() && plan.delete.is_empty() {
            return Ok(());
        }
        let (uid, now) = (&owner.uid, self.ctx.clock.monotonic());
        let uids = plan.delete.iter().map(|pod| pod.uid.clone()).collect();
        self.expectations.expect(uid, plan.create.len(), uids, now);
        let nodes = Mutex::new(plan.create.iter());
        let create = || async {
            let node = nodes.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(node) = node else { return Ok(()) };
            let pod = placement::pod(view.set, owner, node, view.hash);
            match self.pods.create(owner, &pod).await {
                Ok(_) => Ok(()),
                Err(error) => {
                    self.expectations.created(uid);
                    if error.is_namespace_terminating() { Ok(()) } else { Err(error) }
                }
            }
        };
        let (skipped, created) = crate::replica_set::slow_start(plan.create.len(), 1, create).await;
        (0..skipped).for_each(|_| self.expectations.created(uid));
        let deletions = plan.delete.iter().map(|pod| async {
            let result = self.pods.delete(owner, pod).await;
            if result.is_err() {
                self.expectations.deleted(uid, &pod.uid);
            }
            result
        });
        let deleted: Result<(), _> =
            futures::future::join_all(deletions).await.into_iter().collect();
        created.and(deleted)
    }

    /// How long a node's last failure still holds the next deletion.
    fn failures_left(&self, at: &(String, i64, String), now: Instant) -> Option<Duration> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let Failures { wait, since } = *failures.get(at)?;
        (since + wait).checked_duration_since(now).filter(|left| !left.is_zero())
    }

    fn note_failure(&self, at: (String, i64, String), now: Instant) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        // What has been quiet for long begins anew; this also keeps the map small.
        failures.retain(|_, known| now.duration_since(known.since) <= BACKOFF_MAX * 2);
        let wait = failures.get(&at).map_or(BACKOFF_FIRST, |known| known.wait * 2);
        failures.insert(at, Failures { wait: wait.min(BACKOFF_MAX), since: now });
    }

    async fn history(
        &self,
        set: &DaemonSet,
        owner: &Owner,
        pods: &[Arc<PodView>],
    ) -> Result<History, ClientError> {
        let control = RevisionControl { client: &self.client, owner };
        let mut ours: Vec<Arc<ControllerRevision>> = Vec::new();
        let all = self.ctx.informers.controller_revisions.list_namespace(&owner.key.namespace);
        for revision in all {
            match history::claim(set, &revision) {
                revisions::Claim::Keep => ours.push(revision),
                revisions::Claim::Ignore => {}
                revisions::Claim::Release => control.release(&revision).await?,
                revisions::Claim::Adopt if self.pods.is_alive::<DaemonSet>(owner).await? => {
                    control.adopt(&revision).await?;
                    ours.push(revision);
                }
                revisions::Claim::Adopt => {}
            }
        }
        Revisions { client: &self.client, pods: &self.pods, set, owner }.settle(ours, pods).await
    }

    async fn claim_pods(
        &self,
        set: &DaemonSet,
        owner: &Owner,
    ) -> Result<Vec<Arc<PodView>>, ClientError> {
        let informers = &self.ctx.informers;
        let selector = selector(set.spec.as_ref().map(|spec| &spec.selector));
        let pods = informers.pod_index.within_reach(&owner.key.namespace, &owner.uid);
        self.pods.claim_all::<DaemonSet>(owner, false, &selector, pods.into_iter()).await
    }

    async fn write_status(
        &self,
        set: &DaemonSet,
        owner: &Owner,
        status: &DaemonSetStatus,
    ) -> Result<(), ClientError> {
        let mut known = set.status.clone().unwrap_or_default();
        for number in [
            &mut known.updated_number_scheduled,
            &mut known.number_available,
            &mut known.number_unavailable,
        ] {
            *number = number.filter(|number| *number > 0);
        }
        if known == *status {
            return Ok(());
        }
        let change = json!({ "metadata": { "uid": owner.uid }, "status": {
            "currentNumberScheduled": status.current_number_scheduled,
            "desiredNumberScheduled": status.desired_number_scheduled,
            "numberMisscheduled": status.number_misscheduled,
            "numberReady": status.number_ready,
            "numberAvailable": status.number_available,
            "numberUnavailable": status.number_unavailable,
            "updatedNumberScheduled": status.updated_number_scheduled,
            "observedGeneration": status.observed_generation,
        } });
        let key = &owner.key;
        let api = self.client.dynamic::<Value>(ResourcePath::of::<DaemonSet>(), &key.namespace);
        let answer = api.merge_update(&key.name, "status", &change).await;
        self.writes.wrote_status(owner, WRITTEN, answer)
    }
}

const KIND: &str = "DaemonSet";
const WRITTEN: Written = ("apps", "daemonsets");

fn owner(set: &DaemonSet) -> Owner {
    Owner {
        api_version: "apps/v1",
        kind: KIND,
        key: key_of(&set.metadata),
        uid: set.metadata.uid.clone().unwrap_or_default(),
    }
}

/// The count of templates in the annotation, from before there were revisions.
fn template_generation(set: &DaemonSet) -> Option<i64> {
    set.metadata.annotations.as_ref()?.get(TEMPLATE_GENERATION_OF)?.parse().ok()
}

fn selects_all(set: &DaemonSet) -> bool {
    set.spec.as_ref().is_some_and(|spec| {
        spec.selector.match_labels.as_ref().is_none_or(|labels| labels.is_empty())
            && spec.selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
    })
}

/// Whether nothing changed that decides which pods the node should have.
fn is_same_place(old: &Node, new: &Node) -> bool {
    let taints = |node: &Node| node.spec.as_ref().and_then(|spec| spec.taints.clone());
    old.metadata.labels == new.metadata.labels && taints(old) == taints(new)
}
