//! What controllers keep of a pod, and an index of pods by owner and node.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use api::annotations::POD_DELETION_COST;
use client::{Change, Lister, Regarding};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use meta::{LabelSelector, ObjectKey};
use stdx::interner::Interner;

use crate::pod_devices::PodDevices;

/// A pod, reduced to what controllers read. There may be a million of them: what one shares with
/// its siblings is kept once, and read as if it were its own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PodView {
    shape: Arc<Shape>,
    pub(crate) key: ObjectKey,
    pub(crate) uid: String,
    pub(crate) finalizers: Vec<String>,
    pub(crate) created: Timestamp,
    pub(crate) deleted: Option<Timestamp>,
    pub(crate) node: String,
    /// The only node that its affinity leaves it.
    pinned: Option<Box<str>>,
    /// One of the phases there are, or nothing.
    pub(crate) phase: &'static str,
    pub(crate) ready: bool,
    /// When Ready last changed.
    pub(crate) ready_changed: Option<Timestamp>,
    /// Since when its disruption is announced, unless by its kubelet, which keeps to its word.
    pub(crate) disrupted: Option<Timestamp>,
    pub(crate) started: Option<Timestamp>,
    /// Of a failed pod.
    pub(crate) failure: Option<Box<Failure>>,
    pub(crate) restarts: i32,
    pub(crate) ips: Vec<String>,
    pub(crate) hostname: Option<Box<str>>,
    /// Names of the claims it mounts, those of its own volumes among them.
    pub(crate) claims: Vec<String>,
    /// Its claims for devices.
    pub(crate) devices: Option<Box<PodDevices>>,
    /// Whether none of its containers runs, as far as its kubelet has said.
    idle: bool,
}

/// What pods made of one template by one controller have in common.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Shape {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    /// The owner that controls it.
    pub(crate) controller: Option<OwnerReference>,
    pub(crate) subdomain: String,
    /// Name, protocol and number of the containers' ports.
    pub(crate) ports: Vec<(String, String, i32)>,
    pub(crate) tolerations: Vec<Toleration>,
    /// Whether it has claims of its own.
    pub(crate) has_ephemeral: bool,
}

impl Eq for Shape {}

impl Hash for Shape {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // What is left out rarely differs where these do not.
        self.labels.hash(state);
        self.annotations.hash(state);
        self.controller.as_ref().map(|owner| &owner.uid).hash(state);
    }
}

impl Deref for PodView {
    type Target = Shape;

    fn deref(&self) -> &Shape {
        &self.shape
    }
}

impl PodView {
    /// Has what it shares with its siblings kept once.
    pub(crate) fn shared(mut self, shapes: &Interner<Shape>) -> Self {
        self.shape = shapes.share(Arc::unwrap_or_clone(self.shape));
        self
    }

    /// Reduces a pod.
    pub(crate) fn new(pod: Pod) -> Self {
        let meta = pod.metadata;
        let spec = pod.spec.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let ready = status.conditions.iter().flatten().find(|c| c.type_ == api::pod::READY);
        let owners = meta.owner_references.unwrap_or_default();
        let claims = claims(&spec, meta.name.as_deref().unwrap_or_default());
        let shape = Shape {
            ports: ports(&spec),
            has_ephemeral: spec.volumes.iter().flatten().any(|volume| volume.ephemeral.is_some()),
            labels: meta.labels.unwrap_or_default(),
            annotations: meta.annotations.unwrap_or_default(),
            controller: owners.into_iter().find(|owner| owner.controller == Some(true)),
            subdomain: spec.subdomain.clone().unwrap_or_default(),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
        };
        Self {
            shape: Arc::new(shape),
            key: ObjectKey::new(meta.namespace.unwrap_or_default(), meta.name.unwrap_or_default()),
            uid: meta.uid.unwrap_or_default(),
            finalizers: meta.finalizers.unwrap_or_default(),
            created: meta.creation_timestamp.map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            deleted: meta.deletion_timestamp.map(|time| time.0),
            ready: ready.is_some_and(|condition| condition.status == "True"),
            ready_changed: ready.and_then(|c| c.last_transition_time.as_ref()).map(|time| time.0),
            disrupted: disrupted(&status),
            failure: Failure::of(&status).map(Box::new),
            restarts: restarts(&status),
            idle: is_idle(&status),
            devices: PodDevices::of(&spec, &status),
            ips: ips(&status),
            claims,
            started: status.start_time.map(|time| time.0),
            phase: phase(status.phase.as_deref().unwrap_or_default()),
            pinned: pinned(&spec),
            node: spec.node_name.unwrap_or_default(),
            hostname: spec.hostname.map(String::into_boxed_str),
        }
    }

    /// Whether it has ended.
    pub(crate) fn is_terminal(&self) -> bool {
        matches!(self.phase, "Succeeded" | "Failed")
    }

