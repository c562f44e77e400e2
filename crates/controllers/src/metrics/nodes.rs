//! What the controllers of nodes count.

use prometheus::{
    Error, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec,
    exponential_buckets,
};

use super::sheet::Sheet;

#[derive(Clone)]
pub(crate) struct EvictionMetrics {
    pub(crate) deletions: IntCounter,
    /// Seconds between the end of a toleration and the deletion.
    pub(crate) latency: Histogram,
}

impl EvictionMetrics {
    pub(super) fn new(sheet: &Sheet<'_>, controller: &str) -> Result<Self, Error> {
        // From 5 ms to 4 minutes.
        let buckets = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0, 120.0, 180.0, 240.0];
        Ok(Self {
            deletions: sheet.counter(
                &format!("{controller}_pod_deletions_total"),
                "Pods that were deleted for a taint.",
            )?,
            latency: sheet.histogram(
                &format!("{controller}_pod_deletion_duration_seconds"),
                "Time between when a pod no longer tolerated a taint and its deletion.",
                buckets.to_vec(),
            )?,
        })
    }
}

#[derive(Clone)]
pub(crate) struct NodeMetrics {
    pub(crate) evictions: IntCounterVec,
    pub(crate) look_seconds: Histogram,
    pub(crate) zone_health: GaugeVec,
    pub(crate) zone_size: IntGaugeVec,
    pub(crate) unhealthy: IntGaugeVec,
}

impl NodeMetrics {
    pub(super) fn new(sheet: &Sheet<'_>) -> Result<Self, Error> {
        let name = |rest: &str| format!("node_collector_{rest}");
        let zone = ["zone"];
        Ok(Self {
            evictions: sheet.counters(
                &name("evictions_total"),
                "Nodes whose pods were to leave.",
                &zone,
            )?,
            look_seconds: sheet.histogram(
                &name("update_node_health_duration_seconds"),
                "How long looks at nodes took.",
                exponential_buckets(0.001, 4.0, 8)?,
            )?,
            zone_health: sheet.shares(
                &name("zone_health"),
                "Ready nodes of a zone, in percent.",
                &zone,
            )?,
            zone_size: sheet.gauges(&name("zone_size"), "Nodes of a zone.", &zone)?,
            unhealthy: sheet.gauges(
                &name("unhealthy_nodes_in_zone"),
                "Nodes of a zone that are not ready.",
                &zone,
            )?,
        })
    }
}

/// Of the ranges of pod addresses, by cluster range.
#[derive(Clone)]
pub(crate) struct RangeMetrics {
    pub(crate) allocations: IntCounterVec,
    pub(crate) releases: IntCounterVec,
    pub(crate) max: IntGaugeVec,
    pub(crate) usage: GaugeVec,
    pub(crate) tries: HistogramVec,
}

impl RangeMetrics {
    pub(super) fn new(sheet: &Sheet<'_>) -> Result<Self, Error> {
        let name = |rest: &str| format!("node_ipam_controller_{rest}");
        let range = ["clusterCIDR"];
        Ok(Self {
            allocations: sheet.counters(
                &name("cidrset_cidrs_allocations_total"),
                "Ranges that nodes were given, or had.",
                &range,
            )?,
            releases: sheet.counters(
                &name("cidrset_cidrs_releases_total"),
                "Ranges that nodes had.",
                &range,
            )?,
            // Spelled as upstream spells it.
            max: sheet.gauges(&name("cirdset_max_cidrs"), "Ranges that there are.", &range)?,
            usage: sheet.shares(
                &name("cidrset_usage_cidrs"),
                "The part of the ranges that nodes have.",
                &range,
            )?,
            tries: sheet.histograms(
                &name("cidrset_allocation_tries_per_request"),
                "Ranges that were looked at and taken before one was given.",
                &range,
                exponential_buckets(1.0, 5.0, 5)?,
            )?,
        })
    }
}

/// Of requests for the state of pools of devices, by driver.
#[derive(Clone)]
pub(crate) struct PoolRequestMetrics {
    pub(crate) processed: IntCounterVec,
    pub(crate) errors: IntCounterVec,
    pub(crate) seconds: HistogramVec,
}

impl PoolRequestMetrics {
    pub(super) fn new(sheet: &Sheet<'_>) -> Result<Self, Error> {
        let name = |rest: &str| format!("resourcepoolstatusrequest_controller_{rest}");
        let driver = ["driver_name"];
        Ok(Self {
            processed: sheet.counters(
                &name("requests_processed_total"),
                "Requests that were answered, or could not be.",
                &driver,
            )?,
            errors: sheet.counters(
                &name("request_processing_errors_total"),
                "Answers that could not be written.",
                &driver,
            )?,
            seconds: sheet.histograms(
                &name("request_processing_duration_seconds"),
                "How long answers took.",
                &driver,
                exponential_buckets(0.001, 2.0, 15)?,
            )?,
        })
    }
}
