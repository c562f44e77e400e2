//! CertificateApproval and CertificateSigning: approving a request, or signing it, needs the
//! permission to do so for its signer.
//!
//! Upstream: `plugin/pkg/admission/certificates/{approval,signing}`.

use meta::Status;
use serde_json::Value;

use crate::chain::Plugin;
use crate::refusal::forbidden;
use crate::request::{Operation, Request, View};
use crate::signer;

pub(crate) struct CertificateApproval;

impl Plugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn validate(
        &self,
        request: &Request<'_>,
        _object: Option<&Value>,
        old: Option<&Value>,
        view: &dyn View,
    ) -> Result<(), Status> {
        match old {
            Some(old) if is_update_of(request, "approval") => check(request, old, view, "approve"),
            _ => Ok(()),
        }
    }
}

pub(crate) struct CertificateSigning;

impl Plugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
        view: &dyn View,
    ) -> Result<(), Status> {
        let (Some(new), Some(old)) = (object, old) else { return Ok(()) };
        let conditions = |request: &Value| request["status"]["conditions"].clone();
        let is_same = new["status"].get("certificate") == old["status"].get("certificate")
            && conditions(new) == conditions(old);
        // Only the certificate, and the condition that there will be none, are the signer's.
        if !is_update_of(request, "status") || is_same {
            return Ok(());
        }
        check(request, old, view, "sign")
    }
}

fn is_update_of(request: &Request<'_>, subresource: &str) -> bool {
    request.operation == Operation::Update
        && request.subresource == subresource
        && request.resource.group == "certificates.k8s.io"
        && request.resource.resource == "certificatesigningrequests"
}

fn check(request: &Request<'_>, old: &Value, view: &dyn View, verb: &str) -> Result<(), Status> {
    // The stored name counts: what was sent cannot change it, but is checked later.
    let signer = old["spec"]["signerName"].as_str().unwrap_or_default();
    if signer::may(request, view, verb, signer) {
        return Ok(());
    }
    let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
    Err(forbidden(request, &why))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Cluster, attempt};

    fn outcome(
        plugin: &dyn Plugin,
        subresource: &'static str,
        may: &[&str],
        status: Value,
    ) -> Result<(), String> {
        let old = json!({"spec": {"signerName": "x.io/s"}, "status": {}});
        let new = json!({"spec": {"signerName": "y.io/other"}, "status": status});
        let cluster = Cluster::default().allowing(may);
        let group = "certificates.k8s.io";
        let update = attempt(group, "certificatesigningrequests", Operation::Update);
        update.of(subresource).validate(plugin, Some(&new), Some(&old), &cluster)
    }

    #[test]
    fn approval_needs_the_permission_for_the_stored_signer() {
        let approved = || json!({"conditions": [{"type": "Approved"}]});
        let check = |may: &[&str]| outcome(&CertificateApproval, "approval", may, approved());
        assert!(check(&["approve signers x.io/s"]).is_ok());
        assert!(check(&["approve signers x.io/*"]).is_ok());
        assert_eq!(
            check(&["approve signers y.io/other"]).unwrap_err(),
            "certificatesigningrequests.certificates.k8s.io \"x\" is forbidden: user not permitted \
             to approve requests with signerName \"x.io/s\""
        );
        assert!(outcome(&CertificateApproval, "status", &[], approved()).is_ok());
    }

    #[test]
    fn signing_needs_a_permission_only_for_what_signers_write() {
        let check = |may: &[&str], status| outcome(&CertificateSigning, "status", may, status);
        assert!(check(&[], json!({})).is_ok());
        assert!(check(&[], json!({"certificate": "c"})).is_err());
        assert!(check(&["sign signers x.io/s"], json!({"certificate": "c"})).is_ok());
        assert!(check(&[], json!({"conditions": [{"type": "Failed"}]})).is_err());
    }
}
