//! The pure core: from a Job and its pods, what to write, to create and to delete.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::finalizers::JOB_TRACKING;
use client::EventType;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::indexes;
use crate::pod_view::PodView;

/// Pods created in one go: upstream `MaxPodCreateDeletePerSync`.
const BURST: usize = 500;

/// What to do.
pub(super) struct Plan {
    /// The status after this pass.
    pub(super) status: JobStatus,
    /// Type, reason and text of events, once the status is written.
    pub(super) events: Vec<(EventType, &'static str, String)>,
    /// Pods whose end is in the status: their finalizer can go.
    pub(super) counted: Vec<Arc<PodView>>,
    /// Pods to delete.
    pub(super) delete: Vec<Arc<PodView>>,
    /// Pods to create, with their index if they have one.
    pub(super) create: Vec<Option<i32>>,
    /// Whether the Job has ended.
    pub(super) is_over: bool,
    /// Pods whose end is seen for the first time.
    pub(super) new_succeeded: u32,
    pub(super) new_failed: u32,
    /// When the deadline is due.
    pub(super) wait: Option<Duration>,
}

/// The first field of the spec that this controller does not carry out.
pub(super) fn unsupported(spec: &JobSpec) -> Option<&'static str> {
    if spec.pod_failure_policy.is_some() {
        return Some("podFailurePolicy");
    }
    if spec.success_policy.is_some() {
        return Some("successPolicy");
    }
    spec.backoff_limit_per_index.map(|_| "backoffLimitPerIndex")
}

struct Pass<'a> {
    spec: JobSpec,
    pods: &'a [Arc<PodView>],
    now: Timestamp,
    uncounted: [BTreeSet<String>; 2],
    completed: BTreeSet<i32>,
    plan: Plan,
}

impl Plan {
    /// Decides.
    pub(super) fn new(job: &Job, pods: &[Arc<PodView>], now: Timestamp) -> Self {
        let status = job.status.clone().unwrap_or_default();
        let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let set = |list: Option<Vec<String>>| list.into_iter().flatten().collect();
        let mut pass = Pass {
            spec: job.spec.clone().unwrap_or_default(),
            pods,
            now,
            uncounted: [set(uncounted.succeeded), set(uncounted.failed)],
            completed: indexes::parse(status.completed_indexes.as_deref().unwrap_or_default()),
            plan: Self {
                is_over: has(&status, "Complete") || has(&status, "Failed"),
                status,
                events: Vec::new(),
                counted: Vec::new(),
                delete: Vec::new(),
                create: Vec::new(),
                new_succeeded: 0,
                new_failed: 0,
                wait: None,
            },
        };
        if pass.plan.is_over {
            // Nothing is counted any more, but no pod may stay held.
            pass.plan.counted = pods.to_vec();
            pass.plan.delete = pass.active();
            return pass.plan;
        }
        if job.metadata.deletion_timestamp.is_some() {
            pass.plan.counted = pods.iter().filter(|pod| pod.is_terminal()).cloned().collect();
            return pass.plan;
        }
        pass.count();
        pass.suspend_or_start();
        pass.judge();
        pass.size();
        pass.finish();
        pass.plan
    }

    /// Whether pods are wanted that do not exist yet.
    pub(super) fn is_short(&self) -> bool {
        !self.create.is_empty()
    }
}

