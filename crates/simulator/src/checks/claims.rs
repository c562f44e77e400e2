//! What must hold of claims, their volumes and the pods that use them.

use serde_json::Value;

use super::{Checks, IN_FLIGHT, is_active, number};
use crate::api::{Api, Commit};
use crate::nodes::text;
use crate::storage::claims_of;

impl Checks {
    pub(super) fn claim(&mut self, api: &Api, commit: &Commit, by: &str) {
        let claim = &commit.last.value;
        if commit.new.is_none() {
            self.unused(api, commit);
            return;
        }
        let volume = &claim["spec"]["volumeName"];
        let before =
            commit.old.as_ref().map_or(&Value::Null, |old| &old.value["spec"]["volumeName"]);
        if volume.is_string() && volume != before {
            let shares = api.all("/persistentvolumeclaims").find(|other| {
                other["spec"]["volumeName"] == *volume
                    && other["metadata"]["uid"] != claim["metadata"]["uid"]
            });
            if let Some(other) = shares {
                let (name, other) = (&claim["metadata"]["name"], &other["metadata"]["name"]);
                self.violated(format!("claims {name} and {other} both have volume {volume}"));
            }
        }
        if by == "statefulset-controller" {
            self.condemned(api, claim);
        }
    }

    /// A claim is gone: no pod may use it that was on its node for some time.
    fn unused(&mut self, api: &Api, commit: &Commit) {
        let (_, namespace, name) = &commit.key;
        let user = api.all("/pods").find(|pod| {
            let uid = text(&pod["metadata"]["uid"]);
            pod["metadata"]["namespace"] == **namespace
                && is_active(pod)
                && self.bound.get(uid).is_some_and(|bound| bound.elapsed() > IN_FLIGHT)
                && claims_of(pod).any(|claim| claim == *name)
        });
        if let Some(pod) = user {
            let pod = &pod["metadata"]["name"];
            self.violated(format!("claim {namespace}/{name} is gone, and pod {pod} uses it"));
        }
    }

    /// Who owns a claim of a stateful set is what its policy says.
    fn condemned(&mut self, api: &Api, claim: &Value) {
        let meta = &claim["metadata"];
        let name = text(&meta["name"]);
        for owner in meta["ownerReferences"].as_array().into_iter().flatten() {
            let uid = text(&owner["uid"]);
            if owner["kind"] == "StatefulSet" {
                if self.retention.get(uid).is_some_and(|policy| policy["whenDeleted"] != "Delete") {
                    self.violated(format!("claim {name} goes with its set, which retains it"));
                }
                continue;
            }
            let Some(place) = self.places.get(uid) else { continue };
            let Some(pod) = api.get(&place.0, &place.1, &place.2) else { continue };
            let Some(set) = super::controller(pod).map(|set| text(&set["uid"]).to_owned()) else {
                continue;
            };
            if self.retention.get(&set).is_some_and(|policy| policy["whenScaled"] != "Delete") {
                self.violated(format!("claim {name} goes with its pod, and the set retains it"));
            }
            let ordinal = name.rsplit('-').next().and_then(|text| text.parse::<i64>().ok());
            if ordinal.is_some_and(|ordinal| ordinal < self.least(&set)) {
                self.violated(format!("claim {name} goes with its pod, which is wanted"));
            }
        }
    }

    pub(super) fn stateful_set(&mut self, value: &Value) {
        let uid = text(&value["metadata"]["uid"]).to_owned();
        self.limit(value, number(&value["spec"]["replicas"], 1));
        let policy = &value["spec"]["persistentVolumeClaimRetentionPolicy"];
        self.retention.insert(uid, policy.clone());
    }

    /// Nobody deletes a volume that is to be kept, or whose claim is there.
    pub(super) fn volume(&mut self, api: &Api, commit: &Commit) {
        let stays = |value: &Value| value["metadata"]["deletionTimestamp"].is_null();
        let value = &commit.last.value;
        let was = commit.old.as_ref().is_some_and(|old| stays(&old.value));
        if !was || (commit.new.is_some() && stays(value)) {
            return;
        }
        let name = &commit.key.2;
        if value["spec"]["persistentVolumeReclaimPolicy"] == "Retain" {
            self.violated(format!("volume {name} is deleted, and is to be retained"));
        }
        let uid = text(&value["spec"]["claimRef"]["uid"]);
        let Some(place) = self.places.get(uid) else { return };
        let claim = api.get(&place.0, &place.1, &place.2);
        if claim.is_some_and(stays) {
            self.violated(format!("volume {name} is deleted, and its claim {} is there", place.2));
        }
    }
}
