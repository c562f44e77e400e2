//! Evicts pods from devices with NoExecute taints that their claims do not tolerate, or no longer.
//!
//! Upstream: `pkg/controller/devicetainteviction`.

mod pools;
mod rules;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client::{Change, Client, ClientError, EventRecorder, EventType, Lister, Outcome, WorkQueue};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::resource::v1::{
    DeviceRequestAllocationResult, DeviceToleration, ResourceClaim,
};
use k8s_openapi::api::resource::v1beta2::DeviceTaintRule;
use meta::ObjectKey;

use self::pools::Pools;
pub(crate) use self::pools::SliceView;
use self::rules::Count;
pub(crate) use self::rules::RuleView;
use crate::context::Context;
use crate::pod_view::PodView;
use crate::reconcile::work;
use crate::taint_eviction::{Words, evict};

const WORDS: Words = Words {
    event: "DeviceTaintManagerEviction",
    marking: |_| "Marking for deletion".to_owned(),
    reason: "DeletionByDeviceTaintManager",
    message: "Device Taint manager: deleting due to NoExecute taint",
};

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("device-taint-eviction-controller");
    let evictor = Arc::new(Evictor {
        pods: ctx.queue("device-taint-eviction"),
        rules: ctx.queue("device-taint-rules"),
        evicted: Mutex::default(),
        recorder: ctx.recorder(&client, "device-taint-eviction-controller"),
        pools: Mutex::default(),
        pending: Mutex::default(),
        client,
        ctx,
    });
    let informers = &evictor.ctx.informers;
    tokio::join!(
        informers.pods.synced(),
        informers.device_claims.synced(),
        informers.resource_slices.synced()
    );
    if let Some(rules) = &informers.device_taint_rules {
        rules.synced().await;
    }
    evictor.follow();
    evictor.follow_rules();
    let shutdown = &evictor.ctx.shutdown;
    tokio::join!(
        work(&evictor, &evictor.pods, shutdown, |this, key| async move { this.sync(&key).await }),
        work(
            &evictor,
            &evictor.rules,
            shutdown,
            |this, key| async move { this.sync_rule(&key).await }
        ),
    );
}

/// What happens to many pods at once is told of a rule in one go.
const TELL_AFTER: Duration = Duration::from_secs(1);

struct Evictor {
    ctx: Context,
    pods: WorkQueue<ObjectKey>,
    rules: WorkQueue<ObjectKey>,
    client: Client,
    recorder: EventRecorder,
    /// How many pods were evicted because of each rule, by its uid.
    evicted: Mutex<HashMap<String, u64>>,
    pools: Mutex<Pools>,
    /// Pods that wait to be evicted, and their uids.
    pending: Mutex<HashMap<ObjectKey, String>>,
}

impl Evictor {
    fn follow(self: &Arc<Self>) {
        let informers = &self.ctx.informers;
        let this = Arc::clone(self);
        // Before the others: they ask the pools.
        informers.resource_slices.on_change(move |key, change| {
            let touched = {
                let mut pools = this.pools.lock().unwrap_or_else(PoisonError::into_inner);
                match change {
                    Change::Added(slice) | Change::Updated { new: slice, .. } => {
                        pools.set(&key.name, Some(slice))
                    }
                    Change::Deleted(_) => pools.set(&key.name, None),
                }
            };
            if !touched.is_empty() {
                this.add_users(|device| touched.iter().any(|pool| pool.has(device)));
            }
        });
        let this = Arc::clone(self);
        informers.device_claims.on_change(move |key, change| {
            let (Change::Added(claim)
            | Change::Deleted(claim)
            | Change::Updated { new: claim, .. }) = change;
            this.add_consumers(key, claim);
        });
        let this = Arc::clone(self);
        informers.pods.on_change(move |key, change| match change {
            Change::Added(pod) if pod.devices.is_some() => this.pods.add(key.clone()),
            Change::Updated { old, new }
                if new.devices.is_some()
                    && (old.node != new.node || old.is_active() != new.is_active()) =>
            {
                this.pods.add(key.clone());
            }
            Change::Deleted(pod) if pod.devices.is_some() => this.pods.add(key.clone()),
            _ => {}
        });
    }

    fn follow_rules(self: &Arc<Self>) {
        let Some(rules) = &self.ctx.informers.device_taint_rules else { return };
        let this = Arc::clone(self);
        rules.on_change(move |key, change| {
            let (old, new) = match &change {
                Change::Added(rule) => (None, Some(rule)),
                Change::Deleted(rule) => (Some(rule), None),
                Change::Updated { old, new } => (Some(old), Some(new)),
            };
            if let (Some(old), Some(new)) = (old, new)
                && old.is_alike(new)
            {
                return;
            }
            match new {
                Some(_) => this.rules.add(key.clone()),
                None => {
                    let uid = old.map(|rule| rule.uid()).unwrap_or_default();
                    this.evicted.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
                }
            }
            this.add_users(|device| old.into_iter().chain(new).any(|rule| rule.selects(device)));
        });
        let this = Arc::clone(self);
        self.ctx.informers.pods.on_change(move |_, change| {
            let (Change::Added(pod) | Change::Deleted(pod) | Change::Updated { new: pod, .. }) =
                change;
            if pod.devices.is_some() {
                this.count_again();
            }
        });
        let this = Arc::clone(self);
        self.ctx.informers.device_claims.on_change(move |_, _| this.count_again());
    }

