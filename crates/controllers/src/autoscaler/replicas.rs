//! How many replicas metrics ask for.
//!
//! Upstream: `pkg/controller/podautoscaler/replica_calculator.go`.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use meta::Quantity;

use super::behavior::rounded;

/// Upstream's defaults: how long the processor use of a pod that starts is not believed, and how
/// long after its start a pod may become ready for the first time.
const CPU_INITIALIZATION: SignedDuration = SignedDuration::from_mins(5);
const READINESS_DELAY: SignedDuration = SignedDuration::from_secs(30);

/// A measured value, in thousandths.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) at: Timestamp,
    pub(super) window: SignedDuration,
    pub(super) value: i64,
}

/// How far from 1 a ratio may be without anything happening, down and up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tolerance {
    pub(super) down: f64,
    pub(super) up: f64,
}

impl Tolerance {
    fn allows(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// What is asked for by pods, for a metric of theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Percent of what the pods ask for.
    Utilization(i32),
    /// Thousandths for every pod.
    Average(i64),
}

/// A recommendation, and what is measured for every pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Proposal {
    pub(super) replicas: i32,
    /// Percent, where the target is one.
    pub(super) utilization: Option<i32>,
    /// Thousandths for every pod.
    pub(super) average: i64,
}

/// Everything that a proposal for a metric of pods is made of.
pub(super) struct Question<'a> {
    pub(super) pods: &'a [Pod],
    /// By name of the pod.
    pub(super) samples: BTreeMap<String, Sample>,
    /// The resource, if the metric is about one.
    pub(super) resource: &'a str,
    /// The container, if the metric is about one.
    pub(super) container: Option<&'a str>,
    pub(super) target: Target,
    pub(super) current: i32,
    pub(super) tolerance: Tolerance,
    pub(super) now: Timestamp,
}

