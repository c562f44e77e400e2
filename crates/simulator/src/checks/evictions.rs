//! What must hold of budgets and of what is evicted by them, to the pod.
//!
//! The controller counts what it knows; the API server grants as many evictions as were counted.
//! What was healthy when it was counted and is not any more is all that may be missing.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use meta::LabelSelector;
use serde_json::Value;

use super::{Checks, number};
use crate::api::{Api, Asked, Commit};
use crate::nodes::{is_ready, text};
use crate::view::Past;

/// A pod that is to be evicted and is still there after this time counts again, as upstream's.
const EVICTION: SignedDuration = SignedDuration::from_secs(120);

impl Checks {
    /// The controller counts the pods of a budget: as many as it knows of, and it forgets no
    /// eviction before the pod is known to go.
    pub(super) fn counted(&mut self, commit: &Commit, asked: Asked<'_>) {
        let (Some(new), Some(sight)) = (&commit.new, asked.sight) else { return };
        let (budget, name) = (&new.value, &commit.key.2);
        let status = &budget["status"];
        let is_counted = commit.old.as_ref().is_some_and(|old| old.value["status"] != *status);
        if asked.by != "disruption-controller" || !is_counted {
            return;
        }
        let Some(selected) = Selected::of(budget) else { return };
        let healthy = number(&status["currentHealthy"], 0);
        let mut known = BTreeSet::new();
        let is_right = sight.ever(Duration::ZERO, |past| {
            known = selected.known(past);
            count(&known) == healthy
        });
        if !is_right {
            let known = count(&known);
            self.violated(format!("budget {name} counts {healthy} pods, and {known} are known"));
        }
        self.counted.insert(text(&budget["metadata"]["uid"]).to_owned(), known);
        let allowed = number(&status["disruptionsAllowed"], 0);
        let most = (healthy - number(&status["desiredHealthy"], 0)).max(0);
        if allowed > most {
            self.violated(format!("budget {name} lets {allowed} pods go; it has {most} too many"));
        }
        let before = commit.old.as_ref().map(|old| &old.value["status"]["disruptedPods"]);
        let times = self.managers_times(commit.time);
        for (pod, at) in before.and_then(Value::as_object).into_iter().flatten() {
            let at = text(at).parse::<Timestamp>().unwrap_or_default();
            let is_over = times.iter().any(|now| now.duration_since(at) > EVICTION);
            let is_kept = status["disruptedPods"][pod].is_string();
            let stays = |past: &Past<'_>| !selected.is_there(past, pod);
            if !is_kept && !is_over && !sight.ever(Duration::ZERO, stays) {
                self.violated(format!("budget {name} forgets that {pod} is evicted"));
            }
        }
    }

    /// A pod of a budget is evicted, and the budget is this one now: what is healthy without those
    /// that are evicted must be enough, but for what ceased to be so since it was counted.
    pub(crate) fn evicted(&mut self, api: &Api, budget: &Value, pod: &Value) {
        let Some(selected) = Selected::of(budget) else { return };
        let healthy: BTreeSet<(String, String)> =
            api.all("/pods").filter(|pod| selected.counts(pod)).map(identity).collect();
        let none = BTreeSet::new();
        let counted = self.counted.get(text(&budget["metadata"]["uid"])).unwrap_or(&none);
        let ceased = counted.difference(&healthy).filter(|(name, _)| !selected.is_evicted(name));
        let (stays, ceased) = (count(&healthy), i64::try_from(ceased.count()).unwrap_or(0));
        let least = number(&budget["status"]["desiredHealthy"], 0);
        if stays + ceased < least {
            let (name, pod) = (&budget["metadata"]["name"], &pod["metadata"]["name"]);
            self.violated(format!(
                "pod {pod} is evicted, and leaves {stays} to budget {name}, of which {ceased} \
                 were lost otherwise; {least} must be"
            ));
        }
    }
}

/// What a budget selects.
struct Selected<'a> {
    namespace: &'a Value,
    selector: LabelSelector,
    evicted: &'a Value,
}

impl<'a> Selected<'a> {
    fn of(budget: &'a Value) -> Option<Self> {
        let selector = LabelSelector::from_object(budget["spec"].get("selector")).ok()?;
        let (namespace, evicted) =
            (&budget["metadata"]["namespace"], &budget["status"]["disruptedPods"]);
        Some(Self { namespace, selector, evicted })
    }

    fn is_evicted(&self, name: &str) -> bool {
        self.evicted[name].is_string()
    }

    /// Whether a pod is here and is not about to go.
    fn selects(&self, pod: &Value) -> bool {
        pod["metadata"]["namespace"] == *self.namespace
            && pod["metadata"]["deletionTimestamp"].is_null()
            && self.selector.matches_value(&pod["metadata"]["labels"])
    }

    fn counts(&self, pod: &Value) -> bool {
        self.selects(pod) && is_ready(pod) && !self.is_evicted(text(&pod["metadata"]["name"]))
    }

    fn known(&self, past: &Past<'_>) -> BTreeSet<(String, String)> {
        past.all("/pods").filter(|pod| self.counts(pod)).map(identity).collect()
    }

    fn is_there(&self, past: &Past<'_>, name: &str) -> bool {
        past.get("/pods", text(self.namespace), name).is_some_and(|pod| self.selects(pod))
    }
}

/// Name and uid.
fn identity(pod: &Value) -> (String, String) {
    let meta = &pod["metadata"];
    (text(&meta["name"]).to_owned(), text(&meta["uid"]).to_owned())
}

fn count<T>(of: &BTreeSet<T>) -> i64 {
    i64::try_from(of.len()).unwrap_or(i64::MAX)
}
