//! NodeRestriction: a kubelet changes its own node and what belongs to its own pods.
//!
//! Upstream: `plugin/pkg/admission/noderestriction`.

mod audience;
mod labels;
mod pod;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use meta::Status;
use serde_json::Value;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use crate::chain::Plugin;
use crate::refusal::{forbidden, not_found};
use crate::request::{Operation, Request, View};

const USER: &str = "system:node:";
const GROUP: &str = "system:nodes";
const LEASES: &str = "kube-node-lease";
/// Signers that sign for the node which asks, and for no other.
const SIGNERS: [&str; 2] =
    ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];

/// What the plugin was told by feature gates.
pub(crate) struct NodeRestriction {
    /// Whether tokens are given only for audiences that the pod uses.
    pub(crate) restricts_audiences: bool,
    /// Whether nodes may ask for certificates in another's name.
    pub(crate) allows_insecure_requests: bool,
}

impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn admit(
        &self,
        request: &Request<'_>,
        object: &mut Value,
        old: Option<&Value>,
        view: &dyn View,
    ) -> Result<(), Status> {
        self.check(request, Some(object), old, view)
    }

    /// Deletions have no object to be changed, and come here only.
    fn validate(
        &self,
        request: &Request<'_>,
        _object: Option<&Value>,
        old: Option<&Value>,
        view: &dyn View,
    ) -> Result<(), Status> {
        match (request.operation, request.subresource) {
            (Operation::Delete, "") => self.check(request, None, old, view),
            // An eviction was looked at before it came to the deletion.
            _ => Ok(()),
        }
    }
}

/// A write of a node.
struct Write<'a> {
    node: &'a str,
    request: &'a Request<'a>,
    object: &'a Value,
    old: &'a Value,
    view: &'a dyn View,
}

impl Write<'_> {
    fn refuse(&self, why: impl AsRef<str>) -> Result<(), Status> {
        Err(forbidden(self.request, why.as_ref()))
    }

    /// A pod as it is stored.
    fn pod(&self, name: &str) -> Result<Value, Status> {
        let pod = self.view.get("", "pods", self.request.namespace, name);
        let pod = pod.and_then(|pod| pod.decode::<Value>().ok());
        pod.ok_or_else(|| not_found("pods", name))
    }
}

impl NodeRestriction {
    fn check(
        &self,
        request: &Request<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
        view: &dyn View,
    ) -> Result<(), Status> {
        let Some(node) = request.user.name.strip_prefix(USER) else { return Ok(()) };
        if !request.user.is_in(GROUP) {
            return Ok(());
        }
        let (object, old) = (object.unwrap_or(&Value::Null), old.unwrap_or(&Value::Null));
        let write = Write { node, request, object, old, view };
        if node.is_empty() {
            let name = request.user.name;
            return write.refuse(format!("could not determine node from user {name:?}"));
        }
        let resource = request.resource;
        match (resource.group.as_str(), resource.resource.as_str(), request.subresource) {
            ("", "pods", "") => pod::check(&write),
            ("", "pods", "status") => pod::check_status(&write),
            ("", "pods", "eviction") => pod::check_eviction(&write),
            ("", "pods", other) => write.refuse(format!(
                "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
            )),
            ("", "nodes", _) => check_node(&write),
            ("", "persistentvolumeclaims", "status") => check_claim_status(&write),
            ("", "persistentvolumeclaims", _) => write.refuse("may only update PVC status"),
            ("", "serviceaccounts", "token") => self.check_token(&write),
            ("coordination.k8s.io", "leases", _) => check_lease(&write),
            ("storage.k8s.io", "csinodes", _) => check_own_name(&write, "CSINode"),
            ("resource.k8s.io", "resourceslices", _) => check_slice(&write),
            ("certificates.k8s.io", "certificatesigningrequests", _)
                if !self.allows_insecure_requests =>
            {
                check_signing_request(&write)
            }
            ("certificates.k8s.io", "podcertificaterequests", _) => {
                check_certificate_request(&write)
            }
            _ => Ok(()),
        }
    }

    /// A token is for a pod on the node.
    fn check_token(&self, write: &Write<'_>) -> Result<(), Status> {
        let Write { request, object, .. } = write;
        if request.operation != Operation::Create {
            return Ok(());
        }
        let reference = &object["spec"]["boundObjectRef"];
        let text = |field: &str| reference[field].as_str().unwrap_or_default();
        let (name, uid) = (text("name"), text("uid"));
        if (text("apiVersion"), text("kind")) != ("v1", "Pod") || name.is_empty() {
            return write.refuse("node requested token not bound to a pod");
        }
        if uid.is_empty() {
            return write.refuse("node requested token with a pod binding without a uid");
        }
        let pod = write.pod(name)?;
        if pod["metadata"]["uid"] != uid {
            return write.refuse(format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. \
                 The object might have been deleted and then recreated"
            ));
        }
        if pod["spec"]["nodeName"] != write.node {
            return write
                .refuse("node requested token bound to a pod scheduled on a different node");
        }
        if self.restricts_audiences { audience::check(write, &pod) } else { Ok(()) }
    }
}