impl Pass<'_> {
    fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    fn active(&self) -> Vec<Arc<PodView>> {
        self.pods.iter().filter(|pod| pod.is_active()).cloned().collect()
    }

    fn terminating(&self) -> usize {
        self.pods.iter().filter(|pod| pod.deleted.is_some() && !pod.is_terminal()).count()
    }

    /// Uids whose finalizer is gone become numbers; ended pods become uids.
    fn count(&mut self) {
        let tracked = |pod: &PodView| pod.finalizers.iter().any(|name| name == JOB_TRACKING);
        let held: BTreeSet<&str> =
            self.pods.iter().filter(|pod| tracked(pod)).map(|pod| pod.uid.as_str()).collect();
        let indexed = self.is_indexed();
        let numbers = [&mut self.plan.status.succeeded, &mut self.plan.status.failed];
        for (at, (uncounted, number)) in self.uncounted.iter_mut().zip(numbers).enumerate() {
            let before = uncounted.len();
            uncounted.retain(|uid| held.contains(uid.as_str()));
            let gone = i32::try_from(before - uncounted.len()).unwrap_or(0);
            // Of an Indexed Job the completed indexes are counted, not the pods.
            if gone > 0 && !(indexed && at == 0) {
                *number = Some(number.unwrap_or(0) + gone);
            }
        }
        for pod in self.pods.iter().filter(|pod| tracked(pod) && pod.is_terminal()) {
            let succeeded = pod.phase == "Succeeded";
            let useful = match indexes::of(pod).filter(|_| indexed) {
                Some(index) if succeeded => {
                    index < self.spec.completions.unwrap_or(0) && {
                        self.completed.insert(index);
                        true
                    }
                }
                _ => !indexed || !succeeded,
            };
            let set = &mut self.uncounted[usize::from(!succeeded)];
            if useful && set.insert(pod.uid.clone()) {
                let new = if succeeded {
                    &mut self.plan.new_succeeded
                } else {
                    &mut self.plan.new_failed
                };
                *new += 1;
            }
            self.plan.counted.push(Arc::clone(pod));
        }
    }

    fn succeeded(&self) -> i32 {
        if self.is_indexed() {
            return i32::try_from(self.completed.len()).unwrap_or(i32::MAX);
        }
        let counted = self.plan.status.succeeded.unwrap_or(0);
        counted + i32::try_from(self.uncounted[0].len()).unwrap_or(0)
    }

    fn failed(&self) -> i32 {
        let counted = self.plan.status.failed.unwrap_or(0);
        counted + i32::try_from(self.uncounted[1].len()).unwrap_or(0)
    }

    fn suspend_or_start(&mut self) {
        let suspended = has(&self.plan.status, "Suspended");
        if self.spec.suspend == Some(true) {
            if !suspended && !self.is_decided() {
                self.set("Suspended", "True", "JobSuspended", "Job suspended");
                let event = (EventType::Normal, "Suspended", "Job suspended".to_owned());
                self.plan.events.push(event);
                self.plan.status.start_time = None;
            }
            return;
        }
        if suspended {
            self.set("Suspended", "False", "JobResumed", "Job resumed");
            self.plan.events.push((EventType::Normal, "Resumed", "Job resumed".to_owned()));
            self.plan.status.start_time = Some(Time(self.now));
        }
        self.plan.status.start_time.get_or_insert(Time(self.now));
    }

    fn is_decided(&self) -> bool {
        has(&self.plan.status, "FailureTarget") || has(&self.plan.status, "SuccessCriteriaMet")
    }

    /// Decides whether the Job has failed or succeeded; its pods may still have to end.
    fn judge(&mut self) {
        if self.is_decided() {
            return;
        }
        let limit = self.spec.backoff_limit.unwrap_or(6);
        let restarts = self.spec.template.spec.as_ref();
        let in_place = restarts.is_some_and(|s| s.restart_policy.as_deref() == Some("OnFailure"));
        let restarted: i32 = self.active().iter().map(|pod| pod.restarts).sum();
        let worn = in_place && (if limit == 0 { restarted > 0 } else { restarted >= limit });
        if self.failed() > limit || worn {
            let text = "Job has reached the specified backoff limit";
            return self.set("FailureTarget", "True", "BackoffLimitExceeded", text);
        }
        let start = self.plan.status.start_time.as_ref().map(|time| time.0);
        if let (Some(start), Some(seconds)) = (start, self.spec.active_deadline_seconds) {
            let left = (start + SignedDuration::from_secs(seconds)).duration_since(self.now);
            if !left.is_positive() {
                let text = "Job was active longer than specified deadline";
                return self.set("FailureTarget", "True", "DeadlineExceeded", text);
            }
            self.plan.wait = Duration::try_from(left).ok();
        }
        let complete = match self.spec.completions {
            Some(wanted) => self.succeeded() >= wanted,
            None => self.succeeded() > 0 && self.active().is_empty(),
        };
        if complete {
            let text = "Reached expected number of succeeded pods";
            self.set("SuccessCriteriaMet", "True", "CompletionsReached", text);
        }
    }

    fn size(&mut self) {
        let active = self.active();
        if self.is_decided() || self.spec.suspend == Some(true) {
            self.plan.delete = active;
            return;
        }
        let parallelism = self.spec.parallelism.unwrap_or(1);
        let wanted = match self.spec.completions {
            Some(completions) => (completions - self.succeeded()).min(parallelism),
            None if self.succeeded() > 0 => parallelism.min(count(active.len())),
            None => parallelism,
        };
        let wanted = usize::try_from(wanted).unwrap_or(0);
        let in_the_way = if self.spec.pod_replacement_policy.as_deref() == Some("Failed") {
            self.terminating()
        } else {
            0
        };
        let mut running = BTreeSet::new();
        let mut surplus = Vec::new();
        for pod in &active {
            // Two pods of one index, or one whose index is done, are too many.
            let index = indexes::of(pod).filter(|_| self.is_indexed());
            if index.is_some_and(|index| self.completed.contains(&index) || !running.insert(index))
            {
                surplus.push(Arc::clone(pod));
            }
        }
        let kept = active.len() - surplus.len();
        if kept > wanted {
            let mut rest: Vec<_> =
                active.iter().filter(|pod| !surplus.iter().any(|s| s.uid == pod.uid)).collect();
            // What runs for the longest stays.
            rest.sort_by_key(|pod| (pod.ready, std::cmp::Reverse(pod.created)));
            surplus.extend(rest.into_iter().take(kept - wanted).cloned());
        }
        self.plan.delete = surplus;
        let missing = wanted.saturating_sub(kept + in_the_way).min(BURST);
        self.plan.create = if self.is_indexed() {
            let all = 0..self.spec.completions.unwrap_or(0);
            let free = all.filter(|at| !self.completed.contains(at) && !running.contains(at));
            free.take(missing).map(Some).collect()
        } else {
            vec![None; missing]
        };
    }

    /// Fills in the numbers, and ends the Job when the last pod has.
    fn finish(&mut self) {
        let active = self.active();
        let terminating = self.terminating();
        let settled = self.uncounted.iter().all(BTreeSet::is_empty);
        let indexed = self.is_indexed();
        let some = |number: usize| (number > 0).then(|| count(number));
        let status = &mut self.plan.status;
        status.active = some(active.len());
        status.ready = Some(count(active.iter().filter(|pod| pod.ready).count()));
        status.terminating = Some(count(terminating));
        if indexed {
            let text = indexes::print(&self.completed);
            status.succeeded = some(self.completed.len());
            status.completed_indexes = (!text.is_empty()).then_some(text);
        }
        let list = |set: &BTreeSet<String>| {
            (!set.is_empty()).then(|| set.iter().cloned().collect::<Vec<_>>())
        };
        status.uncounted_terminated_pods = Some(UncountedTerminatedPods {
            succeeded: list(&self.uncounted[0]),
            failed: list(&self.uncounted[1]),
        });
        if !self.is_decided() || !active.is_empty() || terminating > 0 || !settled {
            return;
        }
        let (interim, last, kind) = if has(&self.plan.status, "FailureTarget") {
            ("FailureTarget", "Failed", EventType::Warning)
        } else {
            self.plan.status.completion_time = Some(Time(self.now));
            ("SuccessCriteriaMet", "Complete", EventType::Normal)
        };
        let conditions = self.plan.status.conditions.iter().flatten();
        let Some(decided) = conditions.into_iter().find(|c| c.type_ == interim).cloned() else {
            return;
        };
        let reason = match decided.reason.as_deref() {
            Some("DeadlineExceeded") => "DeadlineExceeded",
            Some("BackoffLimitExceeded") => "BackoffLimitExceeded",
            _ => "CompletionsReached",
        };
        let message = decided.message.unwrap_or_default();
        self.set(last, "True", reason, &message);
        let event = if kind == EventType::Normal {
            (kind, "Completed", "Job completed".to_owned())
        } else {
            (kind, reason, message)
        };
        self.plan.events.push(event);
    }

    fn set(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let conditions = self.plan.status.conditions.get_or_insert_default();
        conditions.retain(|condition| condition.type_ != kind);
        conditions.push(JobCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_probe_time: Some(Time(self.now)),
            last_transition_time: Some(Time(self.now)),
        });
    }
}

fn has(status: &JobStatus, kind: &str) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|condition| condition.type_ == kind && condition.status == "True")
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
