//! Requests for certificates of pods: only who may sign says how they end, and a certificate
//! begins about now.
//!
//! Upstream: `registry/certificates/podcertificaterequest/strategy.go`.

use jiff::SignedDuration;
use meta::{Cause, Status};
use serde_json::Value;

use super::{Strategy, WriteContext};
use crate::errors;

const GROUP: &str = "certificates.k8s.io";
/// How far from now a certificate may begin.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

pub(super) struct PodCertificateRequests;

impl Strategy for PodCertificateRequests {
    fn permits_status(
        &self,
        ctx: &WriteContext<'_>,
        object: &Value,
        old: &Value,
    ) -> Result<(), Status> {
        if object.get("status") == old.get("status") {
            return Ok(());
        }
        let text = |pointer: &str| old.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let refuse = |reason: &str, field: &str, message: String| {
            let (reason, field) = (reason.to_owned(), field.to_owned());
            let cause = Cause { reason, message, field };
            let kind = "PodCertificateRequest";
            Err(errors::invalid(GROUP, kind, text("/metadata/name"), vec![cause]))
        };
        let begins = object.pointer("/status/notBefore").and_then(Value::as_str);
        if let Some(begins) = begins
            && !meta::time::parse(begins)
                .is_ok_and(|begins| ctx.server.clock.now().duration_since(begins).abs() < SKEW)
        {
            let message = format!(
                "Invalid value: {begins:?}: must be set to within 5 minutes of kube-apiserver's \
                 current time"
            );
            return refuse("FieldValueInvalid", "status.notBefore", message);
        }
        let signer = text("/spec/signerName");
        if may_sign(ctx, signer) {
            return Ok(());
        }
        let message = format!(
            "Forbidden: User {:?} is not permitted to \"sign\" for signer {signer:?}",
            ctx.user.name
        );
        refuse("FieldValueForbidden", "spec.signerName", message)
    }
}

/// Whether the user may sign for a signer, or for all signers of its domain.
fn may_sign(ctx: &WriteContext<'_>, signer: &str) -> bool {
    let subject = authz::Subject { name: &ctx.user.name, groups: &ctx.user.groups };
    let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
    [signer, &format!("{domain}/*")].into_iter().any(|name| {
        let asked = authz::Attributes::resource("sign", GROUP, "signers", "", name);
        ctx.server.authorizer.authorize(subject, &asked).is_allowed()
    })
}
