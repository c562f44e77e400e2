//! Signs what is approved, with the cluster's authority.

use std::sync::Arc;

use client::{Change, Client, ClientError, Outcome, ResourcePath};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition,
};
use meta::ObjectKey;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber,
};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    KUBE_APISERVER_CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY_UNKNOWN, has, is_issued,
    request, subject,
};
use crate::context::Context;
use crate::reconcile::reconcile;
use crate::{Authority, selection};

/// Certificates are valid from a little earlier on: clocks differ.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);
/// A request may ask for no shorter time: upstream's validation.
const SHORTEST: SignedDuration = SignedDuration::from_mins(10);

/// Runs until shutdown; without an authority there is nothing to sign with.
pub(crate) async fn run(ctx: Context) {
    let Some(authority) = ctx.config.signing.clone().map(Arc::new) else {
        return ctx.shutdown.begun().await;
    };
    let client = ctx.client("certificate-controller");
    let queue = ctx.queue("csr-signing");
    ctx.informers.signing_requests.synced().await;
    let changed = queue.clone();
    ctx.informers.signing_requests.on_change(move |key, change| {
        let (Change::Added(found) | Change::Updated { new: found, .. }) = change else { return };
        if is_wanted(found) {
            changed.add(key.clone());
        }
    });
    reconcile(&queue, ctx.shutdown.clone(), move |key| {
        let (ctx, client, authority) = (ctx.clone(), client.clone(), Arc::clone(&authority));
        async move { sync(&ctx, &client, &authority, &key).await }
    })
    .await;
}

fn is_wanted(found: &CertificateSigningRequest) -> bool {
    let ours = [KUBE_APISERVER_CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY_UNKNOWN];
    ours.contains(&found.spec.signer_name.as_str())
        && has(found, "Approved")
        && !has(found, "Denied")
        && !has(found, "Failed")
        && !is_issued(found)
}

async fn sync(
    ctx: &Context,
    client: &Client,
    authority: &Authority,
    key: &ObjectKey,
) -> Result<Outcome, ClientError> {
    let found = ctx.informers.signing_requests.get(key).filter(|found| is_wanted(found));
    let Some(found) = found else { return Ok(Outcome::Done) };
    let status = match sign(&found, authority, ctx.clock.now()) {
        Ok(certificate) => {
            let text = k8s_openapi::ByteString(certificate.into_bytes());
            json!({ "certificate": text })
        }
        Err(why) => {
            let mut conditions =
                found.status.clone().and_then(|status| status.conditions).unwrap_or_default();
            conditions.push(CertificateSigningRequestCondition {
                type_: "Failed".to_owned(),
                status: "True".to_owned(),
                reason: Some("SignerValidationFailure".to_owned()),
                message: Some(why),
                ..CertificateSigningRequestCondition::default()
            });
            json!({ "conditions": conditions })
        }
    };
    // The identity may write a status, but not read one apart.
    let change = json!({ "status": status, "metadata": { "uid": found.metadata.uid,
        "resourceVersion": found.metadata.resource_version } });
    let path = ResourcePath::of::<CertificateSigningRequest>();
    let api = client.dynamic::<Value>(path, "");
    match api.merge_update(&selection::key_of(&found.metadata).name, "status", &change).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(Outcome::Done),
    }
}

