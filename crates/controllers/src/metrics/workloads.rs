//! What the controllers of workloads count.

use prometheus::{
    Error, Histogram, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, exponential_buckets,
};

use super::sheet::Sheet;

#[derive(Clone)]
pub(crate) struct AutoscalerMetrics {
    pub(crate) computations: IntCounterVec,
    pub(crate) computation_seconds: HistogramVec,
    pub(crate) desired: IntGaugeVec,
    pub(crate) number: IntGauge,
    pub(crate) reconciliations: IntCounterVec,
    pub(crate) reconciliation_seconds: HistogramVec,
}

impl AutoscalerMetrics {
    pub(super) fn new(sheet: &Sheet<'_>) -> Result<Self, Error> {
        let name = |rest: &str| format!("horizontal_pod_autoscaler_controller_{rest}");
        let reconciled = ["action", "error"];
        let computed = ["action", "error", "metric_type"];
        let buckets = exponential_buckets(0.001, 2.0, 15)?;
        Ok(Self {
            computations: sheet.counters(
                &name("metric_computation_total"),
                "Metrics that were asked for replicas.",
                &computed,
            )?,
            computation_seconds: sheet.histograms(
                &name("metric_computation_duration_seconds"),
                "How long metrics took to answer.",
                &computed,
                buckets.clone(),
            )?,
            desired: sheet.gauges(
                &name("desired_replicas"),
                "Replicas that autoscalers want.",
                &["hpa_name", "namespace"],
            )?,
            number: sheet
                .gauge(&name("num_horizontal_pod_autoscalers"), "Autoscalers that are followed.")?,
            reconciliations: sheet.counters(
                &name("reconciliations_total"),
                "Looks at autoscalers.",
                &reconciled,
            )?,
            reconciliation_seconds: sheet.histograms(
                &name("reconciliation_duration_seconds"),
                "How long looks at autoscalers took.",
                &reconciled,
                buckets,
            )?,
        })
    }
}

#[derive(Clone)]
pub(crate) struct JobMetrics {
    pub(crate) finished: IntCounterVec,
    pub(crate) indexes_finished: IntCounterVec,
    pub(crate) pods_created: IntCounterVec,
    pub(crate) pods_finished: IntCounterVec,
    /// Pods that ended while they were held, and those that were let go: `add` and `delete`.
    pub(crate) pods_held: IntCounterVec,
    pub(crate) failures_handled: IntCounterVec,
    pub(crate) syncs: IntCounterVec,
    pub(crate) sync_seconds: HistogramVec,
    pub(crate) of_others: IntCounterVec,
}

impl JobMetrics {
    pub(super) fn new(sheet: &Sheet<'_>) -> Result<Self, Error> {
        let name = |rest: &str| format!("job_controller_{rest}");
        let synced = ["action", "completion_mode", "result"];
        Ok(Self {
            finished: sheet.counters(
                &name("jobs_finished_total"),
                "Jobs that have ended.",
                &["completion_mode", "reason", "result"],
            )?,
            indexes_finished: sheet.counters(
                &name("job_finished_indexes_total"),
                "Indexes of Jobs that have ended.",
                &["backoffLimit", "status"],
            )?,
            pods_created: sheet.counters(
                &name("job_pods_creation_total"),
                "Pods that were made for Jobs, or could not be.",
                &["reason", "status"],
            )?,
            pods_finished: sheet.counters(
                &name("job_pods_finished_total"),
                "Pods of Jobs that have ended and been counted.",
                &["completion_mode", "result"],
            )?,
            pods_held: sheet.counters(
                &name("terminated_pods_tracking_finalizer_total"),
                "Pods that have ended and are held until they are counted: those that came to it, \
                 and those that are past it.",
                &["event"],
            )?,
            failures_handled: sheet.counters(
                &name("pod_failures_handled_by_failure_policy_total"),
                "Failed pods that a rule of their Job's failure policy was about.",
                &["action"],
            )?,
            syncs: sheet.counters(&name("job_syncs_total"), "Looks at Jobs.", &synced)?,
            sync_seconds: sheet.histograms(
                &name("job_sync_duration_seconds"),
                "How long looks at Jobs took.",
                &synced,
                exponential_buckets(0.004, 2.0, 15)?,
            )?,
            of_others: sheet.counters(
                &name("jobs_by_external_controller_total"),
                "Jobs that another controller manages.",
                &["controller_name"],
            )?,
        })
    }
}

#[derive(Clone)]
pub(crate) struct StatefulSetMetrics {
    max_unavailable: IntGaugeVec,
    unavailable: IntGaugeVec,
}

impl StatefulSetMetrics {
    pub(super) fn new(sheet: &Sheet<'_>) -> Result<Self, Error> {
        let name = |rest: &str| format!("statefulset_controller_statefulset_{rest}");
        let labels = ["pod_management_policy", "statefulset_name", "statefulset_namespace"];
        Ok(Self {
            max_unavailable: sheet.gauges(
                &name("max_unavailable"),
                "Pods that an update may make unavailable.",
                &labels,
            )?,
            unavailable: sheet.gauges(
                &name("unavailable_replicas"),
                "Pods that are not available.",
                &labels,
            )?,
        })
    }

    /// Notes of a set by its policy, name and namespace how many of its pods may be unavailable and
    /// how many are.
    pub(crate) fn note(&self, set: [&str; 3], most: usize, missing: usize) {
        let set_to = |gauge: &IntGaugeVec, count: usize| {
            gauge.with_label_values(&set).set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        set_to(&self.max_unavailable, most);
        set_to(&self.unavailable, missing);
    }

    /// A set is gone.
    pub(crate) fn forget(&self, set: [&str; 3]) {
        for gauge in [&self.max_unavailable, &self.unavailable] {
            // One that was never noted has none.
            drop(gauge.remove_label_values(&set));
        }
    }
}

/// Between the ages of the pods that a set gives up and the age of the youngest.
pub(super) fn deletion_age_ratio(sheet: &Sheet<'_>) -> Result<Histogram, Error> {
    sheet.histogram(
        "replicaset_controller_sorting_deletion_age_ratio",
        "How many times as old as the youngest ready pod those are that a set gives up.",
        exponential_buckets(0.25, 2.0, 6)?,
    )
}

/// Syncs that were put off as a cache had not seen what was written before, by what it was.
#[derive(Clone)]
pub(crate) struct StaleSyncs {
    pub(crate) daemon_set: IntCounterVec,
    pub(crate) job: IntCounterVec,
    pub(crate) replica_set: IntCounterVec,
    pub(crate) stateful_set: IntCounterVec,
}

impl StaleSyncs {
    pub(super) fn new(sheet: &Sheet<'_>) -> Result<Self, Error> {
        let of = |controller: &str, kind: &str| {
            sheet.counters(
                &format!("{controller}_controller_stale_sync_skips_total"),
                &format!("Total number of {kind} syncs skipped due to a stale watch cache."),
                &["group", "resource"],
            )
        };
        Ok(Self {
            daemon_set: of("daemonset", "DaemonSet")?,
            job: of("job", "Job")?,
            replica_set: of("replicaset", "ReplicaSet")?,
            stateful_set: of("statefulset", "StatefulSet")?,
        })
    }
}
