//! Upstream's stable metrics of the API server.

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// The metrics of one server; cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) requests: IntCounterVec,
    pub(crate) duration: HistogramVec,
    pub(crate) inflight: IntGaugeVec,
    pub(crate) objects: IntGaugeVec,
}

/// Upstream's buckets of `apiserver_request_duration_seconds`.
const DURATIONS: [f64; 21] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 20.0, 30.0, 45.0,
];

impl Metrics {
    pub(crate) fn new(registry: Registry) -> Self {
        let labels = ["verb", "group", "version", "resource", "subresource", "scope"];
        let with = |extra: &'static str| [&labels[..], &[extra]].concat();
        let requests = IntCounterVec::new(
            Opts::new("apiserver_request_total", "Requests by verb, resource and code."),
            &with("code"),
        )
        .expect("the labels are valid");
        let duration = HistogramVec::new(
            HistogramOpts::new("apiserver_request_duration_seconds", "Time of requests.")
                .buckets(DURATIONS.to_vec()),
            &labels,
        )
        .expect("the labels are valid");
        let inflight = IntGaugeVec::new(
            Opts::new("apiserver_current_inflight_requests", "Requests being worked on."),
            &["request_kind"],
        )
        .expect("the labels are valid");
        let objects = IntGaugeVec::new(
            Opts::new("apiserver_storage_objects", "Objects by resource."),
            &["resource"],
        )
        .expect("the labels are valid");
        // A second server in one process keeps its numbers to itself.
        registry.register(Box::new(requests.clone())).ok();
        registry.register(Box::new(duration.clone())).ok();
        registry.register(Box::new(inflight.clone())).ok();
        registry.register(Box::new(objects.clone())).ok();
        Self { registry, requests, duration, inflight, objects }
    }

    /// The text that is scraped.
    pub(crate) fn text(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            tracing::warn!(%error, "metrics cannot be printed");
        }
        out
    }
}
