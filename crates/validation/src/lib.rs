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
//! the configuration of the server. What expressions mean is for those who evaluate them: here they
//! are texts, checked by `match_rules` and `resource`.
//!
//! Tested by unit tests beside the code and by the conformance corpus.

#![forbid(unsafe_code)]

mod access_review;
mod address;
mod admission_policy;
mod api_service;
mod autoscaler;
mod batch;
mod certificate_signing_request;
mod claim;
mod cluster_node;
mod cluster_trust_bundle;
mod config;
mod container;
mod controller_revision;
mod custom_resource;
mod declared;
mod difference;
mod endpoint_slice;
mod endpoints;
mod environment;
mod ephemeral;
mod event;
mod field;
mod flow_control;
mod go_regexp;
mod ingress;
mod lease;
mod lease_candidate;
mod match_rules;
mod metadata;
mod network_policy;
mod node;
mod persistent_volume;
mod pod;
mod pod_certificate_request;
mod pod_group;
mod pod_placement;
mod pod_resize;
mod pod_resources;
mod pod_security;
mod pod_status;
mod pod_update;
mod policy;
mod printed;
mod priority_class;
mod probe;
mod projected;
mod quota;
mod rbac;
mod resource;
mod resources;
mod runtime_class;
mod scheduling;
mod service;
mod service_cidr;
mod status;
mod storage;
mod storage_version;
mod volume;
mod volume_source;
mod webhook;
mod workload;

use meta::{GroupVersionKind, names};
use serde_json::Value;

pub use custom_resource::structure as custom_structure;
pub use field::{ErrorType, FieldError, Path};
pub use printed::compact as internal_json;

use self::node::{Findings, Node};

/// What a gate that is open allows; by default all are as upstream's are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allowed {
    /// Autoscalers whose target may have no replicas: `HPAScaleToZero`.
    pub scale_to_zero: bool,
}

impl Allowed {
    /// The smallest number that `minReplicas` of an autoscaler may be.
    fn min_replicas(self) -> i64 {
        i64::from(!self.scale_to_zero)
    }
}

/// Findings about a new object; none means valid.
pub fn validate_create(gvk: &GroupVersionKind, object: &Value) -> Vec<FieldError> {
    validate_create_with(gvk, object, Allowed::default())
}

/// The same, where some gates are open.
pub fn validate_create_with(
    gvk: &GroupVersionKind,
    object: &Value,
    allowed: Allowed,
) -> Vec<FieldError> {
    let mut out = Vec::new();
    let object = Node::root(object);
    let namespaced =
        schema::registry().resource_of_kind(gvk).is_some_and(|resource| resource.namespaced);
    // Reviews and what goes to subresources are answered and not stored; they need no name.
    let stored = !matches!(
        gvk.group.as_str(),
        "authentication.k8s.io" | "authorization.k8s.io" | "meta.k8s.io"
    ) && !matches!(gvk.kind.as_str(), "Binding" | "Eviction");
    let is_core_event = (gvk.group.as_str(), gvk.kind.as_str()) == ("", "Event");
    if stored && !is_core_event {
        metadata::create(&object, namespaced, &|name| name_findings(gvk, &object, name), &mut out);
        metadata::known_finalizers(gvk, &object, &mut out);
    }
    match (gvk.group.as_str(), gvk.kind.as_str()) {
        ("", "Event") => {
            event::core(&object, &mut out);
            // Upstream comes to the metadata of these only when nothing else is wrong.
            if out.is_empty() {
                metadata::create(&object, true, &names::path_segment, &mut out);
                metadata::known_finalizers(gvk, &object, &mut out);
            }
        }
        ("events.k8s.io", "Event") => event::own_group_create(&object, &mut out),
        ("", "Pod") => pod::create(&object, &mut out),
        ("apps", "StatefulSet") => workload::new_stateful_set(&object, &mut out),
        ("apps", "ControllerRevision") => controller_revision::create(&object, &mut out),
        ("autoscaling", "HorizontalPodAutoscaler") if gvk.version == "v2" => {
            autoscaler::create(&object, allowed.min_replicas(), &mut out);
        }
        ("batch", "Job") => batch::job::create(&object, &mut out),
        ("batch", "CronJob") => batch::cron_job::create(&object, &mut out),
        ("certificates.k8s.io", "CertificateSigningRequest") => {
            certificate_signing_request::create(&object, &mut out);
        }
        ("certificates.k8s.io", "PodCertificateRequest") => {
            pod_certificate_request::create(&object, &mut out);
        }
        ("networking.k8s.io", "Ingress") => ingress::create(&object, &mut out),
        ("networking.k8s.io", "ServiceCIDR") => service_cidr::create(&object, &mut out),
        ("storage.k8s.io", "CSIDriver") => storage::csi_driver::create(&object, &mut out),
        ("storage.k8s.io", "VolumeAttachment") => storage::attachment::create(&object, &mut out),
        ("storage.k8s.io", "VolumeAttributesClass") => {
            storage::attributes_class::validate(&object, &mut out);
        }
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
    validate_update_with(gvk, subresource, (new, old), Allowed::default())
}

/// The same of the new and the old object, where some gates are open.
pub fn validate_update_with(
    gvk: &GroupVersionKind,
    subresource: &str,
    (new, old): (&Value, &Value),
    allowed: Allowed,
) -> Vec<FieldError> {
    let mut out = Vec::new();
    let (new, old) = (Node::root(new), Node::root(old));
    metadata::update(gvk, &new, &old, &mut out);
    if gvk.kind == "CertificateSigningRequest" {
        certificate_signing_request::update(&new, &old, subresource, &mut out);
    } else if subresource == "status" {
        status::update(gvk, &new, &old, &mut out);
    } else if gvk.group.is_empty() {
        core_update(gvk, subresource, &new, &old, &mut out);
    } else if gvk.kind == "HorizontalPodAutoscaler" && gvk.version == "v2" {
        autoscaler::update(&new, &old, allowed.min_replicas(), &mut out);
    } else {
        group_update(gvk, &new, &old, &mut out);
    }
    out
}

/// Findings about the metadata of a new object of a custom resource.
pub fn custom_metadata(object: &Value, is_namespaced: bool) -> Vec<FieldError> {
    let mut out = Vec::new();
    metadata::create(&Node::root(object), is_namespaced, &names::dns1123_subdomain, &mut out);
    out
}

/// Findings about the metadata of a changed object of a custom resource.
pub fn custom_metadata_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut out = Vec::new();
    metadata::changed(&Node::root(new), &Node::root(old), &mut out);
    out
}

