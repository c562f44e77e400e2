//! What must hold when a cron job starts a run.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::jobs::finished_at;
use super::{Checks, IN_FLIGHT, controller, controls};
use crate::api::{Api, Commit};
use crate::nodes::text;

/// The user's cron jobs run every minute.
const EVERY: Duration = Duration::from_secs(60);

impl Checks {
    pub(super) fn run_starts(&mut self, api: &Api, commit: &Commit) {
        let job = &commit.last.value;
        let Some(owner) = controller(job) else { return };
        let at = &job["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"];
        let (name, at) = (text(&owner["name"]), text(at));
        if !self.scheduled.insert((text(&owner["uid"]).to_owned(), at.to_owned())) {
            self.violated(format!("cron job {name} starts a second job for {at}"));
        }
        let run = at.parse::<Timestamp>().unwrap_or_default();
        let times = self.managers_times(commit.time);
        let most = i64::try_from((EVERY + IN_FLIGHT).as_secs()).unwrap_or(i64::MAX);
        let is_last = |now: &Timestamp| (-1..=most).contains(&now.duration_since(run).as_secs());
        if !times.iter().any(is_last) {
            self.violated(format!(
                "cron job {name} starts the run of {at}, which is not the last one at {times:?}"
            ));
        }
        self.alone(api, job, owner);
    }

    /// A run that forbids others does not begin beside one that is known to be under way.
    fn alone(&mut self, api: &Api, job: &Value, owner: &Value) {
        let namespace = text(&job["metadata"]["namespace"]);
        let cron = api.get("batch/cronjobs", namespace, text(&owner["name"]));
        if cron.is_none_or(|cron| cron["spec"]["concurrencyPolicy"] != "Forbid") {
            return;
        }
        let known = |other: &Value| {
            let told = self.told.get(text(&other["metadata"]["uid"]));
            told.is_some_and(|told| told.elapsed() > IN_FLIGHT)
        };
        let other = api.all("batch/jobs").find(|other| {
            controls(owner, other)
                && other["metadata"]["uid"] != job["metadata"]["uid"]
                && other["metadata"]["deletionTimestamp"].is_null()
                && finished_at(other).is_none()
                && known(other)
        });
        if let Some(other) = other {
            let (name, other) = (&owner["name"], &other["metadata"]["name"]);
            self.violated(format!("cron job {name} forbids runs at once, and {other} still runs"));
        }
    }
}
