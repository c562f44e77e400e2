//! JSON in and out of the typed views, compiled once.
//!
//! serde's code is generic over the format, so each crate that decodes a Pod compiles all of a
//! Pod's decoders again: that was two fifths of the kubelet. Here are functions that are not
//! generic, one pair per kind; the crates above call these.

use k8s_openapi::api::apiserverinternal::v1alpha1::StorageVersion;
use k8s_openapi::api::apps::v1::{
    ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet,
};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenReview};
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::certificates::v1beta1::{ClusterTrustBundle, PodCertificateRequest};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    Binding, ConfigMap, Endpoints, Event, Namespace, Node, NodeStatus, PersistentVolume,
    PersistentVolumeClaim, Pod, PodStatus, PodTemplateSpec, ReplicationController, ResourceQuota,
    Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate, ResourceSlice};
use k8s_openapi::api::resource::v1alpha3::ResourcePoolStatusRequest;
use k8s_openapi::api::resource::v1beta2::DeviceTaintRule;
use k8s_openapi::api::scheduling::v1alpha2::PodGroup;
use k8s_openapi::api::storage::v1::{
    CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass,
};
use k8s_openapi::api::storagemigration::v1beta1::StorageVersionMigration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    APIGroupList, APIResourceList, APIVersions, LabelSelector,
};
use meta::{MalformedObject, Object};
use serde_json::Value;

/// A type with a JSON form of its own.
pub trait Typed: Sized {
    /// Reads it; unknown fields are dropped.
    ///
    /// # Errors
    /// When the bytes are not JSON or do not fit the type.
    fn from_json(json: &[u8]) -> serde_json::Result<Self>;

    /// Writes it.
    ///
    /// # Errors
    /// When a map's key is not a string, which no kind has.
    fn to_json(&self) -> serde_json::Result<Vec<u8>>;

    /// A typed view of an object; keep a projection of it, not the view.
    ///
    /// # Errors
    /// When the JSON does not fit the type.
    fn of(object: &Object) -> Result<Self, MalformedObject> {
        Ok(Self::from_json(object.json())?)
    }

    /// The same as a tree, to be changed or made a patch of.
    ///
    /// # Errors
    /// As [`Typed::to_json`].
    fn to_tree(&self) -> serde_json::Result<Value> {
        serde_json::from_slice(&self.to_json()?)
    }
}

macro_rules! typed {
    ($($kind:ty),* $(,)?) => {$(
        impl Typed for $kind {
            #[inline(never)]
            fn from_json(json: &[u8]) -> serde_json::Result<Self> {
                meta::read_json(json)
            }

            #[inline(never)]
            fn to_json(&self) -> serde_json::Result<Vec<u8>> {
                serde_json::to_vec(self)
            }
        }
    )*};
}

typed!(
    APIGroupList,
    APIResourceList,
    APIVersions,
    Binding,
    CSIDriver,
    CSINode,
    CSIStorageCapacity,
    CertificateSigningRequest,
    ClusterRole,
    ClusterTrustBundle,
    ConfigMap,
    ControllerRevision,
    CronJob,
    DaemonSet,
    Deployment,
    DeviceTaintRule,
    EndpointSlice,
    Endpoints,
    Event,
    HorizontalPodAutoscaler,
    Job,
    LabelSelector,
    Lease,
    Namespace,
    Node,
    NodeStatus,
    PersistentVolume,
    PersistentVolumeClaim,
    Pod,
    PodCertificateRequest,
    PodDisruptionBudget,
    PodGroup,
    PodStatus,
    PodTemplateSpec,
    ReplicaSet,
    ReplicationController,
    ResourceClaim,
    ResourceClaimTemplate,
    ResourcePoolStatusRequest,
    ResourceQuota,
    ResourceSlice,
    RuntimeClass,
    Secret,
    Service,
    ServiceAccount,
    ServiceCIDR,
    StatefulSet,
    StorageClass,
    StorageVersion,
    StorageVersionMigration,
    SubjectAccessReview,
    TokenRequest,
    TokenReview,
    Value,
    VolumeAttachment,
    VolumeAttributesClass,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_again_without_unknown_fields() {
        let node = Node::from_json(br#"{"metadata":{"name":"n"},"new":1}"#).unwrap();
        assert_eq!(node.to_tree().unwrap()["metadata"]["name"], "n");
        assert!(node.to_tree().unwrap().get("new").is_none());
    }

    #[test]
    fn a_wrong_shape_is_an_error() {
        assert!(Pod::from_json(br#"{"spec":[]}"#).is_err());
    }
}
