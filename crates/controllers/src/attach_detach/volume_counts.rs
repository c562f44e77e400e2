//! How many volumes nodes use, and how many should be and are attached, counted when somebody asks.
//!
//! Upstream: `pkg/controller/volume/attachdetach/metrics`.

use std::sync::Arc;

use meta::ObjectKey;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Error, IntGaugeVec, Opts};

use super::csi::{CsiVolume, is_attached, volume_of};
use crate::cluster::Informers;

/// Counts those of the shared informers.
pub(super) struct VolumeCounts {
    informers: Arc<Informers>,
    in_use: IntGaugeVec,
    total: IntGaugeVec,
}

impl VolumeCounts {
    pub(super) fn new(informers: Arc<Informers>) -> Result<Self, Error> {
        let in_use = Opts::new(
            "storage_count_attachable_volumes_in_use",
            "Volumes that can be attached and that pods of a node use.",
        );
        let total = Opts::new(
            "attachdetach_controller_total_volumes",
            "Volumes that should be attached to a node, and those that are.",
        );
        Ok(Self {
            informers,
            in_use: IntGaugeVec::new(in_use, &["node", "volume_plugin"])?,
            total: IntGaugeVec::new(total, &["plugin_name", "state"])?,
        })
    }

    fn count(&self) {
        self.in_use.reset();
        self.total.reset();
        for pod in self.informers.pods.list().iter().filter(|pod| !pod.node.is_empty()) {
            for claim in &pod.claims {
                let claim = ObjectKey::new(&pod.key.namespace, claim);
                let claim = self.informers.claims.get(&claim);
                let name = claim.as_ref().map_or("", |claim| api::volumes::volume_name(claim));
                if let Some(plugin) = self.plugin(name) {
                    self.in_use.with_label_values(&[&pod.node, &plugin]).inc();
                }
            }
        }
        for volume in self.informers.volumes.list() {
            let name = volume.metadata.name.as_deref().unwrap_or_default();
            let Some(plugin) = self.plugin(name) else { continue };
            let nodes = super::wanted(&self.informers, &volume).len();
            let labels = [plugin.as_str(), "desired_state_of_world"];
            if nodes > 0 {
                let nodes = i64::try_from(nodes).unwrap_or(i64::MAX);
                self.total.with_label_values(&labels).add(nodes);
            }
        }
        for attachment in self.informers.attachments.list() {
            let plugin = self.plugin(volume_of(&attachment));
            if let Some(plugin) = plugin.filter(|_| is_attached(&attachment)) {
                let labels = [plugin.as_str(), "actual_state_of_world"];
                self.total.with_label_values(&labels).inc();
            }
        }
    }

    /// What attaches a volume, as upstream calls it; nothing for one that is not attached.
    fn plugin(&self, volume: &str) -> Option<String> {
        let volume = self.informers.volumes.get(&ObjectKey::cluster(volume))?;
        let driver = CsiVolume::of(&volume)?.driver;
        let description = self.informers.csi_drivers.get(&ObjectKey::cluster(&driver));
        let is_attachable = super::csi::is_attachable(description.as_deref());
        is_attachable.then(|| format!("kubernetes.io/csi:{driver}"))
    }
}

impl Collector for VolumeCounts {
    fn desc(&self) -> Vec<&Desc> {
        let mut all = self.in_use.desc();
        all.extend(self.total.desc());
        all
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.count();
        let mut all = self.in_use.collect();
        all.extend(self.total.collect());
        all
    }
}
