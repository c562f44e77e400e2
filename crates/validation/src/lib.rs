//! Validation of the built-in kinds.
//!
//! What it is: upstream's validation as functions from the working form of an object to findings,
//! one file per kind.
//!
//! Start reading at [`FieldError`], then [`validate_create`] and [`validate_update`], then
//! `pod.rs`.
//!
//! Invariants: findings come in upstream's order and words; objects have been defaulted, and an
//! update carries over what the server does not let clients change.
//!
//! What it deliberately does not do: admission, quota, and everything that needs another object or
//! the configuration of the server. Kinds without a file of their own have their metadata
//! validated and nothing else.
//!
//! Tested by unit tests beside the code and by the conformance corpus.

#![forbid(unsafe_code)]

mod admission_policy;
mod autoscaler;
mod batch;
mod claim;
mod cluster_node;
mod config;
mod container;
mod endpoint_slice;
mod endpoints;
mod environment;
mod field;
mod ingress;
mod lease;
mod metadata;
mod network_policy;
mod node;
mod pod;
mod pod_status;
mod pod_update;
mod policy;
mod priority_class;
mod probe;
mod quota;
mod rbac;
mod resources;
mod runtime_class;
mod scheduling;
mod service;
mod storage_class;
mod volume;
mod webhook;
mod workload;

use meta::{GroupVersionKind, names};
use serde_json::Value;

pub use field::{ErrorType, FieldError, Path};

use self::metadata::NameRule;
use self::node::{Findings, Node};

/// Findings about a new object; none means valid.
pub fn validate_create(gvk: &GroupVersionKind, object: &Value) -> Vec<FieldError> {
    let mut out = Vec::new();
    let object = Node::root(object);
    let namespaced =
        schema::registry().resource_of_kind(gvk).is_some_and(|resource| resource.namespaced);
    // Reviews and what goes to subresources are answered and not stored; they need no name.
    let stored = !matches!(
        gvk.group.as_str(),
        "authentication.k8s.io" | "authorization.k8s.io" | "meta.k8s.io"
    ) && !matches!(gvk.kind.as_str(), "Binding" | "Eviction");
    if stored {
        metadata::create(&object, namespaced, name_rule(gvk), &mut out);
    }
    match (gvk.group.as_str(), gvk.kind.as_str()) {
        ("", "Pod") => pod::create(&object, &mut out),
        ("", "Service") => service::validate(&object, &mut out),
        ("apps", "Deployment") => workload::deployment(&object, &mut out),
        ("apps", "ReplicaSet") => workload::replica_set(&object, &mut out),
        ("apps", "StatefulSet") => workload::stateful_set(&object, &mut out),
        ("apps", "DaemonSet") => workload::daemon_set(&object, &mut out),
        ("", "ReplicationController") => workload::replication_controller(&object, &mut out),
        ("", "PodTemplate") => workload::pod_template(&object.get("template"), &mut out),
        ("batch", "Job") => batch::job(&object, &mut out),
        ("batch", "CronJob") => batch::cron_job(&object, &mut out),
        _ => simple(gvk, &object, &mut out),
    }
    out
}

