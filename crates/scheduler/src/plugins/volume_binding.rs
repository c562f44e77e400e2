//! Where the pod's volumes are, or can be made.
//!
//! Upstream: `pkg/scheduler/framework/plugins/volumebinding`.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::volumes;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use meta::ObjectKey;

use crate::framework::{ClusterEvent, CycleState, Plugin, Rejection};
use crate::node_info::NodeInfo;
use crate::pod_info::{ClaimName, PodInfo};
use crate::snapshot::Snapshot;
use crate::volumes::{Capacity, VolumePlan, Volumes, key_of};

const BIND_CONFLICT: &str = "node(s) didn't find available persistent volumes to bind";
const NODE_CONFLICT: &str = "node(s) didn't match PersistentVolume's node affinity";
const NO_SPACE: &str = "node(s) did not have enough free storage";
const VOLUME_GONE: &str =
    "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";

/// Filters by the node affinity of volumes, and finds volumes for claims that wait for their pod.
pub struct VolumeBinding;

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }

    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<(), Rejection> {
        if !pod.claims.is_empty() {
            let mounts = Mounts::new(pod, &snapshot.volumes).map_err(Rejection::unresolvable)?;
            state.write(mounts);
        }
        Ok(())
    }

    fn filter(
        &self,
        state: &CycleState,
        _: &PodInfo,
        node: &NodeInfo,
        _: &Snapshot,
    ) -> Result<(), Rejection> {
        let Some(mounts) = state.read::<Mounts>() else { return Ok(()) };
        mounts.plan(node).map(drop)
    }

    fn may_help(&self, event: ClusterEvent) -> bool {
        use ClusterEvent::{NodeAdded, NodeLabels, Volumes};
        matches!(event, NodeAdded | NodeLabels | Volumes)
    }
}

/// What has to be done for the pod's claims on the node that was chosen.
pub fn plan(pod: &PodInfo, snapshot: &Snapshot, node: &str) -> VolumePlan {
    let node = snapshot.node(node).filter(|_| !pod.claims.is_empty());
    let plan = node.and_then(|node| Mounts::new(pod, &snapshot.volumes).ok()?.plan(node).ok());
    plan.unwrap_or_default()
}

/// The pod's claims, sorted by what has to be done about them.
struct Mounts {
    /// Volumes of bound claims; `None` for those that do not exist.
    bound: Vec<Option<Arc<PersistentVolume>>>,
    /// Claims that wait for the pod, the smallest first.
    waiting: Vec<Waiting>,
}

/// A claim that waits for its first pod.
struct Waiting {
    claim: Arc<PersistentVolumeClaim>,
    class: Arc<StorageClass>,
    /// The only node, if that is decided already.
    node: Option<String>,
    /// Volumes that it could have.
    free: Vec<Arc<PersistentVolume>>,
    /// What can be made for it, if its driver says that.
    capacities: Option<Vec<Capacity>>,
}

impl Mounts {
    fn new(pod: &PodInfo, volumes: &Volumes) -> Result<Self, String> {
        let mut mounts = Self { bound: Vec::new(), waiting: Vec::new() };
        let mut is_immediate = false;
        for named in &pod.claims {
            let claim = find(pod, named, volumes)?;
            let name = volumes::volume_name(claim);
            if volumes::is_fully_bound(claim) {
                mounts.bound.push(volumes.volumes.get(name).cloned());
                continue;
            }
            let class = volumes.classes.get(volumes::class_of_claim(claim));
            match class.filter(|class| volumes::is_delayed(class) && name.is_empty()) {
                None => is_immediate = true,
                Some(class) => mounts.waiting.push(Waiting {
                    claim: Arc::clone(claim),
                    class: Arc::clone(class),
                    node: volumes.node_of(claim).map(str::to_owned),
                    free: volumes.free(volumes::class_of_claim(claim), &key_of(claim)),
                    capacities: volumes.capacities_of(class),
                }),
            }
        }
        if is_immediate {
            return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
        }
        mounts.waiting.sort_by_key(|waiting| volumes::request(&waiting.claim));
        Ok(mounts)
    }

