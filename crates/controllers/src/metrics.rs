//! What single controllers count and time, under upstream's names and labels.
//!
//! Queues are counted in `queue_metrics`.

use prometheus::core::Collector;
use prometheus::{
    Error, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, exponential_buckets,
};

/// All of them; clones count into the same.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) autoscaler: AutoscalerMetrics,
    /// Seconds between the time of a run and its Job.
    pub(crate) cron_job_skew: Histogram,
    pub(crate) device_evictions: EvictionMetrics,
    pub(crate) endpoint_slice_changes: IntCounterVec,
    pub(crate) endpoint_slice_syncs: IntCounterVec,
    pub(crate) ephemeral_created: IntCounter,
    pub(crate) ephemeral_failed: IntCounter,
    pub(crate) job: JobMetrics,
    pub(crate) mirrored_slice_changes: IntCounterVec,
    /// Seconds between the end of a Job's time and its deletion.
    pub(crate) job_ttl: Histogram,
    pub(crate) nodes: NodeMetrics,
    pub(crate) pods_removed: IntCounterVec,
    pub(crate) pods_not_removed: IntCounterVec,
    pub(crate) root_ca_syncs: IntCounterVec,
    pub(crate) root_ca_seconds: HistogramVec,
    pub(crate) taint_evictions: EvictionMetrics,
    pub(crate) trust_bundle_syncs: IntCounterVec,
    pub(crate) trust_bundle_seconds: HistogramVec,
}

#[derive(Clone)]
pub(crate) struct AutoscalerMetrics {
    pub(crate) computations: IntCounterVec,
    pub(crate) computation_seconds: HistogramVec,
    pub(crate) desired: IntGaugeVec,
    pub(crate) number: IntGauge,
    pub(crate) reconciliations: IntCounterVec,
    pub(crate) reconciliation_seconds: HistogramVec,
}

#[derive(Clone)]
pub(crate) struct EvictionMetrics {
    pub(crate) deletions: IntCounter,
    /// Seconds between the end of a toleration and the deletion.
    pub(crate) latency: Histogram,
}

#[derive(Clone)]
pub(crate) struct JobMetrics {
    pub(crate) finished: IntCounterVec,
    pub(crate) pods_created: IntCounterVec,
    pub(crate) pods_finished: IntCounterVec,
    pub(crate) syncs: IntCounterVec,
    pub(crate) sync_seconds: HistogramVec,
    pub(crate) of_others: IntCounterVec,
}

#[derive(Clone)]
pub(crate) struct NodeMetrics {
    pub(crate) evictions: IntCounterVec,
    pub(crate) zone_health: GaugeVec,
    pub(crate) zone_size: IntGaugeVec,
    pub(crate) unhealthy: IntGaugeVec,
}

impl Metrics {
    /// Registers them.
    pub(crate) fn new(registry: &telemetry::Registry) -> Result<Self, Error> {
        let sheet = Sheet { registry };
        Ok(Self {
            autoscaler: sheet.autoscaler()?,
            cron_job_skew: sheet.histogram(
                "cronjob_controller_job_creation_skew_duration_seconds",
                "Time between when a run was due and when its Job was made.",
                exponential_buckets(1.0, 2.0, 10)?,
            )?,
            device_evictions: sheet.evictions("device_taint_eviction_controller")?,
            endpoint_slice_changes: sheet.counters(
                "endpoint_slice_controller_changes",
                "EndpointSlices that were written.",
                &["operation"],
            )?,
            endpoint_slice_syncs: sheet.counters(
                "endpoint_slice_controller_syncs",
                "Looks at services for their EndpointSlices.",
                &["result"],
            )?,
            ephemeral_created: sheet.counter(
                "ephemeral_volume_controller_create_total",
                "Claims that were to be made for volumes of pods.",
            )?,
            ephemeral_failed: sheet.counter(
                "ephemeral_volume_controller_create_failures_total",
                "Claims that could not be made for volumes of pods.",
            )?,
            job: sheet.job()?,
            mirrored_slice_changes: sheet.counters(
                "endpoint_slice_mirroring_controller_changes",
                "EndpointSlices that were written for Endpoints of others.",
                &["operation"],
            )?,
            job_ttl: sheet.histogram(
                "ttl_after_finished_controller_job_deletion_duration_seconds",
                "Time between when a Job was to go and when it was deleted.",
                exponential_buckets(0.1, 2.0, 14)?,
            )?,
            nodes: sheet.nodes()?,
            pods_removed: sheet.counters(
                "pod_gc_collector_force_delete_pods_total",
                "Pods that were deleted because nobody else would.",
                &["namespace", "reason"],
            )?,
            pods_not_removed: sheet.counters(
                "pod_gc_collector_force_delete_pod_errors_total",
                "Pods that nobody else deletes and that could not be.",
                &["namespace", "reason"],
            )?,
            root_ca_syncs: sheet.counters(
                "root_ca_cert_publisher_sync_total",
                "Namespaces whose certificates were looked at, by the API server's answer.",
                &["code"],
            )?,
            root_ca_seconds: sheet.histograms(
                "root_ca_cert_publisher_sync_duration_seconds",
                "How long that took.",
                &["code"],
                exponential_buckets(0.001, 2.0, 15)?,
            )?,
            taint_evictions: sheet.evictions("taint_eviction_controller")?,
            trust_bundle_syncs: sheet.counters(
                "clustertrustbundle_publisher_sync_total",
                "Looks at the authority's bundle, by the API server's answer.",
                &["code"],
            )?,
            trust_bundle_seconds: sheet.histograms(
                "clustertrustbundle_publisher_sync_duration_seconds",
                "How long that took.",
                &["code"],
                exponential_buckets(0.001, 2.0, 15)?,
            )?,
        })
    }
}

