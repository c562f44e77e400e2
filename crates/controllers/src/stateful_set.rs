//! Keeps the pods of a StatefulSet: each with a name, an ordinal and claims of its own.
//!
//! Start reading at [`Controller::sync`]. `identity` says who a pod is, `plan` is the pure core,
//! `claims` says who owns the claims, `history` keeps the templates that there have been.

mod claims;
mod history;
mod identity;
mod plan;

use std::sync::{Arc, Mutex, PoisonError};

use client::{Change, Client, ClientError, DeleteOptions, EventType, Outcome, Patch, ResourcePath};
use client::{EventRecorder, WorkQueue};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use meta::{ObjectKey, Reason, Status};
use serde_json::{Value, json};

use self::claims::Owners;
use self::history::History;
use self::plan::{Counts, Step, View};
use crate::context::Context;
use crate::expectations::Expectations;
use crate::pod_control::{Owner, PodControl};
use crate::pod_view::PodView;
use crate::reconcile::work;
use crate::revisions::{self, RevisionControl};
use crate::selection::{controller_of, key_of, selector};
use crate::written::{PODS, Writes, Written};

const KIND: &str = "StatefulSet";
/// What upstream calls the written object itself, and the claims of its pods.
const WRITTEN: Written = ("apps", "statefulsets");
const CLAIMS: Written = ("", "persistentvolumeclaims");
/// Label of pods: the name of the revision they are of.
const HASH: &str = "controller-revision-hash";

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("statefulset-controller");
    let recorder = ctx.recorder(&client, "statefulset-controller");
    let writes =
        ctx.writes("StaleControllerConsistencyStatefulSet", &ctx.counts.stale.stateful_set);
    let controller = Arc::new(Controller {
        queue: ctx.queue("statefulset"),
        pods: PodControl {
            client: client.clone(),
            recorder: recorder.clone(),
            writes: Some(Arc::clone(&writes)),
        },
        writes,
        client,
        recorder,
        expectations: Expectations::default(),
        ctx,
    });
    let informers = &controller.ctx.informers;
    tokio::join!(
        informers.stateful_sets.synced(),
        informers.controller_revisions.synced(),
        informers.claims.synced(),
        informers.pods.synced()
    );
    controller.follow();
    work(&controller, &controller.queue, &controller.ctx.shutdown, |this, key| async move {
        this.sync(&key).await
    })
    .await;
}

struct Controller {
    ctx: Context,
    queue: WorkQueue<ObjectKey>,
    client: Client,
    recorder: EventRecorder,
    pods: PodControl,
    writes: Arc<Writes>,
    /// Pods that were told to go and are not yet seen going: others must not be taken for them.
    expectations: Expectations,
}

impl Controller {
    fn follow(self: &Arc<Self>) {
        let informers = &self.ctx.informers;
        let this = Arc::clone(self);
        informers.stateful_sets.on_change(move |key, change| {
            this.expectations.owner_changed(&change);
            if matches!(change, Change::Deleted(_)) {
                this.writes.forget(key);
            }
            this.queue.add(key.clone());
        });
        let this = Arc::clone(self);
        informers.pods.on_change(move |_, change| this.pod_changed(&change));
        let this = Arc::clone(self);
        informers.controller_revisions.on_change(move |key, change| {
            let (Change::Added(revision)
            | Change::Deleted(revision)
            | Change::Updated { new: revision, .. }) = change;
            if let Some(owner) = controller_of(&revision.metadata).filter(|o| o.kind == KIND) {
                this.queue.add(ObjectKey::new(&key.namespace, &owner.name));
            }
        });
        // A pod may wait for the claim of an earlier one to go.
        let this = Arc::clone(self);
        informers.claims.on_change(move |key, change| {
            if !matches!(change, Change::Deleted(_)) {
                return;
            }
            for set in this.ctx.informers.stateful_sets.list_namespace(&key.namespace) {
                let name = set.metadata.name.as_deref().unwrap_or_default();
                let mut templates = identity::templates(&set).iter();
                if templates.any(|one| identity::is_claim_of(one, name, &key.name)) {
                    this.queue.add(key_of(&set.metadata));
                }
            }
        });
    }