    /// Has it told anew how many pods the rules that evict still concern.
    fn count_again(&self) {
        for (key, rule) in self.all_rules() {
            if rule.evicts() {
                self.rules.add_after(key, TELL_AFTER);
            }
        }
    }

    fn all_rules(&self) -> Vec<(ObjectKey, Arc<RuleView>)> {
        let rules = self.ctx.informers.device_taint_rules.iter().flat_map(Lister::list);
        rules.map(|rule| (ObjectKey::cluster(rule.name()), rule)).collect()
    }

    async fn sync_rule(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let rules = self.ctx.informers.device_taint_rules.as_ref();
        let Some(rule) = rules.and_then(|rules| rules.get(key)).filter(|rule| !rule.is_told())
        else {
            return Ok(Outcome::Done);
        };
        let now = self.ctx.clock.now();
        let pods = self.concerned(&rule, now);
        let evicted = {
            let all = self.evicted.lock().unwrap_or_else(PoisonError::into_inner);
            all.get(rule.uid()).copied().unwrap_or(0)
        };
        let Some(conditions) = rule.conditions(Count::of(&pods, evicted), now) else {
            return Ok(Outcome::Done);
        };
        let change = serde_json::json!({ "metadata": { "uid": rule.uid() },
            "status": { "conditions": conditions } });
        match self
            .client
            .api::<DeviceTaintRule>("")
            .merge_update(&key.name, "status", &change)
            .await
        {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(Outcome::Done),
        }
    }

    /// The pods that a rule alone would evict, at some time.
    fn concerned(&self, rule: &RuleView, now: Timestamp) -> Vec<ObjectKey> {
        let mut pods = std::collections::BTreeSet::new();
        for claim in self.ctx.informers.device_claims.list() {
            let is_concerned = |device: &DeviceRequestAllocationResult| {
                let tolerations = device.tolerations.as_deref().unwrap_or_default();
                rule.selects(device) && rule.taint().due(tolerations, now).is_some()
            };
            if !devices(&claim).iter().any(is_concerned) {
                continue;
            }
            let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
            let status = claim.status.as_ref();
            let consumers = status.and_then(|status| status.reserved_for.as_ref());
            for consumer in consumers.into_iter().flatten() {
                let key = ObjectKey::new(namespace, &consumer.name);
                let pod = self.ctx.informers.pods.get(&key);
                if pod.is_some_and(|pod| pod.uid == consumer.uid && pod.is_active()) {
                    pods.insert(key);
                }
            }
        }
        pods.into_iter().collect()
    }

    /// Counts an eviction for the rules that asked for it.
    fn count(&self, pod: &PodView) {
        let names = pod.devices.iter().flat_map(|devices| devices.claims());
        let claims: Vec<_> = names
            .filter_map(|name| {
                let key = ObjectKey::new(&pod.key.namespace, name);
                self.ctx.informers.device_claims.get(&key)
            })
            .collect();
        let mut evicted = self.evicted.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, rule) in self.all_rules().iter().filter(|(_, rule)| rule.evicts()) {
            if claims.iter().any(|claim| devices(claim).iter().any(|one| rule.selects(one))) {
                *evicted.entry(rule.uid().to_owned()).or_default() += 1;
            }
        }
    }

    /// Looks at the pods with devices that are meant.
    fn add_users(&self, is_meant: impl Fn(&DeviceRequestAllocationResult) -> bool) {
        for claim in self.ctx.informers.device_claims.list() {
            if devices(&claim).iter().any(&is_meant) {
                self.add_consumers(&crate::selection::key_of(&claim.metadata), &claim);
            }
        }
    }

    fn add_consumers(&self, key: &ObjectKey, claim: &ResourceClaim) {
        let status = claim.status.as_ref();
        for consumer in status.and_then(|status| status.reserved_for.as_ref()).into_iter().flatten()
        {
            if consumer.resource == "pods" {
                self.pods.add(ObjectKey::new(&key.namespace, &consumer.name));
            }
        }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let pod = self.ctx.informers.pods.get(key);
        let now = self.ctx.clock.now();
        let due = pod.as_ref().filter(|pod| !pod.node.is_empty() && pod.is_active());
        let due = due.and_then(|pod| self.due(pod, now));
        match (pod, due) {
            (Some(pod), Some(due)) if due <= now => {
                self.pending().remove(key);
                self.count(&pod);
                let how = (&WORDS, &self.ctx.counts.device_evictions, due);
                evict(&self.ctx, &self.client, &self.recorder, &pod, how).await
            }
            (Some(pod), Some(due)) => {
                self.pending().insert(key.clone(), pod.uid.clone());
                let wait = Duration::try_from(due.duration_since(now)).unwrap_or_default();
                Ok(Outcome::RequeueAfter(wait))
            }
            (pod, _) => {
                let waited = self.pending().remove(key);
                if let Some(pod) =
                    pod.filter(|pod| pod.is_active() && waited.as_ref() == Some(&pod.uid))
                {
                    let text = "Cancelling deletion";
                    self.recorder.record(&pod.regarding(), EventType::Normal, WORDS.event, text);
                }
                Ok(Outcome::Done)
            }
        }
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, HashMap<ObjectKey, String>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When a pod has to go; `None` when it may stay.
    fn due(&self, pod: &PodView, now: Timestamp) -> Option<Timestamp> {
        let rules = self.all_rules();
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let names = pod.devices.iter().flat_map(|devices| devices.claims());
        let claims = names.filter_map(|name| {
            self.ctx.informers.device_claims.get(&ObjectKey::new(&pod.key.namespace, name))
        });
        claims
            .filter(|claim| is_reserved_for(claim, &pod.uid))
            .filter_map(|claim| {
                devices(&claim).iter().filter_map(|one| device_due(one, &pools, &rules, now)).min()
            })
            .min()
    }
}

