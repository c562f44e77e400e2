//! The pure core: from a CronJob and its Jobs, what to write, to start and to delete.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use client::EventType;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::schedule::{Schedule, zone};

/// More missed runs than this are worth a warning.
const MANY: i64 = 100;
/// A timer may fire a little early: upstream `nextScheduleDelta`.
const DELTA: SignedDuration = SignedDuration::from_millis(100);

/// The text of the event about a new schedule that nobody can read, if it is one.
pub(super) fn unparseable(cron: &CronJob) -> Option<String> {
    let spec = &cron.spec;
    let in_zone = zone(spec.time_zone.as_deref().unwrap_or_default())?;
    Schedule::parse(&spec.schedule, in_zone).err()?;
    Some(format!("unparseable schedule for cronjob: {}", spec.schedule))
}

/// What to do.
pub(super) struct Plan {
    /// The status, before a Job is started.
    pub(super) status: CronJobStatus,
    /// Ended Jobs beyond the limits.
    pub(super) delete: Vec<Arc<Job>>,
    pub(super) events: Vec<(EventType, &'static str, String)>,
    /// The run to start now.
    pub(super) start: Option<Timestamp>,
    /// When to look again.
    pub(super) wait: Option<Duration>,
}

/// Type of the condition by which a Job has ended.
pub(super) fn finished(job: &Job) -> Option<&str> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let is_end = |kind: &str| matches!(kind, "Complete" | "Failed");
    let end = conditions.iter().find(|c| is_end(&c.type_) && c.status == "True")?;
    Some(&end.type_)
}

/// Whether the Job is in the list of those that run.
pub(super) fn is_listed(status: &CronJobStatus, job: &Job) -> bool {
    status.active.iter().flatten().any(|active| active.uid == job.metadata.uid)
}

/// The name of the Job of a run: the same one, however often it is tried.
pub(super) fn job_name(cron: &CronJob, run: Timestamp) -> String {
    let name = cron.metadata.name.as_deref().unwrap_or_default();
    format!("{name}-{}", run.as_second().div_euclid(60))
}

impl Plan {
    /// Decides; `missing` are the uids of listed Jobs that do not exist any more.
    pub(super) fn new(
        cron: &CronJob,
        jobs: &[Arc<Job>],
        missing: &BTreeSet<String>,
        now: Timestamp,
    ) -> Self {
        let spec = cron.spec.clone();
        let mut plan = Self {
            status: cron.status.clone().unwrap_or_default(),
            delete: Vec::new(),
            events: Vec::new(),
            start: None,
            wait: None,
        };
        plan.clean_up(&spec, jobs);
        jobs.iter().for_each(|job| plan.follow(job));
        plan.drop_missing(missing);
        if cron.metadata.deletion_timestamp.is_none() && spec.suspend != Some(true) {
            plan.schedule(cron, &spec, now);
        }
        plan
    }

    fn clean_up(&mut self, spec: &CronJobSpec, jobs: &[Arc<Job>]) {
        let limits = [
            ("Complete", spec.successful_jobs_history_limit),
            ("Failed", spec.failed_jobs_history_limit),
        ];
        for (end, limit) in limits {
            let Some(limit) = limit else { continue };
            let ended = jobs.iter().filter(|job| finished(job) == Some(end));
            let mut ended: Vec<Arc<Job>> = ended.cloned().collect();
            let start = |job: &Job| job.status.as_ref().and_then(|s| s.start_time.clone());
            // Those that never started go last.
            ended.sort_by_key(|job| (start(job).is_none(), start(job), job.metadata.name.clone()));
            let surplus = ended.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
            self.delete.extend(ended.into_iter().take(surplus));
        }
    }

    fn follow(&mut self, job: &Job) {
        let name = job.metadata.name.as_deref().unwrap_or_default();
        match (is_listed(&self.status, job), finished(job)) {
            (false, None) => {
                let text =
                    format!("Saw a job that the controller did not create or forgot: {name}");
                self.events.push((EventType::Warning, "UnexpectedJob", text));
            }
            (true, Some(end)) => {
                self.unlist(job.metadata.uid.as_deref().unwrap_or_default());
                let text = format!("Saw completed job: {name}, condition: {end}");
                self.events.push((EventType::Normal, "SawCompletedJob", text));
            }
            _ => {}
        }
        if finished(job) != Some("Complete") {
            return;
        }
        let ended = job.status.as_ref().and_then(|status| status.completion_time.clone());
        if ended.as_ref().map(|time| time.0)
            > self.status.last_successful_time.as_ref().map(|time| time.0)
        {
            self.status.last_successful_time = ended;
        }
    }