/// Findings about the metadata of an object inside another one, at a path.
pub fn embedded_metadata(object: &Value, path: &Path) -> Vec<FieldError> {
    let mut out = Vec::new();
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
        && metadata.get("name").and_then(Value::as_str).is_none_or(str::is_empty)
    {
        // It need not have one.
        metadata.insert("name".to_owned(), Value::from("fakename"));
    }
    let is_namespaced = object
        .pointer("/metadata/namespace")
        .and_then(Value::as_str)
        .is_some_and(|ns| !ns.is_empty());
    let object = Node { value: &object, path: path.clone() };
    metadata::create(&object, is_namespaced, &names::path_segment, &mut out);
    out
}

/// Changes of the kinds of the core group.
fn core_update(
    gvk: &GroupVersionKind,
    subresource: &str,
    new: &Node<'_>,
    old: &Node<'_>,
    out: &mut Findings,
) {
    match (gvk.kind.as_str(), subresource) {
        ("Pod", "") => pod_update::validate(new, old, out),
        ("Pod", "ephemeralcontainers") => ephemeral::update(new, old, out),
        ("Pod", "resize") => pod_resize::validate(new, old, out),
        ("Pod", _) => {}
        ("Service", _) => {
            service::validate_update(new, old, out);
            service::validate(new, out);
        }
        ("ConfigMap", _) => {
            config::immutable(new, old, &["data", "binaryData"], out);
            config::config_map(new, out);
        }
        ("Secret", _) => {
            new.get("type").immutable(&old.get("type"), out);
            config::immutable(new, old, &["data"], out);
            config::secret(new, out);
        }
        ("Node", _) => cluster_node::update(new, old, out),
        ("PersistentVolume", _) => {
            // Upstream checks the whole volume twice.
            persistent_volume::validate(new, out);
            persistent_volume::validate(new, out);
            persistent_volume::update(new, old, out);
        }
        ("PersistentVolumeClaim", _) => {
            claim::claim(new, out);
            claim::update(new, old, out);
        }
        ("ResourceQuota", _) => {
            quota::resource_quota(new, out);
            quota::scopes_are_kept(new, old, out);
        }
        _ => simple(gvk, new, out),
    }
}

