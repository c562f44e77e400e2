//! Persistent volumes.

use meta::Quantity;
use serde_json::{Map, Value};

use crate::claim::access_modes;
use crate::node::{Findings, Node};
use crate::volume_source::{csi, shared};
use crate::{FieldError, difference, printed, scheduling};

/// In upstream's order, which decides what of several is too many.
const SOURCES: [&str; 22] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

pub(crate) fn validate(object: &Node<'_>, out: &mut Findings) {
    spec(&object.get("spec"), false, out);
}

/// The spec of a volume, or of one that is attached without an object of its own.
pub(crate) fn spec(spec: &Node<'_>, is_inline: bool, out: &mut Findings) {
    if is_inline {
        inline(spec, out);
    }
    let modes = spec.get("accessModes");
    if modes.len() == 0 {
        out.push(FieldError::required(&modes.path, ""));
    }
    access_modes(&modes, out);
    if !is_inline {
        capacity(&spec.get("capacity"), out);
        let policy = spec.get("persistentVolumeReclaimPolicy");
        policy.one_of(&["Delete", "Recycle", "Retain"], out);
    }
    node_affinity(&spec.get("nodeAffinity"), out);
    source(spec, out);
    let policy = spec.get("persistentVolumeReclaimPolicy");
    if spec.get("hostPath").get("path").text() == "/" && policy.text() == "Recycle" {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        out.push(policy.forbidden(detail));
    }
    let class = spec.get("storageClassName");
    if !class.text().is_empty() {
        class.subdomain(out);
    }
    spec.get("volumeMode").one_of(&["Block", "Filesystem"], out);
    let attributes = spec.get("volumeAttributesClassName");
    if attributes.is_set() {
        if attributes.text().is_empty() {
            let detail = "an empty string is disallowed";
            out.push(FieldError::required(&attributes.path, detail));
        } else {
            attributes.subdomain(out);
        }
        if !spec.get("csi").is_set() {
            let detail = "has to be specified when using volumeAttributesClassName";
            out.push(FieldError::required(&spec.get("csi").path, detail));
        }
    }
}

/// What only volumes with an object of their own have.
fn inline(spec: &Node<'_>, out: &mut Findings) {
    for field in
        ["claimRef", "capacity", "csi", "persistentVolumeReclaimPolicy", "storageClassName"]
    {
        let value = spec.get(field);
        if field == "csi" {
            if !value.is_set() {
                let detail = "may not be empty in the context of inline volumes";
                out.push(FieldError::required(&value.path, detail));
            }
        } else if value.is_set() {
            out.push(value.forbidden("may not be specified in the context of inline volumes"));
        }
    }
}

fn capacity(capacity: &Node<'_>, out: &mut Findings) {
    if capacity.len() == 0 {
        out.push(FieldError::required(&capacity.path, ""));
    }
    if capacity.len() != 1 || !capacity.get("storage").is_set() {
        let value = capacity.value.clone();
        out.push(FieldError::not_supported(&capacity.path, value, &["storage"]));
    }
    for (_, quantity) in capacity.entries() {
        let Ok(value) = quantity.text().parse::<Quantity>() else { continue };
        if value.signum() < 0 {
            let detail = "must be a valid resource quantity";
            out.push(FieldError::invalid(&quantity.path, value.value(), detail));
        }
        if value.signum() <= 0 {
            out.push(quantity.invalid("must be greater than zero"));
        }
    }
}

fn node_affinity(affinity: &Node<'_>, out: &mut Findings) {
    if !affinity.is_set() {
        return;
    }
    let required = affinity.get("required");
    if required.is_set() {
        scheduling::node_selector(&required, out);
    } else {
        let detail = "must specify required node constraints";
        out.push(FieldError::required(&required.path, detail));
    }
}

fn source(spec: &Node<'_>, out: &mut Findings) {
    let mut sources = 0;
    for kind in SOURCES {
        let at = spec.get(kind);
        if !at.is_set() {
            continue;
        }
        sources += 1;
        // Upstream does not mind a flexible volume after another.
        if sources > 1 && kind != "flexVolume" {
            // Its name in Go, unlike that of the source itself.
            let path = if kind == "cephfs" { spec.path.child("cephFS") } else { at.path.clone() };
            let detail = "may not specify more than 1 volume type";
            out.push(FieldError::forbidden(&path, detail));
            continue;
        }
        match kind {
            "local" => {
                let path = at.get("path");
                if path.require(out) {
                    crate::container::no_backsteps(&path, out);
                }
                if !spec.get("nodeAffinity").is_set() {
                    let detail = "Local volume requires node affinity";
                    out.push(FieldError::required(&spec.path.child("nodeAffinity"), detail));
                }
            }
            "csi" => csi(&at, out),
            "gcePersistentDisk" => shared(kind, &at.under(spec.path.child("persistentDisk")), out),
            _ => shared(kind, &at, out),
        }
    }
    if sources == 0 {
        out.push(FieldError::required(&spec.path, "must specify a volume type"));
    }
}

