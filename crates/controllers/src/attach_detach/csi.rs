//! What is read of volumes, attachments and nodes.

use std::collections::BTreeSet;
use std::fmt::Write;

use api::taints::OUT_OF_SERVICE;
use api::volumes::annotation;
use k8s_openapi::api::core::v1::{Node, PersistentVolume};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use sha2::{Digest, Sha256};

use super::plan::NodeFacts;

/// On a node: its volumes are attached here, and not by the node itself.
const MANAGED: &str = "volumes.kubernetes.io/controller-managed-attach-detach";

/// A volume of a driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CsiVolume {
    pub(super) driver: String,
    pub(super) handle: String,
    /// Whether only one node may have it.
    pub(super) is_exclusive: bool,
}

impl CsiVolume {
    /// `None` for volumes of other sorts: they are not attached.
    pub(super) fn of(volume: &PersistentVolume) -> Option<Self> {
        let spec = volume.spec.as_ref()?;
        let csi = spec.csi.as_ref()?;
        let modes = spec.access_modes.as_deref().unwrap_or_default();
        let is_shared = modes.iter().any(|mode| mode == "ReadWriteMany" || mode == "ReadOnlyMany");
        Some(Self {
            driver: csi.driver.clone(),
            handle: csi.volume_handle.clone(),
            // What says nothing is not kept from anybody.
            is_exclusive: !modes.is_empty() && !is_shared,
        })
    }

    /// What it is called in the status of a node.
    pub(super) fn unique_name(&self) -> String {
        format!("{}{}", in_status_of(&self.driver), self.handle)
    }

    /// What its attachment to a node is called. Upstream `getAttachmentName`.
    pub(super) fn attachment(&self, node: &str) -> String {
        let hash = Sha256::digest(format!("{}{}{node}", self.handle, self.driver));
        let mut name = "csi-".to_owned();
        for byte in hash {
            // Writing to a string does not fail.
            let _ = write!(name, "{byte:02x}");
        }
        name
    }
}

/// How the names of a driver's volumes begin in the status of a node.
pub(super) fn in_status_of(driver: &str) -> String {
    format!("kubernetes.io/csi/{driver}^")
}

/// Whether volumes of a driver have to be attached; one that nobody described may need it.
pub(super) fn is_attachable(driver: Option<&CSIDriver>) -> bool {
    driver.is_none_or(|driver| driver.spec.attach_required != Some(false))
}

pub(super) fn volume_of(attachment: &VolumeAttachment) -> &str {
    attachment.spec.source.persistent_volume_name.as_deref().unwrap_or_default()
}

pub(super) fn is_attached(attachment: &VolumeAttachment) -> bool {
    attachment.status.as_ref().is_some_and(|status| status.attached)
}

/// What the driver said when it failed.
pub(super) fn errors(attachment: &VolumeAttachment) -> Option<&str> {
    attachment.status.as_ref()?.attach_error.as_ref()?.message.as_deref()
}

/// The same of detaching.
pub(super) fn detach_errors(attachment: &VolumeAttachment) -> Option<&str> {
    attachment.status.as_ref()?.detach_error.as_ref()?.message.as_deref()
}

pub(super) fn is_managed(node: &Node) -> bool {
    annotation(node.metadata.annotations.as_ref(), MANAGED) == Some("true")
}

/// What a node says of its volumes and itself, as far as it counts here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeView {
    is_managed: bool,
    is_ready: bool,
    is_out_of_service: bool,
    pub(super) in_use: BTreeSet<String>,
    pub(super) attached: BTreeSet<String>,
}

impl NodeView {
    pub(super) fn of(node: &Node) -> Self {
        let status = node.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_deref());
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref());
        let in_use = status.and_then(|status| status.volumes_in_use.as_deref());
        let attached = status.and_then(|status| status.volumes_attached.as_deref());
        Self {
            is_managed: is_managed(node),
            is_ready: conditions
                .unwrap_or_default()
                .iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
            is_out_of_service: taints
                .unwrap_or_default()
                .iter()
                .any(|taint| taint.key == OUT_OF_SERVICE),
            in_use: in_use.unwrap_or_default().iter().cloned().collect(),
            attached: attached.unwrap_or_default().iter().map(|one| one.name.clone()).collect(),
        }
    }

    /// The facts about one volume, or, without its name, about any of the driver's.
    pub(super) fn facts(&self, node: &str, driver: &str, volume: Option<&str>) -> NodeFacts {
        let has = |names: &BTreeSet<String>| match volume {
            Some(name) => names.contains(name),
            None => names.iter().any(|name| name.starts_with(&in_status_of(driver))),
        };
        NodeFacts {
            name: node.to_owned(),
            is_ready: self.is_ready,
            is_out_of_service: self.is_out_of_service,
            is_in_use: has(&self.in_use),
            // What a node that attaches by itself reads there is not written here.
            is_reported: self.is_managed && volume.is_some_and(|name| self.attached.contains(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn attachments_and_volumes_are_called_as_upstream_calls_them() {
        let volume = |modes| {
            let volume: PersistentVolume = serde_json::from_value(json!({ "spec": {
                "accessModes": modes,
                "csi": { "driver": "d.example.com", "volumeHandle": "h" } } }))
            .unwrap();
            CsiVolume::of(&volume).unwrap()
        };
        let exclusive = volume(json!(["ReadWriteOnce"]));
        assert_eq!(exclusive.unique_name(), "kubernetes.io/csi/d.example.com^h");
        // printf hd.example.comn | sha256sum
        let name = exclusive.attachment("n");
        assert_eq!(name, "csi-6f50f41227a8b176bdb8f16917f5785c6f29d47af0c6e4fb07ef999717e5cb6d");
        assert!(exclusive.is_exclusive && volume(json!(["ReadWriteOncePod"])).is_exclusive);
        assert!(!volume(json!(["ReadWriteOnce", "ReadOnlyMany"])).is_exclusive);
        assert!(!volume(json!([])).is_exclusive);
    }

    #[test]
    fn a_node_says_what_it_uses() {
        let node: Node = serde_json::from_value(json!({
            "metadata": { "annotations": { MANAGED: "true" } },
            "spec": { "taints": [{ "key": OUT_OF_SERVICE, "effect": "NoExecute" }] },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }],
                "volumesInUse": ["kubernetes.io/csi/d^one"],
                "volumesAttached": [{ "name": "kubernetes.io/csi/d^two", "devicePath": "" }] } }))
        .unwrap();
        let facts = |volume| NodeView::of(&node).facts("n", "d", volume);
        let one = facts(Some("kubernetes.io/csi/d^one"));
        assert!(one.is_ready && one.is_out_of_service && one.is_in_use && !one.is_reported);
        let two = facts(Some("kubernetes.io/csi/d^two"));
        assert!(!two.is_in_use && two.is_reported);
        assert!(facts(None).is_in_use, "it may be the one that nobody knows any more");
        assert!(!NodeView::of(&node).facts("n", "e", None).is_in_use);
    }
}
