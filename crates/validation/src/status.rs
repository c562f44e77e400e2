//! The status of an object, as its controller writes it.

use meta::GroupVersionKind;

use crate::node::{Findings, Node};
use crate::{
    api_service, autoscaler, batch, claim, cluster_node, flow_control, ingress, metadata,
    pod_certificate_request, pod_group, pod_status, policy, quota, resource, service, storage,
    storage_version, workload,
};

/// Findings about a changed status.
pub(crate) fn update(gvk: &GroupVersionKind, new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    match (gvk.group.as_str(), gvk.kind.as_str()) {
        ("", "Namespace") => metadata::namespace_phase(new, out),
        ("", "Node") => cluster_node::update(new, old, out),
        ("", "PersistentVolumeClaim") => claim::status(new, out),
        ("", "Pod") => pod_status::validate(new, old, out),
        ("", "ReplicationController") => workload::replica_set_status(new, out),
        ("", "ResourceQuota") => quota::status(new, out),
        ("", "Service") => service::status(new, out),
        ("apiregistration.k8s.io", "APIService") => api_service::status(new, out),
        ("apps", "DaemonSet") => workload::daemon_set_status(new, old, out),
        ("apps", "Deployment") => workload::deployment_status(new, old, out),
        ("apps", "ReplicaSet") => workload::replica_set_status(new, out),
        ("apps", "StatefulSet") => workload::stateful_set_status(new, old, out),
        ("autoscaling", "HorizontalPodAutoscaler") => autoscaler::status(new, out),
        ("batch", "Job") => batch::job_status::validate(new, old, out),
        ("certificates.k8s.io", "PodCertificateRequest") => {
            pod_certificate_request::status(new, old, out);
        }
        ("internal.apiserver.k8s.io", "StorageVersion") => storage_version::status(new, out),
        ("storagemigration.k8s.io", _) => storage_version::migration_status(new, old, out),
        ("flowcontrol.apiserver.k8s.io", _) => flow_control::status(new, out),
        ("networking.k8s.io", "Ingress") => ingress::status(new, out),
        ("policy", "PodDisruptionBudget") => policy::status(new, out),
        ("resource.k8s.io", "ResourceClaim") => resource::status::validate(new, old, out),
        ("resource.k8s.io", "DeviceTaintRule") => resource::taint_rule::status(new, out),
        ("resource.k8s.io", "ResourcePoolStatusRequest") => {
            resource::taint_rule::pool_status(new, old, out);
        }
        ("scheduling.k8s.io", "PodGroup") => pod_group::pod_group_status(new, out),
        ("storage.k8s.io", "VolumeAttachment") => storage::attachment::validate(new, out),
        _ => {}
    }
}
