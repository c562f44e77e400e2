//! Deletes requests that nobody needs any more.
//!
//! Upstream: `pkg/controller/certificates/cleaner/cleaner.go`.

use std::time::Duration;

use client::DeleteOptions;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use super::{has, is_issued};
use crate::context::Context;

/// How often is looked: upstream `pollingInterval`. Time alone makes a request old, and no event
/// tells of it.
const INTERVAL: Duration = Duration::from_secs(3600);
/// How long requests stay that are decided, and those that are not.
const DECIDED: SignedDuration = SignedDuration::from_hours(1);
const PENDING: SignedDuration = SignedDuration::from_hours(24);

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("certificate-controller");
    let requests = &ctx.informers.signing_requests;
    requests.synced().await;
    loop {
        let now = ctx.clock.now();
        for found in requests.list().iter().filter(|found| is_old(found, now)) {
            let uid = found.metadata.uid.clone();
            let options = DeleteOptions { uid, ..DeleteOptions::default() };
            let name = found.metadata.name.as_deref().unwrap_or_default();
            let api = client.api::<CertificateSigningRequest>("");
            // The next round tries again.
            if let Err(error) = api.delete(name, &options).await
                && !error.is_not_found()
            {
                tracing::warn!(name, %error, "an old signing request could not be deleted");
            }
        }
        tokio::select! {
            () = ctx.clock.sleep(INTERVAL) => {}
            () = ctx.shutdown.begun() => return,
        }
    }
}

fn is_old(found: &CertificateSigningRequest, now: Timestamp) -> bool {
    let is_past = |since: Option<Timestamp>, limit: SignedDuration| {
        since.is_some_and(|since| now.duration_since(since) > limit)
    };
    let status = found.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let decided = |kind: &str| {
        conditions.iter().any(|condition| {
            let since = condition.last_update_time.as_ref().map(|time| time.0);
            condition.type_ == kind && is_past(since, DECIDED)
        })
    };
    let created = found.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let is_pending = conditions.is_empty() && is_past(created, PENDING);
    let is_approved = decided("Approved") && (is_issued(found) || has(found, "Failed"));
    let certificate = status.and_then(|status| status.certificate.as_ref());
    let is_expired = certificate.is_some_and(|certificate| {
        let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(&certificate.0) else { return false };
        pem.parse_x509().is_ok_and(|leaf| leaf.validity().not_after.timestamp() < now.as_second())
    });
    is_pending || is_approved || decided("Denied") || decided("Failed") || is_expired
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn requests_go_when_they_are_old() {
        let is_old_at = |status: Value, now: &str| {
            let found = json!({ "metadata": { "creationTimestamp": "2026-01-01T00:00:00Z" },
                "spec": { "request": "", "signerName": "s" }, "status": status });
            let found: CertificateSigningRequest = serde_json::from_value(found).unwrap();
            is_old(&found, now.parse().unwrap())
        };
        let of = |kind: &str| {
            json!({ "conditions": [{ "type": kind, "status": "True",
                "lastUpdateTime": "2026-01-01T00:00:00Z" }] })
        };
        let mut issued = of("Approved");
        issued["certificate"] = "eA==".into();
        assert!(!is_old_at(issued.clone(), "2026-01-01T01:00:00Z"));
        assert!(is_old_at(issued, "2026-01-01T01:00:01Z"));
        assert!(!is_old_at(of("Approved"), "2026-01-01T02:00:00Z"), "it is not signed yet");
        assert!(is_old_at(of("Denied"), "2026-01-01T02:00:00Z"));
        assert!(!is_old_at(json!({}), "2026-01-02T00:00:00Z"));
        assert!(is_old_at(json!({}), "2026-01-02T00:00:01Z"));
    }
}