    /// Whether it has ended, or is being deleted and nothing of it runs any more. Upstream
    /// `IsPodTerminated` of the volume controllers.
    pub(crate) fn is_stopped(&self) -> bool {
        self.is_terminal() || (self.deleted.is_some() && self.idle)
    }

    /// How events refer to it.
    pub(crate) fn regarding(&self) -> Regarding {
        Regarding {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            namespace: self.key.namespace.clone(),
            name: self.key.name.clone(),
            uid: self.uid.clone(),
            ..Regarding::default()
        }
    }

    /// Neither ended nor being deleted.
    pub(crate) fn is_active(&self) -> bool {
        !self.is_terminal() && self.deleted.is_none()
    }

    /// Whether it has been ready for that long.
    pub(crate) fn is_available(&self, min_ready_seconds: i32, now: Timestamp) -> bool {
        self.available_at(min_ready_seconds).is_some_and(|at| at <= now)
    }

    /// When it will have been ready for that long, if it stays ready.
    pub(crate) fn available_at(&self, min_ready_seconds: i32) -> Option<Timestamp> {
        if !self.ready {
            return None;
        }
        if min_ready_seconds == 0 {
            return Some(Timestamp::MIN);
        }
        let wait = jiff::SignedDuration::from_secs(min_ready_seconds.into());
        self.ready_changed?.checked_add(wait).ok()
    }

    /// The cost of deleting it that its annotation names, 0 when it is no number.
    pub(crate) fn deletion_cost(&self) -> i32 {
        self.annotations.get(POD_DELETION_COST).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// Whether the selector selects it.
    pub(crate) fn matches(&self, selector: &LabelSelector) -> bool {
        selector.matches(|key| self.labels.get(key).map(String::as_str))
    }

    /// The key of its controller, when that is of this kind.
    pub(crate) fn controller_key(&self, kind: &str) -> Option<ObjectKey> {
        let owner = self.controller.as_ref().filter(|owner| owner.kind == kind)?;
        Some(ObjectKey::new(&self.key.namespace, &owner.name))
    }

    /// The node it is on, or the only one that its affinity leaves it, or nothing. Upstream
    /// `GetTargetNodeName`; a pod that may go to several nodes has none.
    pub(crate) fn target(&self) -> &str {
        if self.node.is_empty() { self.pinned.as_deref().unwrap_or_default() } else { &self.node }
    }

    /// The uid of its controller, or nothing.
    pub(crate) fn controller_uid(&self) -> &str {
        self.controller.as_ref().map_or("", |owner| &owner.uid)
    }
}

/// Only the phases that Kubernetes has mean something.
fn phase(text: &str) -> &'static str {
    let phases = ["Pending", "Running", "Succeeded", "Failed", "Unknown"];
    phases.into_iter().find(|phase| *phase == text).unwrap_or_default()
}

/// The node that a required affinity names.
fn pinned(spec: &PodSpec) -> Option<Box<str>> {
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required =
        affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let terms = required.into_iter().flat_map(|selector| &selector.node_selector_terms);
    let mut fields = terms.flat_map(|term| term.match_fields.iter().flatten());
    let named = fields.find_map(|field| match field.values.as_deref() {
        Some([name]) if field.key == "metadata.name" && field.operator == "In" => Some(name),
        _ => None,
    });
    named.map(|name| Box::from(name.as_str()))
}

/// How a pod failed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Failure {
    /// Containers that ended with another code than 0.
    pub(crate) exits: Vec<(String, i32)>,
    /// Types and states of its conditions.
    pub(crate) conditions: Vec<(String, String)>,
    /// When the last container ended.
    pub(crate) finished: Option<Timestamp>,
}

impl Failure {
    /// Nothing of pods that have not failed: there are many of them, and nobody asks.
    fn of(status: &PodStatus) -> Option<Self> {
        if status.phase.as_deref() != Some("Failed") {
            return None;
        }
        let mut failure = Self::default();
        let all = status.container_statuses.iter().chain(&status.init_container_statuses);
        for container in all.flatten() {
            let ended = container.state.as_ref().and_then(|state| state.terminated.as_ref());
            let Some(ended) = ended else { continue };
            let at = ended.finished_at.as_ref().map(|time| time.0);
            failure.finished = failure.finished.max(at);
            if ended.exit_code != 0 {
                failure.exits.push((container.name.clone(), ended.exit_code));
            }
        }
        let conditions = status.conditions.iter().flatten();
        failure.conditions = conditions.map(|c| (c.type_.clone(), c.status.clone())).collect();
        Some(failure)
    }
}

