//! Certificate signing requests: approved where a kubelet asks for its own, signed where somebody
//! approved, and taken away when nobody needs them any more.
//!
//! Upstream: `pkg/controller/certificates`.

mod approver;
mod cleaner;
mod pod_cleaner;
mod request;
mod signer;
mod subject;

pub(crate) use approver::run as run_approver;
pub(crate) use cleaner::run as run_cleaner;
pub(crate) use pod_cleaner::run as run_pod_cleaner;
pub(crate) use signer::run as run_signer;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

/// The signers that are this cluster's own.
const KUBE_APISERVER_CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
const LEGACY_UNKNOWN: &str = "kubernetes.io/legacy-unknown";

/// Whether a condition of this type is there and not false.
fn has(request: &CertificateSigningRequest, kind: &str) -> bool {
    let status = request.status.as_ref();
    let mut conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    conditions.any(|condition| condition.type_ == kind && condition.status != "False")
}

fn is_issued(request: &CertificateSigningRequest) -> bool {
    let status = request.status.as_ref();
    status.and_then(|status| status.certificate.as_ref()).is_some_and(|text| !text.0.is_empty())
}
