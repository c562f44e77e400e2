//! What the policies of a Job say about its pods and indexes.
//!
//! Upstream: `pod_failure_policy.go`, `success_policy.go`, `backoff_utils.go` and
//! `indexed_job_utils.go` in `pkg/controller/job`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule, SuccessPolicy,
};

use super::indexes;
use crate::pod_view::PodView;

/// How often pods of an index have failed before this one.
pub(super) const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// How many failures of an index were ignored.
pub(super) const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
/// Delay after the first failure of an index; doubles with each one more: upstream's defaults.
const BACKOFF_FIRST: SignedDuration = SignedDuration::from_secs(10);
const BACKOFF_MAX: SignedDuration = SignedDuration::from_secs(600);

/// What becomes of a failed pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It counts as a failure.
    Count,
    /// It counts for nothing.
    Ignore,
    /// Its index has failed.
    FailIndex,
    /// The Job has failed, and why.
    FailJob(String),
}

/// Judges a failed pod by the first rule that fits it.
pub(super) fn judge(spec: &JobSpec, pod: &PodView) -> Verdict {
    match rule(spec, pod) {
        Some(("Ignore", _)) => Verdict::Ignore,
        Some(("FailIndex", _)) if spec.backoff_limit_per_index.is_some() => Verdict::FailIndex,
        Some(("FailJob", why)) => Verdict::FailJob(why),
        _ => Verdict::Count,
    }
}

/// The action of the first rule that fits a failed pod.
pub(super) fn action<'a>(spec: &'a JobSpec, pod: &PodView) -> Option<&'a str> {
    rule(spec, pod).map(|(action, _)| action)
}

/// The first rule that fits: its action, and why it does.
fn rule<'a>(spec: &'a JobSpec, pod: &PodView) -> Option<(&'a str, String)> {
    let rules = spec.pod_failure_policy.as_ref().map(|policy| policy.rules.as_slice());
    let mut rules = rules.unwrap_or_default().iter().enumerate();
    rules.find_map(|(at, rule)| Some((rule.action.as_str(), fits(rule, at, pod)?)))
}

/// Whether a rule is about a pod, in the words of the condition.
fn fits(rule: &PodFailurePolicyRule, at: usize, pod: &PodView) -> Option<String> {
    let (action, failure) = (&rule.action, pod.failure.as_ref()?);
    if let Some(wanted) = &rule.on_exit_codes {
        let (container, code) =
            failure.exits.iter().find(|(name, code)| is_meant(wanted, name, *code))?;
        return Some(format!(
            "Container {container} for pod {} failed with exit code {code} matching {action} rule \
             at index {at}",
            pod.key
        ));
    }
    let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
    let found = failure.conditions.iter().find(|(kind, status)| {
        let is_it =
            |pattern: &k8s_openapi::api::batch::v1::PodFailurePolicyOnPodConditionsPattern| {
                pattern.type_ == *kind && pattern.status.as_deref().unwrap_or("True") == status
            };
        patterns.iter().any(is_it)
    });
    let (kind, _) = found?;
    Some(format!("Pod {} has condition {kind} matching {action} rule at index {at}", pod.key))
}

fn is_meant(wanted: &PodFailurePolicyOnExitCodesRequirement, name: &str, code: i32) -> bool {
    let is_named = wanted.container_name.as_deref().is_none_or(|wanted| wanted == name);
    let is_listed = wanted.values.contains(&code);
    is_named && code != 0 && is_listed == (wanted.operator == "In")
}

/// Why a Job has succeeded before all of its indexes have.
pub(super) fn success(policy: &SuccessPolicy, completed: &BTreeSet<i32>) -> Option<String> {
    let is_met = |rule: &k8s_openapi::api::batch::v1::SuccessPolicyRule| {
        let wanted = rule.succeeded_indexes.as_deref().map(indexes::parse);
        let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        match (wanted, rule.succeeded_count) {
            (Some(wanted), Some(least)) => count(wanted.intersection(completed).count()) >= least,
            (Some(wanted), None) => wanted.is_subset(completed),
            (None, Some(least)) => count(completed.len()) >= least,
            (None, None) => false,
        }
    };
    let at = policy.rules.iter().position(is_met)?;
    Some(format!("Matched rules at index {at}"))
}

