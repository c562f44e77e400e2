//! What must hold when controllers take pods away by their own hand: as many as must stay stay, by
//! what the controller knew when it decided.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::{Checks, controller, controls, is_active, is_available, number, surge, target};
use crate::api::{Api, Asked, Commit};
use crate::nodes::text;
use crate::view::Past;

/// How long before a request its reason may have been known: what a pass asks for one after the
/// other, some of it slowly.
const DECIDED: Duration = Duration::from_secs(60);
/// Who takes pods to have as many as there should be.
const HANDS: [&str; 4] = [
    "replicaset-controller",
    "replication-controller",
    "statefulset-controller",
    "daemon-set-controller",
];

impl Checks {
    /// A pod begins to go.
    pub(super) fn taken(&mut self, api: &Api, commit: &Commit, asked: Asked<'_>) {
        let Some(old) = &commit.old else { return };
        let pod = &old.value;
        let uid = text(&pod["metadata"]["uid"]).to_owned();
        let (Some(owner), Some(sight)) = (controller(pod), asked.sight) else { return };
        if !HANDS.contains(&asked.by) {
            return;
        }
        self.taken.insert(uid.clone());
        let taking = Taking { api, pod, uid: &uid, owner, taken: &self.taken };
        let is_right = sight.ever(DECIDED, |past| match asked.by {
            "replicaset-controller" => taking.of_replica_set(past, "apps/replicasets"),
            "replication-controller" => taking.of_replica_set(past, "/replicationcontrollers"),
            "statefulset-controller" => taking.of_stateful_set(past),
            _ => taking.of_daemon_set(past),
        });
        if !is_right {
            let (name, kind, of) = (&pod["metadata"]["name"], &owner["kind"], &owner["name"]);
            self.violated(format!(
                "pod {name} is taken from {kind} {of}, which by what is known had none to spare"
            ));
        }
    }

    /// A replica set is made smaller by its deployment.
    pub(super) fn shrunk(&mut self, api: &Api, commit: &Commit, asked: Asked<'_>) {
        let (Some(old), Some(new), Some(sight)) = (&commit.old, &commit.new, asked.sight) else {
            return;
        };
        let size = |set: &Value| number(&set["spec"]["replicas"], 1);
        if asked.by != "deployment-controller" || size(&new.value) >= size(&old.value) {
            return;
        }
        let Some(owner) = controller(&old.value) else { return };
        let is_right = sight.ever(DECIDED, |past| stays_available(api, past, owner, commit));
        if !is_right {
            let (name, of) = (&commit.key.2, &owner["name"]);
            self.violated(format!(
                "replica set {name} is made smaller, and deployment {of} falls below what must \
                 stay available"
            ));
        }
    }
}

/// Of the pods that are available as many stay as the deployment wants, or all of them.
fn stays_available(api: &Api, past: &Past<'_>, owner: &Value, commit: &Commit) -> bool {
    let namespace = &commit.key.1;
    let Some(deployment) = past.get("apps/deployments", namespace, text(&owner["name"])) else {
        return false;
    };
    let spec = &deployment["spec"];
    let wanted = number(&spec["replicas"], 1);
    let sets: Vec<&Value> =
        past.all("apps/replicasets").filter(|set| controls(owner, set)).collect();
    let desired = "deployment.kubernetes.io/desired-replicas";
    let is_scaled = sets.iter().any(|set| {
        number(&set["spec"]["replicas"], 1) > 0
            && text(&set["metadata"]["annotations"][desired]) != wanted.to_string()
    });
    // What is scaled shrinks by proportion.
    if spec["strategy"]["type"] == "Recreate" || spec["paused"] == true || is_scaled {
        return true;
    }
    let update = &spec["strategy"]["rollingUpdate"];
    let (surge, missing) = (number(&update["maxSurge"], 0), number(&update["maxUnavailable"], 0));
    let least = wanted - if surge == 0 { missing.max(1) } else { missing };
    let size = |set: &Value, changed: &Value| {
        let name = text(&set["metadata"]["name"]);
        let present = api.get("apps/replicasets", namespace, name).unwrap_or(set);
        let now = if name == commit.key.2 { changed } else { present };
        number(&now["spec"]["replicas"], 1)
    };
    let available = |changed: &Value| -> i64 {
        let of =
            |set: &&Value| size(set, changed).min(number(&set["status"]["availableReplicas"], 0));
        sets.iter().map(of).sum()
    };
    let before = commit.old.as_ref().map_or(0, |old| available(&old.value));
    available(&commit.last.value) >= before.min(least)
}

/// A pod that its controller takes.
struct Taking<'a> {
    api: &'a Api,
    pod: &'a Value,
    uid: &'a str,
    owner: &'a Value,
    /// The uids of those that controllers took: this one, and others of which they may not have
    /// heard.
    taken: &'a BTreeSet<String>,
}

