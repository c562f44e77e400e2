//! Starts Jobs by the clock.
//!
//! A run's Job has a name made of its time, so that a run that is tried twice is one Job. `plan` is
//! the pure core, `schedule` knows when a run is due.

mod plan;
mod schedule;

use std::collections::BTreeSet;
use std::sync::Arc;

use client::{
    Change, Client, ClientError, DeleteOptions, EventRecorder, EventType, Outcome, Propagation,
    WorkQueue,
};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use meta::ObjectKey;
use serde_json::json;

use self::plan::{Plan, finished, is_listed, job_name};
use crate::context::Context;
use crate::pod_control::Owner;
use crate::reconcile::work;
use crate::selection::{controller_of, key_of};

/// Annotation of a Job: the time of its run.
const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("cronjob-controller");
    let recorder = ctx.recorder(&client, "cronjob-controller");
    let queue = ctx.queue("cronjob");
    let controller = Arc::new(Controller { queue, client, recorder, ctx });
    let informers = &controller.ctx.informers;
    tokio::join!(informers.cron_jobs.synced(), informers.jobs.synced());
    let this = Arc::clone(&controller);
    informers.cron_jobs.on_change(move |key, change| {
        if let Change::Updated { old, new } = change
            && old.spec.schedule != new.spec.schedule
            && let Some(text) = plan::unparseable(new)
        {
            let reason = "UnParseableCronJobSchedule";
            this.event(&owner(new), EventType::Warning, reason, text);
        }
        this.queue.add(key.clone());
    });
    let changed = controller.queue.clone();
    informers.jobs.on_change(move |key, change| {
        let (Change::Added(job) | Change::Deleted(job) | Change::Updated { new: job, .. }) = change;
        if let Some(owner) = controller_of(&job.metadata).filter(|owner| owner.kind == "CronJob") {
            changed.add(ObjectKey::new(&key.namespace, &owner.name));
        }
    });
    work(&controller, &controller.queue, &controller.ctx.shutdown, |this, key| async move {
        this.sync(&key).await
    })
    .await;
}

struct Controller {
    ctx: Context,
    queue: WorkQueue<ObjectKey>,
    client: Client,
    recorder: EventRecorder,
}

impl Controller {
    async fn sync(&self, key: &ObjectKey) -> Result<Outcome, ClientError> {
        let Some(mut cron) = self.ctx.informers.cron_jobs.get(key) else {
            return Ok(Outcome::Done);
        };
        let jobs = self.jobs_of(&cron);
        let status = cron.status.clone().unwrap_or_default();
        if jobs.iter().any(|job| finished(job).is_none() && !is_listed(&status, job)) {
            // The cache may not have heard yet of what an earlier pass wrote.
            let api = self.client.api::<CronJob>(&key.namespace);
            let Some(fresh) = api.get_opt(&key.name).await? else { return Ok(Outcome::Done) };
            if fresh.metadata.uid != cron.metadata.uid {
                return Ok(Outcome::Requeue);
            }
            cron = Arc::new(fresh);
        }
        let missing = self.missing(&cron, &jobs).await?;
        let mut plan = Plan::new(&cron, &jobs, &missing, self.ctx.clock.now());
        let owner = owner(&cron);
        for (kind, reason, text) in std::mem::take(&mut plan.events) {
            self.event(&owner, kind, reason, text);
        }
        for job in std::mem::take(&mut plan.delete) {
            // What cannot be deleted now is deleted with the next one that ends.
            if self.delete(&owner, &job).await.is_ok() {
                plan.unlist(job.metadata.uid.as_deref().unwrap_or_default());
            }
        }
        let started = match plan.start {
            Some(run) => self.start(&cron, &owner, &mut plan, run).await,
            None => Ok(()),
        };
        self.write_status(&cron, &owner, &plan.status).await?;
        match started {
            Err(error) if error.is_namespace_terminating() => return Ok(Outcome::Done),
            result => result?,
        }
        Ok(plan.wait.map_or(Outcome::Done, Outcome::RequeueAfter))
    }

    fn jobs_of(&self, cron: &CronJob) -> Vec<Arc<Job>> {
        let namespace = cron.metadata.namespace.as_deref().unwrap_or_default();
        let mut jobs = self.ctx.informers.jobs.list_namespace(namespace);
        jobs.retain(|job| {
            let owner = controller_of(&job.metadata);
            owner.is_some_and(|owner| Some(&owner.uid) == cron.metadata.uid.as_ref())
        });
        jobs
    }

    /// Uids of listed Jobs that neither the cache nor the server has.
    async fn missing(
        &self,
        cron: &CronJob,
        jobs: &[Arc<Job>],
    ) -> Result<BTreeSet<String>, ClientError> {
        let mut missing = BTreeSet::new();
        let listed = cron.status.as_ref().and_then(|status| status.active.as_ref());
        for active in listed.into_iter().flatten() {
            if jobs.iter().any(|job| job.metadata.uid == active.uid) {
                continue;
            }
            let api = self.client.api::<Job>(active.namespace.as_deref().unwrap_or_default());
            let found = api.get_opt(active.name.as_deref().unwrap_or_default()).await?;
            if found.is_none_or(|job| job.metadata.uid != active.uid) {
                missing.extend(active.uid.clone());
            }
        }
        Ok(missing)
    }

