//! Persistent volumes and claims to them.

use meta::{Quantity, names};

use crate::FieldError;
use crate::metadata::label_selector;
use crate::node::{Findings, Node};

pub(crate) fn claim(object: &Node<'_>, out: &mut Findings) {
    claim_spec(&object.get("spec"), out);
}

/// The spec of a claim, also in templates.
pub(crate) fn claim_spec(spec: &Node<'_>, out: &mut Findings) {
    let modes = spec.get("accessModes");
    if modes.len() == 0 {
        let detail = "at least 1 access mode is required";
        out.push(FieldError::required(&modes.path, detail));
    }
    label_selector(&spec.get("selector"), out);
    access_modes(&modes, out);
    let resources = spec.get("resources");
    let storage = resources.get("requests").get("storage");
    match storage.text().parse::<Quantity>() {
        Ok(quantity) if quantity.signum() <= 0 => {
            let path = resources.path.key("storage");
            out.push(FieldError::invalid(&path, storage.text(), "must be greater than zero"));
        }
        Ok(_) => {}
        Err(_) => out.push(FieldError::required(&resources.path.key("storage"), "")),
    }
    let class = spec.get("storageClassName");
    if !class.text().is_empty() {
        class.invalid_each(names::dns1123_subdomain(class.text()), out);
    }
    spec.get("volumeMode").one_of(&["Block", "Filesystem"], out);
    for field in ["dataSource", "dataSourceRef"] {
        let source = spec.get(field);
        if !source.is_set() {
            continue;
        }
        source.get("name").require(out);
        source.get("kind").require(out);
        let group = source.get("apiGroup");
        if group.text().is_empty() && source.get("kind").text() != "PersistentVolumeClaim" {
            let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            out.push(source.get("kind").under(source.path.clone()).invalid(detail));
        }
        if !group.text().is_empty() {
            group.invalid_each(names::dns1123_subdomain(group.text()), out);
        }
    }
    let attributes = spec.get("volumeAttributesClassName");
    if !attributes.text().is_empty() {
        attributes.invalid_each(names::dns1123_subdomain(attributes.text()), out);
    }
}

fn access_modes(modes: &Node<'_>, out: &mut Findings) {
    const KNOWN: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    for mode in modes.items() {
        mode.under(modes.path.clone()).one_of(&KNOWN, out);
    }
    if modes.len() > 1 && modes.items().any(|mode| mode.text() == "ReadWriteOncePod") {
        out.push(modes.forbidden("may not use ReadWriteOncePod with other access modes"));
    }
}

pub(crate) fn volume(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    let modes = spec.get("accessModes");
    if modes.len() == 0 {
        out.push(FieldError::required(&modes.path, ""));
    }
    access_modes(&modes, out);
    let capacity = spec.get("capacity");
    if capacity.len() == 0 {
        out.push(FieldError::required(&capacity.path, ""));
    }
    if capacity.len() > 1 || (capacity.len() == 1 && !capacity.get("storage").is_set()) {
        let value = capacity.value.clone();
        out.push(FieldError::not_supported(&capacity.path, value, &["storage"]));
    }
    for (_, quantity) in capacity.entries() {
        if quantity.text().parse::<Quantity>().is_ok_and(|quantity| quantity.signum() <= 0) {
            out.push(quantity.invalid("must be greater than zero"));
        }
    }
    let policy = spec.get("persistentVolumeReclaimPolicy");
    policy.one_of(&["Delete", "Recycle", "Retain"], out);
    let affinity = spec.get("nodeAffinity");
    if affinity.is_set() {
        let required = affinity.get("required");
        if required.is_set() {
            crate::scheduling::node_selector(&required, out);
        } else {
            let detail = "must specify required node constraints";
            out.push(FieldError::required(&required.path, detail));
        }
    }
    volume_source(&spec, out);
    let class = spec.get("storageClassName");
    if !class.text().is_empty() {
        class.invalid_each(names::dns1123_subdomain(class.text()), out);
    }
    spec.get("volumeMode").one_of(&["Block", "Filesystem"], out);
}

fn volume_source(spec: &Node<'_>, out: &mut Findings) {
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
    let mut sources = 0;
    for kind in SOURCES {
        let at = spec.get(kind);
        if !at.is_set() {
            continue;
        }
        sources += 1;
        if sources > 1 {
            out.push(at.forbidden("may not specify more than 1 volume type"));
            continue;
        }
        match kind {
            "hostPath" | "local" => {
                let path = at.get("path");
                if path.require(out) {
                    crate::container::no_backsteps(&path, out);
                }
                if kind == "local" && !spec.get("nodeAffinity").is_set() {
                    let detail = "Local volume requires node affinity";
                    out.push(FieldError::required(&spec.path.child("nodeAffinity"), detail));
                }
            }
            "csi" => {
                at.get("driver").require(out);
                at.get("volumeHandle").require(out);
            }
            "nfs" => {
                at.get("server").require(out);
                let path = at.get("path");
                if path.require(out) && !path.text().starts_with('/') {
                    out.push(path.invalid("must be an absolute path"));
                }
            }
            _ => {}
        }
    }
    if sources == 0 {
        out.push(FieldError::required(&spec.path, "must specify a volume type"));
    }
}
