//! Volumes of a pod.

use std::collections::BTreeSet;

use meta::names;
use serde_json::Value;

use crate::FieldError;
use crate::container::relative_path;
use crate::environment::{field_reference, resource_reference};
use crate::node::{Findings, Node};
use crate::projected::projected;
use crate::volume_source::{inline_csi, shared};

/// The volumes of a pod spec; those without findings, which alone may be mounted.
pub(crate) fn volumes<'a>(volumes: &Node<'a>, out: &mut Findings) -> Vec<&'a Value> {
    let (mut seen, mut sound) = (BTreeSet::new(), Vec::new());
    for volume in volumes.items() {
        let before = out.len();
        source(&volume, out);
        let name = volume.get("name");
        if !name.require(out) {
            continue;
        }
        let wrong = names::dns1123_label(name.text());
        let valid = wrong.is_empty();
        name.invalid_each(wrong, out);
        if valid && !seen.insert(name.text()) {
            out.push(FieldError::duplicate(&name.path, name.text()));
        }
        if out.len() == before {
            sound.push(volume.value);
        }
    }
    sound
}

/// Upstream looks at the sources in this order, and takes the first for the one that is meant.
const SOURCES: [&str; 30] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];

fn source(volume: &Node<'_>, out: &mut Findings) {
    let mut sources = 0;
    for kind in SOURCES {
        let at = volume.get(kind);
        if !at.is_set() {
            continue;
        }
        sources += 1;
        if sources > 1 {
            out.push(at.forbidden("may not specify more than 1 volume type"));
        } else {
            one_source(kind, &at, out);
        }
    }
    if sources == 0 {
        out.push(FieldError::required(&volume.path, "must specify a volume type"));
    }
}

fn one_source(kind: &str, at: &Node<'_>, out: &mut Findings) {
    match kind {
        "emptyDir" => {
            let limit = at.get("sizeLimit").text().parse::<meta::Quantity>();
            if limit.is_ok_and(|limit| limit.signum() < 0) {
                let detail = "SizeLimit field must be a valid resource quantity";
                out.push(at.get("sizeLimit").forbidden(detail));
            }
        }
        "secret" => {
            at.get("secretName").require(out);
            file_mode(&at.get("defaultMode"), out);
            key_paths(&at.get("items"), out);
        }
        "configMap" => {
            at.get("name").require(out);
            file_mode(&at.get("defaultMode"), out);
            key_paths(&at.get("items"), out);
        }
        "persistentVolumeClaim" => {
            at.get("claimName").require(out);
        }
        "downwardAPI" => {
            file_mode(&at.get("defaultMode"), out);
            for file in at.get("items").items() {
                downward_file(&file, out);
            }
        }
        "projected" => projected(at, out),
        "csi" => inline_csi(at, out),
        "ephemeral" => ephemeral(at, out),
        "image" => {
            at.get("pullPolicy").one_of(&["Always", "IfNotPresent", "Never"], out);
        }
        _ => shared(kind, at, out),
    }
}

/// A claim that is made with the pod.
fn ephemeral(at: &Node<'_>, out: &mut Findings) {
    let template = at.get("volumeClaimTemplate");
    if template.is_set() {
        crate::metadata::of_template(&template.get("metadata"), out);
        crate::claim::claim_spec(&template.get("spec"), out);
    } else {
        out.push(FieldError::required(&template.path, ""));
    }
}

pub(crate) fn file_mode(mode: &Node<'_>, out: &mut Findings) {
    if mode.is_set() && !(0..=0o777).contains(&mode.int()) {
        out.push(mode.invalid("must be a number between 0 and 0777 (octal), both inclusive"));
    }
}

pub(crate) fn key_paths(items: &Node<'_>, out: &mut Findings) {
    for item in items.items() {
        item.get("key").require(out);
        let path = item.get("path");
        path.require(out);
        local_path(&path, out);
        file_mode(&item.get("mode"), out);
    }
}

/// A relative path that does not start with two dots.
pub(crate) fn local_path(path: &Node<'_>, out: &mut Findings) {
    relative_path(path, out);
    let first = path.text();
    if first.starts_with("..") && !first.starts_with("../") && first != ".." {
        out.push(path.invalid("must not start with '..'"));
    }
}

pub(crate) fn downward_file(file: &Node<'_>, out: &mut Findings) {
    const FIELDS: [&str; 5] = [
        "metadata.annotations",
        "metadata.labels",
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
    ];
    let path = file.get("path");
    path.require(out);
    local_path(&path, out);
    let (field, resource) = (file.get("fieldRef"), file.get("resourceFieldRef"));
    if field.is_set() {
        field_reference(&field, &FIELDS, out);
        if resource.is_set() {
            let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
            out.push(FieldError::invalid(&file.path, "resource", detail));
        }
    } else if resource.is_set() {
        resource_reference(&resource, true, out);
    } else {
        let detail = "one of fieldRef and resourceFieldRef is required";
        out.push(FieldError::required(&file.path, detail));
    }
    file_mode(&file.get("mode"), out);
}
