//! What a volume may be shared with.
//!
//! Upstream: `pkg/scheduler/framework/plugins/volumerestrictions`.

use meta::ObjectKey;

use crate::framework::{ClusterEvent, CycleState, Plugin, Rejection};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::snapshot::Snapshot;

const DISK_CONFLICT: &str = "node(s) had no available disk";
const ONE_POD: &str =
    "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";

/// Rejects nodes where another pod has a disk that cannot be had twice, and pods whose claim is
/// one pod's only.
pub struct VolumeRestrictions;

/// The pod's claims that are one pod's only.
#[derive(Clone)]
struct Alone {
    claims: Vec<ObjectKey>,
    /// How often other pods mount them.
    mounted: usize,
}

impl Alone {
    fn on(&self, node: &NodeInfo) -> usize {
        let keys = node.pods.values().flat_map(|pod| pod.claim_keys());
        keys.filter(|key| self.claims.contains(key)).count()
    }
}

impl Plugin for VolumeRestrictions {
    fn name(&self) -> &'static str {
        "VolumeRestrictions"
    }

    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<(), Rejection> {
        let mut claims = Vec::new();
        for named in pod.claims.iter().filter(|named| !named.is_ephemeral) {
            let key = ObjectKey::new(&pod.key.namespace, &named.name);
            let Some(claim) = snapshot.volumes.claims.get(&key) else {
                let text = format!("persistentvolumeclaim {:?} not found", named.name);
                return Err(Rejection::unresolvable(text));
            };
            let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_ref());
            if modes.into_iter().flatten().any(|mode| mode == "ReadWriteOncePod") {
                claims.push(key);
            }
        }
        if !claims.is_empty() {
            let mounted = claims.iter().filter(|claim| snapshot.is_mounted(claim)).count();
            state.write(Alone { claims, mounted });
        }
        Ok(())
    }

    fn filter(
        &self,
        state: &CycleState,
        pod: &PodInfo,
        node: &NodeInfo,
        _: &Snapshot,
    ) -> Result<(), Rejection> {
        let mut taken = node.pods.values().flat_map(|other| &other.disks);
        if !pod.disks.is_empty()
            && taken.any(|taken| pod.disks.iter().any(|wanted| wanted.conflicts(taken)))
        {
            return Err(Rejection::resolvable(DISK_CONFLICT));
        }
        if state.read::<Alone>().is_some_and(|alone| alone.mounted > 0) {
            return Err(Rejection::resolvable(ONE_POD));
        }
        Ok(())
    }

    fn node_changed(
        &self,
        state: &mut CycleState,
        _: &PodInfo,
        _: &Snapshot,
        before: &NodeInfo,
        after: &NodeInfo,
    ) {
        state.update::<Alone>(|alone| {
            alone.mounted = (alone.mounted + alone.on(after)).saturating_sub(alone.on(before));
        });
    }

    fn may_help(&self, event: ClusterEvent) -> bool {
        use ClusterEvent::{NodeAdded, PodLeft, Volumes};
        matches!(event, NodeAdded | PodLeft | Volumes)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, node: &str, volume: Value) -> PodInfo {
        let mut volume = volume;
        volume["name"] = "v".into();
        let pod = json!({ "metadata": { "name": name, "namespace": "n", "uid": name },
            "spec": { "nodeName": node, "containers": [], "volumes": [volume] } });
        PodInfo::new(&serde_json::from_value(pod).unwrap())
    }

    /// Node `a` with one pod that has this volume, and the claim `c`.
    fn snapshot(volume: Value) -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.set_node(&NodeInfo { name: "a".to_owned(), ..NodeInfo::default() });
        let claim = json!({ "metadata": { "name": "c", "namespace": "n" },
            "spec": { "accessModes": ["ReadWriteOncePod"] } });
        let claim = Arc::new(serde_json::from_value(claim).unwrap());
        snapshot.volumes.claims.insert(ObjectKey::new("n", "c"), claim);
        snapshot.add_pod(Arc::new(pod("other", "a", volume)));
        snapshot
    }

    fn verdict(snapshot: &Snapshot, pod: &PodInfo) -> Result<(), Rejection> {
        let mut state = CycleState::default();
        VolumeRestrictions.pre_filter(&mut state, pod, snapshot)?;
        VolumeRestrictions.filter(&state, pod, snapshot.node("a").unwrap(), snapshot)
    }

    #[track_caller]
    fn check(one: Value, other: Value, expected: Result<(), &'static str>) {
        let snapshot = snapshot(one);
        let verdict = verdict(&snapshot, &pod("p", "", other));
        assert_eq!(verdict, expected.map_err(Rejection::resolvable));
    }

    #[test]
    fn a_disk_that_is_written_is_had_once() {
        let gce = |name: &str, read_only: bool| json!({ "gcePersistentDisk": { "pdName": name, "readOnly": read_only } });
        check(gce("d", false), gce("d", true), Err(DISK_CONFLICT));
        check(gce("d", true), gce("d", true), Ok(()));
        check(gce("d", false), gce("e", false), Ok(()));
        let aws = json!({ "awsElasticBlockStore": { "volumeID": "d", "readOnly": true } });
        check(aws.clone(), aws, Err(DISK_CONFLICT));
        let iscsi = |lun: i32| json!({ "iscsi": { "targetPortal": "t", "iqn": "i", "lun": lun } });
        check(iscsi(1), iscsi(2), Err(DISK_CONFLICT));
        let rbd = |monitors: &[&str]| json!({ "rbd": { "monitors": monitors, "image": "i" } });
        check(rbd(&["a", "b"]), rbd(&["b"]), Err(DISK_CONFLICT));
        check(rbd(&["a"]), rbd(&["b"]), Ok(()));
    }

    #[test]
    fn a_claim_may_be_one_pods_only() {
        let claim = |name: &str| json!({ "persistentVolumeClaim": { "claimName": name } });
        check(claim("c"), claim("c"), Err(ONE_POD));
        check(claim("d"), claim("c"), Ok(()));
        let gone = verdict(&snapshot(claim("c")), &pod("p", "", claim("d")));
        assert_eq!(gone, Err(Rejection::unresolvable("persistentvolumeclaim \"d\" not found")));
    }

    #[test]
    fn the_claim_is_free_without_the_other_pod() {
        let claim = json!({ "persistentVolumeClaim": { "claimName": "c" } });
        let mut snapshot = snapshot(claim.clone());
        let wanting = pod("p", "", claim);
        let mut state = CycleState::default();
        VolumeRestrictions.pre_filter(&mut state, &wanting, &snapshot).unwrap();
        let before = snapshot.node("a").unwrap().clone();
        let mut after = before.clone();
        after.remove_pod("other");
        VolumeRestrictions.node_changed(&mut state, &wanting, &snapshot, &before, &after);
        assert_eq!(VolumeRestrictions.filter(&state, &wanting, &after, &snapshot), Ok(()));
        snapshot.remove_pod("other");
        assert_eq!(verdict(&snapshot, &wanting), Ok(()));
    }
}
