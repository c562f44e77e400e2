//! Approves requests of kubelets for client certificates, if whoever asks may have one.

use client::{Change, Client, ClientError, Outcome};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition,
};
use meta::ObjectKey;

use super::{KUBELET_CLIENT, has, is_issued, request};
use crate::context::Context;
use crate::reconcile::reconcile;

/// Runs until shutdown.
pub(crate) async fn run(ctx: Context) {
    let client = ctx.client("certificate-controller");
    let queue = ctx.queue("certificate");
    ctx.informers.signing_requests.synced().await;
    let changed = queue.clone();
    ctx.informers.signing_requests.on_change(move |key, change| {
        let (Change::Added(request) | Change::Updated { new: request, .. }) = change else {
            return;
        };
        if !recognized(request).is_empty() {
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
    let Some(found) = ctx.informers.signing_requests.get(key) else { return Ok(Outcome::Done) };
    for (subresource, message) in recognized(&found) {
        let review = review(&found, subresource);
        let answer = client.api::<SubjectAccessReview>("").create(&review).await?;
        if !answer.status.is_some_and(|status| status.allowed) {
            continue;
        }
        let mut approved = CertificateSigningRequest::clone(&found);
        let conditions = approved.status.get_or_insert_default().conditions.get_or_insert_default();
        conditions.push(CertificateSigningRequestCondition {
            type_: "Approved".to_owned(),
            status: "True".to_owned(),
            reason: Some("AutoApproved".to_owned()),
            message: Some(message.to_owned()),
            ..CertificateSigningRequestCondition::default()
        });
        let api = client.api::<CertificateSigningRequest>("");
        return match api.update_subresource("approval", &approved).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(Outcome::Done),
        };
    }
    Ok(Outcome::Done)
}

/// The rights that would allow a request, the narrower one first, and what is said then. None for
/// requests that are decided or none of a kubelet.
fn recognized(found: &CertificateSigningRequest) -> Vec<(&'static str, &'static str)> {
    let spec = &found.spec;
    let is_decided = is_issued(found) || has(found, "Approved") || has(found, "Denied");
    if is_decided || spec.signer_name != KUBELET_CLIENT {
        return Vec::new();
    }
    let usages = spec.usages.as_deref().unwrap_or_default();
    let Ok(subject) = request::parse(&spec.request.0) else { return Vec::new() };
    if request::check_kubelet_client(&subject, usages).is_err() {
        return Vec::new();
    }
    let mut recognized = Vec::new();
    if spec.username.as_ref() == Some(&subject.common_name) {
        let text = "Auto approving self kubelet client certificate after SubjectAccessReview.";
        recognized.push(("selfnodeclient", text));
    }
    let text = "Auto approving kubelet client certificate after SubjectAccessReview.";
    recognized.push(("nodeclient", text));
    recognized
}

fn review(found: &CertificateSigningRequest, subresource: &str) -> SubjectAccessReview {
    let spec = &found.spec;
    let text = |text: &str| Some(text.to_owned());
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: spec.username.clone(),
            uid: spec.uid.clone(),
            groups: spec.groups.clone(),
            extra: spec.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                group: text("certificates.k8s.io"),
                resource: text("certificatesigningrequests"),
                subresource: text(subresource),
                verb: text("create"),
                version: text("*"),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}
