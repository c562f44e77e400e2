//! How many volumes of a driver a node may have.
//!
//! Upstream: `pkg/scheduler/framework/plugins/nodevolumelimits/csi.go`.

use std::collections::{BTreeMap, BTreeSet};

use crate::framework::{ClusterEvent, CycleState, Plugin, Rejection};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::snapshot::Snapshot;

const TOO_MANY: &str = "node(s) exceed max volume count";

/// Rejects nodes that cannot take the pod's volumes beside those that they have.
pub struct NodeVolumeLimits;

/// Volumes by driver.
type ByDriver = BTreeMap<String, BTreeSet<String>>;

/// The volumes that the pod brings.
struct Brought(ByDriver);

impl Plugin for NodeVolumeLimits {
    fn name(&self) -> &'static str {
        "NodeVolumeLimits"
    }

    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<(), Rejection> {
        let mut brought = ByDriver::new();
        add_volumes(pod, snapshot, &mut brought);
        if !brought.is_empty() {
            state.write(Brought(brought));
        }
        Ok(())
    }

    fn filter(
        &self,
        state: &CycleState,
        _: &PodInfo,
        node: &NodeInfo,
        snapshot: &Snapshot,
    ) -> Result<(), Rejection> {
        let Some(Brought(brought)) = state.read() else { return Ok(()) };
        let Some(limits) = snapshot.volumes.limits.get(&node.name) else { return Ok(()) };
        if !brought.keys().any(|driver| limits.contains_key(driver)) {
            return Ok(());
        }
        let present = present(node, snapshot);
        for (driver, volumes) in brought {
            let Some(limit) = limits.get(driver) else { continue };
            let present = present.get(driver);
            let is_new = |volume: &&String| present.is_none_or(|all| !all.contains(*volume));
            let count = present.map_or(0, BTreeSet::len) + volumes.iter().filter(is_new).count();
            if i64::try_from(count).unwrap_or(i64::MAX) > *limit
                && volumes.iter().any(|volume| is_new(&volume))
            {
                return Err(Rejection::resolvable(TOO_MANY));
            }
        }
        Ok(())
    }

    fn may_help(&self, event: ClusterEvent) -> bool {
        use ClusterEvent::{NodeAdded, PodLeft, VolumeLimits, Volumes};
        matches!(event, NodeAdded | PodLeft | VolumeLimits | Volumes)
    }
}

/// The volumes that a node's pods have, and those that are attached to it.
fn present(node: &NodeInfo, snapshot: &Snapshot) -> ByDriver {
    let mut present = ByDriver::new();
    for pod in node.pods.values() {
        add_volumes(pod, snapshot, &mut present);
    }
    for (driver, handle) in
        snapshot.volumes.attachments.get(&node.name).into_iter().flat_map(BTreeMap::values)
    {
        present.entry(driver.clone()).or_default().insert(handle.clone());
    }
    present
}

fn add_volumes(pod: &PodInfo, snapshot: &Snapshot, to: &mut ByDriver) {
    for key in pod.claim_keys() {
        if let Some((driver, volume)) = snapshot.volumes.driver_of(&key) {
            to.entry(driver).or_default().insert(volume);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use meta::ObjectKey;
    use serde_json::json;

    use super::*;

    /// Node `a`, which may have two volumes of driver `d`; the claims `one` to `four`, the last of
    /// which has no volume yet.
    fn snapshot(placed: &[&str]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.set_node(&NodeInfo { name: "a".to_owned(), ..NodeInfo::default() });
        let volumes = &mut snapshot.volumes;
        volumes.limits.insert("a".to_owned(), [("d".to_owned(), 2)].into());
        for name in ["one", "two", "three", "four"] {
            let bound = if name == "four" { "" } else { name };
            let claim = json!({ "metadata": { "name": name, "namespace": "n" },
                "spec": { "volumeName": bound, "storageClassName": "s" } });
            let claim = Arc::new(serde_json::from_value(claim).unwrap());
            volumes.claims.insert(ObjectKey::new("n", name), claim);
            let volume = json!({ "metadata": { "name": name },
                "spec": { "csi": { "driver": "d", "volumeHandle": name } } });
            let volume = serde_json::from_value(volume).unwrap();
            volumes.volumes.insert(name.to_owned(), Arc::new(volume));
        }
        let class = json!({ "metadata": { "name": "s" }, "provisioner": "d" });
        let class = serde_json::from_value(class).unwrap();
        volumes.classes.insert("s".to_owned(), Arc::new(class));
        for (at, claim) in placed.iter().enumerate() {
            snapshot.add_pod(Arc::new(pod(&at.to_string(), "a", &[claim])));
        }
        snapshot
    }

    fn pod(name: &str, node: &str, claims: &[&str]) -> PodInfo {
        let volumes: Vec<_> = claims
            .iter()
            .map(|name| json!({ "name": name, "persistentVolumeClaim": { "claimName": name } }))
            .collect();
        let pod = json!({ "metadata": { "name": name, "namespace": "n", "uid": name },
            "spec": { "nodeName": node, "containers": [], "volumes": volumes } });
        PodInfo::new(&serde_json::from_value(pod).unwrap())
    }

    #[track_caller]
    fn check(snapshot: &Snapshot, claims: &[&str], fits: bool) {
        let pod = pod("p", "", claims);
        let mut state = CycleState::default();
        NodeVolumeLimits.pre_filter(&mut state, &pod, snapshot).unwrap();
        let verdict = NodeVolumeLimits.filter(&state, &pod, snapshot.node("a").unwrap(), snapshot);
        let expected = if fits { Ok(()) } else { Err(Rejection::resolvable(TOO_MANY)) };
        assert_eq!(verdict, expected, "{claims:?}");
    }

    #[test]
    fn a_node_takes_so_many_volumes_of_a_driver() {
        check(&snapshot(&["one"]), &["two"], true);
        check(&snapshot(&["one"]), &["two", "three"], false);
        check(&snapshot(&["one", "two"]), &["three"], false);
        check(&snapshot(&["one", "two"]), &["one", "two"], true);
        check(&snapshot(&["one", "two"]), &["four"], false);
        check(&snapshot(&["one"]), &["four"], true);
        check(&snapshot(&["one", "two"]), &[], true);
    }

    #[test]
    fn what_is_attached_counts_once() {
        let mut snapshot = snapshot(&["one"]);
        let attach = |handle: &str| ("d".to_owned(), handle.to_owned());
        let attached = [("x".to_owned(), attach("one"))].into();
        snapshot.volumes.attachments.insert("a".to_owned(), attached);
        check(&snapshot, &["two"], true);
        let attached = [("x".to_owned(), attach("one")), ("y".to_owned(), attach("three"))].into();
        snapshot.volumes.attachments.insert("a".to_owned(), attached);
        check(&snapshot, &["two"], false);
        snapshot.volumes.limits.clear();
        check(&snapshot, &["two"], true);
    }
}