/// Changes of the kinds of other groups.
fn group_update(gvk: &GroupVersionKind, new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    match (gvk.group.as_str(), gvk.kind.as_str()) {
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            custom_resource::update(new, old, out);
        }
        ("apps", "Deployment" | "ReplicaSet") => {
            simple(gvk, new, out);
            workload::selector_is_kept(new, old, out);
        }
        ("apps", "StatefulSet") => {
            workload::stateful_set(new, out);
            workload::stateful_set_update(new, old, out);
        }
        ("apps", "DaemonSet") => {
            workload::selector_is_kept(new, old, out);
            workload::daemon_set(new, out);
        }
        ("apps", "ControllerRevision") => controller_revision::update(new, old, out),
        ("batch", "Job") => batch::job::update(new, old, out),
        ("batch", "CronJob") => batch::cron_job::update(new, old, out),
        ("events.k8s.io", "Event") => event::own_group_update(new, old, out),
        ("node.k8s.io", "RuntimeClass") => {
            new.get("handler").immutable(&old.get("handler"), out);
            runtime_class::validate(new, out);
        }
        ("scheduling.k8s.io", "PriorityClass") => priority_class::update(new, old, out),
        ("certificates.k8s.io", "ClusterTrustBundle") => {
            cluster_trust_bundle::update(new, old, out);
        }
        ("certificates.k8s.io", "PodCertificateRequest") => {
            pod_certificate_request::update(new, old, out);
        }
        ("coordination.k8s.io", "LeaseCandidate") => lease_candidate::update(new, old, out),
        ("discovery.k8s.io", "EndpointSlice") => endpoint_slice::update(new, old, out),
        ("networking.k8s.io", "IngressClass") => {
            simple(gvk, new, out);
            let controller = new.get("spec").get("controller");
            controller.immutable(&old.get("spec").get("controller"), out);
        }
        ("networking.k8s.io", "IPAddress") => {
            service_cidr::ip_address(new, out);
            service_cidr::ip_address_update(new, old, out);
        }
        ("networking.k8s.io", "ServiceCIDR") => service_cidr::update(new, old, out),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            simple(gvk, new, out);
            rbac::role_is_kept(new, old, out);
        }
        ("resource.k8s.io", "ResourceClaim") => resource::claim::claim_update(new, old, out),
        ("resource.k8s.io", "ResourceClaimTemplate") => {
            resource::claim::template(new, out);
            resource::claim::template_update(new, old, out);
        }
        ("resource.k8s.io", "ResourceSlice") => {
            resource::slice::validate(new, out);
            resource::slice::update(new, old, out);
        }
        ("resource.k8s.io", "ResourcePoolStatusRequest") => {
            new.get("spec").immutable(&old.get("spec"), out);
        }
        ("scheduling.k8s.io", "PodGroup") => pod_group::pod_group_update(new, old, out),
        ("scheduling.k8s.io", "Workload") => pod_group::workload_update(new, old, out),
        // There is nothing in it that clients could change.
        ("internal.apiserver.k8s.io", "StorageVersion") => {}
        ("storagemigration.k8s.io", "StorageVersionMigration") => {
            storage_version::migration_update(new, old, out);
        }
        ("storage.k8s.io", "StorageClass") => {
            storage::class::validate(new, out);
            storage::class::update(new, old, out);
        }
        ("storage.k8s.io", "CSIDriver") => storage::csi_driver::update(new, old, out),
        ("storage.k8s.io", "CSINode") => storage::csi_node::update(new, old, out),
        ("storage.k8s.io", "CSIStorageCapacity") => {
            storage::capacity::validate(new, out);
            storage::capacity::update(new, old, out);
        }
        ("storage.k8s.io", "VolumeAttachment") => storage::attachment::update(new, old, out),
        ("storage.k8s.io", "VolumeAttributesClass") => {
            storage::attributes_class::update(new, old, out);
        }
        _ => simple(gvk, new, out),
    }
}

/// Kinds whose content is checked the same way when they are made and when they change.
fn simple(gvk: &GroupVersionKind, object: &Node<'_>, out: &mut Findings) {
    match gvk.group.as_str() {
        "" => simple_core(&gvk.kind, object, out),
        "admissionregistration.k8s.io" => simple_admission(&gvk.kind, object, out),
        _ => simple_other(gvk, object, out),
    }
}

fn simple_core(kind: &str, object: &Node<'_>, out: &mut Findings) {
    match kind {
        "ConfigMap" => config::config_map(object, out),
        "Endpoints" => endpoints::validate(object, out),
        "Event" => event::core(object, out),
        "LimitRange" => quota::limit_range(object, out),
        "Namespace" => metadata::namespace_finalizers(object, out),
        "Node" => cluster_node::validate(object, out),
        "PersistentVolume" => persistent_volume::validate(object, out),
        "PersistentVolumeClaim" => claim::claim(object, out),
        "PodTemplate" => workload::pod_template(&object.get("template"), out),
        "ReplicationController" => workload::replication_controller(object, out),
        "ResourceQuota" => quota::resource_quota(object, out),
        "Secret" => config::secret(object, out),
        "Service" => service::validate(object, out),
        _ => {}
    }
}

fn simple_admission(kind: &str, object: &Node<'_>, out: &mut Findings) {
    match kind {
        "ValidatingWebhookConfiguration" => webhook::configuration(object, false, out),
        "MutatingWebhookConfiguration" => webhook::configuration(object, true, out),
        "ValidatingAdmissionPolicy" => admission_policy::validating(object, out),
        "MutatingAdmissionPolicy" => admission_policy::mutating(object, out),
        "ValidatingAdmissionPolicyBinding" => admission_policy::validating_binding(object, out),
        "MutatingAdmissionPolicyBinding" => admission_policy::mutating_binding(object, out),
        _ => {}
    }
}

