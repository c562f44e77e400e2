//! Cluster trust bundles, as files of projected volumes.
//!
//! They are followed from the first pod on that uses one; most nodes never do, and an API server
//! that does not serve them is asked again for every pod.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use api::Typed;
use client::{Client, Informer, InformerConfig, Lister};
use clock::SharedClock;
use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::ClusterTrustBundleProjection;
use meta::{LabelSelector, ObjectKey};
use pem::{EncodeConfig, LineEnding, Pem};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use stdx::shutdown::Shutdown;

use crate::kubelet::lock;
use crate::volume::objects::Wake;

/// The bundles of the cluster.
pub(crate) struct TrustBundles {
    client: Client,
    clock: SharedClock,
    shutdown: Shutdown,
    wake: Wake,
    lister: tokio::sync::OnceCell<Lister<ClusterTrustBundle>>,
    users: Arc<Mutex<BTreeSet<String>>>,
}

impl TrustBundles {
    /// None yet.
    pub(crate) fn new(client: Client, clock: SharedClock, shutdown: Shutdown, wake: Wake) -> Self {
        let (lister, users) = Default::default();
        Self { client, clock, shutdown, wake, lister, users }
    }

    /// The certificates that a projection selects, in PEM. From now on the pod with this uid is
    /// woken when any bundle changes.
    pub(crate) async fn get(
        &self,
        uid: &str,
        from: &ClusterTrustBundleProjection,
    ) -> Result<String, String> {
        let lister = self.lister.get_or_try_init(|| self.follow()).await?;
        lock(&self.users).insert(uid.to_owned());
        let optional = from.optional == Some(true);
        let found = match &from.name {
            Some(name) => lister.get(&ObjectKey::new("", name)).into_iter().collect(),
            None => of_signer(&lister.list(), from)?,
        };
        if found.is_empty() && !optional {
            return Err(match &from.name {
                Some(name) => format!(
                    "while getting ClusterTrustBundle: \
                     clustertrustbundle.certificates.k8s.io {name:?} not found"
                ),
                None => "combination of signerName and labelSelector matched zero \
                         ClusterTrustBundles"
                    .to_owned(),
            });
        }
        let texts = found.iter().map(|bundle| bundle.spec.trust_bundle.as_str());
        normalize(texts).map_err(|why| format!("while normalizing trust anchors: {why}"))
    }

    /// The pod with this uid uses none any more.
    pub(crate) fn release(&self, uid: &str) {
        lock(&self.users).remove(uid);
    }

    async fn follow(&self) -> Result<Lister<ClusterTrustBundle>, String> {
        let config = InformerConfig::all::<ClusterTrustBundle>();
        // An informer would go on asking for what is not served.
        let listed = self.client.list_page(&config.path, "", &config.options).await;
        listed.map_err(|error| telemetry::Chain(&error).to_string())?;
        let lister = Informer::spawn(
            &self.client,
            &self.clock,
            config,
            &self.shutdown,
            ClusterTrustBundle::of,
        );
        let (users, wake) = (Arc::clone(&self.users), Arc::clone(&self.wake));
        lister.on_change(move |_, _| {
            for uid in lock(&users).iter() {
                wake(uid);
            }
        });
        lister.synced().await;
        Ok(lister)
    }
}

fn of_signer(
    all: &[Arc<ClusterTrustBundle>],
    from: &ClusterTrustBundleProjection,
) -> Result<Vec<Arc<ClusterTrustBundle>>, String> {
    let selector = from.label_selector.as_ref().map(Typed::to_tree).transpose();
    let selector = selector.map_err(|error| error.to_string())?;
    let selector =
        LabelSelector::from_object(selector.as_ref()).map_err(|error| error.to_string())?;
    let selected = all.iter().filter(|bundle| {
        let labels = bundle.metadata.labels.as_ref();
        bundle.spec.signer_name == from.signer_name
            && selector.matches(|key| labels?.get(key).map(String::as_str))
    });
    Ok(selected.cloned().collect())
}

/// Every certificate once, in a fixed order, without what is said about them.
fn normalize<'a>(texts: impl Iterator<Item = &'a str>) -> Result<String, String> {
    let mut anchors = BTreeSet::new();
    for text in texts {
        for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
            anchors.insert(certificate.map_err(|error| error.to_string())?.to_vec());
        }
    }
    let lines = EncodeConfig::new().set_line_ending(LineEnding::LF);
    let encode = |anchor| pem::encode_config(&Pem::new("CERTIFICATE", anchor), lines);
    Ok(anchors.into_iter().map(encode).collect())
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    #[test]
    fn certificates_are_told_once() {
        let one = |text: &str| {
            let text = base64::engine::general_purpose::STANDARD.encode(text);
            format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
        };
        let (a, b) = (one("a"), one(&"b".repeat(60)));
        let both = normalize([format!("# said\n{b}{a}").as_str(), a.as_str()].into_iter()).unwrap();
        assert!(both.starts_with(&a), "{both}");
        assert_eq!(both.matches("BEGIN").count(), 2);
        assert!(both.lines().all(|line| line.len() <= 64));
        assert_eq!(normalize([both.as_str()].into_iter()).unwrap(), both);
    }
}
