//! What the store tells about itself.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Opts, Registry};

/// The store's metrics; cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) sync_seconds: Histogram,
    pub(crate) batch_writes: Histogram,
    pub(crate) refused: IntCounter,
    pub(crate) revision: IntGauge,
    pub(crate) keys: IntGauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            sync_seconds: histogram(
                "store_sync_duration_seconds",
                "Time of one fdatasync of the log.",
                prometheus::exponential_buckets(0.000_1, 2.0, 16),
            ),
            batch_writes: histogram(
                "store_batch_writes",
                "Writes that shared one fdatasync.",
                prometheus::exponential_buckets(1.0, 2.0, 11),
            ),
            refused: IntCounter::new("store_refused_writes_total", "Writes the disk refused.")
                .expect("the name is valid"),
            revision: IntGauge::new("store_revision", "The newest revision.")
                .expect("the name is valid"),
            keys: IntGauge::new("store_keys", "Keys in the index.").expect("the name is valid"),
        }
    }

    /// Registers everything; a second store in one process keeps its numbers to itself.
    pub(crate) fn register(&self, registry: &Registry) {
        registry.register(Box::new(self.sync_seconds.clone())).ok();
        registry.register(Box::new(self.batch_writes.clone())).ok();
        registry.register(Box::new(self.refused.clone())).ok();
        registry.register(Box::new(self.revision.clone())).ok();
        registry.register(Box::new(self.keys.clone())).ok();
    }
}

fn histogram(name: &str, help: &str, buckets: prometheus::Result<Vec<f64>>) -> Histogram {
    let buckets = buckets.expect("the bucket bounds are valid");
    let opts = HistogramOpts { common_opts: Opts::new(name, help), buckets };
    Histogram::with_opts(opts).expect("the name is valid")
}
