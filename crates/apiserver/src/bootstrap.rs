//! The objects every cluster has: namespaces, the `kubernetes` service, roles, priority classes.
//!
//! Written through the server's own front door, and only when they are missing; bootstrap roles
//! are brought up to date, unless somebody opted out with upstream's annotation.

mod rbac;

use authn::UserInfo;
use bytes::Bytes;
use http::{Method, Request};
use meta::{Reason, Status};
use serde_json::{Value, json};

use crate::handle::Handle;
use crate::service_ranges::{self, default_range};

/// Writes what is missing.
pub(crate) async fn run(handle: &Handle) -> Result<(), Status> {
    for name in ["kube-system", "kube-public", "kube-node-lease", "default"] {
        let namespace =
            json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}});
        ensure(handle, "/api/v1/namespaces", &namespace).await?;
    }
    rbac::ensure_roles(handle).await?;
    for class in priority_classes() {
        ensure(handle, "/apis/scheduling.k8s.io/v1/priorityclasses", &class).await?;
    }
    crate::flow_objects::maintain(handle).await?;
    default_range::ensure(handle).await?;
    service_ranges::follow(&handle.server);
    put(handle, "/api/v1/namespaces/kube-system/configmaps", &authentication(handle)).await?;
    crate::token_tracking::ensure(handle).await?;
    crate::identity_lease::ensure(handle).await?;
    kubernetes_service(handle).await
}

/// How aggregated servers can tell who asks them, directly or through this server.
fn authentication(handle: &Handle) -> Value {
    let pki = &handle.server.config.pki;
    let mut data = json!({"client-ca-file": String::from_utf8_lossy(&pki.client_ca)});
    if !pki.front_proxy_ca.is_empty() {
        data["requestheader-client-ca-file"] = json!(String::from_utf8_lossy(&pki.front_proxy_ca));
        let header = &handle.server.config.request_header;
        let list = |names: &Vec<String>| json!(json!(names).to_string());
        data["requestheader-allowed-names"] = list(&header.allowed_names);
        data["requestheader-username-headers"] = list(&header.username_headers);
        data["requestheader-uid-headers"] = list(&header.uid_headers);
        data["requestheader-group-headers"] = list(&header.group_headers);
        data["requestheader-extra-headers-prefix"] = list(&header.extra_headers_prefixes);
    }
    json!({"kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": data})
}

fn priority_classes() -> [Value; 2] {
    let class = |name: &str, value: i64, description: &str| {
        json!({"kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1",
            "metadata": {"name": name}, "value": value, "description": description})
    };
    [
        class(
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        class(
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to \
             another node if necessary.",
        ),
    ]
}

async fn kubernetes_service(handle: &Handle) -> Result<(), Status> {
    let server = &handle.server;
    let address = server.services.first().to_string();
    let port = server.config.bind.first().map_or(6443, std::net::SocketAddr::port);
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service = json!({"kind": "Service", "apiVersion": "v1",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {"clusterIP": address, "clusterIPs": [address], "type": "ClusterIP",
            "sessionAffinity": "None",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}]}});
    // Its address is taken by itself when the store has it already.
    if server.find("", "services", "default", "kubernetes").is_none() {
        let made = ensure(handle, "/api/v1/namespaces/default/services", &service).await;
        match made {
            // The ranges that there are say more than the configuration, which has changed.
            Err(status) if status.is(Reason::Invalid) => {
                tracing::error!(%status, "the kubernetes service cannot be made");
            }
            made => made?,
        }
    }
    let advertised = server.config.advertise_address;
    if advertised.is_loopback() {
        // Endpoints may not be loopback addresses: pods could not reach them.
        tracing::warn!(%advertised, "the kubernetes service has no endpoint on a loopback address");
        return Ok(());
    }
    let endpoints = json!({"kind": "Endpoints", "apiVersion": "v1",
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": advertised.to_string()}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}]});
    put(handle, "/api/v1/namespaces/default/endpoints", &endpoints).await?;
    let family = if advertised.is_ipv4() { "IPv4" } else { "IPv6" };
    let slice = json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": family,
        "endpoints": [{"addresses": [advertised.to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}]});
    put(handle, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice).await
}

/// Creates an object unless it is there.
pub(super) async fn ensure(handle: &Handle, path: &str, object: &Value) -> Result<(), Status> {
    match send(handle, Method::POST, path, object).await {
        Err(status) if status.is(Reason::AlreadyExists) => Ok(()),
        result => result,
    }
}

/// Creates an object, or brings it to what it should be.
pub(crate) async fn put(handle: &Handle, path: &str, object: &Value) -> Result<(), Status> {
    match send(handle, Method::POST, path, object).await {
        Err(status) if status.is(Reason::AlreadyExists) => {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let path = format!("{path}/{}", crate::query::escape(name));
            send(handle, Method::PUT, &path, object).await
        }
        result => result,
    }
}

/// Sends an object as JSON.
pub(crate) async fn send(
    handle: &Handle,
    method: Method,
    path: &str,
    object: &Value,
) -> Result<(), Status> {
    send_as(handle, method, path, "application/json", object).await
}

/// Sends an object under another name than JSON's own.
pub(crate) async fn send_as(
    handle: &Handle,
    method: Method,
    path: &str,
    content_type: &str,
    object: &Value,
) -> Result<(), Status> {
    let user = UserInfo::new("system:apiserver", &[UserInfo::MASTERS, UserInfo::AUTHENTICATED]);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", content_type)
        .body(Bytes::from(object.to_string()))
        .map_err(crate::errors::internal)?;
    let response = handle.call(&user, request).await;
    if response.status().is_success() {
        return Ok(());
    }
    let body = response.into_body().collect().await.map_err(crate::errors::internal)?;
    Err(serde_json::from_slice(&body).map_err(crate::errors::internal)?)
}