/// Findings about a changed object; none means valid. `subresource` is empty or such as `status`.
pub fn validate_update(
    gvk: &GroupVersionKind,
    subresource: &str,
    new: &Value,
    old: &Value,
) -> Vec<FieldError> {
    let mut out = Vec::new();
    let (new, old) = (Node::root(new), Node::root(old));
    metadata::update(&new, &old, &mut out);
    match (gvk.group.as_str(), gvk.kind.as_str(), subresource) {
        ("apps", "Deployment", "status") => workload::deployment_status(&new, &mut out),
        ("", "Pod", "status") => pod_status::validate(&new, &old, &mut out),
        (_, _, "status") => {}
        ("", "Pod", "") => pod_update::validate(&new, &old, &mut out),
        ("", "Pod", _) => {}
        ("", "Service", _) => {
            service::validate_update(&new, &old, &mut out);
            service::validate(&new, &mut out);
        }
        ("apps", "Deployment", _) => {
            workload::deployment(&new, &mut out);
            workload::selector_is_kept(&new, &old, &mut out);
        }
        ("apps", "ReplicaSet", _) => {
            workload::replica_set(&new, &mut out);
            workload::selector_is_kept(&new, &old, &mut out);
        }
        ("apps", "StatefulSet", _) => {
            workload::stateful_set(&new, &mut out);
            workload::stateful_set_update(&new, &old, &mut out);
        }
        ("apps", "DaemonSet", _) => {
            workload::selector_is_kept(&new, &old, &mut out);
            workload::daemon_set(&new, &mut out);
        }
        ("", "ReplicationController", _) => workload::replication_controller(&new, &mut out),
        ("", "PodTemplate", _) => workload::pod_template(&new.get("template"), &mut out),
        ("batch", "Job", _) => {
            batch::job(&new, &mut out);
            batch::job_update(&new, &old, &mut out);
        }
        ("batch", "CronJob", _) => batch::cron_job(&new, &mut out),
        ("", "ConfigMap", _) => {
            config::immutable(&new, &old, &["data", "binaryData"], &mut out);
            config::config_map(&new, &mut out);
        }
        ("", "Secret", _) => {
            new.get("type").immutable(&old.get("type"), &mut out);
            config::immutable(&new, &old, &["data"], &mut out);
            config::secret(&new, &mut out);
        }
        ("node.k8s.io", "RuntimeClass", _) => {
            new.get("handler").immutable(&old.get("handler"), &mut out);
            runtime_class::validate(&new, &mut out);
        }
        ("storage.k8s.io", "StorageClass", _) => {
            storage_class::validate(&new, &mut out);
            storage_class::update(&new, &old, &mut out);
        }
        ("scheduling.k8s.io", "PriorityClass", _) => priority_class::update(&new, &old, &mut out),
        ("discovery.k8s.io", "EndpointSlice", _) => {
            simple(gvk, &new, &mut out);
            let (kind, before) = (new.get("addressType"), old.get("addressType"));
            if kind.text() != before.text() {
                let detail = "field is immutable";
                out.push(FieldError::invalid(&kind.path, kind.text(), detail));
            }
        }
        ("", "Node", _) => {
            cluster_node::validate(&new, &mut out);
            cluster_node::update(&new, &old, &mut out);
        }
        ("networking.k8s.io", "IngressClass", _) => {
            let controller = |object: &Node<'_>| object.get("spec").get("controller").value.clone();
            simple(gvk, &new, &mut out);
            if controller(&new) != controller(&old) {
                out.push(new.get("spec").get("controller").invalid("field is immutable"));
            }
        }
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding", _) => {
            simple(gvk, &new, &mut out);
            rbac::role_is_kept(&new, &old, &mut out);
        }
        _ => simple(gvk, &new, &mut out),
    }
    out
}

/// Kinds whose content is checked the same way when they are made and when they change.
fn simple(gvk: &GroupVersionKind, object: &Node<'_>, out: &mut Findings) {
    match (gvk.group.as_str(), gvk.kind.as_str()) {
        ("", "ConfigMap") => config::config_map(object, out),
        ("", "Secret") => config::secret(object, out),
        ("", "Namespace") => metadata::namespace_finalizers(object, out),
        ("", "Endpoints") => endpoints::validate(object, out),
        ("", "Node") => cluster_node::validate(object, out),
        ("node.k8s.io", "RuntimeClass") => runtime_class::validate(object, out),
        ("storage.k8s.io", "StorageClass") => storage_class::validate(object, out),
        ("autoscaling", "HorizontalPodAutoscaler") if gvk.version == "v2" => {
            autoscaler::validate(object, out);
        }
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration") => {
            webhook::configuration(object, false, out);
        }
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration") => {
            webhook::configuration(object, true, out);
        }
        (
            "admissionregistration.k8s.io",
            "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding",
        ) => admission_policy::binding(object, out),
        ("coordination.k8s.io", "Lease") => lease::validate(object, out),
        ("discovery.k8s.io", "EndpointSlice") => endpoint_slice::validate(object, out),
        ("scheduling.k8s.io", "PriorityClass") => priority_class::validate(object, out),
        ("", "PersistentVolume") => claim::volume(object, out),
        ("", "PersistentVolumeClaim") => claim::claim(object, out),
        ("networking.k8s.io", "Ingress") => ingress::validate(object, out),
        ("networking.k8s.io", "IngressClass") => ingress::class(object, out),
        ("networking.k8s.io", "NetworkPolicy") => network_policy::validate(object, out),
        ("", "ResourceQuota") => quota::resource_quota(object, out),
        ("", "LimitRange") => quota::limit_range(object, out),
        ("policy", "PodDisruptionBudget") => policy::disruption_budget(object, out),
        ("rbac.authorization.k8s.io", "Role") => rbac::role(object, true, out),
        ("rbac.authorization.k8s.io", "ClusterRole") => rbac::role(object, false, out),
        ("rbac.authorization.k8s.io", "RoleBinding") => rbac::binding(object, true, out),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding") => rbac::binding(object, false, out),
        _ => {}
    }
}

/// What names of a kind may look like.
fn name_rule(gvk: &GroupVersionKind) -> NameRule {
    match (gvk.group.as_str(), gvk.kind.as_str()) {
        ("", "Namespace" | "Service") => names::dns1123_label,
        ("rbac.authorization.k8s.io", _) => names::path_segment,
        ("networking.k8s.io", "IPAddress") => names::path_segment,
        _ => names::dns1123_subdomain,
    }
}

#[cfg(test)]
mod tests;
