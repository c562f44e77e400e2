//! What must hold of Jobs: every pod and every index counts once.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Checks, controller, number};
use crate::api::{Api, Commit};
use crate::nodes::text;

/// Pods of a Job that ended.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// Uids of those that succeeded.
    succeeded: BTreeSet<String>,
    /// Their indexes.
    indexes: BTreeSet<i64>,
    /// Uids of all others that end, or are no more.
    others: BTreeSet<String>,
}

impl Checks {
    /// Pods of a job that succeeded.
    pub(crate) fn succeeded(&self, job: &str) -> usize {
        self.ended.get(job).map_or(0, |ended| ended.succeeded.len())
    }

    /// Remembers which pods of a job ended, and how.
    pub(super) fn count_ended(&mut self, commit: &Commit) {
        let pod = &commit.last.value;
        let Some(owner) = controller(pod).filter(|owner| owner["kind"] == "Job") else { return };
        let ended = self.ended.entry(text(&owner["uid"]).to_owned()).or_default();
        let (meta, phase) = (&pod["metadata"], text(&pod["status"]["phase"]));
        let uid = text(&meta["uid"]).to_owned();
        if phase == "Succeeded" {
            ended.succeeded.insert(uid);
            let index = text(&meta["annotations"]["batch.kubernetes.io/job-completion-index"]);
            ended.indexes.extend(index.parse::<i64>().ok());
        } else if commit.new.is_none() || phase == "Failed" || !meta["deletionTimestamp"].is_null()
        {
            ended.others.insert(uid);
        }
    }

    pub(super) fn job(&mut self, api: &Api, commit: &Commit, by: &str) {
        let value = &commit.last.value;
        self.limit(value, number(&value["spec"]["parallelism"], 1));
        for wrong in self.miscounted(commit) {
            self.violated(format!("job {}: {wrong}", value["metadata"]["name"]));
        }
        let is_first = |object: &Value| object["metadata"]["deletionTimestamp"].is_null();
        let begins = commit.old.as_ref().is_some_and(|old| is_first(&old.value));
        let ends = commit.new.is_none() || !is_first(value);
        if by == "ttl-after-finished-controller" && begins && ends {
            self.outlived(value, commit.time);
        }
        if commit.old.is_none() {
            self.run_starts(api, commit);
        }
    }

    fn miscounted(&self, commit: &Commit) -> Vec<String> {
        let mut wrong = Vec::new();
        let value = &commit.last.value;
        let status = &value["status"];
        let none = Ended::default();
        let ended = self.ended.get(text(&value["metadata"]["uid"])).unwrap_or(&none);
        let before = commit.old.as_ref().map_or(&Value::Null, |old| &old.value["status"]);
        for (field, truth) in [("succeeded", &ended.succeeded), ("failed", &ended.others)] {
            let (counted, before) = (number(&status[field], 0), number(&before[field], 0));
            if counted > i64::try_from(truth.len()).unwrap_or(i64::MAX) {
                wrong.push(format!("{field} is {counted}; there were {}", truth.len()));
            }
            if counted < before {
                wrong.push(format!("{field} was {before} and is {counted}"));
            }
        }
        let completed = indexes(&status["completedIndexes"]);
        if let Some(index) = completed.difference(&ended.indexes).next() {
            wrong.push(format!("index {index} is completed; no pod of it succeeded"));
        }
        if let Some(index) = indexes(&before["completedIndexes"]).difference(&completed).next() {
            wrong.push(format!("index {index} is no longer completed"));
        }
        let counted = number(&status["succeeded"], 0);
        if value["spec"]["completionMode"] == "Indexed"
            && i64::try_from(completed.len()).ok() != Some(counted)
        {
            wrong.push(format!("{counted} succeeded, and the indexes {completed:?} are completed"));
        }
        wrong
    }

    /// A Job is deleted because its time after its end is over.
    fn outlived(&mut self, job: &Value, now: jiff::Timestamp) {
        let Some(now) = self.managers_time(now) else { return };
        let name = &job["metadata"]["name"];
        let Some(ttl) = job["spec"]["ttlSecondsAfterFinished"].as_i64() else {
            return self.violated(format!("job {name} is deleted, and may stay for ever"));
        };
        let Some(finished) = finished_at(job) else {
            return self.violated(format!("job {name} is deleted, and has not ended"));
        };
        let over = finished.as_second() + ttl;
        if over > now.as_second() {
            self.violated(format!("job {name} is deleted at {now}; it ended at {finished}"));
        }
    }
}

/// When a Job ended, if it did.
pub(crate) fn finished_at(job: &Value) -> Option<jiff::Timestamp> {
    let mut conditions = job["status"]["conditions"].as_array()?.iter();
    let ended = conditions.find(|one| {
        ["Complete", "Failed"].contains(&text(&one["type"])) && one["status"] == "True"
    })?;
    text(&ended["lastTransitionTime"]).parse().ok()
}

/// Indexes as a Job lists them: `0-2,4`.
fn indexes(list: &Value) -> BTreeSet<i64> {
    let mut indexes = BTreeSet::new();
    for part in text(list).split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<i64>(), last.parse::<i64>()) {
            indexes.extend(first..=last);
        }
    }
    indexes
}