struct Sheet<'a> {
    registry: &'a telemetry::Registry,
}

impl Sheet<'_> {
    fn autoscaler(&self) -> Result<AutoscalerMetrics, Error> {
        let name = |rest: &str| format!("horizontal_pod_autoscaler_controller_{rest}");
        let reconciled = ["action", "error"];
        let computed = ["action", "error", "metric_type"];
        let buckets = exponential_buckets(0.001, 2.0, 15)?;
        Ok(AutoscalerMetrics {
            computations: self.counters(
                &name("metric_computation_total"),
                "Metrics that were asked for replicas.",
                &computed,
            )?,
            computation_seconds: self.histograms(
                &name("metric_computation_duration_seconds"),
                "How long metrics took to answer.",
                &computed,
                buckets.clone(),
            )?,
            desired: self.gauges(
                &name("desired_replicas"),
                "Replicas that autoscalers want.",
                &["hpa_name", "namespace"],
            )?,
            number: self.add(IntGauge::new(
                name("num_horizontal_pod_autoscalers"),
                "Autoscalers that are followed.",
            ))?,
            reconciliations: self.counters(
                &name("reconciliations_total"),
                "Looks at autoscalers.",
                &reconciled,
            )?,
            reconciliation_seconds: self.histograms(
                &name("reconciliation_duration_seconds"),
                "How long looks at autoscalers took.",
                &reconciled,
                buckets,
            )?,
        })
    }

    fn evictions(&self, controller: &str) -> Result<EvictionMetrics, Error> {
        // From 5 ms to 4 minutes.
        let buckets = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0, 120.0, 180.0, 240.0];
        Ok(EvictionMetrics {
            deletions: self.counter(
                &format!("{controller}_pod_deletions_total"),
                "Pods that were deleted for a taint.",
            )?,
            latency: self.histogram(
                &format!("{controller}_pod_deletion_duration_seconds"),
                "Time between when a pod no longer tolerated a taint and its deletion.",
                buckets.to_vec(),
            )?,
        })
    }

    fn job(&self) -> Result<JobMetrics, Error> {
        let name = |rest: &str| format!("job_controller_{rest}");
        let synced = ["action", "completion_mode", "result"];
        Ok(JobMetrics {
            finished: self.counters(
                &name("jobs_finished_total"),
                "Jobs that have ended.",
                &["completion_mode", "reason", "result"],
            )?,
            pods_created: self.counters(
                &name("job_pods_creation_total"),
                "Pods that were made for Jobs, or could not be.",
                &["reason", "status"],
            )?,
            pods_finished: self.counters(
                &name("job_pods_finished_total"),
                "Pods of Jobs that have ended and been counted.",
                &["completion_mode", "result"],
            )?,
            syncs: self.counters(&name("job_syncs_total"), "Looks at Jobs.", &synced)?,
            sync_seconds: self.histograms(
                &name("job_sync_duration_seconds"),
                "How long looks at Jobs took.",
                &synced,
                exponential_buckets(0.004, 2.0, 15)?,
            )?,
            of_others: self.counters(
                &name("jobs_by_external_controller_total"),
                "Jobs that another controller manages.",
                &["controller_name"],
            )?,
        })
    }

    fn nodes(&self) -> Result<NodeMetrics, Error> {
        let name = |rest: &str| format!("node_collector_{rest}");
        let zone = ["zone"];
        Ok(NodeMetrics {
            evictions: self.counters(
                &name("evictions_total"),
                "Nodes whose pods were to leave.",
                &zone,
            )?,
            zone_health: self.add(GaugeVec::new(
                Opts::new(name("zone_health"), "Ready nodes of a zone, in percent."),
                &zone,
            ))?,
            zone_size: self.gauges(&name("zone_size"), "Nodes of a zone.", &zone)?,
            unhealthy: self.gauges(
                &name("unhealthy_nodes_in_zone"),
                "Nodes of a zone that are not ready.",
                &zone,
            )?,
        })
    }

    fn add<C: Collector + Clone + 'static>(&self, metric: Result<C, Error>) -> Result<C, Error> {
        let metric = metric?;
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, Error> {
        self.add(IntCounter::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, Error> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, Error> {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str, buckets: Vec<f64>) -> Result<Histogram, Error> {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)))
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: Vec<f64>,
    ) -> Result<HistogramVec, Error> {
        self.add(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels))
    }
}
