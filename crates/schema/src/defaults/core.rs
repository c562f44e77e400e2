//! The core group but for pods.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{Logic, Rule, fill, labels_from_template, object, template_labels, text};

pub(super) const RULES: &[Rule] = &[
    ("core/v1.ReplicationControllerSpec", "replicas", "1"),
    ("core/v1.ServicePort", "protocol", "\"TCP\""),
    ("core/v1.Secret", "type", "\"Opaque\""),
    ("core/v1.PersistentVolumeStatus", "phase", "\"Pending\""),
    ("core/v1.PersistentVolumeSpec", "persistentVolumeReclaimPolicy", "\"Retain\""),
    ("core/v1.PersistentVolumeSpec", "volumeMode", "\"Filesystem\""),
    ("core/v1.PersistentVolumeClaimStatus", "phase", "\"Pending\""),
    ("core/v1.PersistentVolumeClaimSpec", "volumeMode", "\"Filesystem\""),
    ("core/v1.EndpointPort", "protocol", "\"TCP\""),
    ("core/v1.NamespaceStatus", "phase", "\"Active\""),
    ("authentication/v1.TokenRequestSpec", "expirationSeconds", "3600"),
];

pub(super) const LOGIC: &[Logic] = &[
    ("core/v1.ReplicationController", replication_controller),
    ("core/v1.Service", service),
    ("core/v1.Namespace", namespace),
    ("core/v1.Node", node),
    ("core/v1.Secret", secret),
    ("core/v1.LimitRangeItem", limit_range_item),
];

fn replication_controller(controller: &mut Map<String, Value>) {
    labels_from_template(controller);
    if let Some(labels) = template_labels(controller) {
        fill(object(controller, "spec"), "selector", labels);
    }
}

fn service(service: &mut Map<String, Value>) {
    let spec = object(service, "spec");
    fill(spec, "sessionAffinity", "None");
    if text(spec, "sessionAffinity") == "None" {
        spec.remove("sessionAffinityConfig");
    } else if text(spec, "sessionAffinity") == "ClientIP" {
        let config = spec.get("sessionAffinityConfig");
        let has_timeout =
            config.is_some_and(|config| config["clientIP"]["timeoutSeconds"].is_i64());
        if !has_timeout {
            let config = json!({"clientIP": {"timeoutSeconds": 10800}});
            spec.insert("sessionAffinityConfig".to_owned(), config);
        }
    }
    fill(spec, "type", "ClusterIP");
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let Value::Object(port) = port else { continue };
        let unset = matches!(port.get("targetPort"), None | Some(Value::Null))
            || port["targetPort"] == 0
            || port["targetPort"] == "";
        if let (true, Some(number)) = (unset, port.get("port").cloned()) {
            port.insert("targetPort".to_owned(), number);
        }
    }
    let kind = text(spec, "type").to_owned();
    let has_external_ips =
        spec.get("externalIPs").and_then(Value::as_array).is_some_and(|ips| !ips.is_empty());
    let takes_traffic = matches!(&*kind, "LoadBalancer" | "NodePort");
    if takes_traffic || (kind == "ClusterIP" && has_external_ips) {
        fill(spec, "externalTrafficPolicy", "Cluster");
    }
    if takes_traffic || kind == "ClusterIP" {
        fill(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        fill(spec, "allocateLoadBalancerNodePorts", true);
        ingress_modes(service);
    }
}

fn ingress_modes(service: &mut Map<String, Value>) {
    let ingress = service
        .get_mut("status")
        .and_then(|status| status.get_mut("loadBalancer"))
        .and_then(|balancer| balancer.get_mut("ingress"))
        .and_then(Value::as_array_mut);
    for point in ingress.into_iter().flatten().filter_map(Value::as_object_mut) {
        if !text(point, "ip").is_empty() {
            fill(point, "ipMode", "VIP");
        }
    }
}

/// Upstream repeats this after a generated name is known.
fn namespace(namespace: &mut Map<String, Value>) {
    let Some(name) = namespace.get("metadata").and_then(|metadata| metadata.get("name")) else {
        return;
    };
    let name = name.clone();
    let labels = object(object(namespace, "metadata"), "labels");
    labels.insert("kubernetes.io/metadata.name".to_owned(), name);
}

/// Upstream folds `stringData` into `data` when it converts.
fn secret(secret: &mut Map<String, Value>) {
    let Some(Value::Object(texts)) = secret.remove("stringData") else { return };
    let data = object(secret, "data");
    for (key, text) in texts {
        data.insert(key, STANDARD.encode(text.as_str().unwrap_or("")).into());
    }
}

fn node(node: &mut Map<String, Value>) {
    if let Some(Value::Object(spec)) = node.get_mut("spec") {
        // The list mirrors the first address range.
        if let Some(range) = spec.get("podCIDR").cloned() {
            fill(spec, "podCIDRs", json!([range]));
        }
    }
    let Some(Value::Object(status)) = node.get_mut("status") else { return };
    if let Some(capacity) = status.get("capacity").cloned() {
        fill(status, "allocatable", capacity);
    }
}

fn limit_range_item(item: &mut Map<String, Value>) {
    if text(item, "type") != "Container" {
        return;
    }
    for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")]
    {
        let Some(Value::Object(source)) = item.get(from).cloned() else { continue };
        let target = object(item, to);
        for (resource, quantity) in source {
            fill(target, &resource, quantity);
        }
    }
}
