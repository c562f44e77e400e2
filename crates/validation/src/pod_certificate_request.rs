//! PodCertificateRequests.
//!
//! Upstream: `pkg/apis/certificates/validation`.

mod key;
mod status;

use meta::names;

pub(crate) use self::status::status;

use self::key::{decoded, verify_possession, verify_request};
use crate::FieldError;
use crate::certificate_signing_request::signer_name;
use crate::node::{Findings, Node};
use crate::projected::{
    MAX_CERTIFICATE_SECS, MAX_OWN_CERTIFICATE_SECS, MIN_CERTIFICATE_SECS, is_own_signer,
    user_annotations,
};

const MAX_UID: usize = 128;

pub(crate) fn create(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    let signer = spec.get("signerName");
    signer_name(&signer, out);
    user_annotations(&spec.get("unverifiedUserAnnotations"), out);
    for (name, uid) in [
        ("podName", "podUID"),
        ("serviceAccountName", "serviceAccountUID"),
        ("nodeName", "nodeUID"),
    ] {
        let (name, uid) = (spec.get(name), spec.get(uid));
        name.invalid_each(names::dns1123_subdomain(name.text()), out);
        if uid.text().is_empty() {
            out.push(uid.invalid_text("must not be empty"));
        }
        uid.no_longer_than(MAX_UID, out);
    }
    let expiration = spec.get("maxExpirationSeconds");
    if !expiration.is_set() {
        out.push(FieldError::required(&expiration.path, "must be set"));
        return;
    }
    let max =
        if is_own_signer(signer.text()) { MAX_OWN_CERTIFICATE_SECS } else { MAX_CERTIFICATE_SECS };
    if !(MIN_CERTIFICATE_SECS..=max).contains(&expiration.int()) {
        let detail = format!("must be in the range [{MIN_CERTIFICATE_SECS}, {max}]");
        out.push(expiration.invalid(detail));
    }
    proof(&spec, out);
}

/// Whoever asks has the key: either a request signed with it, or a signature over the pod's uid.
fn proof(spec: &Node<'_>, out: &mut Findings) {
    let [request, key, proof] =
        ["stubPKCS10Request", "pkixPublicKey", "proofOfPossession"].map(|field| spec.get(field));
    let is_set = |bytes: &Node<'_>| !bytes.text().is_empty();
    match (is_set(&request), is_set(&key) || is_set(&proof)) {
        (true, false) => verify_request(&request, out),
        (false, true) => {
            verify_possession(&key, &proof, spec.get("podUID").text().as_bytes(), out);
        }
        _ => {
            let detail = "exactly one of (stubPKCS10Request) or (pkixPublicKey, \
                          proofOfPossession) must be set";
            out.push(FieldError::invalid(&spec.path, "", detail).without_value());
        }
    }
}

/// Nothing of a request changes but its status.
pub(crate) fn update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    new.get("spec").immutable(&old.get("spec"), out);
}

/// The public key that a request is about, as a subject public key info.
fn requested_key(spec: &Node<'_>) -> Option<Vec<u8>> {
    let request = decoded(spec.get("stubPKCS10Request").text());
    match request.filter(|bytes| !bytes.is_empty()) {
        Some(request) => key::of_request(&request),
        None => decoded(spec.get("pkixPublicKey").text()),
    }
}

#[cfg(test)]
mod tests;
