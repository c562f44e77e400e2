//! Writes the status of a Job.

use client::{Client, ClientError};
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use serde_json::json;

use crate::selection::key_of;

/// Writes it whole, against the version it was computed from: counts must never be lost. Gives the
/// version that it has now, unless the Job is gone.
pub(super) async fn write(
    client: &Client,
    job: &Job,
    status: &JobStatus,
) -> Result<Option<String>, ClientError> {
    let uncounted = status.uncounted_terminated_pods.as_ref();
    let change = json!({
        "status": {
            "active": status.active,
            "completedIndexes": status.completed_indexes,
            "completionTime": status.completion_time,
            "conditions": status.conditions,
            "failed": status.failed,
            "failedIndexes": status.failed_indexes,
            "ready": status.ready,
            "startTime": status.start_time,
            "succeeded": status.succeeded,
            "terminating": status.terminating,
            "uncountedTerminatedPods": {
                "succeeded": uncounted.and_then(|uncounted| uncounted.succeeded.clone()),
                "failed": uncounted.and_then(|uncounted| uncounted.failed.clone()),
            },
        },
    });
    let key = key_of(&job.metadata);
    match client.api::<Job>(&key.namespace).merge_known(job, "status", &change).await {
        Ok(written) => Ok(written.metadata.resource_version),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