fn disrupted(status: &PodStatus) -> Option<Timestamp> {
    let mut conditions = status.conditions.iter().flatten();
    let condition = conditions.find(|condition| {
        condition.type_ == api::pod::DISRUPTION_TARGET
            && condition.status == "True"
            && condition.reason.as_deref() != Some("TerminationByKubelet")
    })?;
    condition.last_transition_time.as_ref().map(|time| time.0)
}

fn is_idle(status: &PodStatus) -> bool {
    status.container_statuses.iter().flatten().all(|container| {
        let state = container.state.as_ref();
        state.is_some_and(|state| state.terminated.is_some() || state.waiting.is_some())
    })
}

fn restarts(status: &PodStatus) -> i32 {
    let all = status.container_statuses.iter().chain(&status.init_container_statuses);
    all.flatten().map(|container| container.restart_count).sum()
}

fn ips(status: &PodStatus) -> Vec<String> {
    let all: Vec<String> = status
        .pod_ips
        .iter()
        .flatten()
        .map(|ip| ip.ip.clone())
        .filter(|ip| !ip.is_empty())
        .collect();
    if all.is_empty() { status.pod_ip.clone().into_iter().collect() } else { all }
}

fn ports(spec: &PodSpec) -> Vec<(String, String, i32)> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| api::pod::is_sidecar(c));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            Some((port.name.clone()?, protocol, port.container_port))
        })
        .collect()
}

fn claims(spec: &PodSpec, pod: &str) -> Vec<String> {
    let volumes = spec.volumes.iter().flatten();
    volumes
        .filter_map(|volume| match &volume.persistent_volume_claim {
            Some(claim) => Some(claim.claim_name.clone()),
            None => volume.ephemeral.as_ref().map(|_| format!("{pod}-{}", volume.name)),
        })
        .collect()
}

/// Pods by the uid of their controller, by node, and those without a controller.
///
/// Invariant: kept by the first handler of the pods' informer, so it is up to date whenever a
/// later handler runs.
#[derive(Default)]
pub(crate) struct PodIndex {
    state: RwLock<IndexState>,
}

/// Some of the pods, in the order of their keys.
type Pods = BTreeSet<ByKey>;

/// A pod that is found by its key.
struct ByKey(Arc<PodView>);

impl Borrow<ObjectKey> for ByKey {
    fn borrow(&self) -> &ObjectKey {
        &self.0.key
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for ByKey {}

impl PartialOrd for ByKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key.cmp(&other.0.key)
    }
}

#[derive(Default)]
struct IndexState {
    by_controller: HashMap<String, Pods>,
    by_node: HashMap<String, Pods>,
    by_claim: HashMap<ObjectKey, Pods>,
    by_device_claim: HashMap<ObjectKey, Pods>,
    orphans: HashMap<String, Pods>,
}

impl PodIndex {
    /// An index of the lister's pods.
    pub(crate) fn of(pods: &Lister<PodView>) -> Arc<Self> {
        let index = Arc::new(Self::default());
        let kept = Arc::clone(&index);
        pods.on_change(move |_, change| kept.follow(&change));
        index
    }

    fn follow(&self, change: &Change<'_, PodView>) {
        match change {
            Change::Added(pod) => self.insert(pod),
            Change::Updated { old, new } => {
                if old.controller != new.controller
                    || old.node != new.node
                    || old.devices != new.devices
                {
                    self.remove(old);
                }
                self.insert(new);
            }
            Change::Deleted(pod) => self.remove(pod),
        }
    }

    /// The pods that the object with this uid controls.
    pub(crate) fn controlled_by(&self, uid: &str) -> Vec<Arc<PodView>> {
        all(self.read().by_controller.get(uid))
    }

    /// The pods that the object with this uid controls, and those of its namespace that nothing
    /// does.
    pub(crate) fn within_reach(&self, namespace: &str, uid: &str) -> Vec<Arc<PodView>> {
        let state = self.read();
        let mut pods = all(state.by_controller.get(uid));
        pods.extend(all(state.orphans.get(namespace)));
        pods
    }

    /// The pods on a node.
    pub(crate) fn on_node(&self, node: &str) -> Vec<Arc<PodView>> {
        all(self.read().by_node.get(node))
    }

    /// The pods that mount a claim.
    pub(crate) fn with_claim(&self, claim: &ObjectKey) -> Vec<Arc<PodView>> {
        all(self.read().by_claim.get(claim))
    }

    /// The pods that use a claim for devices.
    pub(crate) fn with_device_claim(&self, claim: &ObjectKey) -> Vec<Arc<PodView>> {
        all(self.read().by_device_claim.get(claim))
    }

