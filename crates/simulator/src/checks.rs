//! What must hold at every change.
//!
//! Programs act on caches that are late, and so does upstream: what is allowed is what a late view
//! could have allowed. A limit of what is created is the largest that it was within [`WINDOW`].
//! What is taken away, counted and granted is judged by what the program knew (`view`), and besides,
//! where nobody else took pods away within it, by what is true.

mod autoscaler;
mod claims;
mod cron;
mod evictions;
mod hand;
mod jobs;
mod nodes;
mod owners;
mod pods;
mod quotas;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::time::Instant;

use crate::api::{Api, Asked, Commit, Key, Target};
use crate::nodes::{is_ready, text};

/// How late a cache may be: back-offs of informers that failed a few times in a row included.
const WINDOW: Duration = Duration::from_secs(90);
/// How long a decision may be under way: a few slow requests.
const IN_FLIGHT: Duration = Duration::from_secs(30);

pub(crate) use jobs::finished_at;
pub(crate) use nodes::tolerated;
use pods::surge;
pub(crate) use pods::target;

/// What is remembered for it.
#[derive(Default)]
pub(crate) struct Checks {
    violations: Vec<String>,
    /// What a workload may have, over time, by uid.
    limits: BTreeMap<String, VecDeque<(Instant, i64)>>,
    /// Creations that took effect though their client does not know, by owner's uid.
    unanswered: BTreeMap<String, i64>,
    /// Pods of jobs that ended, by the job's uid.
    ended: BTreeMap<String, jobs::Ended>,
    /// When a pod of such labels was last taken away by somebody else: namespace and `app`.
    disturbed: BTreeMap<(String, String), Instant>,
    /// When a pod was last ready, by namespace and name.
    ready: BTreeMap<(String, String), Instant>,
    /// The pods that were healthy when a budget was last counted: name and uid, by the budget's
    /// uid.
    counted: BTreeMap<String, BTreeSet<(String, String)>>,
    /// The uids of pods that their controllers took, and know it.
    taken: BTreeSet<String>,
    /// When those who protect claims looked at the pods of a namespace.
    looks: BTreeMap<String, VecDeque<Instant>>,
    /// Since when claims are to go, by uid.
    going: BTreeMap<String, Instant>,
    /// Runs of cron jobs: uid and scheduled time.
    scheduled: BTreeSet<(String, String)>,
    /// When the manager was first told of a Job, by uid.
    told: BTreeMap<String, Instant>,
    /// When pods were put on their nodes, by uid.
    bound: BTreeMap<String, Instant>,
    /// What becomes of the claims of stateful sets, by the set's uid.
    retention: BTreeMap<String, Value>,
    /// When autoscalers were made, by uid.
    born: BTreeMap<String, Instant>,
    /// Where what exists is, by uid.
    places: BTreeMap<String, Key>,
    /// Since when nodes have taints, and until when they had them.
    taints: BTreeMap<nodes::Taint, (Instant, Option<Instant>)>,
    /// By how much the manager's clock is wrong, and since when.
    skew: Option<(SignedDuration, Instant)>,
    /// What it was before, until then.
    skews: Vec<(SignedDuration, Instant)>,
}