impl Question<'_> {
    /// Answers it.
    pub(super) fn answer(mut self) -> Result<Proposal, String> {
        let groups = self.group();
        for name in groups.ignored.iter().chain(&groups.unready) {
            self.samples.remove(name);
        }
        if self.samples.is_empty() {
            let text = "did not receive metrics for targeted pods (pods might be unready)";
            return Err(text.to_owned());
        }
        let requests = self.requests()?;
        let (ratio, utilization) = self.ratio(&requests)?;
        let total: i64 = self.samples.values().map(|sample| sample.value).sum();
        let count = i64::try_from(self.samples.len()).unwrap_or(i64::MAX);
        let said = |replicas| Proposal { replicas, utilization, average: total / count };
        let grows_unready = !groups.unready.is_empty() && ratio > 1.0;
        if !grows_unready && groups.missing.is_empty() {
            if self.tolerance.allows(ratio) {
                return Ok(said(self.current));
            }
            return Ok(said(rounded((ratio * f64::from(groups.ready)).ceil())));
        }
        // What is not known is taken for what makes the change smaller.
        let unknown = |value| Sample { at: self.now, window: SignedDuration::ZERO, value };
        for name in &groups.missing {
            let value = match self.target {
                _ if ratio >= 1.0 => 0,
                Target::Utilization(target) => {
                    let request = requests.get(name).copied().unwrap_or(0);
                    request.saturating_mul(target.max(100).into()) / 100
                }
                Target::Average(target) => target,
            };
            self.samples.insert(name.clone(), unknown(value));
        }
        if grows_unready {
            for name in &groups.unready {
                self.samples.insert(name.clone(), unknown(0));
            }
        }
        let (again, _) = self.ratio(&requests)?;
        let turned = (ratio < 1.0 && again > 1.0) || (ratio > 1.0 && again < 1.0);
        if turned || self.tolerance.allows(again) {
            return Ok(said(self.current));
        }
        let count = f64::from(u32::try_from(self.samples.len()).unwrap_or(u32::MAX));
        let replicas = rounded((again * count).ceil());
        let turned =
            (again < 1.0 && replicas > self.current) || (again > 1.0 && replicas < self.current);
        Ok(said(if turned { self.current } else { replicas }))
    }

    /// What is measured over what is wanted, and the utilization in percent.
    fn ratio(&self, requests: &BTreeMap<String, i64>) -> Result<(f64, Option<i32>), String> {
        let total: i64 = self.samples.values().map(|sample| sample.value).sum();
        match self.target {
            Target::Utilization(target) => {
                let asked: i64 = self.samples.keys().filter_map(|name| requests.get(name)).sum();
                if asked == 0 {
                    return Err("no metrics returned matched known pods".to_owned());
                }
                let percent = i32::try_from(total * 100 / asked).unwrap_or(i32::MAX);
                Ok((f64::from(percent) / f64::from(target), Some(percent)))
            }
            Target::Average(target) => {
                let count = i64::try_from(self.samples.len()).unwrap_or(i64::MAX).max(1);
                Ok((over(total / count, target), None))
            }
        }
    }

    fn group(&self) -> Groups {
        let mut groups = Groups::default();
        for pod in self.pods {
            let name = pod.metadata.name.clone().unwrap_or_default();
            let status = pod.status.clone().unwrap_or_default();
            let phase = status.phase.as_deref().unwrap_or_default();
            if pod.metadata.deletion_timestamp.is_some() || phase == "Failed" {
                groups.ignored.push(name);
            } else if phase == "Pending" {
                groups.unready.push(name);
            } else if let Some(sample) = self.samples.get(&name) {
                if self.resource == "cpu" && self.is_unready(&status, sample) {
                    groups.unready.push(name);
                } else {
                    groups.ready += 1;
                }
            } else {
                groups.missing.push(name);
            }
        }
        groups
    }

    /// Whether what a pod's processors do says nothing about its work yet.
    fn is_unready(&self, status: &k8s_openapi::api::core::v1::PodStatus, sample: &Sample) -> bool {
        let ready = status.conditions.iter().flatten().find(|c| c.type_ == api::pod::READY);
        let (Some(ready), Some(start)) = (ready, &status.start_time) else { return true };
        let is_ready = ready.status != "False";
        let changed = ready.last_transition_time.as_ref().map_or(start.0, |time| time.0);
        if start.0 + CPU_INITIALIZATION > self.now {
            return !is_ready || sample.at < changed + sample.window;
        }
        !is_ready && start.0 + READINESS_DELAY > changed
    }

    /// What each pod asks for, in thousandths; nobody needs to know unless it is the measure.
    fn requests(&self) -> Result<BTreeMap<String, i64>, String> {
        let mut requests = BTreeMap::new();
        if !matches!(self.target, Target::Utilization(_)) {
            return Ok(requests);
        }
        for pod in self.pods {
            let name = pod.metadata.name.clone().unwrap_or_default();
            let spec = pod.spec.clone().unwrap_or_default();
            let sidecars = spec.init_containers.iter().flatten();
            let sidecars = sidecars.filter(|container| api::pod::is_sidecar(container));
            let mut total = 0_i64;
            for container in spec.containers.iter().chain(sidecars) {
                if self.container.is_some_and(|wanted| wanted != container.name) {
                    continue;
                }
                let asked = container.resources.as_ref().and_then(|all| all.requests.as_ref());
                let amount = asked.and_then(|asked| asked.get(self.resource));
                let amount = amount.and_then(|amount| amount.0.parse::<Quantity>().ok());
                let Some(amount) = amount else {
                    return Err(format!(
                        "missing request for {} in container {} of Pod {name}",
                        self.resource, container.name
                    ));
                };
                total = total.saturating_add(amount.milli_value());
            }
            requests.insert(name, total);
        }
        Ok(requests)
    }
}

/// The pods by what is known of them.
#[derive(Default)]
struct Groups {
    ready: i32,
    unready: Vec<String>,
    missing: Vec<String>,
    ignored: Vec<String>,
}