fn simple_other(gvk: &GroupVersionKind, object: &Node<'_>, out: &mut Findings) {
    match (gvk.group.as_str(), gvk.kind.as_str()) {
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            custom_resource::validate(object, out);
        }
        ("apiregistration.k8s.io", "APIService") => api_service::validate(object, out),
        ("apps", "DaemonSet") => workload::daemon_set(object, out),
        ("apps", "Deployment") => workload::deployment(object, out),
        ("apps", "ReplicaSet") => workload::replica_set(object, out),
        ("authorization.k8s.io", kind) if kind.ends_with("AccessReview") => {
            access_review::validate(kind, object, out);
        }
        ("certificates.k8s.io", "ClusterTrustBundle") => {
            cluster_trust_bundle::validate(object, out);
        }
        ("coordination.k8s.io", "Lease") => lease::validate(object, out),
        ("coordination.k8s.io", "LeaseCandidate") => lease_candidate::validate(object, out),
        ("discovery.k8s.io", "EndpointSlice") => endpoint_slice::validate(object, out),
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => {
            flow_control::schema::validate(object, out);
        }
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => {
            flow_control::priority_level::validate(object, out);
        }
        ("networking.k8s.io", "Ingress") => ingress::validate(object, out),
        ("networking.k8s.io", "IngressClass") => ingress::class(object, out),
        ("networking.k8s.io", "IPAddress") => service_cidr::ip_address(object, out),
        ("networking.k8s.io", "NetworkPolicy") => network_policy::validate(object, out),
        ("node.k8s.io", "RuntimeClass") => runtime_class::validate(object, out),
        ("policy", "PodDisruptionBudget") => policy::disruption_budget(object, out),
        ("rbac.authorization.k8s.io", "Role") => rbac::role(object, true, out),
        ("rbac.authorization.k8s.io", "ClusterRole") => rbac::role(object, false, out),
        ("rbac.authorization.k8s.io", "RoleBinding") => rbac::binding(object, true, out),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding") => rbac::binding(object, false, out),
        ("resource.k8s.io", "DeviceClass") => resource::class::validate(object, out),
        ("resource.k8s.io", "ResourceClaim") => resource::claim::claim(object, out),
        ("resource.k8s.io", "ResourceClaimTemplate") => resource::claim::template(object, out),
        ("resource.k8s.io", "ResourceSlice") => resource::slice::validate(object, out),
        ("resource.k8s.io", "DeviceTaintRule") => resource::taint_rule::validate(object, out),
        ("resource.k8s.io", "ResourcePoolStatusRequest") => {
            resource::taint_rule::pool_request(object, out);
        }
        ("scheduling.k8s.io", "PodGroup") => pod_group::pod_group(object, out),
        ("scheduling.k8s.io", "PriorityClass") => priority_class::validate(object, out),
        ("scheduling.k8s.io", "Workload") => pod_group::workload(object, out),
        ("internal.apiserver.k8s.io", "StorageVersion") => storage_version::status(object, out),
        ("storagemigration.k8s.io", "StorageVersionMigration") => {
            storage_version::migration(object, out);
        }
        ("storage.k8s.io", "CSINode") => storage::csi_node::validate(object, out),
        ("storage.k8s.io", "CSIStorageCapacity") => storage::capacity::validate(object, out),
        ("storage.k8s.io", "StorageClass") => storage::class::validate(object, out),
        _ => {}
    }
}

/// What is wrong with a name of a kind.
fn name_findings(gvk: &GroupVersionKind, object: &Node<'_>, name: &str) -> Vec<String> {
    match (gvk.group.as_str(), gvk.kind.as_str()) {
        ("", "Namespace" | "Service") | ("apps", "StatefulSet") => names::dns1123_label(name),
        ("apiextensions.k8s.io", _) => custom_resource::name(object, name),
        ("apiregistration.k8s.io", _) => api_service::name(object, name),
        ("certificates.k8s.io", "ClusterTrustBundle") => cluster_trust_bundle::name(object, name),
        ("certificates.k8s.io", "CertificateSigningRequest") => Vec::new(),
        ("internal.apiserver.k8s.io", _) => storage_version::name(name),
        ("coordination.k8s.io", "LeaseCandidate") => names::config_map_key(name),
        ("networking.k8s.io", "IPAddress") => address::canonical_ip(name),
        ("rbac.authorization.k8s.io", _) => names::path_segment(name),
        _ => names::dns1123_subdomain(name),
    }
}

#[cfg(test)]
mod tests;