    fn plan(&self, node: &NodeInfo) -> Result<VolumePlan, Rejection> {
        let mut reasons = Vec::new();
        if self.bound.iter().any(Option::is_none) {
            reasons.push(VOLUME_GONE.into());
        }
        let is_here = |volume: &Arc<PersistentVolume>| {
            volumes::is_reachable(volume, &node.name, node.labels.all())
        };
        if !self.bound.iter().flatten().all(is_here) {
            reasons.push(NODE_CONFLICT.into());
        }
        let mut plan = VolumePlan::default();
        let mut taken: BTreeMap<&str, ()> = BTreeMap::new();
        for waiting in &self.waiting {
            match waiting.on(node, &taken) {
                Some(Some(volume)) => {
                    taken.insert(volume.metadata.name.as_deref().unwrap_or_default(), ());
                    plan.matched.push((Arc::clone(&waiting.claim), Arc::clone(volume)));
                }
                Some(None) if waiting.has_room(node) => {
                    plan.provision.push(Arc::clone(&waiting.claim));
                }
                Some(None) => {
                    reasons.push(NO_SPACE.into());
                    break;
                }
                None => {
                    reasons.push(BIND_CONFLICT.into());
                    break;
                }
            }
        }
        if reasons.is_empty() { Ok(plan) } else { Err(Rejection { reasons, resolvable: false }) }
    }
}

impl Waiting {
    /// A volume on the node, or nothing if one can be made there.
    fn on(
        &self,
        node: &NodeInfo,
        taken: &BTreeMap<&str, ()>,
    ) -> Option<Option<&Arc<PersistentVolume>>> {
        if let Some(only) = &self.node {
            return (*only == node.name).then_some(None);
        }
        let is_left = |volume: &&Arc<PersistentVolume>| {
            !taken.contains_key(volume.metadata.name.as_deref().unwrap_or_default())
        };
        let free = self.free.iter().filter(is_left);
        let here = Some((node.name.as_str(), node.labels.all()));
        if let Some(volume) = volumes::best_match(&self.claim, free, here, true) {
            return Some(Some(volume));
        }
        let is_made = self.class.provisioner != volumes::NO_PROVISIONER;
        (is_made && allows(&self.class, node)).then_some(None)
    }
}

impl Waiting {
    /// Whether there is room for its volume, as far as that is said.
    fn has_room(&self, node: &NodeInfo) -> bool {
        // Where the node is decided, the volume may be made already.
        let Some(capacities) = self.capacities.as_ref().filter(|_| self.node.is_none()) else {
            return true;
        };
        let wanted = volumes::request(&self.claim);
        capacities.iter().any(|capacity| {
            capacity.size.as_ref().is_some_and(|size| *size >= wanted)
                && capacity.nodes.matches(|key| node.label(key))
        })
    }
}

/// Whether volumes of a class can be made for a node.
fn allows(class: &StorageClass, node: &NodeInfo) -> bool {
    let terms = class.allowed_topologies.as_deref().unwrap_or_default();
    terms.is_empty()
        || terms.iter().any(|term| {
            let mut wanted = term.match_label_expressions.iter().flatten();
            wanted.all(|wanted| {
                node.label(&wanted.key)
                    .is_some_and(|label| wanted.values.iter().any(|v| v == label))
            })
        })
}

/// The claim of one of the pod's volumes, or why it cannot be mounted.
fn find<'a>(
    pod: &PodInfo,
    named: &ClaimName,
    volumes: &'a Volumes,
) -> Result<&'a Arc<PersistentVolumeClaim>, String> {
    let ClaimName { name, is_ephemeral } = named;
    let key = ObjectKey::new(&pod.key.namespace, name);
    let Some(claim) = volumes.claims.get(&key) else {
        return Err(if *is_ephemeral {
            format!(
                "waiting for ephemeral volume controller to create the persistentvolumeclaim \
                 {name:?}"
            )
        } else {
            format!("persistentvolumeclaim {name:?} not found")
        });
    };
    let metadata = &claim.metadata;
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    if phase == Some("Lost") {
        let volume = volumes::volume_name(claim);
        return Err(format!(
            "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"
        ));
    }
    if metadata.deletion_timestamp.is_some() {
        return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
    }
    let mut owners = metadata.owner_references.iter().flatten();
    if *is_ephemeral && !owners.any(|owner| owner.controller == Some(true) && owner.uid == pod.uid)
    {
        return Err(format!("PVC {key} was not created for pod {} (pod is not owner)", pod.key));
    }
    Ok(claim)
}

#[cfg(test)]
mod tests;
