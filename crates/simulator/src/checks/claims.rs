//! What must hold of claims, their volumes and the pods that use them.

use serde_json::Value;
use tokio::time::Instant;

use super::{Checks, IN_FLIGHT, is_active, number};
use crate::api::{Api, Asked, Commit};
use crate::nodes::text;
use crate::storage::claims_of;

/// Who lets claims go, and what keeps them until then.
const PROTECTOR: &str = "pvc-protection-controller";
const PROTECTION: &str = "kubernetes.io/pvc-protection";

impl Checks {
    pub(super) fn claim(&mut self, api: &Api, commit: &Commit, asked: Asked<'_>) {
        let claim = &commit.last.value;
        if claim["metadata"]["deletionTimestamp"].is_string() {
            let uid = text(&claim["metadata"]["uid"]).to_owned();
            self.going.entry(uid).or_insert_with(Instant::now);
        }
        self.let_go(api, commit, asked);
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
        if asked.by == "statefulset-controller" {
            self.condemned(api, claim);
        }
    }

    /// Somebody looks at all pods of a namespace.
    pub(crate) fn looked(&mut self, by: &str, collection: &str, namespace: &str) {
        if by != PROTECTOR || collection != "/pods" {
            return;
        }
        let looks = self.looks.entry(namespace.to_owned()).or_default();
        while looks.front().is_some_and(|at| at.elapsed() > 2 * IN_FLIGHT) {
            looks.pop_front();
        }
        looks.push_back(Instant::now());
    }

    /// The protection of a claim ends: whoever ends it has looked, and of the pods that were on
    /// nodes then none uses it.
    fn let_go(&mut self, api: &Api, commit: &Commit, asked: Asked<'_>) {
        let is_kept = |claim: &Value| {
            let finalizers = claim["metadata"]["finalizers"].as_array();
            finalizers.is_some_and(|all| all.iter().any(|one| one == PROTECTION))
        };
        let (_, namespace, name) = &commit.key;
        let was_kept = commit.old.as_ref().is_some_and(|old| is_kept(&old.value));
        let claim = &commit.last.value;
        if !was_kept || (commit.new.is_some() && is_kept(claim)) {
            return;
        }
        let Some(sight) = asked.sight else { return };
        let meta = &claim["metadata"];
        let going = self.going.get(text(&meta["uid"])).copied();
        let mut looks = self.looks.get(namespace).into_iter().flatten().copied();
        let looked = looks.find(|at| {
            going.is_some_and(|going| *at >= going)
                && *at <= sight.since
                && *at + IN_FLIGHT >= sight.since
        });
        let Some(looked) = looked else {
            return self.violated(format!("claim {namespace}/{name} is let go without a look"));
        };
        let user = api.all("/pods").find(|pod| {
            let uid = text(&pod["metadata"]["uid"]);
            let mut owners = meta["ownerReferences"].as_array().into_iter().flatten();
            let has_ended = pod["metadata"]["deletionGracePeriodSeconds"] == 0;
            pod["metadata"]["namespace"] == **namespace
                && self.bound.get(uid).is_some_and(|bound| *bound < looked)
                && claims_of(pod).any(|claim| claim == *name)
                && !(has_ended && owners.any(|owner| owner["uid"] == *uid))
        });
        if let Some(pod) = user {
            let pod = &pod["metadata"]["name"];
            self.violated(format!("claim {namespace}/{name} is let go, and pod {pod} uses it"));
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
