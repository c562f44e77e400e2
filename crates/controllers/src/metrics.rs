//! What single controllers count and time, under upstream's names and labels.
//!
//! Queues are counted in `queue_metrics`.

mod nodes;
mod sheet;
mod slices;
mod volumes;
mod workloads;

use prometheus::{Error, Histogram, HistogramVec, IntCounter, IntCounterVec, exponential_buckets};

pub(crate) use self::nodes::{EvictionMetrics, NodeMetrics, PoolRequestMetrics, RangeMetrics};
use self::sheet::Sheet;
pub(crate) use self::slices::{MirrorMetrics, ServiceSliceMetrics};
pub(crate) use self::volumes::{BinderMetrics, StorageMetrics};
pub(crate) use self::workloads::{AutoscalerMetrics, JobMetrics, StaleSyncs, StatefulSetMetrics};

/// All of them; clones count into the same.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) autoscaler: AutoscalerMetrics,
    pub(crate) binder: BinderMetrics,
    pub(crate) collector_errors: IntCounter,
    /// Seconds between the time of a run and its Job.
    pub(crate) cron_job_skew: Histogram,
    pub(crate) device_claims_created: IntCounterVec,
    pub(crate) device_evictions: EvictionMetrics,
    pub(crate) ephemeral_created: IntCounter,
    pub(crate) ephemeral_failed: IntCounter,
    /// Volumes that were detached although their node used them.
    pub(crate) forced_detaches: IntCounterVec,
    pub(crate) job: JobMetrics,
    /// Seconds between the end of a Job's time and its deletion.
    pub(crate) job_ttl: Histogram,
    pub(crate) mirrored_slices: MirrorMetrics,
    pub(crate) nodes: NodeMetrics,
    pub(crate) pods_removed: IntCounterVec,
    pub(crate) pool_requests: PoolRequestMetrics,
    pub(crate) pods_not_removed: IntCounterVec,
    pub(crate) ranges: RangeMetrics,
    /// Between the ages of the pods that a set gives up and the age of the youngest.
    pub(crate) replica_set_ages: Histogram,
    /// Syncs that were put off as a cache had not seen the last write.
    pub(crate) stale: StaleSyncs,
    pub(crate) root_ca_syncs: IntCounterVec,
    pub(crate) root_ca_seconds: HistogramVec,
    pub(crate) service_slices: ServiceSliceMetrics,
    pub(crate) stateful_set: StatefulSetMetrics,
    pub(crate) storage: StorageMetrics,
    pub(crate) taint_evictions: EvictionMetrics,
    pub(crate) trust_bundle_syncs: IntCounterVec,
    pub(crate) trust_bundle_seconds: HistogramVec,
}

impl Metrics {
    /// Registers them.
    pub(crate) fn new(registry: &telemetry::Registry) -> Result<Self, Error> {
        let sheet = Sheet { registry };
        let publishing = || exponential_buckets(0.001, 2.0, 15);
        Ok(Self {
            autoscaler: AutoscalerMetrics::new(&sheet)?,
            binder: BinderMetrics::new(&sheet)?,
            collector_errors: sheet.counter(
                "garbagecollector_controller_resources_sync_error_total",
                "Failures to learn which resources there are.",
            )?,
            cron_job_skew: sheet.histogram(
                "cronjob_controller_job_creation_skew_duration_seconds",
                "Time between when a run was due and when its Job was made.",
                exponential_buckets(1.0, 2.0, 10)?,
            )?,
            device_claims_created: sheet.counters(
                "resourceclaim_controller_creates_total",
                "Claims that were made of templates, or could not be.",
                &["admin_access", "status"],
            )?,
            device_evictions: EvictionMetrics::new(&sheet, "device_taint_eviction_controller")?,
            ephemeral_created: sheet.counter(
                "ephemeral_volume_controller_create_total",
                "Claims that were to be made for volumes of pods.",
            )?,
            ephemeral_failed: sheet.counter(
                "ephemeral_volume_controller_create_failures_total",
                "Claims that could not be made for volumes of pods.",
            )?,
            forced_detaches: sheet.counters(
                "attach_detach_controller_attachdetach_controller_forced_detaches",
                "Volumes that were detached although their node used them.",
                &["reason"],
            )?,
            job: JobMetrics::new(&sheet)?,
            job_ttl: sheet.histogram(
                "ttl_after_finished_controller_job_deletion_duration_seconds",
                "Time between when a Job was to go and when it was deleted.",
                exponential_buckets(0.1, 2.0, 14)?,
            )?,
            mirrored_slices: MirrorMetrics::new(&sheet)?,
            nodes: NodeMetrics::new(&sheet)?,
            pods_removed: sheet.counters(
                "pod_gc_collector_force_delete_pods_total",
                "Pods that were deleted because nobody else would.",
                &["namespace", "reason"],
            )?,
            pool_requests: PoolRequestMetrics::new(&sheet)?,
            pods_not_removed: sheet.counters(
                "pod_gc_collector_force_delete_pod_errors_total",
                "Pods that nobody else deletes and that could not be.",
                &["namespace", "reason"],
            )?,
            ranges: RangeMetrics::new(&sheet)?,
            replica_set_ages: workloads::deletion_age_ratio(&sheet)?,
            stale: StaleSyncs::new(&sheet)?,
            root_ca_syncs: sheet.counters(
                "root_ca_cert_publisher_sync_total",
                "Namespaces whose certificates were looked at, by the API server's answer.",
                &["code"],
            )?,
            root_ca_seconds: sheet.histograms(
                "root_ca_cert_publisher_sync_duration_seconds",
                "How long that took.",
                &["code"],
                publishing()?,
            )?,
            service_slices: ServiceSliceMetrics::new(&sheet)?,
            stateful_set: StatefulSetMetrics::new(&sheet)?,
            storage: StorageMetrics::new(&sheet)?,
            taint_evictions: EvictionMetrics::new(&sheet, "taint_eviction_controller")?,
            trust_bundle_syncs: sheet.counters(
                "clustertrustbundle_publisher_sync_total",
                "Looks at the authority's bundle, by the API server's answer.",
                &["code"],
            )?,
            trust_bundle_seconds: sheet.histograms(
                "clustertrustbundle_publisher_sync_duration_seconds",
                "How long that took.",
                &["code"],
                publishing()?,
            )?,
        })
    }
}