    fn pod_changed(&self, change: &Change<'_, PodView>) {
        let (Change::Added(pod) | Change::Deleted(pod) | Change::Updated { new: pod, .. }) = change;
        if let Change::Updated { old, new } = change
            && old.controller != new.controller
        {
            self.expectations.deleted(old.controller_uid(), &old.uid);
            old.controller_key(KIND).into_iter().for_each(|key| self.queue.add(key));
        }
        if let Some(key) = pod.controller_key(KIND) {
            if pod.deleted.is_some() || matches!(change, Change::Deleted(_)) {
                self.expectations.deleted(pod.controller_uid(), &pod.uid);
            }
            self.queue.add(key);
        }
        if pod.controller.is_none() && !matches!(change, Change::Deleted(_)) {
            for set in self.ctx.informers.stateful_sets.list_namespace(&pod.key.namespace) {
                if pod.matches(&selector(set.spec.as_ref().map(|spec| &spec.selector))) {
                    self.queue.add(key_of(&set.metadata));
                }
            }
        }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let informers = &self.ctx.informers;
        let seen = [
            (WRITTEN, informers.stateful_sets.seen()),
            (PODS, informers.pods.seen()),
            (CLAIMS, informers.claims.seen()),
        ];
        if self.writes.are_unseen(key, &seen) {
            return Ok(Outcome::Requeue);
        }
        let Some(set) = informers.stateful_sets.get(key) else {
            for policy in ["OrderedReady", "Parallel"] {
                self.ctx.counts.stateful_set.forget([policy, &key.name, &key.namespace]);
            }
            return Ok(Outcome::Done);
        };
        let owner = owner(&set);
        if let Some(wait) = self.expectations.wait(&owner.uid, self.ctx.clock.monotonic()) {
            return Ok(Outcome::RequeueAfter(wait));
        }
        let control = RevisionControl { client: &self.client, owner: &owner };
        let revisions = self.claim_revisions(&set, &control).await?;
        let pods = self.claim_pods(&set, &owner).await?;
        let history = History::settle(&set, &control, revisions).await?;
        let view = View {
            set: &set,
            pods: &pods,
            current: history::name_of(&history.current),
            update: history::name_of(&history.update),
            now: self.ctx.clock.now(),
        };
        let plan = view.plan();
        if let Some((most, missing)) = plan.room.filter(|_| self.counts_unavailable()) {
            let policy = if view.is_ordered() { "OrderedReady" } else { "Parallel" };
            let labels = [policy, &key.name, &key.namespace];
            self.ctx.counts.stateful_set.note(labels, most, missing);
        }
        let done = self.carry_out(&view, &owner, &history, &plan.steps).await;
        let status = status(&set, &history, plan.counts);
        self.write_status(&set, &owner, &status).await?;
        done?;
        for revision in history.surplus(&set, &pods) {
            control.delete(&revision).await?;
        }
        Ok(plan.wait.map_or(Outcome::Done, Outcome::RequeueAfter))
    }

    /// Upstream's condition, too.
    fn counts_unavailable(&self) -> bool {
        self.ctx.config.features.is_enabled("MaxUnavailableStatefulSet")
    }

    /// One step after the other, or in growing batches where the order does not matter.
    async fn carry_out(
        &self,
        view: &View<'_>,
        owner: &Owner,
        history: &History,
        steps: &[Step],
    ) -> Result<(), ClientError> {
        let pass = Pass { controller: self, set: view.set, owner, history };
        if view.is_ordered() {
            for step in steps {
                pass.take(step).await?;
            }
            return Ok(());
        }
        let next = Mutex::new(steps.iter());
        let (_, result) = crate::replica_set::slow_start(steps.len(), 1, || async {
            let step = next.lock().unwrap_or_else(PoisonError::into_inner).next();
            match step {
                Some(step) => pass.take(step).await,
                None => Ok(()),
            }
        })
        .await;
        result
    }

