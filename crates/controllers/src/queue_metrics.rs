//! Metrics of the work queues, with upstream's names.
//!
//! Upstream: `component-base/metrics/prometheus/workqueue`.

use std::fmt::Display;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client::{AtWork, QueueObserver, WorkQueue, WorkQueueConfig};
use clock::SharedClock;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts,
};

/// All of them.
#[derive(Clone)]
pub(crate) struct QueueMetrics {
    depth: IntGaugeVec,
    adds: IntCounterVec,
    waits: HistogramVec,
    works: HistogramVec,
    retries: IntCounterVec,
    at_work: AtWorkCollector,
}

impl QueueMetrics {
    /// Registers them.
    pub(crate) fn new(registry: &telemetry::Registry) -> Result<Self, prometheus::Error> {
        // From 10 ns to 10 s, each ten times the one before.
        let buckets = prometheus::exponential_buckets(1e-8, 10.0, 10)?;
        let times = |name: &str, help: &str| {
            let opts = HistogramOpts::new(name, help).buckets(buckets.clone());
            HistogramVec::new(opts, &["name"])
        };
        let metrics = Self {
            depth: IntGaugeVec::new(
                Opts::new("workqueue_depth", "Keys that wait in the queue."),
                &["name"],
            )?,
            adds: IntCounterVec::new(
                Opts::new("workqueue_adds_total", "Keys that were added to the queue."),
                &["name"],
            )?,
            waits: times("workqueue_queue_duration_seconds", "How long keys wait.")?,
            works: times("workqueue_work_duration_seconds", "How long keys are handled.")?,
            retries: IntCounterVec::new(
                Opts::new("workqueue_retries_total", "Keys that were handled again."),
                &["name"],
            )?,
            at_work: AtWorkCollector::new()?,
        };
        registry.register(Box::new(metrics.depth.clone()))?;
        registry.register(Box::new(metrics.adds.clone()))?;
        registry.register(Box::new(metrics.waits.clone()))?;
        registry.register(Box::new(metrics.works.clone()))?;
        registry.register(Box::new(metrics.retries.clone()))?;
        registry.register(Box::new(metrics.at_work.clone()))?;
        Ok(metrics)
    }

    /// A queue whose work is counted.
    pub(crate) fn queue<K>(&self, config: WorkQueueConfig, clock: SharedClock) -> WorkQueue<K>
    where
        K: Clone + Eq + Hash + Display + Send + 'static,
    {
        let queue = WorkQueue::observed(config, clock, self.of(config.name));
        let asked = queue.clone();
        let mut queues = self.at_work.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.push((config.name, Box::new(move || asked.at_work())));
        queue
    }

    fn of(&self, name: &str) -> Arc<dyn QueueObserver> {
        Arc::new(OneQueue {
            depth: self.depth.with_label_values(&[name]),
            adds: self.adds.with_label_values(&[name]),
            waits: self.waits.with_label_values(&[name]),
            works: self.works.with_label_values(&[name]),
            retries: self.retries.with_label_values(&[name]),
        })
    }
}

struct OneQueue {
    depth: IntGauge,
    adds: IntCounter,
    waits: Histogram,
    works: Histogram,
    retries: IntCounter,
}

impl QueueObserver for OneQueue {
    fn added(&self) {
        self.adds.inc();
    }

    fn depth(&self, depth: usize) {
        self.depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
    }

    fn waited(&self, wait: Duration) {
        self.waits.observe(wait.as_secs_f64());
    }

    fn worked(&self, work: Duration) {
        self.works.observe(work.as_secs_f64());
    }

    fn retried(&self) {
        self.retries.inc();
    }
}

/// Asks a queue what its workers do.
type Ask = Box<dyn Fn() -> AtWork + Send + Sync>;

/// What grows while nothing happens, and is therefore looked at when it is asked for.
#[derive(Clone)]
struct AtWorkCollector {
    unfinished: GaugeVec,
    longest: GaugeVec,
    queues: Arc<Mutex<Vec<(&'static str, Ask)>>>,
}

impl AtWorkCollector {
    fn new() -> Result<Self, prometheus::Error> {
        let unfinished = Opts::new(
            "workqueue_unfinished_work_seconds",
            "How long the keys that are being handled have been, together.",
        );
        let longest = Opts::new(
            "workqueue_longest_running_processor_seconds",
            "How long the oldest of the keys that are being handled has been.",
        );
        Ok(Self {
            unfinished: GaugeVec::new(unfinished, &["name"])?,
            longest: GaugeVec::new(longest, &["name"])?,
            queues: Arc::default(),
        })
    }
}

impl Collector for AtWorkCollector {
    fn desc(&self) -> Vec<&Desc> {
        let mut all = self.unfinished.desc();
        all.extend(self.longest.desc());
        all
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, ask) in queues.iter() {
            let work = ask();
            self.unfinished.with_label_values(&[*name]).set(work.total.as_secs_f64());
            self.longest.with_label_values(&[*name]).set(work.longest.as_secs_f64());
        }
        let mut all = self.unfinished.collect();
        all.extend(self.longest.collect());
        all
    }
}

#[cfg(test)]
mod tests {
    use meta::ObjectKey;

    use super::*;

    #[test]
    fn a_queue_is_counted_under_its_name() {
        let registry = telemetry::Registry::new();
        let metrics = QueueMetrics::new(&registry).unwrap();
        let clock = Arc::new(clock::SystemClock);
        let config = WorkQueueConfig::new("job", 1);
        let queue = metrics.queue(config, clock);
        queue.add(ObjectKey::new("n", "a"));
        queue.add(ObjectKey::new("n", "a"));
        queue.add(ObjectKey::new("n", "b"));
        let families = registry.gather();
        let value = |name: &str| {
            let family = families.iter().find(|family| family.name() == name).unwrap();
            let metric = &family.get_metric()[0];
            assert_eq!(metric.get_label()[0].value(), "job");
            metric.get_counter().get_value() + metric.get_gauge().get_value()
        };
        assert_eq!(value("workqueue_adds_total"), 2.0);
        assert_eq!(value("workqueue_depth"), 2.0);
        assert_eq!(value("workqueue_unfinished_work_seconds"), 0.0);
        assert_eq!(value("workqueue_longest_running_processor_seconds"), 0.0);
    }
}