/// How often pods of an index have failed: counted ones, and ignored ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Failures {
    pub(super) counted: i32,
    pub(super) ignored: i32,
}

impl Failures {
    /// Before a pod.
    fn before(pod: &PodView) -> Self {
        let number = |key: &str| pod.annotations.get(key).and_then(|text| text.parse().ok());
        Self { counted: number(FAILURES).unwrap_or(0), ignored: number(IGNORED).unwrap_or(0) }
    }

    /// Including a failed pod.
    fn with(spec: &JobSpec, pod: &PodView) -> Self {
        let Self { counted, ignored } = Self::before(pod);
        match judge(spec, pod) {
            Verdict::Ignore => Self { counted, ignored: ignored.saturating_add(1) },
            _ => Self { counted: counted.saturating_add(1), ignored },
        }
    }

    /// How long the next pod of the index has to wait from now.
    fn wait(self, finished: Option<Timestamp>, now: Timestamp) -> Option<Duration> {
        let times = self.counted.saturating_add(self.ignored);
        let doubled = u32::try_from(times.saturating_sub(1)).unwrap_or(0).min(16);
        let wait = BACKOFF_FIRST.saturating_mul(1 << doubled).min(BACKOFF_MAX);
        let left = (finished? + wait).duration_since(now);
        left.is_positive().then(|| Duration::try_from(left).unwrap_or_default())
    }
}

/// What the pods say about the indexes of a Job that counts failures by index.
#[derive(Debug, Default)]
pub(super) struct IndexFailures {
    /// Indexes that are given up.
    pub(super) failed: BTreeSet<i32>,
    /// Failures of indexes that a new pod has to know of, and how long it has to wait.
    pub(super) next: BTreeMap<i32, (Failures, Option<Duration>)>,
    /// Uids of failed pods that have to stay, since only they tell how often their index failed.
    pub(super) kept: BTreeSet<String>,
}

