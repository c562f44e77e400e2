//! Deletes requests of pods for certificates that are over in any way: kubelets wait no longer.
//!
//! Upstream: `pkg/controller/certificates/cleaner/pcrcleaner.go`.

use std::time::Duration;

use api::Typed;
use client::{DeleteOptions, Informer, InformerConfig};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1beta1::PodCertificateRequest;

use crate::context::Context;

/// Upstream's polling interval and age: time alone makes a request old.
const INTERVAL: Duration = Duration::from_secs(5 * 60);
const OLD: SignedDuration = SignedDuration::from_mins(15);

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("podcertificaterequestcleaner");
    let all = InformerConfig::all::<PodCertificateRequest>();
    let requests =
        Informer::spawn(&ctx.manager, &ctx.clock, all, &ctx.shutdown, PodCertificateRequest::of);
    requests.synced().await;
    loop {
        let now = ctx.clock.now();
        for found in requests.list().iter().filter(|found| is_old(found, now)) {
            let meta = &found.metadata;
            let options = DeleteOptions { uid: meta.uid.clone(), ..DeleteOptions::default() };
            let namespace = meta.namespace.as_deref().unwrap_or_default();
            let name = meta.name.as_deref().unwrap_or_default();
            let api = client.api::<PodCertificateRequest>(namespace);
            // The next round tries again.
            if let Err(error) = api.delete(name, &options).await
                && !error.is_not_found()
            {
                tracing::warn!(namespace, name, %error, "an old request could not be deleted");
            }
        }
        tokio::select! {
            () = ctx.clock.sleep(INTERVAL) => {}
            () = ctx.shutdown.begun() => return,
        }
    }
}

fn is_old(found: &PodCertificateRequest, now: Timestamp) -> bool {
    let created = found.metadata.creation_timestamp.as_ref();
    created.is_some_and(|created| now.duration_since(created.0) >= OLD)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_is_old_after_a_quarter_of_an_hour() {
        let found = json!({ "metadata": { "creationTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "maxExpirationSeconds": 3600, "nodeName": "n", "nodeUID": "n",
                "podName": "p", "podUID": "p", "serviceAccountName": "s",
                "serviceAccountUID": "s", "signerName": "a.io/b" } });
        let found: PodCertificateRequest = serde_json::from_value(found).unwrap();
        assert!(!is_old(&found, "2026-01-01T00:14:59Z".parse().unwrap()));
        assert!(is_old(&found, "2026-01-01T00:15:00Z".parse().unwrap()));
    }
}
