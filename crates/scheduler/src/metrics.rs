//! Metrics, with upstream's names.

use std::time::Duration;

use prometheus::{
    CounterVec, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, Opts, Registry,
    exponential_buckets,
};

use crate::queue::Depths;

/// Upstream's profile label for the default profile.
const PROFILE: &str = "default-scheduler";

/// How a try ended.
#[derive(Clone, Copy, Debug)]
pub enum Attempt {
    /// Bound.
    Scheduled,
    /// Fits nowhere.
    Unschedulable,
    /// Failed otherwise.
    Error,
}

/// The scheduler's metrics.
pub struct Metrics {
    attempts: CounterVec,
    duration: HistogramVec,
    sli: HistogramVec,
    pending: GaugeVec,
    preemptions: IntCounter,
    victims: Histogram,
}

impl Metrics {
    /// Registers them. An error means that they are registered already.
    ///
    /// # Errors
    /// A name that is taken or not allowed.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            attempts: CounterVec::new(
                Opts::new(
                    "scheduler_schedule_attempts_total",
                    "Tries to schedule a pod, by how they ended.",
                ),
                &["profile", "result"],
            )?,
            duration: HistogramVec::new(
                HistogramOpts::new(
                    "scheduler_scheduling_attempt_duration_seconds",
                    "Time of one try: decision and binding.",
                )
                .buckets(exponential_buckets(0.001, 2.0, 15)?),
                &["profile", "result"],
            )?,
            sli: HistogramVec::new(
                HistogramOpts::new(
                    "scheduler_pod_scheduling_sli_duration_seconds",
                    "Time from the pod's arrival in the queue to its binding.",
                )
                .buckets(exponential_buckets(0.01, 2.0, 20)?),
                &["attempts"],
            )?,
            pending: GaugeVec::new(
                Opts::new("scheduler_pending_pods", "Waiting pods, by queue."),
                &["queue"],
            )?,
            preemptions: IntCounter::new(
                "scheduler_preemption_attempts_total",
                "Preemptions carried out.",
            )?,
            victims: Histogram::with_opts(
                HistogramOpts::new("scheduler_preemption_victims", "Victims of one preemption.")
                    .buckets(exponential_buckets(1.0, 2.0, 7)?),
            )?,
        };
        registry.register(Box::new(metrics.attempts.clone()))?;
        registry.register(Box::new(metrics.duration.clone()))?;
        registry.register(Box::new(metrics.sli.clone()))?;
        registry.register(Box::new(metrics.pending.clone()))?;
        registry.register(Box::new(metrics.preemptions.clone()))?;
        registry.register(Box::new(metrics.victims.clone()))?;
        Ok(metrics)
    }

    pub(crate) fn attempt(&self, result: Attempt, took: Duration) {
        let result = match result {
            Attempt::Scheduled => "scheduled",
            Attempt::Unschedulable => "unschedulable",
            Attempt::Error => "error",
        };
        self.attempts.with_label_values(&[PROFILE, result]).inc();
        self.duration.with_label_values(&[PROFILE, result]).observe(took.as_secs_f64());
    }

    pub(crate) fn bound(&self, attempts: u32, since_arrival: Duration) {
        let attempts = if attempts > 15 { "16+".to_owned() } else { attempts.to_string() };
        self.sli.with_label_values(&[&attempts]).observe(since_arrival.as_secs_f64());
    }

    pub(crate) fn preempted(&self, victims: usize) {
        self.preemptions.inc();
        self.victims.observe(f64::from(u32::try_from(victims).unwrap_or(u32::MAX)));
    }

    pub(crate) fn queue(&self, depths: Depths) {
        let depths = [
            ("active", depths.active),
            ("backoff", depths.backoff),
            ("unschedulable", depths.unschedulable),
            ("gated", depths.gated),
        ];
        for (queue, depth) in depths {
            let depth = f64::from(u32::try_from(depth).unwrap_or(u32::MAX));
            self.pending.with_label_values(&[queue]).set(depth);
        }
    }
}
