//! What was done, counted, and how long pods took to start.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Buckets of start times: each is a tenth wider than the one before, from a millisecond to a day.
const BUCKETS: usize = 192;
const GROWTH: f64 = 1.1;

/// Counts of one run.
#[derive(Default)]
pub(crate) struct Tally {
    /// Nodes that registered.
    pub(super) registered: AtomicU64,
    /// Pods that were made to run, restarts not counted.
    pub(super) started: AtomicU64,
    /// Pods that ended.
    pub(super) succeeded: AtomicU64,
    /// Pods that failed, deleted ones among them.
    pub(super) failed: AtomicU64,
    /// Containers that crashed and will be restarted.
    pub(super) crashed: AtomicU64,
    /// Deleted pods that were ended.
    pub(super) removed: AtomicU64,
    /// Leases that were renewed.
    pub(super) renewed: AtomicU64,
    /// Requests that failed and were repeated or given up.
    pub(super) errors: AtomicU64,
    starts: Mutex<Histogram>,
}

struct Histogram {
    buckets: [u64; BUCKETS],
    longest: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], longest: Duration::ZERO }
    }
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Tally {
    /// A pod runs that was bound so long ago.
    pub(super) fn started(&self, after: Duration) {
        count(&self.started);
        let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        starts.buckets[bucket(after)] += 1;
        starts.longest = starts.longest.max(after);
    }

    /// A line of it, while it goes on.
    pub(crate) fn line(&self, nodes: usize, running: usize, waiting: usize) -> String {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        format!(
            "nodes {nodes}, pods: {running} running, {waiting} waiting, {} started, {} ended, {} \
             removed; errors {}",
            get(&self.started),
            get(&self.succeeded) + get(&self.failed),
            get(&self.removed),
            get(&self.errors),
        )
    }

    /// All of it, as rows of a table.
    pub(crate) fn report(&self) -> Vec<Vec<String>> {
        let row = |what: &str, value: String| vec![what.to_owned(), value];
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed).to_string();
        let mut rows = vec![
            row("NODES REGISTERED", get(&self.registered)),
            row("LEASES RENEWED", get(&self.renewed)),
            row("PODS STARTED", get(&self.started)),
            row("PODS SUCCEEDED", get(&self.succeeded)),
            row("PODS FAILED", get(&self.failed)),
            row("CONTAINERS CRASHED", get(&self.crashed)),
            row("PODS REMOVED", get(&self.removed)),
            row("FAILED REQUESTS", get(&self.errors)),
        ];
        let starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(half), Some(most)) = (starts.at(0.5), starts.at(0.99)) {
            let value = format!(
                "p50 {}, p99 {}, max {}",
                milliseconds(half),
                milliseconds(most),
                milliseconds(starts.longest)
            );
            rows.push(row("BOUND TO RUNNING", value));
        }
        rows
    }
}

impl Histogram {
    /// The upper end of the bucket below which this part of the times lies.
    fn at(&self, part: f64) -> Option<Duration> {
        let total: u64 = self.buckets.iter().sum();
        if total == 0 {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
        let wanted = total as f64 * part;
        let mut seen = 0.0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
            let count = *count as f64;
            seen += count;
            if seen >= wanted && count > 0.0 {
                return Some(upper(bucket).min(self.longest));
            }
        }
        Some(self.longest)
    }
}

fn bucket(time: Duration) -> usize {
    (0..BUCKETS - 1).find(|bucket| time <= upper(*bucket)).unwrap_or(BUCKETS - 1)
}

fn upper(bucket: usize) -> Duration {
    let power = i32::try_from(bucket).unwrap_or(i32::MAX);
    Duration::from_secs_f64(0.001 * GROWTH.powi(power))
}

fn milliseconds(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_to_a_tenth() {
        let tally = Tally::default();
        for n in 1..=100 {
            tally.started(Duration::from_millis(n * 10));
        }
        let starts = tally.starts.lock().unwrap();
        let half = starts.at(0.5).unwrap().as_millis();
        assert!((500..=551).contains(&half), "{half}");
        let most = starts.at(0.99).unwrap().as_millis();
        assert!((990..=1000).contains(&most), "{most}");
        assert_eq!(Histogram::default().at(0.5), None);
    }
}
