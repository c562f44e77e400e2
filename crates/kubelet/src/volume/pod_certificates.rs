//! Certificates of pods: a key of their own, made here, and what a signer says about it.
//!
//! Keys are kept in memory and in the pod's volume only. After a restart of the kubelet, and when a
//! signer wants it, a new key is made; until its certificate is issued the one before stays.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use client::{Client, ClientError};
use clock::SharedClock;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1beta1::{
    PodCertificateRequest, PodCertificateRequestSpec, PodCertificateRequestStatus,
};
use k8s_openapi::api::core::v1::{Node, Pod, PodCertificateProjection, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, RsaKeySize};

use crate::kubelet::lock;
use crate::pod::spec;

/// How often a signer is looked after. A node may watch requests, but a pod waits for few.
const EVERY: Duration = Duration::from_millis(500);
/// How long one attempt waits for a signer; the volume is tried again after that.
const WAIT: Duration = Duration::from_secs(5);
/// When the API server gives none: upstream's default.
const EXPIRATION_SECONDS: i32 = 86_400;

/// A key and its certificates, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Bundle {
    pub(crate) key: String,
    pub(crate) chain: String,
    /// When another one is to be asked for.
    pub(crate) refresh_at: Timestamp,
}

/// A request that a signer has not answered.
#[derive(Clone)]
struct Pending {
    name: String,
    key: String,
}

#[derive(Clone, Default)]
struct State {
    issued: Option<Bundle>,
    pending: Option<Pending>,
    /// A signer will never answer.
    denied: Option<String>,
}

/// Which projection: pod, volume and place in it.
type Key = (String, String, usize);

/// The certificates of all pods of the node.
pub(crate) struct PodCertificates {
    client: Client,
    clock: SharedClock,
    states: Mutex<BTreeMap<Key, State>>,
}

impl PodCertificates {
    /// None yet.
    pub(crate) fn new(client: Client, clock: SharedClock) -> Self {
        Self { client, clock, states: Mutex::default() }
    }

    /// The certificate of a projection; the error is the end of a `FailedMount` event.
    ///
    /// Safe to drop: a request under way is found again.
    pub(crate) async fn get(
        &self,
        pod: &Pod,
        node: Option<&Node>,
        place: (&str, usize),
        from: &PodCertificateProjection,
    ) -> Result<Bundle, String> {
        let key = (spec::uid(pod).to_owned(), place.0.to_owned(), place.1);
        let until = self.clock.now() + WAIT;
        loop {
            let state = lock(&self.states).entry(key.clone()).or_default().clone();
            let now = self.clock.now();
            if let Some(bundle) = state.issued.clone().filter(|bundle| now < bundle.refresh_at) {
                return Ok(bundle);
            }
            if let Some(why) = state.denied {
                return Err(why);
            }
            let outcome = self.step(pod, node, from, state.pending).await;
            match self.note(&key, outcome) {
                Noted::Changed => continue,
                Noted::Failed(why) => return Err(why),
                Noted::Waits => {}
            }
            if let Some(old) = state.issued {
                // It goes on until the next one is there.
                return Ok(Bundle { refresh_at: now + WAIT, ..old });
            }
            if now >= until {
                return Err("pod certificate is not issued yet".to_owned());
            }
            self.clock.sleep(EVERY).await;
        }
    }

    /// Notes what came of a step.
    fn note(&self, key: &Key, outcome: Result<Step, ClientError>) -> Noted {
        let mut states = lock(&self.states);
        let state = states.entry(key.clone()).or_default();
        match outcome {
            Ok(Step::Waits(pending)) => {
                state.pending = Some(pending);
                Noted::Waits
            }
            Ok(Step::Issued(bundle)) => {
                *state = State { issued: Some(bundle), ..State::default() };
                Noted::Changed
            }
            Ok(Step::Denied(why)) => {
                state.denied = Some(why);
                Noted::Changed
            }
            Err(error) => {
                let error = telemetry::Chain(&error).to_string();
                if state.issued.is_none() {
                    return Noted::Failed(error);
                }
                tracing::warn!(pod_uid = key.0, error, "certificate of a pod not renewed");
                Noted::Waits
            }
        }
    }

    /// Forgets the keys of a pod.
    pub(crate) fn release(&self, uid: &str) {
        lock(&self.states).retain(|(of, ..), _| of != uid);
    }

    async fn step(
        &self,
        pod: &Pod,
        node: Option<&Node>,
        from: &PodCertificateProjection,
        pending: Option<Pending>,
    ) -> Result<Step, ClientError> {
        let api = self.client.api::<PodCertificateRequest>(spec::namespace(pod));
        let Some(pending) = pending else {
            return self.ask(pod, node, from).await.map(Step::Waits);
        };
        match api.get_opt(&pending.name).await? {
            Some(found) => Ok(read(pending, found.status.unwrap_or_default())),
            // Requests are removed after a while.
            None => self.ask(pod, node, from).await.map(Step::Waits),
        }
    }

