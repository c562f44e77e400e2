//! The pure core: from a Job and its pods, what to write, to create and to delete.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use client::EventType;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::policies::{self, Failures, IndexFailures, Verdict};
use super::{indexes, is_tracked};
use crate::pod_view::PodView;

/// Pods created in one go: upstream `MaxPodCreateDeletePerSync`.
const BURST: usize = 500;

/// What to do.
pub(super) struct Plan {
    /// The status after this pass.
    pub(super) status: JobStatus,
    /// Type, reason and text of events, once the status is written.
    pub(super) events: Vec<(EventType, String, String)>,
    /// Pods whose end is in the status: their finalizer can go.
    pub(super) counted: Vec<Arc<PodView>>,
    /// Pods to delete.
    pub(super) delete: Vec<Arc<PodView>>,
    /// Pods to create.
    pub(super) create: Vec<New>,
    /// Whether the Job has ended.
    pub(super) is_over: bool,
    /// Pods whose end is seen for the first time.
    pub(super) new_succeeded: u32,
    pub(super) new_failed: u32,
    /// Whether each index waits by itself after a failure, rather than the Job.
    pub(super) waits_by_index: bool,
    /// When the deadline is due, or an index may be tried again.
    pub(super) wait: Option<Duration>,
}

/// A pod to create.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct New {
    /// Its index, if it has one.
    pub(super) index: Option<i32>,
    /// Failures of its index, if they are counted.
    pub(super) failures: Option<Failures>,
}