/// A certificate is for a pod on the node.
fn check_certificate_request(write: &Write<'_>) -> Result<(), Status> {
    let Write { node, request, object, .. } = write;
    if request.operation != Operation::Create || !request.subresource.is_empty() {
        return write.refuse("nodes may only create PodCertificateRequests");
    }
    let spec = &object["spec"];
    let text = |field: &str| spec[field].as_str().unwrap_or_default();
    let named = text("nodeName");
    if named != *node {
        return write.refuse(format!(
            "PodCertificateRequest.Spec.NodeName={named:?}, which is not the requesting node \
             {node:?}"
        ));
    }
    let (name, uid) = (text("podName"), text("podUID"));
    let pod = write.pod(name)?;
    if pod["metadata"]["uid"] != uid {
        let found = pod["metadata"]["uid"].as_str().unwrap_or_default();
        return write.refuse(format!(
            "PodCertificateRequest for pod {name:?} contains pod UID ({uid:?}) which differs from \
             running pod {found:?}"
        ));
    }
    if pod["spec"]["nodeName"] != *node {
        return write.refuse(format!("pod {name:?} is not scheduled on node {node:?}"));
    }
    let account = text("serviceAccountName");
    if pod["spec"]["serviceAccountName"].as_str().unwrap_or("default") != account {
        return write.refuse(format!(
            "PodCertificateRequest for pod {name:?} names the service account {account:?}, which \
             is not the pod's"
        ));
    }
    Ok(())
}

/// A node leaves alone what would draw pods to it.
fn check_node(write: &Write<'_>) -> Result<(), Status> {
    let Write { node, request, object, old, .. } = write;
    // The name in the path is not there yet when a node is made.
    let name = match request.name {
        "" => object["metadata"]["name"].as_str().unwrap_or_default(),
        name => name,
    };
    if name != *node {
        return write.refuse(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let labels = |of: &Value| of["metadata"]["labels"].clone();
    let source = &object["spec"]["configSource"];
    match request.operation {
        Operation::Create if !source.is_null() => write.refuse(format!(
            "node {node:?} is not allowed to create pods with a non-nil configSource"
        )),
        Operation::Create => match labels::forbidden(&labels(object), &Value::Null).as_slice() {
            [] => Ok(()),
            list => write.refuse(format!(
                "node {node:?} is not allowed to set the following labels: {}",
                list.join(", ")
            )),
        },
        Operation::Update if !source.is_null() && *source != old["spec"]["configSource"] => write
            .refuse(format!(
                "node {node:?} is not allowed to update configSource to a new non-nil configSource"
            )),
        Operation::Update if object["spec"]["taints"] != old["spec"]["taints"] => {
            write.refuse(format!("node {node:?} is not allowed to modify taints"))
        }
        Operation::Update => match labels::forbidden(&labels(object), &labels(old)).as_slice() {
            [] => Ok(()),
            list => write.refuse(format!("is not allowed to modify labels: {}", list.join(", "))),
        },
        _ => Ok(()),
    }
}

/// Of a claim, the kubelet says how large the volume has become.
fn check_claim_status(write: &Write<'_>) -> Result<(), Status> {
    if write.request.operation != Operation::Update {
        let operation = write.request.operation.as_str();
        return write.refuse(format!("unexpected operation {operation:?}"));
    }
    let rest = |claim: &Value| {
        let mut claim = claim.clone();
        for (part, fields) in [
            ("metadata", &["resourceVersion", "managedFields"][..]),
            (
                "status",
                &["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"],
            ),
        ] {
            if let Some(map) = claim.get_mut(part).and_then(Value::as_object_mut) {
                map.retain(|key, _| !fields.contains(&key.as_str()));
            }
        }
        claim
    };
    if rest(write.object) == rest(write.old) {
        return Ok(());
    }
    // Upstream goes on with a difference in the form of one of its libraries.
    write.refuse(format!(
        "node {:?} is not allowed to update fields other than status.quantity and \
         status.conditions",
        write.node
    ))
}

fn check_lease(write: &Write<'_>) -> Result<(), Status> {
    if write.request.namespace != LEASES {
        return write.refuse(format!("can only access leases in the {LEASES:?} system namespace"));
    }
    check_own_name(write, "node lease")
}

fn check_own_name(write: &Write<'_>, what: &str) -> Result<(), Status> {
    let is_own = match write.request.operation {
        Operation::Create => write.object["metadata"]["name"] == write.node,
        _ => write.request.name == write.node,
    };
    if is_own {
        return Ok(());
    }
    write.refuse(format!("can only access {what} with the same name as the requesting node"))
}

fn check_slice(write: &Write<'_>) -> Result<(), Status> {
    let (slice, word) = match write.request.operation {
        Operation::Create => (write.object, "create"),
        Operation::Delete => (write.old, "delete"),
        _ => return Ok(()),
    };
    if slice["spec"]["nodeName"] == write.node {
        return Ok(());
    }
    write.refuse(format!(
        "can only {word} ResourceSlice with the same NodeName as the requesting node"
    ))
}

fn check_signing_request(write: &Write<'_>) -> Result<(), Status> {
    let spec = &write.object["spec"];
    let is_ours = SIGNERS.iter().any(|signer| spec["signerName"] == *signer);
    if write.request.operation != Operation::Create || !is_ours {
        return Ok(());
    }
    let encoded = spec["request"].as_str().unwrap_or_default();
    let wanted = format!("{USER}{}", write.node);
    match common_name(&STANDARD.decode(encoded).unwrap_or_default()) {
        None => write.refuse("unable to parse csr: PEM block type must be CERTIFICATE REQUEST"),
        Some(name) if name != wanted => {
            write.refuse(format!("can only create a node CSR with CN={wanted}"))
        }
        Some(_) => Ok(()),
    }
}

/// Of a request in PEM; `None` when it is none.
fn common_name(pem: &[u8]) -> Option<String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).ok()?;
    let (_, request) = X509CertificationRequest::from_der(&pem.contents).ok()?;
    let mut names = request.certification_request_info.subject.iter_common_name();
    let name = names.next().and_then(|attribute| attribute.as_str().ok());
    Some(name.unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests;