/// The certificate in PEM, or why there is none.
fn sign(
    found: &CertificateSigningRequest,
    authority: &Authority,
    now: Timestamp,
) -> Result<String, String> {
    let spec = &found.spec;
    let usages = spec.usages.as_deref().unwrap_or_default();
    let asked = request::parse(&spec.request.0)?;
    match spec.signer_name.as_str() {
        KUBELET_CLIENT => request::check_kubelet_client(&asked, usages)?,
        KUBELET_SERVING => request::check_kubelet_serving(&asked, usages)?,
        KUBE_APISERVER_CLIENT => request::check_client(usages)?,
        _ => {}
    }
    let wanted = request::wanted(&spec.request.0)?;
    let mut params = CertificateParams::default();
    params.subject_alt_names = wanted.names;
    params.distinguished_name = DistinguishedName::new();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = usages.iter().filter_map(|usage| key_usage(usage)).collect();
    params.extended_key_usages = usages.iter().filter_map(|usage| extended(usage)).collect();
    params.use_authority_key_identifier_extension = true;
    let mut serial: [u8; 16] = rand::random();
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let asked_for =
        spec.expiration_seconds.map(|seconds| SignedDuration::from_secs(seconds.into()));
    let lifetime =
        asked_for.map_or(authority.lifetime, |asked| asked.max(SHORTEST).min(authority.lifetime));
    let end = (now + lifetime).min(authority.expires()?);
    params.not_before = at(now - BACKDATE)?;
    params.not_after = at(end)?;
    let key = KeyPair::from_pem(&authority.key).map_err(|error| error.to_string())?;
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, &key);
    let issuer = issuer.map_err(|error| error.to_string())?;
    let signed = params.signed_by(&wanted.key, &issuer).map_err(|error| error.to_string())?;
    subject::with_subject(signed.der(), &wanted.subject, &key)
}

impl Authority {
    /// No certificate outlives the one it is signed with.
    fn expires(&self) -> Result<Timestamp, String> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(self.certificate.as_bytes())
            .map_err(|error| error.to_string())?;
        let certificate = pem.parse_x509().map_err(|error| error.to_string())?;
        let end = certificate.validity().not_after.timestamp();
        Timestamp::from_second(end).map_err(|error| error.to_string())
    }
}

fn at(time: Timestamp) -> Result<OffsetDateTime, String> {
    OffsetDateTime::from_unix_timestamp(time.as_second()).map_err(|error| error.to_string())
}

fn key_usage(usage: &str) -> Option<KeyUsagePurpose> {
    Some(match usage {
        "signing" | "digital signature" => KeyUsagePurpose::DigitalSignature,
        "content commitment" => KeyUsagePurpose::ContentCommitment,
        "key encipherment" => KeyUsagePurpose::KeyEncipherment,
        "data encipherment" => KeyUsagePurpose::DataEncipherment,
        "key agreement" => KeyUsagePurpose::KeyAgreement,
        "cert sign" => KeyUsagePurpose::KeyCertSign,
        "crl sign" => KeyUsagePurpose::CrlSign,
        "encipher only" => KeyUsagePurpose::EncipherOnly,
        "decipher only" => KeyUsagePurpose::DecipherOnly,
        _ => return None,
    })
}

fn extended(usage: &str) -> Option<ExtendedKeyUsagePurpose> {
    let other = |oid: &[u64]| ExtendedKeyUsagePurpose::Other(oid.to_vec());
    Some(match usage {
        "any" => ExtendedKeyUsagePurpose::Any,
        "server auth" => ExtendedKeyUsagePurpose::ServerAuth,
        "client auth" => ExtendedKeyUsagePurpose::ClientAuth,
        "code signing" => ExtendedKeyUsagePurpose::CodeSigning,
        "email protection" | "s/mime" => ExtendedKeyUsagePurpose::EmailProtection,
        "timestamping" => ExtendedKeyUsagePurpose::TimeStamping,
        "ocsp signing" => ExtendedKeyUsagePurpose::OcspSigning,
        "ipsec end system" => other(&[1, 3, 6, 1, 5, 5, 7, 3, 5]),
        "ipsec tunnel" => other(&[1, 3, 6, 1, 5, 5, 7, 3, 6]),
        "ipsec user" => other(&[1, 3, 6, 1, 5, 5, 7, 3, 7]),
        "microsoft sgc" => other(&[1, 3, 6, 1, 4, 1, 311, 10, 3, 3]),
        "netscape sgc" => other(&[2, 16, 840, 1, 113_730, 4, 1]),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
