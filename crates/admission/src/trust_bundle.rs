//! ClusterTrustBundleAttest: who speaks for a signer must be allowed to.
//!
//! Upstream: `plugin/pkg/admission/certificates/ctbattest`.

use meta::Status;
use serde_json::Value;

use crate::chain::Plugin;
use crate::refusal::forbidden;
use crate::request::{Operation, Request, View};
use crate::signer;

pub(crate) struct ClusterTrustBundleAttest;

impl Plugin for ClusterTrustBundleAttest {
    fn name(&self) -> &'static str {
        "ClusterTrustBundleAttest"
    }

    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
        view: &dyn View,
    ) -> Result<(), Status> {
        let is_bundle = request.resource.group == "certificates.k8s.io"
            && request.resource.resource == "clustertrustbundles";
        let is_write = matches!(request.operation, Operation::Create | Operation::Update);
        let Some(object) = object.filter(|_| is_bundle && is_write) else { return Ok(()) };
        let signer = object["spec"]["signerName"].as_str().unwrap_or_default();
        if signer.is_empty() || old.is_some_and(|old| only_collector_fields_differ(object, old)) {
            return Ok(());
        }
        if signer::may(request, view, "attest", signer) {
            return Ok(());
        }
        let why = format!("user not permitted to attest for signerName {signer:?}");
        Err(forbidden(request, &why))
    }
}

/// The garbage collector, and whoever moves objects to another version, change no more than this.
fn only_collector_fields_differ(new: &Value, old: &Value) -> bool {
    let rest = |object: &Value| {
        let mut object = object.clone();
        if let Some(map) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            map.retain(|key, _| {
                !matches!(
                    key.as_str(),
                    "ownerReferences" | "finalizers" | "managedFields" | "resourceVersion"
                )
            });
        }
        object
    };
    rest(new) == rest(old)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Cluster, attempt};

    fn attested(may: &[&str], operation: Operation, old: Option<&Value>, new: &Value) -> bool {
        let cluster = Cluster::default().allowing(may);
        let write = attempt("certificates.k8s.io", "clustertrustbundles", operation);
        let outcome = write.validate(&ClusterTrustBundleAttest, Some(new), old, &cluster);
        if let Err(message) = &outcome {
            assert!(
                message.ends_with("user not permitted to attest for signerName \"x.io/s\""),
                "{message}"
            );
        }
        outcome.is_ok()
    }

    #[test]
    fn a_bundle_of_a_signer_needs_the_permission() {
        let bundle = |signer: &str| json!({"spec": {"signerName": signer, "trustBundle": "t"}});
        assert!(attested(&[], Operation::Create, None, &json!({"spec": {}})));
        assert!(!attested(&[], Operation::Create, None, &bundle("x.io/s")));
        assert!(attested(&["attest signers x.io/s"], Operation::Create, None, &bundle("x.io/s")));
        assert!(attested(&["attest signers x.io/*"], Operation::Create, None, &bundle("x.io/s")));
        assert!(!attested(&["sign signers x.io/s"], Operation::Create, None, &bundle("x.io/s")));
    }

    #[test]
    fn the_garbage_collector_may_do_its_work() {
        let old = json!({"metadata": {"finalizers": ["f"]}, "spec": {"signerName": "x.io/s"}});
        let mut new = json!({"metadata": {}, "spec": {"signerName": "x.io/s"}});
        assert!(attested(&[], Operation::Update, Some(&old), &new));
        new["spec"]["trustBundle"] = json!("other");
        assert!(!attested(&[], Operation::Update, Some(&old), &new));
    }
}