impl Taking<'_> {
    fn namespace(&self) -> &str {
        text(&self.pod["metadata"]["namespace"])
    }

    fn is_taken(&self, pod: &Value) -> bool {
        self.taken.contains(text(&pod["metadata"]["uid"]))
    }

    fn is_it(&self, pod: &Value) -> bool {
        pod["metadata"]["uid"] == *self.uid
    }

    /// The owner as it was known.
    fn owner<'p>(&self, past: &Past<'p>, collection: &str) -> Option<&'p Value> {
        let owner = past.get(collection, self.namespace(), text(&self.owner["name"]))?;
        (owner["metadata"]["uid"] == self.owner["uid"]).then_some(owner)
    }

    /// The owner's pods as they were known, with those that it has adopted since: of them it knows
    /// by the answers.
    fn pods<'p>(&self, past: &Past<'p>) -> Vec<&'p Value> {
        let owned = |pod: &&Value| controls(self.owner, pod) || self.is_adopted(pod);
        past.all("/pods").filter(owned).collect()
    }

    fn is_adopted(&self, known: &Value) -> bool {
        let name = text(&known["metadata"]["name"]);
        let present = self.api.get("/pods", self.namespace(), name);
        controller(known).is_none()
            && present.is_some_and(|pod| {
                pod["metadata"]["uid"] == known["metadata"]["uid"] && controls(self.owner, pod)
            })
    }

    /// More were there than the set should have, and of those that serve none goes before others.
    fn of_replica_set(&self, past: &Past<'_>, collection: &str) -> bool {
        let Some(set) = self.owner(past, collection) else { return false };
        let wanted = number(&set["spec"]["replicas"], 1);
        let pods = self.pods(past);
        let left = pods.iter().filter(|pod| is_active(pod) && !self.is_taken(pod));
        let serve = left.clone().filter(|pod| is_available(pod));
        let (left, serve) = (count(left), count(serve));
        let served = pods.iter().any(|pod| self.is_it(pod) && is_available(pod));
        left >= wanted && serve >= wanted.min(serve + i64::from(served))
    }

    /// One that serves goes only when no other is missing, or fewer than may be.
    fn of_stateful_set(&self, past: &Past<'_>) -> bool {
        let Some(set) = self.owner(past, "apps/statefulsets") else { return false };
        let pods = self.pods(past);
        let named = |ordinal: i64| {
            let name = format!("{}-{ordinal}", text(&self.owner["name"]));
            pods.iter().find(|pod| pod["metadata"]["name"] == *name)
        };
        let replicas = number(&set["spec"]["replicas"], 1);
        let Some(ordinal) = (0..replicas).find(|at| named(*at).is_some_and(|pod| self.is_it(pod)))
        else {
            // Beyond those that should be.
            return pods.iter().any(|pod| self.is_it(pod));
        };
        let serves =
            |at: &i64| named(*at).is_some_and(|pod| is_available(pod) && !self.is_taken(pod));
        if !named(ordinal).is_some_and(|pod| is_available(pod)) {
            return true;
        }
        let most = number(&set["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"], 1);
        let is_parallel = set["spec"]["podManagementPolicy"] == "Parallel";
        if most > 1 {
            let missing = (0..replicas).filter(|at| *at != ordinal && !serves(at));
            return count(missing) < most;
        }
        let first = if is_parallel { ordinal + 1 } else { 0 };
        (first..replicas).filter(|at| *at != ordinal).all(|at| serves(&at))
    }

    /// One that serves its node goes when the node does not want it, when another one serves, or
    /// when fewer nodes than may be have none.
    fn of_daemon_set(&self, past: &Past<'_>) -> bool {
        let Some(set) = self.owner(past, "apps/daemonsets") else { return false };
        let pods = self.pods(past);
        let Some(pod) = pods.iter().find(|pod| self.is_it(pod)) else { return false };
        let node = target(pod);
        // Of those with taints some are wanted still; they are left out.
        let wants = |node: &Value| node["spec"]["taints"].as_array().is_none_or(Vec::is_empty);
        let on = past.get("/nodes", "", &node);
        if !is_available(pod) || !on.is_some_and(wants) {
            return true;
        }
        let mut beside =
            pods.iter().filter(|pod| target(pod) == node && is_active(pod) && !self.is_it(pod));
        let hash = |pod: &Value| pod["metadata"]["labels"]["controller-revision-hash"].clone();
        let newest = newest(self.api, self.owner);
        if surge(set) > 0 {
            // Of two of templates before the last the older one stays, whether it serves or not.
            let is_old = |pod: &Value| hash(pod) != *newest;
            let made = |pod: &Value| text(&pod["metadata"]["creationTimestamp"]).to_owned();
            let gives_way =
                |other: &Value| is_old(pod) && is_old(other) && made(other) <= made(pod);
            return beside
                .any(|other| is_available(other) || hash(other) == hash(pod) || gives_way(other));
        }
        if beside.next().is_some() {
            return true;
        }
        let lacks = |on: &Value| {
            let name = text(&on["metadata"]["name"]);
            let mut there = pods.iter().filter(|pod| {
                target(pod) == name && pod["metadata"]["deletionTimestamp"].is_null()
            });
            name != node
                && wants(on)
                && there.all(|pod| {
                    // Old ones that do not serve anyway are replaced besides, as upstream's.
                    if is_available(pod) { self.is_taken(pod) } else { hash(pod) == *newest }
                })
        };
        let missing = count(past.all("/nodes").filter(|node| lacks(node)));
        let most = &set["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"];
        missing < number(most, 1).max(1)
    }
}

/// The hash of the last template of a daemon set.
fn newest(api: &Api, set: &Value) -> String {
    let revisions = api.all("apps/controllerrevisions").filter(|one| controls(set, one));
    let last = revisions.max_by_key(|one| number(&one["revision"], 0));
    let hash = last.map(|one| text(&one["metadata"]["labels"]["controller-revision-hash"]));
    hash.unwrap_or_default().to_owned()
}

fn count<T>(of: impl Iterator<Item = T>) -> i64 {
    i64::try_from(of.count()).unwrap_or(i64::MAX)
}