    fn drop_missing(&mut self, missing: &BTreeSet<String>) {
        for uid in missing {
            let listed = self.status.active.iter().flatten();
            let found = listed.clone().find(|active| active.uid.as_ref() == Some(uid));
            let name = found.and_then(|active| active.name.clone()).unwrap_or_default();
            self.events.push((
                EventType::Normal,
                "MissingJob",
                format!("Active job went missing: {name}"),
            ));
            self.unlist(uid);
        }
    }

    /// Takes a Job off the list of those that run.
    pub(super) fn unlist(&mut self, uid: &str) {
        if let Some(active) = &mut self.status.active {
            active.retain(|job| job.uid.as_deref() != Some(uid));
        }
    }

    fn warn(&mut self, reason: &'static str, text: String) {
        self.events.push((EventType::Warning, reason, text));
    }

    fn schedule(&mut self, cron: &CronJob, spec: &CronJobSpec, now: Timestamp) {
        let name = spec.time_zone.as_deref().unwrap_or_default();
        let Some(in_zone) = zone(name) else {
            let text = format!("invalid timeZone: {name:?}: unknown time zone {name}");
            return self.warn("UnknownTimeZone", text);
        };
        if spec.schedule.contains("TZ") {
            let text = format!(
                "CRON_TZ or TZ used in schedule {:?} is not officially supported, see \
                 https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more \
                 details",
                spec.schedule
            );
            self.warn("UnsupportedSchedule", text);
        }
        let schedule = match Schedule::parse(&spec.schedule, in_zone) {
            Ok(schedule) => schedule,
            Err(error) => {
                let text = format!("unparseable schedule: {:?} : {error}", spec.schedule);
                return self.warn("UnparseableSchedule", text);
            }
        };
        let Some(next) = schedule.next(now) else {
            // Such as the 30th of February: upstream finds that two runs are at the same time.
            let text = format!(
                "invalid schedule: {} : time difference between two schedules is less than 1 second",
                spec.schedule
            );
            return self.warn("InvalidSchedule", text);
        };
        let next = next.checked_add(DELTA).ok();
        self.wait = next.and_then(|next| Duration::try_from(next.duration_since(now)).ok());
        if let Some(run) = self.due(cron, spec, &schedule, now) {
            self.judge(cron, spec, run, now);
        }
    }

    /// The last run that should have been and that was not.
    fn due(
        &mut self,
        cron: &CronJob,
        spec: &CronJobSpec,
        schedule: &Schedule,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let created = cron.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let last = self.status.last_schedule_time.as_ref().map(|time| time.0);
        let mut earliest = last.or(created).unwrap_or(now);
        if let Some(deadline) = deadline(spec) {
            earliest = now.checked_sub(deadline).map_or(earliest, |at| at.max(earliest));
        }
        let (run, missed) = schedule.last(earliest, now)?;
        if missed > MANY {
            let text = "too many missed start times. Set or decrease \
                        .spec.startingDeadlineSeconds or check clock skew";
            self.warn("TooManyMissedTimes", text.to_owned());
        }
        Some(run)
    }

    fn judge(&mut self, cron: &CronJob, spec: &CronJobSpec, run: Timestamp, now: Timestamp) {
        let end = deadline(spec).and_then(|deadline| run.checked_add(deadline).ok());
        if end.is_some_and(|end| end < now) {
            let at = run.strftime("%a, %d %b %Y %H:%M:%S +0000");
            return self
                .warn("MissSchedule", format!("Missed scheduled time to start a job: {at}"));
        }
        let name = job_name(cron, run);
        let active = self.status.active.as_deref().unwrap_or_default();
        let is_running = active.iter().any(|job| job.name.as_ref() == Some(&name));
        if is_running || self.status.last_schedule_time.as_ref().is_some_and(|last| last.0 == run) {
            return;
        }
        if spec.concurrency_policy.as_deref() == Some("Forbid") && !active.is_empty() {
            let text = "Not starting job because prior execution is running and concurrency \
                        policy is Forbid";
            self.events.push((EventType::Normal, "JobAlreadyActive", text.to_owned()));
            return;
        }
        self.start = Some(run);
    }

    /// The Job of the run exists: it is on the list, and the run is the last one.
    pub(super) fn started(&mut self, job: &Job, run: Timestamp) {
        let reference = k8s_openapi::api::core::v1::ObjectReference {
            api_version: Some("batch/v1".to_owned()),
            kind: Some("Job".to_owned()),
            namespace: job.metadata.namespace.clone(),
            name: job.metadata.name.clone(),
            uid: job.metadata.uid.clone(),
            resource_version: job.metadata.resource_version.clone(),
            field_path: None,
        };
        self.status.active.get_or_insert_default().push(reference);
        self.status.last_schedule_time = Some(Time(run));
    }
}

fn deadline(spec: &CronJobSpec) -> Option<SignedDuration> {
    spec.starting_deadline_seconds.map(SignedDuration::from_secs)
}

#[cfg(test)]
mod tests;
