//! The selectable fields of each kind, read from an object in its storage version.
//!
//! Only kinds with more than name and namespace are here; upstream: each registry's `strategy.go`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Fields of an object of a kind: path and value.
pub(crate) type Fields = Box<[(&'static str, Box<str>)]>;

/// Whether a kind has selectable fields of its own.
pub(crate) fn has_fields(group: &str, kind: &str) -> bool {
    matches!(
        (group, kind),
        (
            "",
            "Pod" | "Node" | "ReplicationController" | "Event" | "Namespace" | "Secret" | "Service"
        ) | ("batch", "Job")
            | (
                "certificates.k8s.io",
                "CertificateSigningRequest" | "ClusterTrustBundle" | "PodCertificateRequest"
            )
            | ("resource.k8s.io", "ResourceSlice")
    )
}

/// Reads the fields of an object's JSON; `None` when it has not the shape of its kind.
///
/// This is done for every change, so nothing but the fields is made of the JSON.
pub(crate) fn read(group: &str, kind: &str, json: &[u8]) -> Option<Fields> {
    let selectable: Selectable = serde_json::from_slice(json).ok()?;
    let object = serde_json::to_value(&selectable).ok()?;
    Some(read_value(group, kind, &object))
}

/// The selectable fields of every kind; no two of these kinds use a name for different types.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Selectable {
    spec: Option<Spec>,
    status: Option<State>,
    involved_object: Option<Reference>,
    source: Option<Source>,
    reason: Option<String>,
    reporting_component: Option<String>,
    r#type: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
    restart_policy: Option<String>,
    scheduler_name: Option<String>,
    service_account_name: Option<String>,
    host_network: Option<bool>,
    unschedulable: Option<bool>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    r#type: Option<String>,
    signer_name: Option<String>,
    pod_name: Option<String>,
    driver: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct State {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    nominated_node_name: Option<String>,
    replicas: Option<i64>,
    succeeded: Option<i64>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    kind: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
    api_version: Option<String>,
    resource_version: Option<String>,
    field_path: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct Source {
    component: Option<String>,
}

pub(crate) fn read_value(group: &str, kind: &str, object: &Value) -> Fields {
    let text = |path: &str| -> Box<str> { string_at(object, path).into() };
    let plain = |paths: &[&'static str]| -> Fields {
        paths.iter().map(|path| (*path, text(path))).collect()
    };
    match (group, kind) {
        ("", "Pod") => {
            let mut fields = plain(&[
                "spec.nodeName",
                "spec.restartPolicy",
                "spec.schedulerName",
                "spec.serviceAccountName",
                "status.phase",
                "status.podIP",
                "status.nominatedNodeName",
            ])
            .into_vec();
            fields.push(("spec.hostNetwork", truth(object, "spec.hostNetwork")));
            fields.into()
        }
        ("", "Node") => [("spec.unschedulable", truth(object, "spec.unschedulable"))].into(),
        ("", "ReplicationController") => {
            [("status.replicas", number(object, "status.replicas"))].into()
        }
        ("", "Namespace") => plain(&["status.phase"]),
        ("", "Secret") => plain(&["type"]),
        ("", "Service") => plain(&["spec.clusterIP", "spec.type"]),
        ("", "Event") => event(object),
        ("batch", "Job") => [("status.successful", number(object, "status.succeeded"))].into(),
        ("certificates.k8s.io", "PodCertificateRequest") => {
            plain(&["spec.signerName", "spec.podName", "spec.nodeName"])
        }
        ("certificates.k8s.io", _) => plain(&["spec.signerName"]),
        ("resource.k8s.io", "ResourceSlice") => plain(&["spec.nodeName", "spec.driver"]),
        _ => Box::default(),
    }
}

fn event(object: &Value) -> Fields {
    let text = |path: &str| -> Box<str> { string_at(object, path).into() };
    let component = string_at(object, "source.component");
    let source =
        if component.is_empty() { string_at(object, "reportingComponent") } else { component };
    let mut fields: Vec<(&'static str, Box<str>)> = [
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "type",
    ]
    .iter()
    .map(|path| (*path, text(path)))
    .collect();
    fields.push(("source", source.into()));
    fields.into()
}

fn string_at<'a>(object: &'a Value, path: &str) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or_default()
}

fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(object, |value, key| value.get(key))
}

fn truth(object: &Value, path: &str) -> Box<str> {
    let is_true = at(object, path).and_then(Value::as_bool).unwrap_or_default();
    if is_true { "true" } else { "false" }.into()
}

fn number(object: &Value, path: &str) -> Box<str> {
    at(object, path).and_then(Value::as_i64).unwrap_or_default().to_string().into()
}
