//! Projected volumes: several sources under one path.

use std::collections::BTreeSet;

use meta::names;

use crate::FieldError;
use crate::certificate_signing_request::signer_name;
use crate::node::{Findings, Node};
use crate::volume::{downward_file, file_mode, key_paths, local_path};

const SOURCES: [&str; 6] = [
    "secret",
    "configMap",
    "downwardAPI",
    "serviceAccountToken",
    "clusterTrustBundle",
    "podCertificate",
];
const KEY_TYPES: [&str; 6] =
    ["ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519", "RSA3072", "RSA4096"];
/// Shortest and longest life of a certificate, and the longest for signers of Kubernetes.
pub(crate) const MIN_CERTIFICATE_SECS: i64 = 3600;
pub(crate) const MAX_CERTIFICATE_SECS: i64 = 91 * 86_400;
pub(crate) const MAX_OWN_CERTIFICATE_SECS: i64 = 86_400;
const MAX_ANNOTATIONS: usize = 256 * 1024;

pub(crate) fn projected(at: &Node<'_>, out: &mut Findings) {
    file_mode(&at.get("defaultMode"), out);
    let mut paths = Paths { seen: BTreeSet::new(), volume: at };
    for source in at.get("sources").items() {
        let mut kinds = 0;
        for kind in SOURCES {
            let inner = source.get(kind);
            if !inner.is_set() {
                continue;
            }
            kinds += 1;
            if kinds > 1 {
                out.push(inner.forbidden("may not specify more than 1 volume type per source"));
                continue;
            }
            one_source(kind, &inner, &mut paths, out);
        }
    }
}

/// Where files of the volume stand already.
struct Paths<'n, 'a> {
    seen: BTreeSet<String>,
    volume: &'n Node<'a>,
}

impl Paths<'_, '_> {
    /// Reported at the volume, with what upstream quotes.
    fn claim(&mut self, path: &str, quoted: &str, out: &mut Findings) {
        if !path.is_empty() && !self.seen.insert(path.to_owned()) {
            let detail = "conflicting duplicate paths";
            out.push(FieldError::invalid(&self.volume.path, quoted, detail));
        }
    }
}

fn one_source(kind: &str, inner: &Node<'_>, paths: &mut Paths<'_, '_>, out: &mut Findings) {
    match kind {
        "secret" | "configMap" => {
            let name = inner.get("name");
            name.require(out);
            key_paths(&inner.get("items"), out);
            for item in inner.get("items").items() {
                paths.claim(item.get("path").text(), name.text(), out);
            }
        }
        "downwardAPI" => {
            for file in inner.get("items").items() {
                downward_file(&file, out);
                let path = file.get("path").text();
                paths.claim(path, path, out);
            }
        }
        "serviceAccountToken" => {
            token(inner, paths.volume, out);
            let path = inner.get("path").text();
            paths.claim(path, path, out);
        }
        "clusterTrustBundle" => {
            trust_bundle(inner, out);
            let path = inner.get("path").text();
            paths.claim(path, path, out);
        }
        _ => {
            certificate(inner, out);
            for field in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
                let path = inner.get(field).text();
                paths.claim(path, path, out);
            }
        }
    }
}

fn token(token: &Node<'_>, volume: &Node<'_>, out: &mut Findings) {
    let seconds = token.get("expirationSeconds");
    if seconds.int() < 600 {
        out.push(seconds.invalid_int("may not specify a duration less than 10 minutes"));
    }
    if seconds.int() > 1 << 32 {
        out.push(seconds.invalid("may not specify a duration larger than 2^32 seconds"));
    }
    // Upstream reports the path at the volume.
    let path = token.get("path").under(volume.path.child("path"));
    if path.require(out) {
        local_path(&path, out);
    }
}

fn trust_bundle(bundle: &Node<'_>, out: &mut Findings) {
    let (name, signer) = (bundle.get("name"), bundle.get("signerName"));
    match (name.is_set(), signer.is_set()) {
        (true, true) => {
            let detail = "only one of name and signerName may be used";
            out.push(bundle.invalid(detail).shown_as("core/v1.ClusterTrustBundleProjection"));
        }
        (true, false) => {
            if name.require(out) {
                for text in names::dns1123_subdomain(&name.text().replace(':', ".")) {
                    let detail = format!("not a valid clustertrustbundlename: {text}");
                    out.push(name.invalid(detail));
                }
            }
            if bundle.get("labelSelector").is_set() {
                let selector = bundle.get("labelSelector");
                out.push(selector.invalid("labelSelector must be unset if name is specified"));
            }
        }
        (false, true) => {
            signer_name(&signer, out);
            crate::metadata::label_selector(&bundle.get("labelSelector"), out);
        }
        (false, false) => {
            let detail = "either name or signerName must be specified";
            out.push(FieldError::required(&bundle.path, detail));
        }
    }
    let path = bundle.get("path");
    if path.require(out) {
        local_path(&path, out);
    }
}

fn certificate(certificate: &Node<'_>, out: &mut Findings) {
    let signer = certificate.get("signerName");
    signer_name(&signer, out);
    let key = certificate.get("keyType");
    if !KEY_TYPES.contains(&key.text()) {
        out.push(FieldError::not_supported(&key.path, key.text(), &KEY_TYPES));
    }
    let seconds = certificate.get("maxExpirationSeconds");
    if seconds.is_set() {
        let is_own = is_own_signer(signer.text());
        let max = if is_own { MAX_OWN_CERTIFICATE_SECS } else { MAX_CERTIFICATE_SECS };
        if seconds.int() < MIN_CERTIFICATE_SECS {
            out.push(seconds.invalid(format!(
                "if provided, maxExpirationSeconds must be >= {MIN_CERTIFICATE_SECS}"
            )));
        }
        if seconds.int() > max {
            let detail = format!("if provided, maxExpirationSeconds must be <= {max}");
            out.push(seconds.invalid(detail));
        }
    }
    let mut paths = 0;
    for field in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
        let path = certificate.get(field);
        if !path.text().is_empty() {
            paths += 1;
            local_path(&path, out);
        }
    }
    if paths == 0 {
        let detail =
            "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        out.push(FieldError::required(&certificate.path, detail));
    }
    let annotations = certificate.get("userAnnotations");
    user_annotations(&annotations, out);
}

/// What a pod tells a signer.
pub(crate) fn user_annotations(annotations: &Node<'_>, out: &mut Findings) {
    let mut size = 0;
    for (key, value) in annotations.entries() {
        size += key.len() + value.text().len();
        if !key.contains('/') {
            let detail = "must be a domain-prefixed key (such as \"acme.io/foo\")";
            out.push(FieldError::invalid(&annotations.path, key, detail));
        }
    }
    if size > MAX_ANNOTATIONS {
        out.push(FieldError::too_long(&annotations.path, MAX_ANNOTATIONS));
    }
}

/// Whether a signer is one of upstream's own.
pub(crate) fn is_own_signer(signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or_default();
    domain == "kubernetes.io" || domain.ends_with(".kubernetes.io")
}
