//! Volumes that say in labels where they are.
//!
//! Upstream: `pkg/scheduler/framework/plugins/volumezone`.

use api::volumes;
use k8s_openapi::api::core::v1::PersistentVolume;
use meta::ObjectKey;

use crate::framework::{ClusterEvent, CycleState, Plugin, Rejection};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::snapshot::Snapshot;

const CONFLICT: &str = "node(s) had no available volume zone";

/// The labels of today and those of before.
const LABELS: [(&str, &str); 2] = [
    ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"),
    ("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"),
];
/// Between several zones in one label.
const BETWEEN: &str = "__";

/// Rejects nodes in other zones or regions than the pod's volumes.
pub struct VolumeZone;

/// A label's key, and the values it may have.
type Place = (&'static str, Vec<String>);

/// Where the pod's volumes are.
struct Places(Vec<Place>);

impl Plugin for VolumeZone {
    fn name(&self) -> &'static str {
        "VolumeZone"
    }

    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: &PodInfo,
        snapshot: &Snapshot,
    ) -> Result<(), Rejection> {
        let mut places = Vec::new();
        for named in &pod.claims {
            let key = ObjectKey::new(&pod.key.namespace, &named.name);
            // What is not there, or not bound yet, is for `VolumeBinding` to say.
            let Some(claim) = snapshot.volumes.claims.get(&key) else { continue };
            let name = volumes::volume_name(claim);
            if name.is_empty() {
                continue;
            }
            let Some(volume) = snapshot.volumes.volumes.get(name) else {
                let text = format!("persistentvolume {name:?} not found");
                return Err(Rejection::unresolvable(text));
            };
            places.extend(places_of(volume));
        }
        if !places.is_empty() {
            state.write(Places(places));
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
        let Some(Places(places)) = state.read() else { return Ok(()) };
        let mut labels = LABELS.iter().flat_map(|(new, old)| [new, old]);
        // A node that says nothing is everywhere.
        if !labels.any(|key| node.label(key).is_some()) {
            return Ok(());
        }
        let fits = |(key, values): &Place| {
            let now = LABELS.iter().find(|(_, old)| old == key).map(|(new, _)| *new);
            let value = node.label(key).or_else(|| node.label(now?));
            value.is_some_and(|value| values.iter().any(|one| one == value))
        };
        if places.iter().all(fits) { Ok(()) } else { Err(Rejection::unresolvable(CONFLICT)) }
    }

    fn may_help(&self, event: ClusterEvent) -> bool {
        use ClusterEvent::{NodeAdded, NodeLabels, Volumes};
        matches!(event, NodeAdded | NodeLabels | Volumes)
    }
}

fn places_of(volume: &PersistentVolume) -> impl Iterator<Item = Place> {
    let labels = volume.metadata.labels.as_ref();
    LABELS.iter().flat_map(|(new, old)| [*new, *old]).filter_map(move |key| {
        let values = labels?.get(key)?.split(BETWEEN).map(str::to_owned);
        Some((key, values.collect()))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    const NEW: &str = LABELS[0].0;
    const OLD: &str = LABELS[0].1;

    fn verdict(volume: Option<(&str, &str)>, node: &[(&str, &str)]) -> Result<(), Rejection> {
        let mut snapshot = Snapshot::default();
        let claim = json!({ "metadata": { "name": "c", "namespace": "n" },
            "spec": { "volumeName": "v" } });
        let claim = Arc::new(serde_json::from_value(claim).unwrap());
        snapshot.volumes.claims.insert(ObjectKey::new("n", "c"), claim);
        if let Some((key, value)) = volume {
            let volume = json!({ "metadata": { "name": "v", "labels": { key: value } } });
            let volume = Arc::new(serde_json::from_value(volume).unwrap());
            snapshot.volumes.volumes.insert("v".to_owned(), volume);
        }
        let pod = json!({ "metadata": { "name": "p", "namespace": "n", "uid": "p" },
            "spec": { "containers": [],
                "volumes": [{ "name": "v", "persistentVolumeClaim": { "claimName": "c" } }] } });
        let pod = PodInfo::new(&serde_json::from_value(pod).unwrap());
        let labels = node.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let node = NodeInfo { labels: labels.collect(), ..NodeInfo::default() };
        let mut state = CycleState::default();
        VolumeZone.pre_filter(&mut state, &pod, &snapshot)?;
        VolumeZone.filter(&state, &pod, &node, &snapshot)
    }

    #[test]
    fn a_pod_goes_where_its_volume_is() {
        let conflict = Err(Rejection::unresolvable(CONFLICT));
        assert_eq!(verdict(Some((NEW, "a")), &[(NEW, "a")]), Ok(()));
        assert_eq!(verdict(Some((NEW, "a")), &[(NEW, "b")]), conflict);
        assert_eq!(verdict(Some((NEW, "a__b")), &[(NEW, "b")]), Ok(()));
        assert_eq!(verdict(Some((NEW, "a")), &[]), Ok(()), "a node without zones");
        assert_eq!(verdict(Some((NEW, "a")), &[(LABELS[1].0, "r")]), conflict);
        assert_eq!(verdict(Some((OLD, "a")), &[(NEW, "a")]), Ok(()), "the label of today");
        assert_eq!(verdict(Some(("other", "a")), &[(NEW, "b")]), Ok(()));
        let gone = Rejection::unresolvable("persistentvolume \"v\" not found");
        assert_eq!(verdict(None, &[]), Err(gone));
    }
}
