//! The kubelet's own metrics, by upstream's names.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// What is counted. Clones count together.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) running_pods: IntGauge,
    pub(crate) running_containers: IntGaugeVec,
    pub(crate) started_pods: IntCounter,
    pub(crate) started_pods_errors: IntCounter,
    pub(crate) started_containers: IntCounterVec,
    pub(crate) started_containers_errors: IntCounterVec,
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
        };
        let all: [Box<dyn prometheus::core::Collector>; 6] = [
            Box::new(metrics.running_pods.clone()),
            Box::new(metrics.running_containers.clone()),
            Box::new(metrics.started_pods.clone()),
            Box::new(metrics.started_pods_errors.clone()),
            Box::new(metrics.started_containers.clone()),
            Box::new(metrics.started_containers_errors.clone()),
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