/// How many replicas a value asks for that is not of pods: as many times more as it is more than
/// the target, or as many as share it. What has none gets one for each target, and no tolerance
/// keeps it where it is.
pub(super) fn for_value(
    value: i64,
    target: i64,
    is_average: bool,
    (current, ready): (i32, i32),
    tolerance: Tolerance,
) -> i32 {
    if current == 0 {
        return rounded(over(value, target).ceil());
    }
    if is_average {
        let ratio = over(value, target.saturating_mul(i64::from(current)));
        return if tolerance.allows(ratio) { current } else { rounded(over(value, target).ceil()) };
    }
    let ratio = over(value, target);
    if tolerance.allows(ratio) { current } else { rounded((ratio * f64::from(ready)).ceil()) }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than 52 bits")]
fn over(value: i64, target: i64) -> f64 {
    value as f64 / (target.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TOLERANCE: Tolerance = Tolerance { down: 0.1, up: 0.1 };

    fn now() -> Timestamp {
        Timestamp::from_second(10_000).unwrap()
    }

    /// Pods that ask for a processor each, with what they use in percent of it; `-1` when it is
    /// not known, and `unready` ones beyond them.
    fn answer(used: &[i64], unready: usize, target: Target) -> Result<i32, String> {
        let mut samples = BTreeMap::new();
        let mut pods = Vec::new();
        for at in 0..used.len() + unready {
            let ready = if at < used.len() { "True" } else { "False" };
            let name = format!("p{at}");
            pods.push(
                serde_json::from_value(json!({ "metadata": { "name": name },
                    "spec": { "containers": [
                        { "name": "c", "resources": { "requests": { "cpu": "1" } } }] },
                    "status": { "phase": "Running", "startTime": "1970-01-01T02:46:00Z",
                        "conditions": [{ "type": "Ready", "status": ready,
                            "lastTransitionTime": "1970-01-01T02:46:01Z" }] } }))
                .unwrap(),
            );
            let value = used.get(at).copied().unwrap_or(500);
            if value >= 0 {
                let window = SignedDuration::from_secs(1);
                samples.insert(name, Sample { at: now(), window, value: value * 10 });
            }
        }
        let question = Question {
            pods: &pods,
            samples,
            resource: "cpu",
            container: None,
            target,
            current: i32::try_from(pods.len()).unwrap(),
            tolerance: TOLERANCE,
            now: now(),
        };
        question.answer().map(|proposal| proposal.replicas)
    }

    #[test]
    fn replicas_follow_what_is_used_of_what_is_asked_for() {
        let half = Target::Utilization(50);
        assert_eq!(answer(&[100, 100], 0, half), Ok(4));
        assert_eq!(answer(&[20, 20, 20], 0, half), Ok(2));
        assert_eq!(answer(&[52, 52], 0, half), Ok(2), "a little more changes nothing");
        assert_eq!(answer(&[100, 100], 0, Target::Average(500)), Ok(4));
    }

    #[test]
    fn what_is_not_known_makes_changes_smaller() {
        let half = Target::Utilization(50);
        assert_eq!(answer(&[100, 100, -1], 0, half), Ok(4));
        assert_eq!(answer(&[10, 10, -1], 0, half), Ok(3));
        assert_eq!(answer(&[100, 100], 2, half), Ok(4), "unready ones do no work yet");
        assert!(answer(&[-1], 0, half).is_err());
    }

    #[test]
    fn other_values_are_shared_or_compared() {
        assert_eq!(for_value(3000, 1000, true, (2, 2), TOLERANCE), 3);
        assert_eq!(for_value(2050, 1000, true, (2, 2), TOLERANCE), 2);
        assert_eq!(for_value(3000, 1000, false, (2, 2), TOLERANCE), 6);
        assert_eq!(for_value(1050, 1000, false, (2, 2), TOLERANCE), 2);
    }
}