    async fn claim_revisions(
        &self,
        set: &StatefulSet,
        control: &RevisionControl<'_>,
    ) -> Result<Vec<Arc<ControllerRevision>>, ClientError> {
        let wanted = set.spec.as_ref().map(|spec| &spec.selector);
        let namespace = &control.owner.key.namespace;
        let mut ours = Vec::new();
        for revision in self.ctx.informers.controller_revisions.list_namespace(namespace) {
            match revisions::claim(&set.metadata, wanted, &revision) {
                revisions::Claim::Keep => ours.push(revision),
                revisions::Claim::Ignore => {}
                revisions::Claim::Release => control.release(&revision).await?,
                revisions::Claim::Adopt
                    if self.pods.is_alive::<StatefulSet>(control.owner).await? =>
                {
                    control.adopt(&revision).await?;
                    ours.push(revision);
                }
                revisions::Claim::Adopt => {}
            }
        }
        Ok(ours)
    }

    /// The set's pods; others that its selector selects are not called as its pods are.
    async fn claim_pods(
        &self,
        set: &StatefulSet,
        owner: &Owner,
    ) -> Result<Vec<Arc<PodView>>, ClientError> {
        let informers = &self.ctx.informers;
        let selector = selector(set.spec.as_ref().map(|spec| &spec.selector));
        let is_deleted = set.metadata.deletion_timestamp.is_some();
        let pods = informers.pod_index.within_reach(&owner.key.namespace, &owner.uid).into_iter();
        let pods = pods.filter(|pod| identity::ordinal(&owner.key.name, &pod.key.name).is_some());
        self.pods.claim_all::<StatefulSet>(owner, is_deleted, &selector, pods).await
    }

    async fn write_status(
        &self,
        set: &StatefulSet,
        owner: &Owner,
        status: &StatefulSetStatus,
    ) -> Result<(), ClientError> {
        if set.status.as_ref() == Some(status) {
            return Ok(());
        }
        let change = json!({ "metadata": { "uid": owner.uid }, "status": {
            "replicas": status.replicas,
            "readyReplicas": status.ready_replicas,
            "availableReplicas": status.available_replicas,
            "currentReplicas": status.current_replicas,
            "updatedReplicas": status.updated_replicas,
            "currentRevision": status.current_revision,
            "updateRevision": status.update_revision,
            "collisionCount": status.collision_count,
            "observedGeneration": status.observed_generation,
        } });
        let key = &owner.key;
        let api = self.client.dynamic::<Value>(ResourcePath::of::<StatefulSet>(), &key.namespace);
        let answer = api.merge_update(&key.name, "status", &change).await;
        self.writes.wrote_status(owner, WRITTEN, answer)
    }
}

/// What the steps of one pass have in common.
struct Pass<'a> {
    controller: &'a Controller,
    set: &'a StatefulSet,
    owner: &'a Owner,
    history: &'a History,
}