impl Checks {
    /// What did not hold.
    pub(crate) fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.violations)
    }

    /// Something did not hold.
    pub(crate) fn violated(&mut self, what: String) {
        self.violations.push(what);
    }

    /// The manager's clock is set wrong by this much.
    pub(crate) fn skewed(&mut self, by: SignedDuration) {
        let now = Instant::now();
        let before = self.skew.map_or(SignedDuration::ZERO, |(before, _)| before);
        self.skews.push((before, now));
        self.skew = Some((by, now));
    }

    /// All times by which the manager can have decided what takes effect now.
    fn managers_times(&self, now: Timestamp) -> Vec<Timestamp> {
        let recent = self.skews.iter().filter(|(_, until)| until.elapsed() < IN_FLIGHT);
        let present = self.skew.map_or(SignedDuration::ZERO, |(by, _)| by);
        let skews = recent.map(|(by, _)| *by).chain([present]);
        skews.filter_map(|by| now.checked_add(by).ok()).collect()
    }

    /// The manager has been told of an object.
    pub(crate) fn told(&mut self, collection: &str, object: &Value) {
        if collection == "batch/jobs" {
            let uid = text(&object["metadata"]["uid"]).to_owned();
            self.told.entry(uid).or_insert_with(Instant::now);
        }
    }

    /// The time that the manager has; none while what it decided by another one may still come.
    fn managers_time(&self, now: Timestamp) -> Option<Timestamp> {
        match self.skew {
            None => Some(now),
            Some((_, at)) if at.elapsed() < IN_FLIGHT => None,
            Some((by, _)) => now.checked_add(by).ok(),
        }
    }

    /// A write took effect, and its client will not know.
    pub(crate) fn unanswered(&mut self, request: &Request<Bytes>) {
        let body: Value = serde_json::from_slice(request.body()).unwrap_or(Value::Null);
        if *request.method() == Method::DELETE {
            self.taken.remove(text(&body["preconditions"]["uid"]));
        }
        if *request.method() != Method::POST {
            return;
        }
        if Target::parse(request.uri().path()).resource == "pods"
            && let Some(owner) = controller(&body)
        {
            *self.unanswered.entry(text(&owner["uid"]).to_owned()).or_default() += 1;
        }
    }

    /// Looks at a change.
    pub(crate) fn on_commit(&mut self, api: &Api, commit: &Commit, asked: Asked<'_>) {
        let by = asked.by;
        let value = &commit.last.value;
        self.ownership(api, commit, by);
        match commit.key.0.as_str() {
            "/pods" => self.pod(api, commit, asked),
            "apps/replicasets" => {
                self.limit(value, number(&value["spec"]["replicas"], 1));
                let before =
                    commit.old.as_ref().map_or(0, |old| number(&old.value["spec"]["replicas"], 1));
                let grows = before < number(&value["spec"]["replicas"], 1);
                if commit.new.is_some() && by == "deployment-controller" && grows {
                    self.surge(api, value);
                }
                self.shrunk(api, commit, asked);
            }
            "/replicationcontrollers" => {
                self.limit(value, number(&value["spec"]["replicas"], 1));
            }
            "apps/statefulsets" => self.stateful_set(value),
            // On each node.
            "apps/daemonsets" => self.limit(value, 1 + surge(value)),
            "/persistentvolumeclaims" => self.claim(api, commit, asked),
            "policy/poddisruptionbudgets" => self.counted(commit, asked),
            "/persistentvolumes" => self.volume(api, commit),
            "apps/deployments" => {
                let replicas = number(&value["spec"]["replicas"], 1);
                let update = &value["spec"]["strategy"]["rollingUpdate"];
                self.limit(value, replicas + number(&update["maxSurge"], 0));
                let spec = |stored: &Option<std::sync::Arc<crate::api::Stored>>| {
                    stored.as_ref().map(|stored| stored.value["spec"].clone())
                };
                if by == "horizontal-pod-autoscaler" {
                    self.rescaled(api, value);
                }
                if by == "user" && spec(&commit.old) != spec(&commit.new) {
                    self.disturb(&value["metadata"]["namespace"], &value["spec"]["selector"]);
                }
            }
            "batch/jobs" => self.job(api, commit, by),
            "/resourcequotas" => self.quota(api, commit),
            "/nodes" => self.node(commit),
            "autoscaling/horizontalpodautoscalers" => {
                let uid = text(&value["metadata"]["uid"]).to_owned();
                self.born.entry(uid).or_insert_with(Instant::now);
            }
            "/namespaces" => self.namespace(api, commit),
            _ => {}
        }
    }

    /// Remembers what a workload may have from now on.
    fn limit(&mut self, value: &Value, limit: i64) {
        let limits = self.limits.entry(text(&value["metadata"]["uid"]).to_owned()).or_default();
        // A limit holds until the next one: the last one before the window still counts.
        while limits.len() > 1 && limits[1].0.elapsed() > WINDOW {
            limits.pop_front();
        }
        if limits.back().is_none_or(|(_, last)| *last != limit) {
            limits.push_back((Instant::now(), limit));
        }
    }

    /// The largest limit that a late cache may hold; none when the workload is not known.
    fn most(&self, uid: &str) -> Option<i64> {
        let limits = self.limits.get(uid)?;
        let from = limits.iter().rposition(|(at, _)| at.elapsed() > WINDOW).unwrap_or(0);
        limits.iter().skip(from).map(|(_, limit)| *limit).max()
    }

    /// The smallest limit that a late cache may hold: none at all of what is new.
    fn least(&self, uid: &str) -> i64 {
        let Some(limits) = self.limits.get(uid) else { return 0 };
        let Some(from) = limits.iter().rposition(|(at, _)| at.elapsed() > WINDOW) else { return 0 };
        limits.iter().skip(from).map(|(_, limit)| *limit).min().unwrap_or(0)
    }

    /// The replica sets of a deployment together.
    fn surge(&mut self, api: &Api, changed: &Value) {
        let Some(owner) = controller(changed) else { return };
        let uid = text(&owner["uid"]);
        let Some(most) = self.most(uid) else { return };
        let sets = api.all("apps/replicasets").filter(|set| controls(owner, set));
        let name = &changed["metadata"]["name"];
        let size = |set: &Value| {
            let now = number(&set["spec"]["replicas"], 1);
            let is_changed = set["metadata"]["name"] == *name;
            if is_changed { now } else { now.min(self.least(text(&set["metadata"]["uid"]))) }
        };
        let total: i64 = sets.map(size).sum();
        if total > most {
            let name = &owner["name"];
            self.violated(format!(
                "the replica sets of deployment {name} ask for {total} pods; at most {most} are allowed"
            ));
        }
    }

    /// Somebody else than a controller takes pods of such labels away.
    fn disturb(&mut self, namespace: &Value, selector: &Value) {
        let app = text(&selector["matchLabels"]["app"]);
        self.disturbed.insert((text(namespace).to_owned(), app.to_owned()), Instant::now());
    }
}

/// The owner that controls an object.
fn controller(object: &Value) -> Option<&Value> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    owners.iter().find(|owner| owner["controller"] == true)
}

/// Whether this owner controls an object.
fn controls(owner: &Value, object: &Value) -> bool {
    controller(object).is_some_and(|other| other["uid"] == owner["uid"])
}

/// Whether a pod is neither ended nor about to end.
pub(crate) fn is_active(pod: &Value) -> bool {
    let phase = text(&pod["status"]["phase"]);
    pod["metadata"]["deletionTimestamp"].is_null() && !["Succeeded", "Failed"].contains(&phase)
}

fn number(value: &Value, absent: i64) -> i64 {
    value.as_i64().unwrap_or(absent)
}

/// Whether a pod serves: it is ready and not about to end.
fn is_available(pod: &Value) -> bool {
    is_active(pod) && is_ready(pod)
}
