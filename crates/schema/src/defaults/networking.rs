//! `networking.k8s.io` and `discovery.k8s.io`, and what `resource.k8s.io` needs logic for.

use serde_json::{Map, Value, json};

use super::{Logic, Rule, fill, text};

pub(super) const RULES: &[Rule] = &[
    ("networking/v1.NetworkPolicyPort", "protocol", "\"TCP\""),
    ("networking/v1.IngressClassParametersReference", "scope", "\"Cluster\""),
    ("discovery/v1.EndpointPort", "name", "\"\""),
    ("discovery/v1.EndpointPort", "protocol", "\"TCP\""),
];

pub(super) const LOGIC: &[Logic] = &[
    ("networking/v1.NetworkPolicySpec", network_policy),
    ("resource/v1.ExactDeviceRequest", device_request),
    ("resource/v1.DeviceSubRequest", device_request),
    ("resource/v1.DeviceRequest", flat_device_request),
];

fn network_policy(spec: &mut Map<String, Value>) {
    let filled = |spec: &Map<String, Value>, field: &str| {
        spec.get(field).and_then(Value::as_array).is_some_and(|items| !items.is_empty())
    };
    if filled(spec, "policyTypes") {
        return;
    }
    let types =
        if filled(spec, "egress") { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
    spec.insert("policyTypes".to_owned(), types);
}

fn device_request(request: &mut Map<String, Value>) {
    fill(request, "allocationMode", "ExactCount");
    if text(request, "allocationMode") == "ExactCount" {
        fill(request, "count", 1);
    }
}

/// In `v1beta1` what is wanted stands in the request itself, if it is not one of several.
fn flat_device_request(request: &mut Map<String, Value>) {
    if !text(request, "deviceClassName").is_empty() {
        device_request(request);
    }
}
