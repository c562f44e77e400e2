//! Keeps the wanted number of pods of a ReplicaSet or a ReplicationController: one core for both,
//! as they differ only in the form of their selector.

mod ranking;
mod status;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::{Change, Client, ClientError, Lister, Outcome, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::Metadata;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{PodTemplateSpec, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use meta::{LabelSelector, ObjectKey};

use crate::context::Context;
use crate::expectations::Expectations;
use crate::pod_control::{Claim, Owner, PodControl, claim, from_template};
use crate::pod_view::PodView;
use crate::reconcile::work;
use crate::written::{PODS, Writes, Written};

/// What upstream calls the written object itself.
const WRITTEN: Written = ("apps", "replicasets");
/// Pods created or deleted in one go: upstream `BurstReplicas`.
const BURST: usize = 500;

/// A ReplicaSet or ReplicationController in the form that the core works on.
pub(crate) struct Replicas {
    pub(crate) owner: Owner,
    pub(crate) generation: i64,
    pub(crate) deleted: bool,
    /// Uid of the object that controls it.
    pub(crate) controller: Option<String>,
    pub(crate) replicas: i32,
    pub(crate) min_ready_seconds: i32,
    pub(crate) selector: LabelSelector,
    pub(crate) template: PodTemplateSpec,
    pub(crate) status: ReplicaSetStatus,
}

/// The two kinds.
pub(crate) trait Kind:
    k8s_openapi::Resource + Metadata<Ty = ObjectMeta> + api::Typed + Send + Sync + 'static
{
    /// Name of the queue.
    const QUEUE: &'static str;
    /// The service account, which is also the source of events.
    const ACCOUNT: &'static str;

    /// What is remembered of writes; nothing where no gate says so.
    fn writes(ctx: &Context) -> Option<Arc<Writes>>;

    /// All objects of the kind.
    fn lister(ctx: &Context) -> &Lister<Self>;

    /// What the core works on.
    fn replicas(&self) -> Replicas;
}

impl Kind for ReplicaSet {
    const QUEUE: &'static str = "replicaset";
    const ACCOUNT: &'static str = "replicaset-controller";

    fn writes(ctx: &Context) -> Option<Arc<Writes>> {
        let gate = "StaleControllerConsistencyReplicaSet";
        Some(ctx.writes(gate, &ctx.counts.stale.replica_set))
    }

    fn lister(ctx: &Context) -> &Lister<Self> {
        &ctx.informers.replica_sets
    }

    fn replicas(&self) -> Replicas {
        let spec = self.spec.clone().unwrap_or_default();
        let meta = &self.metadata;
        Replicas {
            owner: owner::<Self>(meta),
            generation: meta.generation.unwrap_or_default(),
            deleted: meta.deletion_timestamp.is_some(),
            controller: crate::selection::controller_of(meta).map(|owner| owner.uid.clone()),
            replicas: spec.replicas.unwrap_or(1),
            min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
            selector: crate::selection::selector(Some(&spec.selector)),
            template: spec.template.unwrap_or_default(),
            status: self.status.clone().unwrap_or_default(),
        }
    }
}

impl Kind for ReplicationController {
    const QUEUE: &'static str = "replicationmanager";
    const ACCOUNT: &'static str = "replication-controller";

    fn writes(_: &Context) -> Option<Arc<Writes>> {
        None
    }

    fn lister(ctx: &Context) -> &Lister<Self> {
        &ctx.informers.replication_controllers
    }