struct Pass<'a> {
    spec: JobSpec,
    pods: &'a [Arc<PodView>],
    now: Timestamp,
    uncounted: [BTreeSet<String>; 2],
    completed: BTreeSet<i32>,
    by_index: IndexFailures,
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
            by_index: IndexFailures::default(),
            plan: Self {
                is_over: has(&status, "Complete") || has(&status, "Failed"),
                status,
                events: Vec::new(),
                counted: Vec::new(),
                delete: Vec::new(),
                create: Vec::new(),
                new_succeeded: 0,
                new_failed: 0,
                waits_by_index: job
                    .spec
                    .as_ref()
                    .is_some_and(|spec| spec.backoff_limit_per_index.is_some()),
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
        pass.complete_indexes();
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

    /// Which indexes have succeeded, and which have failed.
    fn complete_indexes(&mut self) {
        if !self.is_indexed() {
            return;
        }
        let completions = self.spec.completions.unwrap_or(0);
        for pod in self.pods.iter().filter(|pod| is_tracked(pod) && pod.phase == "Succeeded") {
            let index = indexes::of(pod).filter(|index| *index < completions);
            self.completed.extend(index);
        }
        let known = self.plan.status.failed_indexes.as_deref().unwrap_or_default();
        let failed = indexes::parse(known);
        self.by_index =
            IndexFailures::new(&self.spec, self.pods, failed, &self.completed, self.now);
        if self.is_decided() || self.spec.suspend == Some(true) {
            // No pod comes after them.
            self.by_index.kept.clear();
        }
    }

    /// Uids whose finalizer is gone become numbers; ended pods become uids.
    fn count(&mut self) {
        let held: BTreeSet<&str> =
            self.pods.iter().filter(|pod| is_tracked(pod)).map(|pod| pod.uid.as_str()).collect();
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
        for pod in self.pods.iter().filter(|pod| is_tracked(pod) && pod.is_terminal()) {
            let succeeded = pod.phase == "Succeeded";
            // Counted when the next pod of its index is there to know of it.
            if self.by_index.kept.contains(&pod.uid) {
                continue;
            }
            let useful = match indexes::of(pod).filter(|_| indexed) {
                Some(index) if succeeded => index < self.spec.completions.unwrap_or(0),
                _ if succeeded => !indexed,
                _ => policies::judge(&self.spec, pod) != Verdict::Ignore,
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
        counted + count(self.uncounted[1].len()) + count(self.by_index.kept.len())
    }

    fn suspend_or_start(&mut self) {
        let suspended = has(&self.plan.status, "Suspended");
        if self.spec.suspend == Some(true) {
            if !suspended && !self.is_decided() {
                self.set("Suspended", "True", "JobSuspended", "Job suspended");
                let event = (EventType::Normal, "Suspended".to_owned(), "Job suspended".to_owned());
                self.plan.events.push(event);
                self.plan.status.start_time = None;
            }
            return;
        }
        if suspended {
            self.set("Suspended", "False", "JobResumed", "Job resumed");
            let event = (EventType::Normal, "Resumed".to_owned(), "Job resumed".to_owned());
            self.plan.events.push(event);
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
        if let Some(text) = self.failed_by_policy() {
            return self.set("FailureTarget", "True", "PodFailurePolicy", &text);
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
        let given_up = self.by_index.failed.len();
        if self.spec.max_failed_indexes.is_some_and(|most| count(given_up) > most) {
            let text = "Job has exceeded the specified maximal number of failed indexes";
            return self.set("FailureTarget", "True", "MaxFailedIndexesExceeded", text);
        }
        if let Some(policy) = self.spec.success_policy.as_ref().filter(|_| self.is_indexed())
            && let Some(text) = policies::success(policy, &self.completed)
        {
            return self.set("SuccessCriteriaMet", "True", "SuccessPolicy", &text);
        }
        let complete = match self.spec.completions {
            Some(wanted) => self.succeeded() + count(given_up) >= wanted,
            None => self.succeeded() > 0 && self.active().is_empty(),
        };
        if complete && given_up > 0 {
            let text = "Job has failed indexes";
            return self.set("FailureTarget", "True", "FailedIndexes", text);
        }
        if complete {
            self.tell_surplus();
            let text = "Reached expected number of succeeded pods";
            self.set("SuccessCriteriaMet", "True", "CompletionsReached", text);
        }
    }

    /// Who is more than was asked for.
    fn tell_surplus(&mut self) {
        let Some(wanted) = self.spec.completions else { return };
        let is_active = !self.active().is_empty();
        let are_too_many = self.succeeded() > wanted;
        let mut warn = |reason: &str, what: &str| {
            let text = format!("Too many {what} pods running after completion count reached");
            self.plan.events.push((EventType::Warning, reason.to_owned(), text));
        };
        if is_active {
            warn("TooManyActivePods", "active");
        }
        if are_too_many {
            warn("TooManySucceededPods", "succeeded");
        }
    }

    fn failed_by_policy(&self) -> Option<String> {
        self.spec.pod_failure_policy.as_ref()?;
        let mut failed = self.pods.iter().filter(|pod| pod.phase == "Failed");
        failed.find_map(|pod| match policies::judge(&self.spec, pod) {
            Verdict::FailJob(text) => Some(text),
            _ => None,
        })
    }

    fn size(&mut self) {
        let active = self.active();
        if self.is_decided() || self.spec.suspend == Some(true) {
            self.plan.delete = active;
            return;
        }
        let parallelism = self.spec.parallelism.unwrap_or(1);
        let wanted = match self.spec.completions {
            Some(completions) => {
                let given_up = count(self.by_index.failed.len());
                (completions - self.succeeded() - given_up).min(parallelism)
            }
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
            let is_done =
                |index| self.completed.contains(&index) || self.by_index.failed.contains(&index);
            if index.is_some_and(|index| is_done(index) || !running.insert(index)) {
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
            self.next_indexes(&running, missing)
        } else {
            vec![New::default(); missing]
        };
    }

    /// The lowest indexes that need a pod and do not have to wait after a failure.
    fn next_indexes(&mut self, running: &BTreeSet<i32>, missing: usize) -> Vec<New> {
        let counts = self.spec.backoff_limit_per_index.is_some();
        let mut create = Vec::new();
        for index in 0..self.spec.completions.unwrap_or(0) {
            if create.len() == missing {
                break;
            }
            if self.completed.contains(&index)
                || running.contains(&index)
                || self.by_index.failed.contains(&index)
            {
                continue;
            }
            let (failures, wait) = self.by_index.next.get(&index).copied().unwrap_or_default();
            if let Some(wait) = wait {
                self.plan.wait = self.plan.wait.into_iter().chain([wait]).min();
                continue;
            }
            create.push(New { index: Some(index), failures: counts.then_some(failures) });
        }
        create
    }

    /// Fills in the numbers, and ends the Job when the last pod has.
    fn finish(&mut self) {
        let active = self.active();
        let terminating = self.terminating();
        let settled =
            self.uncounted.iter().all(BTreeSet::is_empty) && self.by_index.kept.is_empty();
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
        if self.spec.backoff_limit_per_index.is_some() {
            status.failed_indexes = Some(indexes::print(&self.by_index.failed));
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
        // A Job may end while it is suspended, and before it began by a clock that was set back; the
        // server takes neither.
        let began = self.plan.status.start_time.get_or_insert(Time(self.now)).0;
        let (interim, last, kind) = if has(&self.plan.status, "FailureTarget") {
            ("FailureTarget", "Failed", EventType::Warning)
        } else {
            self.plan.status.completion_time = Some(Time(self.now.max(began)));
            ("SuccessCriteriaMet", "Complete", EventType::Normal)
        };
        let conditions = self.plan.status.conditions.iter().flatten();
        let Some(decided) = conditions.into_iter().find(|c| c.type_ == interim).cloned() else {
            return;
        };
        let reason = decided.reason.unwrap_or_default();
        let message = decided.message.unwrap_or_default();
        self.set(last, "True", &reason, &message);
        let event = if kind == EventType::Normal {
            (kind, "Completed".to_owned(), "Job completed".to_owned())
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
