//! Sources of volumes that pods and persistent volumes share.

use crate::FieldError;
use crate::container::{no_backsteps, relative_path};
use crate::node::{Findings, Node};
use crate::resource::driver;

/// Fields that must be set, by source; those with a path of their own are reported there.
const REQUIRED: [(&str, &[&str]); 13] = [
    ("glusterfs", &["endpoints", "path"]),
    ("rbd", &["monitors", "image"]),
    ("cephfs", &["monitors"]),
    ("cinder", &["volumeID"]),
    ("azureFile", &["secretName", "shareName"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("vsphereVolume", &["volumePath"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("storageos", &["volumeName"]),
    ("quobyte", &["registry", "volume"]),
    ("flexVolume", &["driver"]),
];

/// What both sorts of volume check of a source.
pub(crate) fn shared(kind: &str, at: &Node<'_>, out: &mut Findings) {
    if let Some((_, fields)) = REQUIRED.iter().find(|(of, _)| *of == kind) {
        for field in *fields {
            let value = at.get(field);
            if value.text().is_empty() && value.len() == 0 {
                out.push(FieldError::required(&value.path, ""));
            }
        }
    }
    match kind {
        "hostPath" => host_path(at, out),
        "nfs" => nfs(at, out),
        "iscsi" => iscsi(at, out),
        "fc" => fibre_channel(at, out),
        "gcePersistentDisk" => {
            at.get("pdName").require(out);
            partition(at, out);
        }
        "awsElasticBlockStore" => {
            at.get("volumeID").require(out);
            partition(at, out);
        }
        "gitRepo" => {
            at.get("repository").require(out);
            relative_path(&at.get("directory"), out);
        }
        "flocker" => flocker(at, out),
        "flexVolume" => flex_options(&at.get("options"), out),
        "azureDisk" => azure_disk(at, out),
        _ => {}
    }
}

fn host_path(at: &Node<'_>, out: &mut Findings) {
    const TYPES: [&str; 8] = [
        "",
        "BlockDevice",
        "CharDevice",
        "Directory",
        "DirectoryOrCreate",
        "File",
        "FileOrCreate",
        "Socket",
    ];
    let path = at.get("path");
    if path.require(out) {
        no_backsteps(&path, out);
        at.get("type").one_of(&TYPES, out);
    }
}

fn nfs(at: &Node<'_>, out: &mut Findings) {
    at.get("server").require(out);
    let path = at.get("path");
    path.require(out);
    if !path.text().is_empty() && !path.text().starts_with('/') {
        out.push(path.invalid("must be an absolute path"));
    }
}

fn partition(at: &Node<'_>, out: &mut Findings) {
    let partition = at.get("partition");
    if !(0..=255).contains(&partition.int()) {
        out.push(partition.invalid("must be between 1 and 255, inclusive"));
    }
}

fn iscsi(at: &Node<'_>, out: &mut Findings) {
    at.get("targetPortal").require(out);
    let name = at.get("iqn");
    if name.require(out) {
        if !["iqn", "eui", "naa"].iter().any(|prefix| name.text().starts_with(prefix)) {
            out.push(name.invalid("must be valid format starting with iqn, eui, or naa"));
        } else if !is_initiator(name.text()) {
            out.push(name.invalid("must be valid format"));
        }
    }
    let lun = at.get("lun");
    if !(0..=255).contains(&lun.int()) {
        out.push(lun.invalid("must be between 0 and 255, inclusive"));
    }
    let wants_secret = at.get("chapAuthDiscovery").is_true() || at.get("chapAuthSession").is_true();
    if wants_secret && !at.get("secretRef").is_set() {
        out.push(FieldError::required(&at.get("secretRef").path, ""));
    }
    let initiator = at.get("initiatorName").under(at.path.child("initiatorname"));
    if initiator.is_set() && !is_initiator(initiator.text()) {
        out.push(initiator.invalid("must be valid format"));
    }
}

/// A name of RFC 3720: a dated domain, or sixteen or thirty-two letters and digits.
fn is_initiator(text: &str) -> bool {
    let is_word = |text: &str, len: usize| {
        text.len() == len && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    if let Some(rest) = text.strip_prefix("iqn.") {
        let bytes = rest.as_bytes();
        let dated = bytes.len() > 8
            && bytes[..7].iter().enumerate().all(|(at, byte)| match at {
                4 => *byte == b'-',
                _ => byte.is_ascii_digit(),
            })
            && bytes[7] == b'.';
        let Some((domain, own)) = rest.get(8..).and_then(|rest| rest.split_once(':')) else {
            return false;
        };
        let in_domain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        return dated
            && !domain.is_empty()
            && domain.bytes().all(in_domain)
            && !own.is_empty()
            && !own.contains(|c: char| ",;*&$|".contains(c) || c.is_whitespace());
    }
    let rest = |prefix: &str| text.strip_prefix(prefix).and_then(|rest| rest.get(1..));
    rest("eui").is_some_and(|rest| is_word(rest, 16))
        || rest("naa").is_some_and(|rest| is_word(rest, 32))
}

fn fibre_channel(at: &Node<'_>, out: &mut Findings) {
    let (names, ids, lun) = (at.get("targetWWNs"), at.get("wwids"), at.get("lun"));
    if names.len() + ids.len() == 0 {
        let detail = "must specify either targetWWNs or wwids, but not both";
        out.push(FieldError::required(&names.path, detail));
    }
    if names.len() > 0 && ids.len() > 0 {
        out.push(names.invalid("targetWWNs and wwids can not be specified simultaneously"));
    }
    if names.len() > 0 {
        if !lun.is_set() {
            let detail = "lun is required if targetWWNs is specified";
            out.push(FieldError::required(&lun.path, detail));
        } else if !(0..=255).contains(&lun.int()) {
            out.push(lun.invalid("must be between 0 and 255, inclusive"));
        }
    }
}

fn flocker(at: &Node<'_>, out: &mut Findings) {
    let (name, uuid) = (at.get("datasetName"), at.get("datasetUUID"));
    if name.text().is_empty() && uuid.text().is_empty() {
        let detail = "one of datasetName and datasetUUID is required";
        out.push(FieldError::required(&at.path, detail));
    }
    if !name.text().is_empty() && !uuid.text().is_empty() {
        let detail = "datasetName and datasetUUID can not be specified simultaneously";
        out.push(FieldError::invalid(&at.path, "resource", detail));
    }
    if name.text().contains('/') {
        out.push(name.invalid("must not contain '/'"));
    }
}

fn flex_options(options: &Node<'_>, out: &mut Findings) {
    for (key, value) in options.entries() {
        let domain = key.split('/').next().unwrap_or(key);
        let domain = domain.to_lowercase();
        let is_reserved = ["kubernetes.io", "k8s.io"]
            .iter()
            .any(|own| domain == *own || domain.ends_with(&format!(".{own}")));
        if key.contains('/') && is_reserved {
            let detail = "kubernetes.io and k8s.io namespaces are reserved";
            out.push(FieldError::invalid(&value.path, key, detail));
        }
    }
}

fn azure_disk(at: &Node<'_>, out: &mut Findings) {
    at.get("cachingMode").one_of(&["None", "ReadOnly", "ReadWrite"], out);
    at.get("kind").one_of(&["Dedicated", "Managed", "Shared"], out);
    let uri = at.get("diskURI");
    if uri.text().is_empty() {
        return;
    }
    let is_managed = uri.text().to_lowercase().starts_with("/subscriptions/");
    if at.get("kind").text() == "Managed" {
        if !is_managed {
            let form = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.\
                        compute/disks/{disk-id}";
            out.push(FieldError::not_supported(&uri.path, uri.text(), &[form]));
        }
    } else if !uri.text().starts_with("https://") {
        let form = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
        out.push(FieldError::not_supported(&uri.path, uri.text(), &[form]));
    }
}

/// A CSI driver in a pod, and the secret it may need.
pub(crate) fn inline_csi(at: &Node<'_>, out: &mut Findings) {
    driver(&at.get("driver"), out);
    let secret = at.get("nodePublishSecretRef");
    if secret.is_set() {
        // Upstream reports it at the driver.
        secret.get("name").under(at.path.child("name")).require_subdomain(out);
    }
}

/// A volume of a CSI driver.
pub(crate) fn csi(at: &Node<'_>, out: &mut Findings) {
    driver(&at.get("driver"), out);
    at.get("volumeHandle").require(out);
    for field in [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ] {
        let secret = at.get(field);
        if secret.is_set() {
            secret.get("name").require_subdomain(out);
            secret.get("namespace").require_label(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initiators_are_named_by_the_standard() {
        for text in [
            "iqn.2020-01.com.example:a",
            "eui.0123456789abcdef",
            "naa.0123456789abcdef0123456789abcdef",
        ] {
            assert!(is_initiator(text), "{text}");
        }
        for text in [
            "iqn.2020-1.com:a",
            "iqn.2020-01.com.example",
            "iqn.2020-01.a:b c",
            "eui.1",
            "naa.",
            "x",
        ] {
            assert!(!is_initiator(text), "{text}");
        }
    }
}
