//! What must hold when pods come and go.

use serde_json::Value;
use tokio::time::Instant;

use super::{Checks, WINDOW, controller, controls, is_active, is_available, number};
use crate::api::{Api, Asked, Commit};
use crate::nodes::{is_ready, text};

impl Checks {
    pub(super) fn pod(&mut self, api: &Api, commit: &Commit, asked: Asked<'_>) {
        let by = asked.by;
        let value = &commit.last.value;
        let (_, namespace, name) = &commit.key;
        let key = (namespace.clone(), name.clone());
        if is_ready(value) || commit.old.as_ref().is_some_and(|old| is_ready(&old.value)) {
            self.ready.insert(key, Instant::now());
        }
        self.count_ended(commit);
        let was = commit.old.as_ref().is_some_and(|old| is_available(&old.value));
        let is = commit.new.as_ref().is_some_and(|new| is_available(&new.value));
        let was_labels = commit.old.as_ref().map(|old| &old.value["metadata"]["labels"]);
        let relabelled = was_labels.is_some_and(|labels| *labels != value["metadata"]["labels"]);
        if was && (!is || relabelled) {
            let labels = was_labels.unwrap_or(&Value::Null);
            let app = (namespace.clone(), text(&labels["app"]).to_owned());
            if by == "replicaset-controller" {
                self.kept_available(api, commit);
            } else {
                self.disturbed.insert(app, Instant::now());
            }
        }
        let placed = |pod: &Value| !text(&pod["spec"]["nodeName"]).is_empty();
        if by == "scheduler"
            && placed(value)
            && commit.old.as_ref().is_some_and(|old| !placed(&old.value))
        {
            self.bound.insert(text(&value["metadata"]["uid"]).to_owned(), Instant::now());
            self.placed(value);
        }
        let stays = |pod: &Value| pod["metadata"]["deletionTimestamp"].is_null();
        let goes = commit.new.is_none() || !stays(value);
        if goes && commit.old.as_ref().is_some_and(|old| stays(&old.value)) {
            self.taken(api, commit, asked);
            if by == "node-controller" {
                self.driven_out(value);
            }
        }
        if commit.old.is_none() {
            self.within_quotas(api, namespace);
        }
        let Some(owner) = controller(value) else { return };
        if commit.old.is_none() {
            self.created(api, value, owner);
        }
    }

    fn created(&mut self, api: &Api, pod: &Value, owner: &Value) {
        let uid = text(&owner["uid"]);
        let Some(most) = self.most(uid) else { return };
        let kind = text(&owner["kind"]);
        if kind == "DaemonSet" {
            self.daemon(api, pod, owner, most);
            return;
        }
        if kind == "StatefulSet" {
            self.ordinal(api, pod, owner, most);
            return;
        }
        let pods = api.all("/pods").filter(|pod| controls(owner, pod) && is_active(pod));
        let active = i64::try_from(pods.count()).unwrap_or(i64::MAX);
        let most = most + self.unanswered.get(uid).copied().unwrap_or(0);
        if active > most {
            let name = &owner["name"];
            self.violated(format!("{kind} {name} has {active} pods; at most {most} are allowed"));
        }
    }

    fn daemon(&mut self, api: &Api, pod: &Value, owner: &Value, most: i64) {
        let target = target(pod);
        let pods = api.all("/pods").filter(|other| {
            controls(owner, other) && is_active(other) && self::target(other) == target
        });
        let pods = i64::try_from(pods.count()).unwrap_or(i64::MAX);
        let unanswered = self.unanswered.get(text(&owner["uid"])).copied().unwrap_or(0);
        if pods > most + unanswered {
            let name = &owner["name"];
            self.violated(format!("daemon set {name} has {pods} pods for node {target}"));
        }
    }

    /// Pods of a stateful set come in their order, each when those before it are ready.
    fn ordinal(&mut self, api: &Api, pod: &Value, owner: &Value, most: i64) {
        let meta = &pod["metadata"];
        let (namespace, name) = (text(&meta["namespace"]), text(&meta["name"]));
        let set = text(&owner["name"]);
        let number = name.strip_prefix(set).and_then(|rest| rest.strip_prefix('-'));
        let Some(ordinal) = number.and_then(|text| text.parse::<i64>().ok()) else {
            return self.violated(format!("stateful set {set} makes a pod that is called {name}"));
        };
        if ordinal >= most {
            self.violated(format!("stateful set {set} makes {name}; it should have {most} pods"));
        }
        let Some(set_object) = api.get("apps/statefulsets", namespace, set) else { return };
        // Of a set that is gone, what it wanted is not known any more.
        let is_gone = set_object["metadata"]["uid"] != owner["uid"];
        if is_gone || text(&set_object["spec"]["podManagementPolicy"]) == "Parallel" {
            return;
        }
        for before in 0..ordinal {
            let before = format!("{set}-{before}");
            let key = (namespace.to_owned(), before.clone());
            let is_ready = api.get("/pods", namespace, &before).is_some_and(is_ready);
            let was_ready = self.ready.get(&key).is_some_and(|at| at.elapsed() <= WINDOW);
            if !is_ready && !was_ready {
                self.violated(format!("stateful set {set} makes {name} before {before} is ready"));
            }
        }
    }

    /// A replica set of a deployment took an available pod away.
    fn kept_available(&mut self, api: &Api, commit: &Commit) {
        let Some(old) = &commit.old else { return };
        let namespace = &commit.key.1;
        let Some(set) = controller(&old.value) else { return };
        let Some(set) = api.get("apps/replicasets", namespace, text(&set["name"])) else { return };
        // Of the pod itself somebody may have taken the label.
        let app = text(&set["spec"]["selector"]["matchLabels"]["app"]).to_owned();
        let key = (namespace.clone(), app.clone());
        if self.disturbed.get(&key).is_some_and(|at| at.elapsed() <= WINDOW) {
            return;
        }
        let Some(owner) = controller(set) else { return };
        let Some(deployment) = api.get("apps/deployments", namespace, text(&owner["name"])) else {
            return;
        };
        if text(&deployment["spec"]["strategy"]["type"]) == "Recreate"
            || !deployment["metadata"]["deletionTimestamp"].is_null()
        {
            return;
        }
        let update = &deployment["spec"]["strategy"]["rollingUpdate"];
        let least =
            number(&deployment["spec"]["replicas"], 1) - number(&update["maxUnavailable"], 0);
        let pods = api.all("/pods").filter(|pod| {
            pod["metadata"]["namespace"] == **namespace
                && pod["metadata"]["labels"]["app"] == *app
                && is_available(pod)
        });
        let available = i64::try_from(pods.count()).unwrap_or(i64::MAX);
        if available < least {
            let name = &deployment["metadata"]["name"];
            self.violated(format!(
                "deployment {name} takes a pod away and leaves {available} available; {least} must be"
            ));
        }
    }
}

/// How many pods more than one a node may have while a daemon set is updated.
pub(super) fn surge(set: &Value) -> i64 {
    number(&set["spec"]["updateStrategy"]["rollingUpdate"]["maxSurge"], 0).min(1)
}

/// The node that a pod of a daemon set is for.
pub(crate) fn target(pod: &Value) -> String {
    let bound = text(&pod["spec"]["nodeName"]);
    if !bound.is_empty() {
        return bound.to_owned();
    }
    let path = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution\
                /nodeSelectorTerms/0/matchFields/0/values/0";
    text(pod.pointer(path).unwrap_or(&Value::Null)).to_owned()
}
