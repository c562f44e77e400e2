//! Volumes of a pod.

use std::collections::BTreeSet;

use meta::names;
use serde_json::Value;

use crate::FieldError;
use crate::container::relative_path;
use crate::environment::{field_reference, resource_reference};
use crate::node::{Findings, Node};

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
        "hostPath" => host_path(at, out),
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
        "nfs" => {
            at.get("server").require(out);
            let path = at.get("path");
            if path.require(out) && !path.text().starts_with('/') {
                out.push(path.invalid("must be an absolute path"));
            }
        }
        "csi" => {
            let driver = at.get("driver");
            if driver.require(out) {
                if driver.text().len() > 63 {
                    out.push(FieldError::too_long(&driver.path, 63));
                }
                driver.invalid_each(names::dns1123_subdomain(&driver.text().to_lowercase()), out);
            }
        }
        "ephemeral" if !at.get("volumeClaimTemplate").is_set() => {
            out.push(FieldError::required(&at.get("volumeClaimTemplate").path, ""));
        }
        "gcePersistentDisk" => {
            at.get("pdName").under(at.path.child("pdName")).require(out);
        }
        "awsElasticBlockStore" | "cinder" => {
            at.get("volumeID").require(out);
        }
        _ => {}
    }
}

fn host_path(at: &Node<'_>, out: &mut Findings) {
    let path = at.get("path");
    if !path.require(out) {
        return;
    }
    crate::container::no_backsteps(&path, out);
    let kinds = [
        "",
        "BlockDevice",
        "CharDevice",
        "Directory",
        "DirectoryOrCreate",
        "File",
        "FileOrCreate",
        "Socket",
    ];
    at.get("type").one_of(&kinds, out);
}

fn file_mode(mode: &Node<'_>, out: &mut Findings) {
    if mode.is_set() && !(0..=0o777).contains(&mode.int()) {
        out.push(mode.invalid("must be a number between 0 and 0777 (octal), both inclusive"));
    }
}

fn key_paths(items: &Node<'_>, out: &mut Findings) {
    for item in items.items() {
        item.get("key").require(out);
        let path = item.get("path");
        path.require(out);
        local_path(&path, out);
        file_mode(&item.get("mode"), out);
    }
}

/// A relative path that does not start with two dots.
fn local_path(path: &Node<'_>, out: &mut Findings) {
    relative_path(path, out);
    let first = path.text();
    if first.starts_with("..") && !first.starts_with("../") && first != ".." {
        out.push(path.invalid("must not start with '..'"));
    }
}

fn downward_file(file: &Node<'_>, out: &mut Findings) {
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

fn projected(at: &Node<'_>, out: &mut Findings) {
    file_mode(&at.get("defaultMode"), out);
    for source in at.get("sources").items() {
        let mut kinds = 0;
        for kind in
            ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle"]
        {
            let inner = source.get(kind);
            if !inner.is_set() {
                continue;
            }
            kinds += 1;
            if kinds > 1 {
                out.push(inner.forbidden("may not specify more than 1 volume type per source"));
                continue;
            }
            match kind {
                "secret" | "configMap" => {
                    inner.get("name").require(out);
                    key_paths(&inner.get("items"), out);
                }
                "downwardAPI" => {
                    for file in inner.get("items").items() {
                        downward_file(&file, out);
                    }
                }
                "serviceAccountToken" => service_account_token(&inner, at, out),
                _ => {}
            }
        }
    }
}

fn service_account_token(token: &Node<'_>, at: &Node<'_>, out: &mut Findings) {
    let seconds = token.get("expirationSeconds");
    if seconds.int() < 600 {
        out.push(seconds.invalid("may not specify a duration less than 10 minutes"));
    }
    if seconds.int() > 1 << 32 {
        out.push(seconds.invalid("may not specify a duration larger than 2^32 seconds"));
    }
    let path = token.get("path");
    if path.text().is_empty() {
        out.push(FieldError::required(&at.path.child("path"), ""));
    } else {
        local_path(&path.under(at.path.child("path")), out);
    }
}
