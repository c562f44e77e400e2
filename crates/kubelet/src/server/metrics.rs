//! Metrics: the kubelet's own, and what containers use.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cri::{ContainerFilter, ContainerState, ContainerStats};
use http::StatusCode;
use prometheus::{Encoder, TextEncoder};

use crate::kubelet::Kubelet;
use crate::labels;
use crate::node::host;
use crate::server::{Answer, failure, text};

const NANOS: f64 = 1e9;

/// `/metrics`.
pub(super) fn own(kubelet: &Kubelet) -> Answer {
    let mut out = Vec::new();
    match TextEncoder::new().encode(&kubelet.deps.metrics.gather(), &mut out) {
        Ok(()) => text(out),
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// What running containers use, by the runtime.
pub(super) async fn running(kubelet: &Kubelet) -> Result<Vec<ContainerStats>, Answer> {
    let filter =
        ContainerFilter { state: Some(ContainerState::Running), ..ContainerFilter::default() };
    let stats = kubelet.deps.runtime.list_container_stats(&filter).await;
    let mut stats =
        stats.map_err(|error| failure(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()))?;
    stats.retain(|stats| stats.labels.contains_key(labels::POD_UID));
    stats.sort_by(|a, b| whose(a).cmp(&whose(b)));
    Ok(stats)
}

/// Namespace, pod and container.
pub(super) fn whose(stats: &ContainerStats) -> (&str, &str, &str) {
    let label = |key: &str| stats.labels.get(key).map(String::as_str).unwrap_or_default();
    (label(labels::POD_NAMESPACE), label(labels::POD_NAME), stats.metadata.name.as_str())
}

/// One metric's lines under their head.
struct Family(String);

impl Family {
    fn new(name: &str, kind: &str, help: &str) -> Self {
        Self(format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"))
    }

    fn add(&mut self, name: &str, labels: &str, value: f64, milliseconds: i64) {
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        // Writing to a String cannot fail.
        writeln!(self.0, "{name}{labels} {value} {milliseconds}").ok();
    }
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating point numbers")]
fn float(n: u64) -> f64 {
    n as f64
}

/// `/metrics/resource`.
pub(super) async fn resource(kubelet: &Kubelet) -> Answer {
    let stats = match running(kubelet).await {
        Ok(stats) => stats,
        Err(answer) => return answer,
    };
    let now = kubelet.deps.clock.now().as_millisecond();
    let mut cpu = Family::new(
        "container_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
    );
    let mut memory = Family::new(
        "container_memory_working_set_bytes",
        "gauge",
        "[STABLE] Current working set of the container in bytes",
    );
    let mut pods: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for stats in &stats {
        let (namespace, pod, container) = whose(stats);
        let own = format!("container={container:?},namespace={namespace:?},pod={pod:?}");
        let of_pod = pods.entry(format!("namespace={namespace:?},pod={pod:?}")).or_default();
        if let Some(used) = &stats.cpu {
            let seconds = float(used.usage_core_nano_seconds) / NANOS;
            cpu.add("container_cpu_usage_seconds_total", &own, seconds, now);
            of_pod.0 += seconds;
        }
        if let Some(used) = &stats.memory {
            let bytes = float(used.working_set_bytes);
            memory.add("container_memory_working_set_bytes", &own, bytes, now);
            of_pod.1 += bytes;
        }
    }
    let mut out = cpu.0 + &memory.0 + &node_families(kubelet, now);
    out.push_str(&pod_families(&pods, now));
    out.push_str(
        "# HELP resource_scrape_error [STABLE] 1 if there was an error while getting container \
         metrics, 0 otherwise\n# TYPE resource_scrape_error gauge\nresource_scrape_error 0\n",
    );
    text(out)
}

fn node_families(kubelet: &Kubelet, now: i64) -> String {
    let used = host::Usage::read(&kubelet.config.root_dir);
    let mut cpu = Family::new(
        "node_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
    );
    cpu.add("node_cpu_usage_seconds_total", "", float(used.cpu_nanos) / NANOS, now);
    let mut memory = Family::new(
        "node_memory_working_set_bytes",
        "gauge",
        "[STABLE] Current working set of the node in bytes",
    );
    let bytes = float(used.memory_working_set_bytes);
    memory.add("node_memory_working_set_bytes", "", bytes, now);
    cpu.0 + &memory.0
}

fn pod_families(pods: &BTreeMap<String, (f64, f64)>, now: i64) -> String {
    let mut cpu = Family::new(
        "pod_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
    );
    let mut memory = Family::new(
        "pod_memory_working_set_bytes",
        "gauge",
        "[STABLE] Current working set of the pod in bytes",
    );
    for (labels, (seconds, bytes)) in pods {
        cpu.add("pod_cpu_usage_seconds_total", labels, *seconds, now);
        memory.add("pod_memory_working_set_bytes", labels, *bytes, now);
    }
    cpu.0 + &memory.0
}

/// `/metrics/cadvisor`: the few of cAdvisor's metrics that the runtime knows.
pub(super) async fn cadvisor(kubelet: &Kubelet) -> Answer {
    let stats = match running(kubelet).await {
        Ok(stats) => stats,
        Err(answer) => return answer,
    };
    let now = kubelet.deps.clock.now().as_millisecond();
    let rows: [(&str, &str, &str, Read); 4] = [
        (
            "container_cpu_usage_seconds_total",
            "counter",
            "Cumulative cpu time consumed in seconds.",
            |s| Some(float(s.cpu.as_ref()?.usage_core_nano_seconds) / NANOS),
        ),
        ("container_memory_working_set_bytes", "gauge", "Current working set in bytes.", |s| {
            Some(float(s.memory.as_ref()?.working_set_bytes))
        }),
        (
            "container_memory_usage_bytes",
            "gauge",
            "Current memory usage in bytes, including all memory regardless of when it was accessed",
            |s| Some(float(s.memory.as_ref()?.usage_bytes)),
        ),
        ("container_memory_rss", "gauge", "Size of RSS in bytes.", |s| {
            Some(float(s.memory.as_ref()?.rss_bytes))
        }),
    ];
    let mut out = String::new();
    for (name, kind, help, read) in rows {
        let mut family = Family::new(name, kind, help);
        for stats in &stats {
            let (namespace, pod, container) = whose(stats);
            let labels = format!(
                "container={container:?},id=\"/{}\",namespace={namespace:?},pod={pod:?}",
                stats.id
            );
            if let Some(value) = read(stats) {
                family.add(name, &labels, value, now);
            }
        }
        out.push_str(&family.0);
    }
    text(out)
}

type Read = fn(&ContainerStats) -> Option<f64>;
