//! The Secrets that people make for those who are about to join the cluster.

use std::time::Duration;

use client::{Change, Client, ClientError, DeleteOptions, Outcome};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use meta::ObjectKey;

use crate::context::Context;
use crate::reconcile::reconcile;

/// The type of Secrets with bootstrap tokens.
pub(crate) const TYPE: &str = "bootstrap.kubernetes.io/token";
/// Where they lie.
pub(crate) const NAMESPACE: &str = "kube-system";

/// Runs until shutdown: deletes tokens whose time has passed, as upstream's `TokenCleaner`.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("token-cleaner");
    let queue = ctx.queue("token_cleaner");
    ctx.informers.bootstrap_secrets.synced().await;
    let changed = queue.clone();
    ctx.informers.bootstrap_secrets.on_change(move |key, change| {
        if !matches!(change, Change::Deleted(_)) {
            changed.add(key.clone());
        }
    });
    reconcile(&queue, ctx.shutdown.clone(), move |key| {
        let (ctx, client) = (ctx.clone(), client.clone());
        async move { sync(&ctx, &client, &key).await }
    })
    .await;
}

async fn sync(ctx: &Context, client: &Client, key: &ObjectKey) -> Result<Outcome, ClientError> {
    let Some(secret) = ctx.informers.bootstrap_secrets.get(key) else { return Ok(Outcome::Done) };
    if !is_token(&secret) {
        return Ok(Outcome::Done);
    }
    match life(&secret, ctx.clock.now()) {
        Life::Endless => return Ok(Outcome::Done),
        Life::Left(left) => return Ok(Outcome::RequeueAfter(left)),
        Life::Over => {}
    }
    let options = DeleteOptions { uid: secret.metadata.uid.clone(), ..DeleteOptions::default() };
    match client.api::<Secret>(&key.namespace).delete(&key.name, &options).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(Outcome::Done),
    }
}

/// How long a token is valid.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Endless,
    Left(Duration),
    Over,
}

/// A time that cannot be read has passed.
pub(crate) fn life(secret: &Secret, now: Timestamp) -> Life {
    let end = text(secret, "expiration");
    if end.is_empty() {
        return Life::Endless;
    }
    let left = end.parse::<Timestamp>().map(|end| Duration::try_from(end.duration_since(now)));
    match left {
        Ok(Ok(left)) if !left.is_zero() => Life::Left(left),
        _ => Life::Over,
    }
}

/// Whether a Secret is for a bootstrap token.
pub(crate) fn is_token(secret: &Secret) -> bool {
    secret.type_.as_deref() == Some(TYPE)
}

/// Data that is text; nothing where there is none.
pub(crate) fn text<'a>(secret: &'a Secret, key: &str) -> &'a str {
    let value = secret.data.as_ref().and_then(|data| data.get(key));
    value.and_then(|value| std::str::from_utf8(&value.0).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn tokens_end_at_their_time() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let life = |end: &str| {
            let end = ByteString(end.as_bytes().to_vec());
            let data = Some(BTreeMap::from([("expiration".to_owned(), end)]));
            life(&Secret { data, ..Secret::default() }, now)
        };
        assert_eq!(life(""), Life::Endless);
        assert_eq!(life("2026-01-01T01:00:05+01:00"), Life::Left(Duration::from_secs(5)));
        assert_eq!(life("2026-01-01T00:00:00Z"), Life::Over);
        assert_eq!(life("tomorrow"), Life::Over);
    }
}