impl IndexFailures {
    /// Looks at the pods; `failed` are indexes that were given up before, `completed` those that
    /// have succeeded.
    pub(super) fn new(
        spec: &JobSpec,
        pods: &[Arc<PodView>],
        failed: BTreeSet<i32>,
        completed: &BTreeSet<i32>,
        now: Timestamp,
    ) -> Self {
        let mut found = Self { failed, ..Self::default() };
        let Some(limit) = spec.backoff_limit_per_index else { return found };
        // The pod that knows of the most failures is the last one of its index.
        let mut last: BTreeMap<i32, &Arc<PodView>> = BTreeMap::new();
        let rank = |pod: &PodView| {
            let Failures { counted, ignored } = Failures::before(pod);
            (counted.saturating_add(ignored), pod.created)
        };
        for pod in pods {
            let Some(index) = indexes::of(pod) else { continue };
            let known = last.entry(index).or_insert(pod);
            if rank(pod) > rank(known) {
                *known = pod;
            }
        }
        for (index, pod) in last {
            if pod.phase != "Failed" || completed.contains(&index) {
                continue;
            }
            let failures = Failures::with(spec, pod);
            let is_given_up = judge(spec, pod) == Verdict::FailIndex || failures.counted > limit;
            if is_given_up || found.failed.contains(&index) {
                found.failed.insert(index);
                continue;
            }
            let finished = pod.failure.as_ref().and_then(|failure| failure.finished);
            found.next.insert(index, (failures, failures.wait(finished, now)));
            found.kept.insert(pod.uid.clone());
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::*;

    fn spec(spec: Value) -> JobSpec {
        let mut spec = spec;
        spec["template"] = json!({});
        serde_json::from_value(spec).unwrap()
    }

    fn failed(name: &str, index: i32, failures: i32, code: i32) -> Arc<PodView> {
        let annotations = json!({ "batch.kubernetes.io/job-completion-index": index.to_string(),
            FAILURES: failures.to_string() });
        let pod = json!({
            "metadata": { "name": name, "namespace": "n", "uid": name, "annotations": annotations },
            "status": { "phase": "Failed",
                "conditions": [{ "type": "DisruptionTarget", "status": "True" }],
                "containerStatuses": [{ "name": "c", "ready": false, "restartCount": 0,
                    "image": "", "imageID": "", "state": { "terminated": {
                        "exitCode": code, "finishedAt": "2026-01-01T00:00:55Z" } } }] } });
        Arc::new(PodView::new(serde_json::from_value::<Pod>(pod).unwrap()))
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let policy = json!({ "rules": [
            { "action": "Ignore", "onExitCodes": { "operator": "In", "values": [3] } },
            { "action": "FailJob", "onExitCodes": {
                "containerName": "c", "operator": "NotIn", "values": [1, 2] } },
            { "action": "FailJob", "onExitCodes": {
                "containerName": "other", "operator": "In", "values": [1] } },
            { "action": "FailIndex", "onPodConditions": [{ "type": "DisruptionTarget" }] }] });
        let plain = spec(json!({ "podFailurePolicy": policy }));
        let by_index = spec(json!({ "podFailurePolicy": policy, "backoffLimitPerIndex": 1 }));
        assert_eq!(judge(&plain, &failed("p", 0, 0, 3)), Verdict::Ignore);
        let text =
            "Container c for pod n/p failed with exit code 42 matching FailJob rule at index 1";
        assert_eq!(judge(&plain, &failed("p", 0, 0, 42)), Verdict::FailJob(text.to_owned()));
        assert_eq!(judge(&plain, &failed("p", 0, 0, 1)), Verdict::Count);
        assert_eq!(judge(&by_index, &failed("p", 0, 0, 1)), Verdict::FailIndex);
        assert_eq!(judge(&spec(json!({})), &failed("p", 0, 0, 1)), Verdict::Count);
        let condition = json!({ "podFailurePolicy": { "rules": [{ "action": "FailJob",
            "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] }] } });
        let text = "Pod n/p has condition DisruptionTarget matching FailJob rule at index 0";
        let verdict = judge(&spec(condition), &failed("p", 0, 0, 1));
        assert_eq!(verdict, Verdict::FailJob(text.to_owned()));
    }

    #[test]
    fn a_job_may_succeed_with_some_of_its_indexes() {
        let policy = |rules: Value| -> SuccessPolicy {
            serde_json::from_value(json!({ "rules": rules })).unwrap()
        };
        let completed = BTreeSet::from([0, 2, 3]);
        let met = |rules: Value| success(&policy(rules), &completed);
        assert_eq!(
            met(json!([{ "succeededIndexes": "0,2" }])).unwrap(),
            "Matched rules at index 0"
        );
        assert_eq!(met(json!([{ "succeededIndexes": "0-2" }])), None);
        let second =
            json!([{ "succeededCount": 4 }, { "succeededIndexes": "0-2", "succeededCount": 2 }]);
        assert_eq!(met(second).unwrap(), "Matched rules at index 1");
        assert!(met(json!([{ "succeededCount": 3 }])).is_some());
    }

    #[test]
    fn failures_are_counted_by_index_and_held_by_the_last_pod() {
        let spec = spec(json!({ "backoffLimitPerIndex": 1 }));
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let pods = [
            failed("first", 0, 0, 1),
            failed("second", 0, 1, 1),
            failed("only", 1, 0, 1),
            failed("done", 2, 0, 1),
        ];
        let found =
            IndexFailures::new(&spec, &pods, BTreeSet::from([7]), &BTreeSet::from([2]), now);
        assert_eq!(found.failed, BTreeSet::from([0, 7]));
        let (failures, wait) = found.next[&1];
        assert_eq!(failures, Failures { counted: 1, ignored: 0 });
        assert_eq!(wait, Some(Duration::from_secs(5)));
        assert_eq!(found.kept, BTreeSet::from(["only".to_owned()]));
    }
}