    fn replicas(&self) -> Replicas {
        let spec = self.spec.clone().unwrap_or_default();
        let meta = &self.metadata;
        let selector = spec.selector.unwrap_or_default();
        Replicas {
            owner: owner::<Self>(meta),
            generation: meta.generation.unwrap_or_default(),
            deleted: meta.deletion_timestamp.is_some(),
            controller: None,
            replicas: spec.replicas.unwrap_or(1),
            min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
            selector: if selector.is_empty() {
                LabelSelector::nothing()
            } else {
                LabelSelector::from_labels(selector)
            },
            template: spec.template.unwrap_or_default(),
            status: status::of_replication_controller(self.status.clone().unwrap_or_default()),
        }
    }
}

fn owner<K: k8s_openapi::Resource>(meta: &ObjectMeta) -> Owner {
    Owner {
        api_version: K::API_VERSION,
        kind: K::KIND,
        key: crate::selection::key_of(meta),
        uid: meta.uid.clone().unwrap_or_default(),
    }
}

/// Runs until shutdown.
pub(crate) async fn run<K: Kind>(ctx: Context) {
    let client = ctx.client(K::ACCOUNT);
    let recorder = ctx.recorder(&client, K::ACCOUNT);
    let writes = K::writes(&ctx);
    let controller = Arc::new(Controller::<K> {
        queue: ctx.queue(K::QUEUE),
        pods: PodControl { client: client.clone(), recorder, writes },
        client,
        expectations: Expectations::default(),
        pace: Mutex::default(),
        kind: std::marker::PhantomData,
        ctx,
    });
    let ctx = &controller.ctx;
    tokio::join!(K::lister(ctx).synced(), ctx.informers.pods.synced());
    controller.follow();
    work(&controller, &controller.queue, &ctx.shutdown, |this, key| async move {
        this.sync(&key).await
    })
    .await;
}

struct Controller<K> {
    ctx: Context,
    queue: WorkQueue<ObjectKey>,
    pods: PodControl,
    client: Client,
    expectations: Expectations,
    /// Sets that are being filled: how many pods the last round created, by the set's uid. The next
    /// one begins with as many at once.
    pace: Mutex<HashMap<String, usize>>,
    kind: std::marker::PhantomData<fn() -> K>,
}

impl<K: Kind> Controller<K> {
    fn follow(self: &Arc<Self>) {
        let this = Arc::clone(self);
        K::lister(&self.ctx).on_change(move |key, change| {
            this.expectations.owner_changed(&change);
            if let Change::Deleted(set) = &change {
                this.pace().remove(set.metadata().uid.as_deref().unwrap_or_default());
                this.pods.writes.iter().for_each(|writes| writes.forget(key));
            }
            this.queue.add(key.clone());
        });
        let this = Arc::clone(self);
        self.ctx.informers.pods.on_change(move |_, change| this.pod_changed(change));
    }

    fn pod_changed(&self, change: Change<'_, PodView>) {
        let owner_of = |pod: &PodView| pod.controller_key(K::KIND);
        match change {
            Change::Added(pod) => match owner_of(pod) {
                Some(owner) => {
                    self.expectations.created(pod.controller_uid());
                    if pod.deleted.is_some() {
                        self.expectations.deleted(pod.controller_uid(), &pod.uid);
                    }
                    self.queue.add(owner);
                }
                None => self.orphan_seen(pod),
            },
            Change::Updated { old, new } => {
                let (before, after) = (owner_of(old), owner_of(new));
                if before != after {
                    before.into_iter().for_each(|owner| self.queue.add(owner));
                }
                match after {
                    Some(owner) => {
                        if new.deleted.is_some() {
                            self.expectations.deleted(new.controller_uid(), &new.uid);
                        }
                        self.queue.add(owner);
                    }
                    None if old.labels != new.labels || old.controller != new.controller => {
                        self.orphan_seen(new);
                    }
                    None => {}
                }
            }
            Change::Deleted(pod) => {
                if let Some(owner) = owner_of(pod) {
                    self.expectations.deleted(pod.controller_uid(), &pod.uid);
                    self.queue.add(owner);
                }
            }
        }
    }