impl Pass<'_> {
    async fn take(&self, step: &Step) -> Result<(), ClientError> {
        match step {
            Step::Create { ordinal, is_current } => self.create(*ordinal, *is_current).await,
            Step::Claims { ordinal } => self.make_claims(*ordinal).await.map(drop),
            Step::Relabel(pod) => self.relabel(pod).await,
            Step::Owners { ordinal, pod } => {
                let claims = self.known_claims(*ordinal);
                self.own_claims(*ordinal, &pod.uid, &claims).await
            }
            Step::Delete(pod) => self.delete(pod).await,
        }
    }

    async fn create(&self, ordinal: i64, is_current: bool) -> Result<(), ClientError> {
        let name = identity::pod_name(&self.owner.key.name, ordinal);
        if self.known_claims(ordinal).iter().any(|claim| claims::is_stale(claim, &name)) {
            // It goes with the earlier pod, and brings the set back when it has gone.
            return Ok(());
        }
        let revision = if is_current { &self.history.current } else { &self.history.update };
        let template = history::template_of(revision).or_else(|| {
            // What the data of a revision is, is for others to write, too.
            self.set.spec.as_ref().map(|spec| spec.template.clone())
        });
        let template = template.unwrap_or_default();
        let named = (ordinal, history::name_of(revision));
        let pod = identity::pod(self.set, self.owner, &template, named);
        let created = async {
            let claims = self.make_claims(ordinal).await?;
            let pods = self.controller.client.api::<Pod>(&self.owner.key.namespace);
            let created = pods.create_unread(&pod).await?;
            self.controller.pods.wrote(self.owner, Some(&created.resource_version));
            self.own_claims(ordinal, &created.uid, &claims).await
        };
        let result = created.await;
        match &result {
            Err(error) if error.is_already_exists() || error.is_namespace_terminating() => {}
            _ => self.pod_event("create", &name, result.as_ref().err()),
        }
        result
    }

    async fn delete(&self, pod: &PodView) -> Result<(), ClientError> {
        let options = DeleteOptions { uid: Some(pod.uid.clone()), ..DeleteOptions::default() };
        let Controller { client, expectations, ctx, .. } = self.controller;
        expectations.expect_deletion(&self.owner.uid, &pod.uid, ctx.clock.monotonic());
        let result = client.api::<Pod>(&pod.key.namespace).delete(&pod.key.name, &options).await;
        if result.is_err() {
            expectations.deleted(&self.owner.uid, &pod.uid);
        }
        match result {
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            result => {
                self.pod_event("delete", &pod.key.name, result.as_ref().err());
                result
            }
        }
    }

    async fn relabel(&self, pod: &PodView) -> Result<(), ClientError> {
        let name = &pod.key.name;
        let Some(ordinal) = identity::ordinal(&self.owner.key.name, name) else { return Ok(()) };
        let labels: serde_json::Map<_, _> = identity::labels_of(name, ordinal)
            .into_iter()
            .map(|(label, value)| (label, value.into()))
            .collect();
        let patch = json!({ "metadata": { "uid": pod.uid, "labels": labels } });
        let pods = self.controller.client.api::<Pod>(&pod.key.namespace);
        match pods.patch(name, &Patch::Strategic(patch)).await {
            Err(error) if error.is_not_found() => Ok(()),
            result => {
                self.pod_event("update", name, result.as_ref().err());
                let version = result?.metadata.resource_version;
                self.controller.pods.wrote(self.owner, version.as_deref());
                Ok(())
            }
        }
    }

    /// The claims of an ordinal that the cache knows.
    fn known_claims(&self, ordinal: i64) -> Vec<Arc<PersistentVolumeClaim>> {
        let Owner { key, .. } = self.owner;
        let templates = identity::templates(self.set).iter();
        let keys = templates.map(|template| {
            ObjectKey::new(&key.namespace, identity::claim_name(template, &key.name, ordinal))
        });
        keys.filter_map(|key| self.controller.ctx.informers.claims.get(&key)).collect()
    }

    /// Makes the claims of an ordinal that are missing, and gives all of them.
    async fn make_claims(
        &self,
        ordinal: i64,
    ) -> Result<Vec<Arc<PersistentVolumeClaim>>, ClientError> {
        let Owner { key, .. } = self.owner;
        let api = self.controller.client.api::<PersistentVolumeClaim>(&key.namespace);
        let mut claims = Vec::new();
        for template in identity::templates(self.set) {
            let claim = identity::claim(self.set, self.owner, template, ordinal);
            let name = claim.metadata.name.clone().unwrap_or_default();
            let known = ObjectKey::new(&key.namespace, &name);
            if let Some(known) = self.controller.ctx.informers.claims.get(&known) {
                if known.metadata.deletion_timestamp.is_some() {
                    let text = format!("pvc {name} is being deleted");
                    return Err(Status::failure(Reason::Conflict, text).into());
                }
                claims.push(known);
                continue;
            }
            let result = api.create(&claim).await;
            if result.as_ref().is_err_and(ClientError::is_already_exists) {
                claims.push(Arc::new(api.get(&name).await?));
                continue;
            }
            self.claim_event(&name, ordinal, result.as_ref().err());
            let made = result?;
            let version = made.metadata.resource_version.as_deref();
            self.controller.writes.wrote(self.owner, CLAIMS, version);
            claims.push(Arc::new(made));
        }
        Ok(claims)
    }

    /// Gives claims the owners that the retention policy wants.
    async fn own_claims(
        &self,
        ordinal: i64,
        uid: &str,
        claims: &[Arc<PersistentVolumeClaim>],
    ) -> Result<(), ClientError> {
        let Owner { key, .. } = self.owner;
        let name = identity::pod_name(&key.name, ordinal);
        let pod = Owner {
            api_version: "v1",
            kind: "Pod",
            key: ObjectKey::new(&key.namespace, name),
            uid: uid.to_owned(),
        };
        let path = ResourcePath::of::<PersistentVolumeClaim>();
        let api = self.controller.client.dynamic::<Value>(path, &key.namespace);
        for claim in claims {
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            let change = match claims::owners(self.set, self.owner, &pod, ordinal, claim) {
                Owners::Kept => continue,
                Owners::Conflict => {
                    let text = format!(
                        "PersistentVolumeClaim {name} has a conflicting OwnerReference that acts \
                         as a managing controller, the retention policy is ignored for this claim"
                    );
                    self.event(EventType::Warning, "ConflictingController", text);
                    continue;
                }
                Owners::Changed(owners) => json!({ "metadata": {
                    "ownerReferences": owners, "uid": claim.metadata.uid,
                    "resourceVersion": claim.metadata.resource_version } }),
            };
            match api.merge_update(name, "", &change).await {
                Ok(written) => {
                    let version = written["metadata"]["resourceVersion"].as_str();
                    self.controller.writes.wrote(self.owner, CLAIMS, version);
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Upstream `recordPodEvent`.
    fn pod_event(&self, verb: &str, pod: &str, error: Option<&ClientError>) {
        let set = &self.owner.key.name;
        let text = match error {
            None => format!("{verb} Pod {pod} in StatefulSet {set} successful"),
            Some(error) => format!("{verb} Pod {pod} in StatefulSet {set} failed error: {error}"),
        };
        let (kind, outcome) = outcome(error);
        self.event(kind, &reason(outcome, verb), text);
    }

    /// Upstream `recordClaimEvent`.
    fn claim_event(&self, claim: &str, ordinal: i64, error: Option<&ClientError>) {
        let set = &self.owner.key.name;
        let pod = identity::pod_name(set, ordinal);
        let text = match error {
            None => format!("create Claim {claim} Pod {pod} in StatefulSet {set} success"),
            Some(error) => {
                format!(
                    "create Claim {claim} for Pod {pod} in StatefulSet {set} failed error: {error}"
                )
            }
        };
        let (kind, outcome) = outcome(error);
        self.event(kind, &reason(outcome, "create"), text);
    }

    fn event(&self, kind: EventType, reason: &str, text: String) {
        self.controller.recorder.record(&self.owner.regarding(), kind, reason, text);
    }
}

fn outcome(error: Option<&ClientError>) -> (EventType, &'static str) {
    match error {
        None => (EventType::Normal, "Successful"),
        Some(_) => (EventType::Warning, "Failed"),
    }
}

fn reason(outcome: &str, verb: &str) -> String {
    let (first, rest) = verb.split_at(1);
    format!("{outcome}{}{rest}", first.to_ascii_uppercase())
}

/// The status after a pass: upstream `completeRollingUpdate` included.
fn status(set: &StatefulSet, history: &History, counts: Counts) -> StatefulSetStatus {
    let some = |number: i32| (number > 0).then_some(number);
    let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
    let kind = strategy.and_then(|strategy| strategy.type_.as_deref());
    let is_complete = kind == Some("RollingUpdate")
        && counts.updated == counts.replicas
        && counts.ready == counts.replicas;
    let update = history::name_of(&history.update).to_owned();
    let (current, revision) = if is_complete {
        (counts.updated, update.clone())
    } else {
        (counts.current, history::name_of(&history.current).to_owned())
    };
    StatefulSetStatus {
        replicas: counts.replicas,
        ready_replicas: some(counts.ready),
        available_replicas: Some(counts.available),
        current_replicas: some(current),
        updated_replicas: some(counts.updated),
        current_revision: Some(revision),
        update_revision: Some(update),
        collision_count: Some(history.collisions),
        observed_generation: set.metadata.generation,
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
    }
}

fn owner(set: &StatefulSet) -> Owner {
    Owner {
        api_version: "apps/v1",
        kind: KIND,
        key: key_of(&set.metadata),
        uid: set.metadata.uid.clone().unwrap_or_default(),
    }
}