/// What of a volume may not change.
pub(crate) fn update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    let (spec, before) = (new.get("spec"), old.get("spec"));
    let mut allowed = only_source(before.value);
    // Secrets to expand with may come later.
    if let Some(csi) = spec.value.get("csi") {
        for field in ["controllerExpandSecretRef", "nodeExpandSecretRef"] {
            if let (Some(secret), Some(before)) = (csi.get(field), allowed.get_mut("csi"))
                && before.get(field).is_none()
            {
                before[field] = secret.clone();
            }
        }
    }
    let now = only_source(spec.value);
    if now != allowed {
        let path = spec.path.child("persistentvolumesource");
        let shown = |value: &Value| printed::indented("core/v1.PersistentVolumeSource", value);
        let diff = difference::unified(&shown(&allowed), &shown(&now));
        out.push(FieldError::forbidden(
            &path,
            format!("spec.persistentvolumesource is immutable after creation\n{diff}"),
        ));
    }
    spec.get("volumeMode")
        .under(crate::Path::new("volumeMode"))
        .immutable(&before.get("volumeMode"), out);
    let affinity = spec.get("nodeAffinity").under(crate::Path::new("nodeAffinity"));
    if before.get("nodeAffinity").is_set() && affinity.value != before.get("nodeAffinity").value {
        let detail = "field is immutable, except for updating from beta label to GA";
        out.push(affinity.invalid(detail).shown_as("core/v1.VolumeNodeAffinity"));
    }
    let attributes = spec.get("volumeAttributesClassName");
    if before.get("volumeAttributesClassName").is_set() && !attributes.is_set() {
        out.push(attributes.forbidden("update from non-nil value to nil is forbidden"));
    }
}

fn only_source(spec: &Value) -> Value {
    let map: Map<String, Value> = spec
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| SOURCES.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    Value::Object(map)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tests::{check, check_update};

    fn volume(more: Value) -> Value {
        let mut spec = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem"});
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        json!({"metadata": {"name": "v"}, "spec": spec})
    }

    #[test]
    fn a_volume_has_one_sound_source() {
        check(
            "",
            "PersistentVolume",
            volume(json!({"csi": {"driver": "-", "nodePublishSecretRef": {}},
                "capacity": {"storage": "-1"}})),
            &[
                "spec.capacity[storage]: Invalid value: -1: must be a valid resource quantity",
                "spec.capacity[storage]: Invalid value: \"-1\": must be greater than zero",
                "spec.csi.driver: Invalid value: \"-\": a lowercase RFC 1123 subdomain must \
                 consist of lower case alphanumeric characters, '-' or '.', and must start and end \
                 with an alphanumeric character (e.g. 'example.com', regex used for validation is \
                 '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                "spec.csi.volumeHandle: Required value",
                "spec.csi.nodePublishSecretRef.name: Required value",
                "spec.csi.nodePublishSecretRef.namespace: Required value",
            ],
        );
        check(
            "",
            "PersistentVolume",
            volume(json!({"iscsi": {"targetPortal": "p", "iqn": "x", "lun": 300},
                "persistentVolumeReclaimPolicy": "Recycle", "hostPath": {"path": "/"}})),
            &[
                "spec.iscsi: Forbidden: may not specify more than 1 volume type",
                "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a \
                 hostPath mount of '/'",
            ],
        );
    }

    #[test]
    fn the_source_of_a_volume_stays() {
        let with = |server: &str| volume(json!({"nfs": {"server": server, "path": "/p"}}));
        let diff = "@@ -4,7 +4,7 @@\n  \"HostPath\": null,\n  \"Glusterfs\": null,\n  \"NFS\": {\n\
            -  \"Server\": \"a\",\n+  \"Server\": \"b\",\n   \"Path\": \"/p\",\n   \
            \"ReadOnly\": false\n  },\n";
        check_update(
            "",
            "PersistentVolume",
            "",
            (&with("b"), &with("a")),
            &[&format!(
                "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable \
                 after creation\n{diff}"
            )],
        );
    }
}