    async fn start(
        &self,
        cron: &CronJob,
        owner: &Owner,
        plan: &mut Plan,
        run: Timestamp,
    ) -> Result<(), ClientError> {
        let policy = cron.spec.concurrency_policy.as_deref();
        if policy == Some("Replace") {
            self.replace(owner, plan).await?;
        }
        let api = self.client.api::<Job>(&owner.key.namespace);
        let wanted = job(cron, owner, run);
        let created = match api.create(&wanted).await {
            Ok(created) => {
                let name = created.metadata.name.as_deref().unwrap_or_default();
                let text = format!("Created job {name}");
                self.event(owner, EventType::Normal, "SuccessfulCreate", text);
                if let Some(at) = &created.metadata.creation_timestamp {
                    let skew = at.0.duration_since(run).as_secs_f64();
                    self.ctx.counts.cron_job_skew.observe(skew);
                }
                created
            }
            Err(error) if error.is_already_exists() => {
                // An earlier pass made it and could not say so in the status, or it is another's.
                let present = api.get(wanted.metadata.name.as_deref().unwrap_or_default()).await?;
                let is_ours = controller_of(&present.metadata).is_some_and(|o| o.uid == owner.uid);
                if !is_ours || is_listed(&plan.status, &present) || finished(&present).is_some() {
                    return Ok(());
                }
                present
            }
            Err(error) => {
                if !error.is_namespace_terminating() {
                    let text = format!("Error creating job: {error}");
                    self.event(owner, EventType::Warning, "FailedCreate", text);
                }
                return Err(error);
            }
        };
        plan.started(&created, run);
        Ok(())
    }

    /// Deletes the Jobs that still run.
    async fn replace(&self, owner: &Owner, plan: &mut Plan) -> Result<(), ClientError> {
        for active in plan.status.active.clone().into_iter().flatten() {
            let api = self.client.api::<Job>(&owner.key.namespace);
            match api.get(active.name.as_deref().unwrap_or_default()).await {
                Ok(job) => self.delete(owner, &job).await?,
                Err(error) => {
                    self.event(owner, EventType::Warning, "FailedGet", format!("Get job: {error}"));
                    return Err(error);
                }
            }
            plan.unlist(active.uid.as_deref().unwrap_or_default());
        }
        Ok(())
    }

    async fn delete(&self, owner: &Owner, job: &Job) -> Result<(), ClientError> {
        let options = DeleteOptions {
            uid: job.metadata.uid.clone(),
            propagation: Some(Propagation::Background),
            ..DeleteOptions::default()
        };
        let name = job.metadata.name.as_deref().unwrap_or_default();
        match self.client.api::<Job>(&owner.key.namespace).delete(name, &options).await {
            Ok(()) => {
                let text = format!("Deleted job {name}");
                self.event(owner, EventType::Normal, "SuccessfulDelete", text);
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => {
                let text = format!("Deleted job: {error}");
                self.event(owner, EventType::Warning, "FailedDelete", text);
                Err(error)
            }
        }
    }

    async fn write_status(
        &self,
        cron: &CronJob,
        owner: &Owner,
        status: &CronJobStatus,
    ) -> Result<(), ClientError> {
        let mut known = cron.status.clone().unwrap_or_default();
        known.active.get_or_insert_default();
        let mut wanted = status.clone();
        wanted.active.get_or_insert_default();
        if known == wanted {
            return Ok(());
        }
        let active = wanted.active.filter(|active| !active.is_empty());
        let change = json!({ "status": { "active": active, "lastScheduleTime": wanted.last_schedule_time,
                "lastSuccessfulTime": wanted.last_successful_time } });
        let key = &owner.key;
        let api = self.client.api::<CronJob>(&key.namespace);
        match api.merge_known(cron, "status", &change).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    fn event(&self, owner: &Owner, kind: EventType, reason: &str, text: String) {
        self.recorder.record(&owner.regarding(), kind, reason, text);
    }
}

fn owner(cron: &CronJob) -> Owner {
    Owner {
        api_version: "batch/v1",
        kind: "CronJob",
        key: key_of(&cron.metadata),
        uid: cron.metadata.uid.clone().unwrap_or_default(),
    }
}

/// The Job of a run.
fn job(cron: &CronJob, owner: &Owner, run: Timestamp) -> Job {
    let spec = cron.spec.clone();
    let template = spec.job_template.metadata.unwrap_or_default();
    let mut annotations = template.annotations.unwrap_or_default();
    let at = scheduled_at(spec.time_zone.as_deref().unwrap_or_default(), run);
    annotations.insert(SCHEDULED_AT.to_owned(), at);
    Job {
        metadata: ObjectMeta {
            name: Some(job_name(cron, run)),
            namespace: Some(owner.key.namespace.clone()),
            labels: template.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![owner.reference()]),
            ..ObjectMeta::default()
        },
        spec: spec.job_template.spec,
        status: None,
    }
}

/// The time of a run as clocks in the zone show it.
fn scheduled_at(name: &str, run: Timestamp) -> String {
    let local = run.to_zoned(schedule::zone(name).unwrap_or(jiff::tz::TimeZone::UTC));
    let is_utc = local.offset().is_zero();
    local.strftime(if is_utc { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%:z" }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_written_as_clocks_in_its_zone_show_it() {
        let run: Timestamp = "2026-07-01T12:00:00Z".parse().unwrap();
        assert_eq!(scheduled_at("", run), "2026-07-01T12:00:00Z");
        assert_eq!(scheduled_at("Europe/Berlin", run), "2026-07-01T14:00:00+02:00");
    }
}
