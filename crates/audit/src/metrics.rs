//! Upstream's metrics of audit, and what is said of failures in the log.
//!
//! Upstream: `apiserver/pkg/audit/metrics.go`.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clock::SharedClock;
use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, Opts};

use crate::event::Level;

/// Failures come in masses; one line a second tells as much as thousands.
const QUIET: Duration = Duration::from_secs(1);

/// The metrics of one server.
pub(crate) struct Metrics {
    events: IntCounter,
    errors: IntCounterVec,
    levels: [IntCounter; 4],
    rejected: IntCounter,
    clock: SharedClock,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    last: Option<Instant>,
    /// Events since then.
    since: usize,
}

impl Metrics {
    pub(crate) fn new(registry: &telemetry::Registry, clock: SharedClock) -> Self {
        let counter = |name: &str, help: &str| {
            let made = IntCounter::new(name, help);
            register(registry, made.expect("the name is valid"))
        };
        let labelled = |name: &str, help: &str, label: &str| {
            let made = IntCounterVec::new(Opts::new(name, help), &[label]);
            register(registry, made.expect("the names are valid"))
        };
        let levels = labelled(
            "apiserver_audit_level_total",
            "Requests by the level that the audit policy chose.",
            "level",
        );
        Self {
            events: counter("apiserver_audit_event_total", "Audit events made."),
            errors: labelled(
                "apiserver_audit_error_total",
                "Audit events that were not recorded, by the plugin that failed.",
                "plugin",
            ),
            levels: Level::ALL.map(|level| levels.with_label_values(&[level.as_str()])),
            rejected: counter(
                "apiserver_audit_requests_rejected_total",
                "Requests refused since their audit events could not be stored.",
            ),
            clock,
            told: Mutex::default(),
        }
    }

    /// Counts the level of a request.
    pub(crate) fn evaluated(&self, level: Level) {
        self.levels[level as usize].inc();
    }

    /// Counts an event.
    pub(crate) fn made(&self) {
        self.events.inc();
    }

    /// Counts a request that was refused for want of its event.
    pub(crate) fn rejected(&self) {
        self.rejected.inc();
    }

    /// Counts events that are lost.
    pub(crate) fn lost(&self, plugin: &'static str, events: usize, why: &str) {
        if events == 0 {
            return;
        }
        self.errors.with_label_values(&[plugin]).inc_by(events as u64);
        let now = self.clock.monotonic();
        let affected = {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            told.since += events;
            let is_quiet = |last: Instant| now.saturating_duration_since(last) < QUIET;
            if told.last.is_some_and(is_quiet) {
                return;
            }
            told.last = Some(now);
            std::mem::take(&mut told.since)
        };
        tracing::error!(plugin, events = affected, why, "audit events are lost");
    }
}

fn register<T: Collector + Clone + 'static>(registry: &telemetry::Registry, metric: T) -> T {
    // A second server in one process keeps its numbers to itself.
    registry.register(Box::new(metric.clone())).ok();
    metric
}