    /// Whoever selects a pod without a controller may want to adopt it.
    fn orphan_seen(&self, pod: &PodView) {
        if pod.controller.is_some() || pod.deleted.is_some() {
            return;
        }
        for set in K::lister(&self.ctx).list_namespace(&pod.key.namespace) {
            let replicas = set.replicas();
            if pod.matches(&replicas.selector) {
                self.queue.add(replicas.owner.key);
            }
        }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let (lister, pods) = (K::lister(&self.ctx), &self.ctx.informers.pods);
        if let Some(writes) = &self.pods.writes
            && writes.are_unseen(key, &[(WRITTEN, lister.seen()), (PODS, pods.seen())])
        {
            return Ok(Outcome::Requeue);
        }
        let Some(known) = lister.get(key) else {
            return Ok(Outcome::Done);
        };
        let set = known.replicas();
        let now = self.ctx.clock.monotonic();
        let met = self.expectations.are_met(&set.owner.uid, now);
        let pods = self.claim_pods(&set).await?;
        let (active, inactive): (Vec<_>, Vec<_>) =
            pods.into_iter().partition(|pod| pod.is_active());
        let managed = if met && !set.deleted { self.manage(&set, &active).await } else { Ok(()) };
        let terminating = inactive.iter().filter(|p| p.deleted.is_some() && !p.is_terminal());
        let wall = self.ctx.clock.now();
        let failure = managed.as_ref().err().map(|error| status::Failure {
            reason: if active.len() < wanted(&set) { "FailedCreate" } else { "FailedDelete" },
            message: error.to_string(),
        });
        let counted = status::compute(&set, &active, terminating.count(), failure, wall);
        let version = status::write(&self.client, &*known, &set, counted).await?;
        if let Some(writes) = &self.pods.writes {
            writes.wrote(&set.owner, WRITTEN, version.as_deref());
        }
        managed?;
        let unseen = self.expectations.wait(&set.owner.uid, self.ctx.clock.monotonic());
        let next = next_available(&set, &active, wall).into_iter().chain(unseen).min();
        Ok(next.map_or(Outcome::Done, Outcome::RequeueAfter))
    }

