//! Binds a pod to its node through the API.

use client::{Client, ClientError};
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::pod_info::PodInfo;

/// Posts the binding.
///
/// # Errors
/// Any failure of the request; a conflict means that the pod is bound or being deleted.
pub async fn bind(client: &Client, pod: &PodInfo, node: &str) -> Result<(), ClientError> {
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(pod.key.name.clone()),
            namespace: Some(pod.key.namespace.clone()),
            uid: Some(pod.uid.clone()),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    };
    let pods = client.api::<Pod>(&pod.key.namespace);
    pods.create_subresource::<_, serde_json::Value>(&pod.key.name, "binding", &binding)
        .await
        .map(drop)
}
