//! The kubelet's own metrics, by upstream's names.

use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// Upstream `imagePullDurationBuckets`, in seconds.
const PULL_BUCKETS: [f64; 14] =
    [1.0, 5.0, 10.0, 20.0, 30.0, 60.0, 180.0, 300.0, 600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0];

/// What is counted. Clones count together.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) running_pods: IntGauge,
    pub(crate) running_containers: IntGaugeVec,
    pub(crate) started_pods: IntCounter,
    pub(crate) started_pods_errors: IntCounter,
    pub(crate) started_containers: IntCounterVec,
    pub(crate) started_containers_errors: IntCounterVec,
    pub(crate) images_collected: IntCounterVec,
    pub(crate) image_pull_duration: HistogramVec,
}

impl Metrics {
    /// Registers them; what is registered already, by another kubelet of the process, is counted
    /// but not shown.
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let by = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels)
        };
        let metrics = Self {
            running_pods: IntGauge::new(
                "kubelet_running_pods",
                "Number of pods that have a running pod sandbox",
            )?,
            running_containers: IntGaugeVec::new(
                Opts::new("kubelet_running_containers", "Number of containers currently running"),
                &["container_state"],
            )?,
            started_pods: IntCounter::new(
                "kubelet_started_pods_total",
                "Cumulative number of pods started",
            )?,
            started_pods_errors: IntCounter::new(
                "kubelet_started_pods_errors_total",
                "Cumulative number of errors when starting pods",
            )?,
            started_containers: by(
                "kubelet_started_containers_total",
                "Cumulative number of containers started",
                &["container_type"],
            )?,
            started_containers_errors: by(
                "kubelet_started_containers_errors_total",
                "Cumulative number of errors when starting containers",
                &["container_type", "code"],
            )?,
            images_collected: by(
                "kubelet_image_garbage_collected_total",
                "Total number of images garbage collected by the kubelet, whether through disk \
                 usage or image age",
                &["reason"],
            )?,
            image_pull_duration: HistogramVec::new(
                HistogramOpts::new(
                    "kubelet_image_pull_duration_seconds",
                    "Duration in seconds to pull an image",
                )
                .buckets(PULL_BUCKETS.to_vec()),
                &["image_size_in_bytes"],
            )?,
        };
        let all: [Box<dyn prometheus::core::Collector>; 8] = [
            Box::new(metrics.running_pods.clone()),
            Box::new(metrics.running_containers.clone()),
            Box::new(metrics.started_pods.clone()),
            Box::new(metrics.started_pods_errors.clone()),
            Box::new(metrics.started_containers.clone()),
            Box::new(metrics.started_containers_errors.clone()),
            Box::new(metrics.images_collected.clone()),
            Box::new(metrics.image_pull_duration.clone()),
        ];
        for collector in all {
            match registry.register(collector) {
                Ok(()) | Err(prometheus::Error::AlreadyReg) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(metrics)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        metrics.started_pods.inc();
        assert!(Metrics::register(&registry).is_ok());
        let shown = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(shown.contains("\nkubelet_started_pods_total 1\n"), "{shown}");
    }
}
