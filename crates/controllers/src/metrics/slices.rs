//! What the two controllers of EndpointSlices count.
//!
//! Upstream: `staging/src/k8s.io/endpointslice/metrics`, `pkg/controller/endpointslicemirroring/metrics`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use meta::ObjectKey;
use prometheus::{
    DEFAULT_BUCKETS, Error, Histogram, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec,
    exponential_buckets,
};

use super::sheet::Sheet;
use crate::endpoint_slice::slices::Tally;

/// What both count.
#[derive(Clone)]
pub(crate) struct SliceMetrics {
    /// Slices that were written, by operation.
    pub(crate) changes: IntCounterVec,
    added: Histogram,
    removed: Histogram,
    totals: Arc<Mutex<Totals>>,
}

/// What there is of each service, and of all together.
struct Totals {
    by_service: HashMap<ObjectKey, Tally>,
    endpoints: IntGauge,
    slices: IntGauge,
    desired: IntGauge,
}

impl SliceMetrics {
    pub(super) fn new(sheet: &Sheet<'_>, controller: &str) -> Result<Self, Error> {
        let name = |rest: &str| format!("{controller}_{rest}");
        // From 2 to 32,768.
        let buckets = exponential_buckets(2.0, 2.0, 15)?;
        let totals = Totals {
            by_service: HashMap::new(),
            endpoints: sheet.gauge(&name("endpoints_desired"), "Endpoints that should be.")?,
            slices: sheet.gauge(&name("num_endpoint_slices"), "EndpointSlices that there are.")?,
            desired: sheet.gauge(
                &name("desired_endpoint_slices"),
                "EndpointSlices that there would be if all were full.",
            )?,
        };
        Ok(Self {
            changes: sheet.counters(
                &name("changes"),
                "EndpointSlices that were written.",
                &["operation"],
            )?,
            added: sheet.histogram(
                &name("endpoints_added_per_sync"),
                "Endpoints that one look added.",
                buckets.clone(),
            )?,
            removed: sheet.histogram(
                &name("endpoints_removed_per_sync"),
                "Endpoints that one look removed.",
                buckets,
            )?,
            totals: Arc::new(Mutex::new(totals)),
        })
    }

    /// Counts a look at a service.
    pub(crate) fn note(&self, service: &ObjectKey, tally: Tally) {
        self.added.observe(number(tally.added));
        self.removed.observe(number(tally.removed));
        self.totals().replace(service, Some(tally));
    }

    /// A service has no slices of this controller any more.
    pub(crate) fn forget(&self, service: &ObjectKey) {
        self.totals().replace(service, None);
    }

