//! Publishes the authority of the API server as a ClusterTrustBundle, named by its content.
//!
//! Upstream: `pkg/controller/certificates/clustertrustbundlepublisher`.

use std::fmt::Write;

use api::Typed;
use client::{Client, ClientError, DeleteOptions, Informer, InformerConfig, Lister, Outcome};
use k8s_openapi::api::certificates::v1beta1::{ClusterTrustBundle, ClusterTrustBundleSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use meta::ObjectKey;
use sha2::{Digest, Sha256};

use crate::context::Context;
use crate::reconcile::reconcile;

const SIGNER: &str = "kubernetes.io/kube-apiserver-serving";
/// Bytes of the hash that a name has.
const HASH_BYTES: usize = 12;

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("kube-apiserver-serving-clustertrustbundle-publisher");
    let queue = ctx.queue("ca_cert_publisher_cluster_trust_bundles");
    let all = InformerConfig::all::<ClusterTrustBundle>();
    let bundles =
        Informer::spawn(&ctx.manager, &ctx.clock, all, &ctx.shutdown, ClusterTrustBundle::of);
    bundles.synced().await;
    let changed = queue.clone();
    bundles.on_change(move |_, _| changed.add(ObjectKey::cluster("")));
    queue.add(ObjectKey::cluster(""));
    let shutdown = ctx.shutdown.clone();
    reconcile(&queue, shutdown, move |_| {
        let (ctx, client, bundles) = (ctx.clone(), client.clone(), bundles.clone());
        async move {
            let begun = ctx.clock.monotonic();
            let synced = sync(&client, &bundles, &ctx.config.root_ca).await;
            let code = match &synced {
                Ok(_) => "200".to_owned(),
                Err(error) => error.status().map_or(500, |status| status.code).to_string(),
            };
            let took = ctx.clock.monotonic().duration_since(begun).as_secs_f64();
            ctx.counts.trust_bundle_syncs.with_label_values(&[&code]).inc();
            ctx.counts.trust_bundle_seconds.with_label_values(&[&code]).observe(took);
            synced
        }
    })
    .await;
}

async fn sync(
    client: &Client,
    bundles: &Lister<ClusterTrustBundle>,
    authority: &str,
) -> Result<Outcome, ClientError> {
    let api = client.api::<ClusterTrustBundle>("");
    let name = name_of(authority);
    match bundles.get(&ObjectKey::cluster(&name)) {
        None => drop(api.create(&bundle(&name, authority)).await?),
        Some(found) if found.spec.trust_bundle != authority => {
            let mut found = ClusterTrustBundle::clone(&found);
            authority.clone_into(&mut found.spec.trust_bundle);
            api.update(&found).await?;
        }
        Some(_) => {}
    }
    let ours = bundles.list();
    let ours = ours.iter().filter(|found| found.spec.signer_name.as_deref() == Some(SIGNER));
    for former in ours.filter_map(|found| found.metadata.name.as_deref()) {
        if former == name {
            continue;
        }
        match api.delete(former, &DeleteOptions::default()).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    Ok(Outcome::Done)
}

fn bundle(name: &str, authority: &str) -> ClusterTrustBundle {
    ClusterTrustBundle {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        spec: ClusterTrustBundleSpec {
            signer_name: Some(SIGNER.to_owned()),
            trust_bundle: authority.to_owned(),
        },
    }
}

fn name_of(authority: &str) -> String {
    let mut name = format!("{}:", SIGNER.replace('/', ":"));
    for byte in Sha256::digest(authority).iter().take(HASH_BYTES) {
        // Writing to a string does not fail.
        write!(name, "{byte:02x}").ok();
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_named_by_its_content() {
        assert_eq!(name_of(""), "kubernetes.io:kube-apiserver-serving:e3b0c44298fc1c149afbf4c8");
        assert_ne!(name_of("a"), name_of("b"));
    }
}
