//! Objects that every cluster of ours has beyond upstream's: the DNS service and its identity, the
//! default class of volumes and the rights of its provisioner.

use std::net::Ipv4Addr;

use client::{Client, ClientError, Patch, ResourcePath};
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

const NAMESPACE: &str = "kube-system";

/// Makes the service `kube-dns`, the class `local-path`, and the roles of the components behind
/// them, unless they are there.
///
/// # Errors
/// When the server refuses.
pub(crate) async fn install(client: &Client, dns_address: Ipv4Addr) -> Result<(), ClientError> {
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": { "name": "coredns", "namespace": NAMESPACE },
    });
    ensure(client, &ResourcePath::of::<ServiceAccount>(), NAMESPACE, &account).await?;
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": { "name": "system:coredns" },
        "rules": [
            { "apiGroups": [""], "verbs": ["list", "watch"],
              "resources": ["endpoints", "services", "pods", "namespaces"] },
            { "apiGroups": ["discovery.k8s.io"], "verbs": ["list", "watch"],
              "resources": ["endpointslices"] },
        ],
    });
    ensure(client, &ResourcePath::of::<ClusterRole>(), "", &role).await?;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": { "name": "system:coredns" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                     "name": "system:coredns" },
        "subjects": [{ "kind": "ServiceAccount", "name": "coredns", "namespace": NAMESPACE }],
    });
    ensure(client, &ResourcePath::of::<ClusterRoleBinding>(), "", &binding).await?;
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "kube-dns", "namespace": NAMESPACE,
            "labels": { "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true",
                        "kubernetes.io/name": "CoreDNS" },
        },
        "spec": {
            "clusterIP": dns_address.to_string(),
            "ports": [
                { "name": "dns", "port": 53, "protocol": "UDP" },
                { "name": "dns-tcp", "port": 53, "protocol": "TCP" },
            ],
        },
    });
    ensure(client, &ResourcePath::of::<Service>(), NAMESPACE, &service).await?;
    install_local_path(client).await
}

/// Makes the class of claims that name none, and the rights of its provisioner.
async fn install_local_path(client: &Client) -> Result<(), ClientError> {
    let account = "local-path-provisioner";
    let own = "system:local-path-provisioner";
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": { "name": own },
        "rules": [
            { "apiGroups": [""], "verbs": ["update"], "resources": ["persistentvolumes"] },
            { "apiGroups": [""], "verbs": ["get", "patch"], "resources": ["nodes"] },
        ],
    });
    ensure(client, &ResourcePath::of::<ClusterRole>(), "", &role).await?;
    for role in [own, "system:persistent-volume-provisioner"] {
        let name = if role == own { own.to_owned() } else { format!("{own}:volumes") };
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": { "name": name },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                         "name": role },
            "subjects": [
                { "kind": "ServiceAccount", "name": account, "namespace": NAMESPACE }],
        });
        ensure(client, &ResourcePath::of::<ClusterRoleBinding>(), "", &binding).await?;
    }
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": { "name": "local-path",
                      "annotations": { api::volumes::DEFAULT_CLASS: "true" } },
        "provisioner": api::volumes::LOCAL_PATH,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
    });
    ensure(client, &ResourcePath::of::<StorageClass>(), "", &class).await
}

/// Says where this node serves DNS.
///
/// # Errors
/// When the server refuses.
pub(crate) async fn publish_dns(
    client: &Client,
    node_name: &str,
    address: Ipv4Addr,
) -> Result<(), ClientError> {
    let name = format!("kube-dns-{node_name}");
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": name, "namespace": NAMESPACE,
            "labels": { "kubernetes.io/service-name": "kube-dns",
                        "endpointslice.kubernetes.io/managed-by": "ironclad" },
        },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": [address.to_string()], "conditions": { "ready": true },
                        "nodeName": node_name }],
        "ports": [
            { "name": "dns", "port": 53, "protocol": "UDP" },
            { "name": "dns-tcp", "port": 53, "protocol": "TCP" },
        ],
    });
    let path = ResourcePath::of::<EndpointSlice>();
    let slices = client.dynamic::<Value>(path, NAMESPACE);
    match slices.create(&slice).await {
        Err(error) if error.is_already_exists() => {
            let patch = Patch::Merge(json!({ "endpoints": slice["endpoints"] }));
            slices.patch(&name, &patch).await.map(drop)
        }
        result => result.map(drop),
    }
}

async fn ensure(
    client: &Client,
    path: &ResourcePath,
    namespace: &str,
    object: &Value,
) -> Result<(), ClientError> {
    let objects = client.dynamic::<Value>(path.clone(), namespace);
    // Asked first: a service that is there makes its own address look taken to a second one.
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if objects.get_opt(name).await?.is_some() {
        return Ok(());
    }
    match objects.create(object).await {
        Err(error) if error.is_already_exists() => Ok(()),
        result => result.map(drop),
    }
}