    fn read(&self) -> RwLockReadGuard<'_, IndexState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, pod: &Arc<PodView>) {
        let mut guard = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *guard;
        match &pod.controller {
            Some(owner) => insert_into(&mut state.by_controller, &owner.uid, pod),
            None => insert_into(&mut state.orphans, &pod.key.namespace, pod),
        }
        if !pod.node.is_empty() {
            insert_into(&mut state.by_node, &pod.node, pod);
        }
        for claim in &pod.claims {
            let claim = ObjectKey::new(&pod.key.namespace, claim);
            insert_into(&mut state.by_claim, &claim, pod);
        }
        for claim in pod.devices.iter().flat_map(|devices| devices.claims()) {
            let claim = ObjectKey::new(&pod.key.namespace, claim);
            insert_into(&mut state.by_device_claim, &claim, pod);
        }
    }

    fn remove(&self, pod: &PodView) {
        let mut guard = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *guard;
        match &pod.controller {
            Some(owner) => remove_from(&mut state.by_controller, &owner.uid, &pod.key),
            None => remove_from(&mut state.orphans, &pod.key.namespace, &pod.key),
        }
        remove_from(&mut state.by_node, &pod.node, &pod.key);
        for claim in &pod.claims {
            let claim = ObjectKey::new(&pod.key.namespace, claim);
            remove_from(&mut state.by_claim, &claim, &pod.key);
        }
        for claim in pod.devices.iter().flat_map(|devices| devices.claims()) {
            let claim = ObjectKey::new(&pod.key.namespace, claim);
            remove_from(&mut state.by_device_claim, &claim, &pod.key);
        }
    }
}

fn all(pods: Option<&Pods>) -> Vec<Arc<PodView>> {
    pods.into_iter().flatten().map(|pod| Arc::clone(&pod.0)).collect()
}

fn insert_into<Q>(map: &mut HashMap<Q::Owned, Pods>, at: &Q, pod: &Arc<PodView>)
where
    Q: ToOwned<Owned: Hash + Eq + Borrow<Q>> + Hash + Eq + ?Sized,
{
    // Most are there already, and their names need no copy then.
    let pods = match map.get_mut(at) {
        Some(pods) => pods,
        None => map.entry(at.to_owned()).or_default(),
    };
    pods.replace(ByKey(Arc::clone(pod)));
}

fn remove_from<Q>(map: &mut HashMap<Q::Owned, Pods>, at: &Q, key: &ObjectKey)
where
    Q: ToOwned<Owned: Hash + Eq + Borrow<Q>> + Hash + Eq + ?Sized,
{
    if let Some(pods) = map.get_mut(at) {
        pods.remove(key);
        if pods.is_empty() {
            map.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, node: &str, claim: &str, controller: Option<&str>) -> Arc<PodView> {
        let owners: Vec<_> = controller
            .map(|uid| {
                json!({ "apiVersion": "v1", "kind": "K", "name": "k", "uid": uid,
                "controller": true })
            })
            .into_iter()
            .collect();
        let pod = json!({ "metadata": { "name": "p", "namespace": "n", "uid": uid,
                "ownerReferences": owners },
            "spec": { "nodeName": node, "containers": [], "volumes": [
                { "name": "v", "persistentVolumeClaim": { "claimName": claim } }] } });
        Arc::new(PodView::new(serde_json::from_value(pod).unwrap()))
    }

    /// How many pods there are of a controller, within its reach, on a node and with a claim.
    fn found(index: &PodIndex, controller: &str, node: &str, claim: &str) -> [usize; 4] {
        [
            index.controlled_by(controller).len(),
            index.within_reach("n", controller).len(),
            index.on_node(node).len(),
            index.with_claim(&ObjectKey::new("n", claim)).len(),
        ]
    }

    #[test]
    fn pods_are_found_by_what_they_belong_to_and_no_longer_when_they_do_not() {
        let index = PodIndex::default();
        let (free, placed) = (pod("1", "", "a", None), pod("1", "x", "a", Some("c")));
        index.follow(&Change::Added(&free));
        assert_eq!(found(&index, "c", "x", "a"), [0, 1, 0, 1]);
        index.follow(&Change::Updated { old: &free, new: &placed });
        assert_eq!(found(&index, "c", "x", "a"), [1, 1, 1, 1]);
        assert!(index.within_reach("n", "other").is_empty());
        index.follow(&Change::Deleted(&placed));
        assert_eq!(found(&index, "c", "x", "a"), [0, 0, 0, 0]);
    }

    #[test]
    fn a_pod_that_came_in_the_place_of_another_has_its_own_claims_alone() {
        let index = PodIndex::default();
        let (first, second) = (pod("1", "x", "a", None), pod("2", "x", "b", None));
        let changes = [Change::Added(&first), Change::Deleted(&first), Change::Added(&second)];
        changes.iter().for_each(|change| index.follow(change));
        assert_eq!(found(&index, "", "x", "a"), [0, 1, 1, 0]);
        assert_eq!(found(&index, "", "x", "b"), [0, 1, 1, 1]);
    }
}
