//! Jobs and cron jobs.
//!
//! Upstream: `pkg/apis/batch/validation`.

pub(crate) mod cron_job;
mod indexes;
pub(crate) mod job;
pub(crate) mod job_status;
mod pod_failure_policy;
mod schedule;
mod success_policy;

#[cfg(test)]
mod tests;
