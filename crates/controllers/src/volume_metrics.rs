//! How many volumes and claims there are, counted when somebody asks.
//!
//! Upstream: `pkg/controller/volume/persistentvolume/metrics`.

use std::sync::Arc;

use api::volumes;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Error, IntGaugeVec, Opts};

use crate::cluster::Informers;

/// Counts those of the shared informers.
pub(crate) struct VolumeMetrics {
    informers: Arc<Informers>,
    gauges: Gauges,
}

struct Gauges {
    volumes: IntGaugeVec,
    bound_volumes: IntGaugeVec,
    unbound_volumes: IntGaugeVec,
    bound_claims: IntGaugeVec,
    unbound_claims: IntGaugeVec,
}

impl VolumeMetrics {
    pub(crate) fn new(informers: Arc<Informers>) -> Result<Self, Error> {
        Ok(Self { informers, gauges: Gauges::new()? })
    }
}

impl Collector for VolumeMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauges.count(&self.informers.volumes.list(), &self.informers.claims.list());
        self.gauges.all().into_iter().flat_map(Collector::collect).collect()
    }
}

impl Gauges {
    fn new() -> Result<Self, Error> {
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            IntGaugeVec::new(Opts::new(format!("pv_collector_{name}"), help), labels)
        };
        let of_claims = ["namespace", "storage_class", "volume_attributes_class"];
        Ok(Self {
            volumes: gauge("total_pv_count", "Volumes.", &["plugin_name", "volume_mode"])?,
            bound_volumes: gauge("bound_pv_count", "Volumes that are bound.", &["storage_class"])?,
            unbound_volumes: gauge(
                "unbound_pv_count",
                "Volumes that are not bound.",
                &["storage_class"],
            )?,
            bound_claims: gauge("bound_pvc_count", "Claims that are bound.", &of_claims)?,
            unbound_claims: gauge("unbound_pvc_count", "Claims that are not bound.", &of_claims)?,
        })
    }

    fn all(&self) -> [&IntGaugeVec; 5] {
        [
            &self.volumes,
            &self.bound_volumes,
            &self.unbound_volumes,
            &self.bound_claims,
            &self.unbound_claims,
        ]
    }

    fn count(&self, volumes: &[Arc<PersistentVolume>], claims: &[Arc<PersistentVolumeClaim>]) {
        self.all().into_iter().for_each(IntGaugeVec::reset);
        for volume in volumes {
            let spec = volume.spec.clone().unwrap_or_default();
            let mode = spec.volume_mode.as_deref().unwrap_or("Filesystem");
            self.volumes.with_label_values(&[plugin(volume).as_str(), mode]).inc();
            let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
            let gauge =
                if phase == Some("Bound") { &self.bound_volumes } else { &self.unbound_volumes };
            gauge.with_label_values(&[volumes::class_of_volume(volume)]).inc();
        }
        for claim in claims {
            let spec = claim.spec.clone().unwrap_or_default();
            let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
            let gauge =
                if phase == Some("Bound") { &self.bound_claims } else { &self.unbound_claims };
            let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
            let class = volumes::class_of_claim(claim);
            let attributes = spec.volume_attributes_class_name.as_deref().unwrap_or_default();
            gauge.with_label_values(&[namespace, class, attributes]).inc();
        }
    }
}

/// What a volume is made of, as upstream calls its plugins.
fn plugin(volume: &PersistentVolume) -> String {
    let Some(spec) = &volume.spec else { return "N/A".to_owned() };
    if let Some(csi) = &spec.csi {
        return format!("kubernetes.io/csi:{}", csi.driver);
    }
    let name = match spec {
        spec if spec.host_path.is_some() => "kubernetes.io/host-path",
        spec if spec.local.is_some() => "kubernetes.io/local-volume",
        spec if spec.nfs.is_some() => "kubernetes.io/nfs",
        spec if spec.iscsi.is_some() => "kubernetes.io/iscsi",
        spec if spec.fc.is_some() => "kubernetes.io/fc",
        _ => "N/A",
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn value(gauge: &IntGaugeVec, labels: &[&str]) -> i64 {
        gauge.with_label_values(labels).get()
    }

    #[test]
    fn volumes_and_claims_are_counted_anew_each_time() {
        let volume = |spec: serde_json::Value, phase: &str| {
            let volume = json!({ "spec": spec, "status": { "phase": phase } });
            Arc::new(serde_json::from_value::<PersistentVolume>(volume).unwrap())
        };
        let host = json!({ "hostPath": { "path": "/x" }, "storageClassName": "gold" });
        let csi = json!({ "csi": { "driver": "d.io", "volumeHandle": "h" },
            "volumeMode": "Block" });
        let volumes =
            [volume(host.clone(), "Bound"), volume(host, "Available"), volume(csi, "Bound")];
        let claim = json!({ "metadata": { "namespace": "n" }, "status": { "phase": "Pending" },
            "spec": { "storageClassName": "gold", "volumeAttributesClassName": "fast" } });
        let claim = Arc::new(serde_json::from_value::<PersistentVolumeClaim>(claim).unwrap());
        let gauges = Gauges::new().unwrap();
        for _ in 0..2 {
            gauges.count(&volumes, &[Arc::clone(&claim)]);
            assert_eq!(value(&gauges.volumes, &["kubernetes.io/host-path", "Filesystem"]), 2);
            assert_eq!(value(&gauges.volumes, &["kubernetes.io/csi:d.io", "Block"]), 1);
            assert_eq!(value(&gauges.bound_volumes, &["gold"]), 1);
            assert_eq!(value(&gauges.bound_volumes, &[""]), 1);
            assert_eq!(value(&gauges.unbound_volumes, &["gold"]), 1);
            assert_eq!(value(&gauges.unbound_claims, &["n", "gold", "fast"]), 1);
        }
        gauges.count(&[], &[]);
        assert_eq!(value(&gauges.bound_volumes, &["gold"]), 0);
    }
}