/// The devices that a claim was given.
fn devices(claim: &ResourceClaim) -> &[DeviceRequestAllocationResult] {
    let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
    let devices = allocation.and_then(|allocation| allocation.devices.as_ref());
    devices.and_then(|devices| devices.results.as_deref()).unwrap_or_default()
}

fn is_reserved_for(claim: &ResourceClaim, uid: &str) -> bool {
    let consumers = claim.status.as_ref().and_then(|status| status.reserved_for.as_deref());
    consumers.unwrap_or_default().iter().any(|consumer| consumer.uid == uid)
}

/// When whoever has this device has to go.
fn device_due(
    device: &DeviceRequestAllocationResult,
    pools: &Pools,
    rules: &[(ObjectKey, Arc<RuleView>)],
    now: Timestamp,
) -> Option<Timestamp> {
    let tolerations = device.tolerations.as_deref().unwrap_or_default();
    let rules = rules.iter().map(|(_, rule)| rule);
    let by_rules = rules.filter(|rule| rule.evicts() && rule.selects(device));
    let taints = pools.taints_of(device).chain(by_rules.map(|rule| rule.taint()));
    taints.filter_map(|taint| taint.due(tolerations, now)).min()
}

/// A taint that evicts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Taint {
    key: String,
    value: String,
    since: Option<Timestamp>,
}

impl Taint {
    /// When a pod whose claim tolerates this has to go. One toleration without an end is enough,
    /// otherwise the shortest counts.
    fn due(&self, tolerations: &[DeviceToleration], now: Timestamp) -> Option<Timestamp> {
        let since = self.since.unwrap_or(now);
        let mut shortest: Option<i64> = None;
        for toleration in tolerations.iter().filter(|toleration| self.is_tolerated(toleration)) {
            let seconds = toleration.toleration_seconds?.max(0);
            shortest = Some(shortest.map_or(seconds, |known| known.min(seconds)));
        }
        since.checked_add(SignedDuration::from_secs(shortest.unwrap_or(0))).ok()
    }

    /// As upstream, only tolerations that name the effect count.
    fn is_tolerated(&self, toleration: &DeviceToleration) -> bool {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let key = text(&toleration.key);
        let value_fits = match text(&toleration.operator).as_str() {
            "" | "Equal" => text(&toleration.value) == self.value,
            "Exists" => true,
            _ => false,
        };
        toleration.effect.as_deref() == Some(api::taints::NO_EXECUTE)
            && (key.is_empty() || key == self.key)
            && value_fits
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[track_caller]
    fn check(tolerations: Value, expected_secs: Option<i64>) {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let taint = Taint { key: "k".to_owned(), value: "v".to_owned(), since: Some(start) };
        let mut tolerations = tolerations;
        for toleration in tolerations.as_array_mut().unwrap() {
            if toleration["effect"].is_null() {
                toleration["effect"] = "NoExecute".into();
            }
        }
        let tolerations: Vec<DeviceToleration> = serde_json::from_value(tolerations).unwrap();
        let due = taint.due(&tolerations, start);
        assert_eq!(due.map(|due| due.duration_since(start).as_secs()), expected_secs);
    }

    #[test]
    fn a_claim_keeps_its_device_as_long_as_it_tolerates() {
        check(json!([]), Some(0));
        check(json!([{ "key": "other", "operator": "Exists" }]), Some(0));
        check(json!([{ "key": "k", "value": "other" }]), Some(0));
        check(json!([{ "key": "k", "operator": "Exists", "effect": "NoSchedule" }]), Some(0));
        check(json!([{ "operator": "Exists" }]), None);
        let for_secs = |secs: i64| json!({ "key": "k", "value": "v", "tolerationSeconds": secs });
        check(json!([for_secs(30)]), Some(30));
        check(json!([for_secs(-1)]), Some(0));
        check(json!([for_secs(60), for_secs(30)]), Some(30));
        check(json!([for_secs(60), { "operator": "Exists" }]), None);
    }
}