    fn totals(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Totals {
    fn replace(&mut self, service: &ObjectKey, tally: Option<Tally>) {
        let before = match tally {
            Some(tally) => self.by_service.insert(service.clone(), tally),
            None => self.by_service.remove(service),
        };
        let (before, after) = (before.unwrap_or_default(), tally.unwrap_or_default());
        let add = |gauge: &IntGauge, of: fn(&Tally) -> usize| {
            let count = |tally: &Tally| i64::try_from(of(tally)).unwrap_or(i64::MAX);
            gauge.add(count(&after) - count(&before));
        };
        add(&self.endpoints, |tally| tally.endpoints);
        add(&self.slices, |tally| tally.slices);
        add(&self.desired, |tally| tally.desired);
    }
}

/// What only the controller of services with a selector counts.
#[derive(Clone)]
pub(crate) struct ServiceSliceMetrics {
    pub(crate) slices: SliceMetrics,
    /// Looks, by result.
    pub(crate) syncs: IntCounterVec,
    changed: HistogramVec,
    distributions: Arc<Mutex<Distributions>>,
}

/// The traffic distribution of the services that name one.
struct Distributions {
    by_service: HashMap<ObjectKey, &'static str>,
    services: IntGaugeVec,
}

/// What upstream knows; all else is called [`SPECIFIC`].
const DISTRIBUTIONS: [&str; 3] = ["PreferClose", "PreferSameZone", "PreferSameNode"];
const SPECIFIC: &str = "ImplementationSpecific";

impl ServiceSliceMetrics {
    pub(super) fn new(sheet: &Sheet<'_>) -> Result<Self, Error> {
        let controller = "endpoint_slice_controller";
        let name = |rest: &str| format!("{controller}_{rest}");
        let services = sheet.gauges(
            &name("services_count_by_traffic_distribution"),
            "Services that name a traffic distribution.",
            &["traffic_distribution"],
        )?;
        Ok(Self {
            slices: SliceMetrics::new(sheet, controller)?,
            syncs: sheet.counters(
                &name("syncs"),
                "Looks at services for their EndpointSlices.",
                &["result"],
            )?,
            changed: sheet.histograms(
                &name("endpointslices_changed_per_sync"),
                "EndpointSlices that one look changed.",
                &["topology", "traffic_distribution"],
                DEFAULT_BUCKETS.to_vec(),
            )?,
            distributions: Arc::new(Mutex::new(Distributions {
                by_service: HashMap::new(),
                services,
            })),
        })
    }

    /// A look changed so many slices, for a service with hints by topology or without.
    pub(crate) fn changed(&self, is_auto: bool, distribution: Option<&str>, slices: usize) {
        let topology = if is_auto { "Auto" } else { "Disabled" };
        let labels = [topology, distribution.map_or("", known)];
        self.changed.with_label_values(&labels).observe(number(slices));
    }

    /// A service names this distribution, or none.
    pub(crate) fn note_distribution(&self, service: &ObjectKey, distribution: Option<&str>) {
        let mut all = self.distributions.lock().unwrap_or_else(PoisonError::into_inner);
        let distribution = distribution.map(known);
        let before = match distribution {
            Some(name) => all.by_service.insert(service.clone(), name),
            None => all.by_service.remove(service),
        };
        if let Some(name) = before {
            all.services.with_label_values(&[name]).dec();
        }
        if let Some(name) = distribution {
            all.services.with_label_values(&[name]).inc();
        }
    }
}

fn known(distribution: &str) -> &'static str {
    DISTRIBUTIONS.into_iter().find(|known| *known == distribution).unwrap_or(SPECIFIC)
}

/// What only the controller counts that mirrors Endpoints.
#[derive(Clone)]
pub(crate) struct MirrorMetrics {
    pub(crate) slices: SliceMetrics,
    /// Seconds of looks.
    pub(crate) seconds: Histogram,
    updated: Histogram,
    skipped: Histogram,
}

impl MirrorMetrics {
    pub(super) fn new(sheet: &Sheet<'_>) -> Result<Self, Error> {
        let controller = "endpoint_slice_mirroring_controller";
        let name = |rest: &str| format!("{controller}_{rest}");
        let buckets = exponential_buckets(2.0, 2.0, 15)?;
        Ok(Self {
            slices: SliceMetrics::new(sheet, controller)?,
            seconds: sheet.histogram(
                &name("endpoints_sync_duration"),
                "How long looks at Endpoints took.",
                exponential_buckets(0.001, 2.0, 15)?,
            )?,
            updated: sheet.histogram(
                &name("endpoints_updated_per_sync"),
                "Endpoints that one look changed.",
                buckets.clone(),
            )?,
            skipped: sheet.histogram(
                &name("addresses_skipped_per_sync"),
                "Addresses that one look left out, since there are too many.",
                buckets,
            )?,
        })
    }

    /// Counts a look at Endpoints.
    pub(crate) fn note(&self, service: &ObjectKey, tally: Tally, skipped: usize) {
        self.updated.observe(number(tally.updated));
        self.skipped.observe(number(skipped));
        self.slices.note(service, tally);
    }
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_are_sums_over_services() {
        let registry = telemetry::Registry::new();
        let metrics = ServiceSliceMetrics::new(&Sheet { registry: &registry }).unwrap();
        let tally = |endpoints| Tally { endpoints, slices: 2, desired: 1, ..Tally::default() };
        let (a, b) = (ObjectKey::new("n", "a"), ObjectKey::new("n", "b"));
        for (service, endpoints) in [(&a, 3), (&b, 4), (&a, 7)] {
            metrics.slices.note(service, tally(endpoints));
        }
        let values = || {
            let totals = metrics.slices.totals();
            (totals.endpoints.get(), totals.slices.get(), totals.desired.get())
        };
        assert_eq!(values(), (11, 4, 2));
        metrics.slices.forget(&a);
        metrics.slices.forget(&a);
        assert_eq!(values(), (4, 2, 1));
    }

    #[test]
    fn a_service_counts_for_its_distribution_of_now() {
        let registry = telemetry::Registry::new();
        let metrics = ServiceSliceMetrics::new(&Sheet { registry: &registry }).unwrap();
        let (a, b) = (ObjectKey::new("n", "a"), ObjectKey::new("n", "b"));
        let count = |name: &str| {
            let all = metrics.distributions.lock().unwrap();
            all.services.with_label_values(&[name]).get()
        };
        metrics.note_distribution(&a, Some("PreferClose"));
        metrics.note_distribution(&b, Some("example.com/mine"));
        assert_eq!((count("PreferClose"), count(SPECIFIC)), (1, 1));
        metrics.note_distribution(&a, Some("PreferSameNode"));
        metrics.note_distribution(&b, None);
        metrics.note_distribution(&b, None);
        assert_eq!((count("PreferClose"), count("PreferSameNode"), count(SPECIFIC)), (0, 1, 0));
    }
}
