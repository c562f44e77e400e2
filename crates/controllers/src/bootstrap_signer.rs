//! Signs what those who are about to join may know of the cluster, with their tokens, as upstream's
//! `Signer`.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use client::{Change, ClientError, Outcome};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use meta::ObjectKey;
use serde_json::json;

use crate::bootstrap_secret::{Life, is_token, life, text};
use crate::context::Context;
use crate::reconcile::reconcile;

/// The ConfigMap that everybody may read.
pub(crate) const NAME: &str = "cluster-info";
pub(crate) const NAMESPACE: &str = "kube-public";
const KUBECONFIG: &str = "kubeconfig";
const SIGNATURE: &str = "jws-kubeconfig-";

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("bootstrap-signer");
    let queue = ctx.queue("bootstrap_signer_queue");
    let informers = &ctx.informers;
    tokio::join!(informers.bootstrap_secrets.synced(), informers.cluster_info.synced());
    let key = ObjectKey::new(NAMESPACE, NAME);
    informers.bootstrap_secrets.on_change({
        let (queue, key) = (queue.clone(), key.clone());
        move |_, _| queue.add(key.clone())
    });
    informers.cluster_info.on_change({
        let queue = queue.clone();
        move |key, change| {
            if key.name == NAME && !matches!(change, Change::Deleted(_)) {
                queue.add(key.clone());
            }
        }
    });
    reconcile(&queue, ctx.shutdown.clone(), move |key| {
        let (ctx, client) = (ctx.clone(), client.clone());
        async move {
            let Some(map) = ctx.informers.cluster_info.get(&key) else { return Ok(Outcome::Done) };
            let tokens = tokens(&ctx.informers.bootstrap_secrets.list(), ctx.clock.now());
            let signed = signed(&map, &tokens).map_err(ClientError::decode)?;
            let Some(signed) = signed else { return Ok(Outcome::Done) };
            match client.api::<ConfigMap>(NAMESPACE).update(&signed).await {
                Err(error) if !error.is_not_found() => Err(error),
                _ => Ok(Outcome::Done),
            }
        }
    })
    .await;
}

/// Secrets of tokens that sign, by their ids.
fn tokens(
    secrets: &[impl std::ops::Deref<Target = Secret>],
    now: Timestamp,
) -> BTreeMap<String, String> {
    let signing = secrets.iter().filter_map(|secret| {
        let name = secret.metadata.name.as_deref().unwrap_or_default();
        let (id, value) = (text(secret, "token-id"), text(secret, "token-secret"));
        let is_id = id.len() == 6
            && id.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
            && name.strip_prefix("bootstrap-token-") == Some(id);
        let signs = is_token(secret)
            && is_id
            && !value.is_empty()
            && life(secret, now) != Life::Over
            && text(secret, "usage-bootstrap-signing") == "true";
        signs.then(|| (id.to_owned(), value.to_owned()))
    });
    signing.collect()
}

/// The ConfigMap with the signatures that it should have; nothing, if it has them.
fn signed(
    map: &ConfigMap,
    tokens: &BTreeMap<String, String>,
) -> Result<Option<ConfigMap>, jsonwebtoken::errors::Error> {
    let Some(content) = map.data.as_ref().and_then(|data| data.get(KUBECONFIG)) else {
        return Ok(None);
    };
    let mut next = map.clone();
    let data = next.data.get_or_insert_default();
    data.retain(|key, _| !key.starts_with(SIGNATURE));
    for (id, secret) in tokens {
        data.insert(format!("{SIGNATURE}{id}"), signature(content, id, secret)?);
    }
    Ok((next.data != map.data).then_some(next))
}

/// A JWS whose content is left out.
fn signature(content: &str, id: &str, secret: &str) -> Result<String, jsonwebtoken::errors::Error> {
    let header = URL_SAFE_NO_PAD.encode(json!({ "alg": "HS256", "kid": id }).to_string());
    let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256)?;
    Ok(format!("{header}..{signature}"))
}

#[cfg(test)]
mod tests;