    fn pace(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pods of the set, after adopting and releasing.
    async fn claim_pods(&self, set: &Replicas) -> Result<Vec<Arc<PodView>>, ClientError> {
        let informers = &self.ctx.informers;
        let owner = &set.owner;
        let pods = informers.pod_index.within_reach(&owner.key.namespace, &owner.uid);
        let mut claimed = Vec::new();
        let mut may_adopt = None;
        for pod in pods {
            match claim(&pod, &set.owner, set.deleted, &set.selector) {
                Claim::Keep => claimed.push(pod),
                Claim::Ignore => {}
                Claim::Release => self.pods.release(&set.owner, &pod).await?,
                Claim::Adopt if !pod.is_active() => {}
                Claim::Adopt => {
                    let may = match may_adopt {
                        Some(may) => may,
                        None => *may_adopt.insert(self.is_alive(set).await?),
                    };
                    if may {
                        self.pods.adopt(&set.owner, &pod).await?;
                        claimed.push(pod);
                    }
                }
            }
        }
        Ok(claimed)
    }

    /// Asks the server whether the set still is what the cache says, before it adopts.
    async fn is_alive(&self, set: &Replicas) -> Result<bool, ClientError> {
        let key = &set.owner.key;
        let fresh = self.client.api::<K>(&key.namespace).get_opt(&key.name).await?;
        Ok(fresh.is_some_and(|fresh| {
            let fresh = fresh.replicas();
            fresh.owner.uid == set.owner.uid && !fresh.deleted
        }))
    }

    async fn manage(&self, set: &Replicas, active: &[Arc<PodView>]) -> Result<(), ClientError> {
        let (wanted, now) = (wanted(set), self.ctx.clock.monotonic());
        let uid = &set.owner.uid;
        if active.len() < wanted {
            let count = (wanted - active.len()).min(BURST);
            self.expectations.expect_creations(uid, count, now);
            let pod = from_template(&set.owner, &set.template);
            let create = || async {
                match self.pods.create(&set.owner, &pod).await {
                    Ok(_) => Ok(()),
                    Err(error) => {
                        self.expectations.created(uid);
                        if error.is_namespace_terminating() { Ok(()) } else { Err(error) }
                    }
                }
            };
            let first = self.pace().get(uid).copied().unwrap_or(1);
            let (skipped, result) = slow_start(count, first, create).await;
            (0..skipped).for_each(|_| self.expectations.created(uid));
            if result.is_ok() && active.len() + count < wanted {
                self.pace().insert(uid.clone(), count);
            } else {
                self.pace().remove(uid);
            }
            return result;
        }
        self.pace().remove(uid);
        let count = (active.len() - wanted).min(BURST);
        if count == 0 {
            return Ok(());
        }
        let related = self.pods_of_siblings(set);
        let now_wall = self.ctx.clock.now();
        let victims = ranking::least_wanted(active, &related, count, now_wall);
        if count < active.len() {
            for ratio in ranking::age_ratios(active, &victims, now_wall) {
                self.ctx.counts.replica_set_ages.observe(ratio);
            }
        }
        let uids: BTreeSet<String> = victims.iter().map(|pod| pod.uid.clone()).collect();
        self.expectations.expect_deletions(uid, uids, now);
        let deletions = victims.iter().map(|pod| async {
            let result = self.pods.delete(&set.owner, pod).await;
            if result.is_err() {
                self.expectations.deleted(uid, &pod.uid);
            }
            result
        });
        futures::future::join_all(deletions).await.into_iter().collect()
    }

    /// How many active pods of the same Deployment are on each node.
    fn pods_of_siblings(&self, set: &Replicas) -> BTreeMap<String, usize> {
        let informers = &self.ctx.informers;
        let mut uids = vec![set.owner.uid.clone()];
        if let Some(controller) = &set.controller {
            let siblings = K::lister(&self.ctx).list_namespace(&set.owner.key.namespace);
            uids = siblings
                .iter()
                .map(|sibling| sibling.metadata())
                .filter(|meta| {
                    let theirs = crate::selection::controller_of(meta);
                    theirs.is_some_and(|owner| owner.uid == *controller)
                })
                .filter_map(|meta| meta.uid.clone())
                .collect();
        }
        let mut on_node = BTreeMap::new();
        let pods = uids.iter().flat_map(|uid| informers.pod_index.controlled_by(uid));
        for pod in pods.filter(|pod| pod.is_active()) {
            *on_node.entry(pod.node.clone()).or_insert(0) += 1;
        }
        on_node
    }
}

fn wanted(set: &Replicas) -> usize {
    usize::try_from(set.replicas).unwrap_or(0)
}

/// Runs `count` creations in batches of `first`, twice as many, four times …, and no further batch
/// after a failure, so that a set that cannot create pods does not flood the server. Gives the
/// number not tried.
pub(crate) async fn slow_start<F, Fut, E>(
    count: usize,
    first: usize,
    create: F,
) -> (usize, Result<(), E>)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<(), E>>,
{
    let (mut left, mut batch) = (count, first.max(1));
    while left > 0 {
        let size = batch.min(left);
        let results = futures::future::join_all((0..size).map(|_| create())).await;
        left -= size;
        if let Some(error) = results.into_iter().find_map(Result::err) {
            return (left, Err(error));
        }
        batch *= 2;
    }
    (0, Ok(()))
}

/// When the next ready pod becomes available.
fn next_available(set: &Replicas, active: &[Arc<PodView>], now: Timestamp) -> Option<Duration> {
    let pending = active.iter().filter_map(|pod| pod.available_at(set.min_ready_seconds));
    let next = pending.filter(|at| *at > now).min()?;
    Duration::try_from(next.duration_since(now)).ok()
}

#[cfg(test)]
mod tests;