    /// Makes a key and asks for its certificate.
    async fn ask(
        &self,
        pod: &Pod,
        node: Option<&Node>,
        from: &PodCertificateProjection,
    ) -> Result<Pending, ClientError> {
        let account = spec::spec(pod).service_account_name.as_deref().unwrap_or("default");
        let accounts = self.client.api::<ServiceAccount>(spec::namespace(pod));
        let account_uid = accounts.get(account).await?.metadata.uid.unwrap_or_default();
        let key_type = from.key_type.clone();
        // A long key takes a while to find.
        let made = tokio::task::spawn_blocking(move || make_key(&key_type)).await;
        let (key, request) =
            made.map_err(ClientError::transport)?.map_err(ClientError::transport)?;
        let name = format!("req-{}-{:08x}", spec::name(pod), rand::random::<u32>());
        let mut object = PodCertificateRequest {
            spec: PodCertificateRequestSpec {
                max_expiration_seconds: from.max_expiration_seconds.or(Some(EXPIRATION_SECONDS)),
                node_name: api::pod::node_name(pod).to_owned(),
                node_uid: node.and_then(|node| node.metadata.uid.clone()).unwrap_or_default(),
                pod_name: spec::name(pod).to_owned(),
                pod_uid: spec::uid(pod).to_owned(),
                service_account_name: account.to_owned(),
                service_account_uid: account_uid,
                signer_name: from.signer_name.clone(),
                stub_pkc_s10_request: ByteString(request),
                unverified_user_annotations: from.user_annotations.clone(),
                ..PodCertificateRequestSpec::default()
            },
            ..PodCertificateRequest::default()
        };
        object.metadata.name = Some(name.clone());
        object.metadata.namespace = Some(spec::namespace(pod).to_owned());
        object.metadata.owner_references = Some(vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: spec::name(pod).to_owned(),
            uid: spec::uid(pod).to_owned(),
            ..OwnerReference::default()
        }]);
        let api = self.client.api::<PodCertificateRequest>(spec::namespace(pod));
        api.create(&object).await?;
        Ok(Pending { name, key })
    }
}

enum Step {
    Waits(Pending),
    Issued(Bundle),
    Denied(String),
}

enum Noted {
    /// Look at the state again.
    Changed,
    Waits,
    Failed(String),
}

/// What a signer says.
fn read(pending: Pending, status: PodCertificateRequestStatus) -> Step {
    for condition in status.conditions.iter().flatten().filter(|c| c.status == "True") {
        let (reason, message) = (&condition.reason, &condition.message);
        match condition.type_.as_str() {
            "Denied" => {
                return Step::Denied(format!(
                    "PodCertificateRequest was permanently denied: reason={reason:?} \
                     message={message:?}"
                ));
            }
            "Failed" => {
                return Step::Denied(format!(
                    "PodCertificateRequest permanently failed: reason={reason:?} \
                     message={message:?}"
                ));
            }
            _ => {}
        }
    }
    match (status.certificate_chain, status.begin_refresh_at) {
        (Some(chain), Some(refresh_at)) if !chain.is_empty() => {
            Step::Issued(Bundle { key: pending.key, chain, refresh_at: refresh_at.0 })
        }
        _ => Step::Waits(pending),
    }
}

/// A key in PEM, and an otherwise empty request that is signed with it.
fn make_key(kind: &str) -> Result<(String, Vec<u8>), rcgen::Error> {
    let key = match kind {
        "RSA3072" => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072),
        "RSA4096" => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096),
        "ECDSAP256" => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        "ECDSAP384" => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        "ECDSAP521" => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512),
        "ED25519" => KeyPair::generate_for(&rcgen::PKCS_ED25519),
        _ => Err(rcgen::Error::KeyGenerationUnavailable),
    }?;
    let mut empty = CertificateParams::default();
    empty.distinguished_name = DistinguishedName::new();
    let request = empty.serialize_request(&key)?;
    Ok((key.serialize_pem(), request.der().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_every_kind_can_be_asked_for() {
        for kind in ["ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519", "RSA3072"] {
            let (key, request) = make_key(kind).unwrap();
            assert!(key.starts_with("-----BEGIN PRIVATE KEY-----"), "{kind}");
            let (_, read) =
                <x509_parser::certification_request::X509CertificationRequest as x509_parser::prelude::FromDer<_>>::from_der(&request).unwrap();
            assert_eq!(read.certification_request_info.subject.iter().count(), 0, "{kind}");
        }
        assert!(make_key("DSA").is_err());
    }
}
