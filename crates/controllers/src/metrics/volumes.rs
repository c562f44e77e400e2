//! What the controllers of volumes count. How many volumes there are is counted in `volume_metrics`
//! and `attach_detach`.

use prometheus::{Error, HistogramVec, IntCounter, IntCounterVec};

use super::sheet::Sheet;

/// From a tenth of a second to ten minutes: upstream's, of all that is done about volumes.
const BUCKETS: [f64; 13] =
    [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 25.0, 50.0, 120.0, 300.0, 600.0];

/// What plugins do.
#[derive(Clone)]
pub(crate) struct StorageMetrics {
    seconds: HistogramVec,
}

impl StorageMetrics {
    pub(super) fn new(sheet: &Sheet<'_>) -> Result<Self, Error> {
        let seconds = sheet.histograms(
            "storage_operation_duration_seconds",
            "How long plugins took for what they did about volumes.",
            &["volume_plugin", "operation_name", "status", "migrated"],
            BUCKETS.to_vec(),
        )?;
        Ok(Self { seconds })
    }

    /// A plugin took so long. What was migrated to drivers is theirs from the start.
    pub(crate) fn took(
        &self,
        plugin: &str,
        operation: &str,
        is_ok: bool,
        time: std::time::Duration,
    ) {
        let status = if is_ok { "success" } else { "fail-unknown" };
        let labels = [plugin, operation, status, "false"];
        self.seconds.with_label_values(&labels).observe(time.as_secs_f64());
    }
}

#[derive(Clone)]
pub(crate) struct BinderMetrics {
    /// Claims that were given the default class later, and those that could not be.
    pub(crate) classified: IntCounter,
    pub(crate) not_classified: IntCounter,
    errors: [IntCounterVec; 2],
    seconds: HistogramVec,
}

impl BinderMetrics {
    pub(super) fn new(sheet: &Sheet<'_>) -> Result<Self, Error> {
        let labels = ["operation_name", "plugin_name"];
        let failed = |name: &str| {
            sheet.counters(name, "Volumes that could not be provisioned or deleted.", &labels)
        };
        Ok(Self {
            classified: sheet.counter(
                "retroactive_storageclass_total",
                "Claims that were given the default class after they were made.",
            )?,
            not_classified: sheet.counter(
                "retroactive_storageclass_errors_total",
                "Claims that could not be given the default class.",
            )?,
            // The second is the name of old.
            errors: [
                failed("volume_operation_errors_total")?,
                failed("volume_operation_total_errors")?,
            ],
            seconds: sheet.histograms(
                "volume_operation_total_seconds",
                "How long volumes took to be provisioned or deleted.",
                &labels,
                BUCKETS.to_vec(),
            )?,
        })
    }

    /// An operation by a provisioner has failed.
    pub(crate) fn failed(&self, operation: &str, plugin: &str) {
        let labels = [operation, plugin];
        self.errors.iter().for_each(|errors| errors.with_label_values(&labels).inc());
    }

    /// An operation by a provisioner took so long.
    pub(crate) fn took(&self, operation: &str, plugin: &str, time: std::time::Duration) {
        self.seconds.with_label_values(&[operation, plugin]).observe(time.as_secs_f64());
    }
}
