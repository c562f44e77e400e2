//! The core group but for pods and events, and small kinds of a few other groups.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{
    age, bool_text, containers, count, int, is_true, joined, labels, list, name, or_none, scalar,
    since, text, text_or,
};

pub(super) fn row(resource: &str, o: &Value, now: Timestamp) -> Option<Vec<Value>> {
    let age = || age(o, now);
    Some(match resource {
        "configmaps" => vec![name(o), json!(count(o, "/data") + count(o, "/binaryData")), age()],
        "secrets" => vec![name(o), json!(text(o, "/type")), json!(count(o, "/data")), age()],
        "namespaces" => vec![name(o), json!(text(o, "/status/phase")), age()],
        "serviceaccounts" => vec![name(o), age()],
        "nodes" => node(o, now),
        "services" => service(o, now),
        "componentstatuses" => component_status(o),
        "podtemplates" => {
            let [names, images] = containers(o, "/template/spec/containers");
            vec![name(o), names, images, json!(labels(o, "/template/metadata/labels"))]
        }
        "replicationcontrollers" => {
            let [names, images] = containers(o, "/spec/template/spec/containers");
            let counts = ["/spec/replicas", "/status/replicas", "/status/readyReplicas"]
                .map(|at| int(o, at));
            let [desired, current, ready] = counts.map(Value::from);
            let selector = json!(labels(o, "/spec/selector"));
            vec![name(o), desired, current, ready, age(), names, images, selector]
        }
        "resourcequotas" => quota(o, now),
        "leases" => vec![name(o), json!(text(o, "/spec/holderIdentity")), age()],
        "runtimeclasses" => vec![name(o), json!(text(o, "/handler")), age()],
        "priorityclasses" => vec![
            name(o),
            json!(int(o, "/value")),
            json!(is_true(o, "/globalDefault")),
            age(),
            json!(text(o, "/preemptionPolicy")),
        ],
        "apiservices" => api_service(o, now),
        "certificatesigningrequests" => signing_request(o, now),
        "mutatingwebhookconfigurations" | "validatingwebhookconfigurations" => {
            vec![name(o), json!(count(o, "/webhooks")), age()]
        }
        "validatingadmissionpolicies" | "mutatingadmissionpolicies" => policy(resource, o, now),
        "validatingadmissionpolicybindings" | "mutatingadmissionpolicybindings" => {
            policy_binding(o, now)
        }
        "flowschemas" => flow_schema(o, now),
        "prioritylevelconfigurations" => priority_level(o, now),
        _ => return None,
    })
}

fn node(node: &Value, now: Timestamp) -> Vec<Value> {
    let ready = list(node, "/status/conditions").iter().find(|c| c["type"] == "Ready");
    let mut status = match ready {
        Some(condition) if condition["status"] == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if is_true(node, "/spec/unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    let address = |wanted: &str| {
        let found = list(node, "/status/addresses").iter().find(|a| a["type"] == wanted);
        json!(found.map_or("<none>", |found| text(found, "/address")))
    };
    let info =
        |field: &str| json!(text_or(node, &format!("/status/nodeInfo/{field}"), "<unknown>"));
    vec![
        name(node),
        json!(status),
        json!(roles(node)),
        age(node, now),
        json!(text(node, "/status/nodeInfo/kubeletVersion")),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn roles(node: &Value) -> String {
    let mut roles: Vec<&str> = Vec::new();
    let labels = node.pointer("/metadata/labels").and_then(Value::as_object);
    for (key, value) in labels.into_iter().flatten() {
        if let Some(role) = key.strip_prefix("node-role.kubernetes.io/") {
            roles.push(role);
        } else if key == "kubernetes.io/role" {
            roles.extend(value.as_str());
        }
    }
    roles.retain(|role| !role.is_empty());
    roles.sort_unstable();
    roles.dedup();
    or_none(roles.join(","))
}

fn service(service: &Value, now: Timestamp) -> Vec<Value> {
    let kind = text(service, "/spec/type");
    let cluster_ip =
        text_or(service, "/spec/clusterIPs/0", text_or(service, "/spec/clusterIP", "<none>"));
    let own = joined(service, "/spec/externalIPs", ",");
    let external = match kind {
        "LoadBalancer" => {
            let points = list(service, "/status/loadBalancer/ingress").iter();
            let points: Vec<&str> =
                points.map(|point| text_or(point, "/ip", text(point, "/hostname"))).collect();
            match (points.join(","), own) {
                (points, own) if points.is_empty() && own.is_empty() => "<pending>".to_owned(),
                (points, own) if own.is_empty() => points,
                (points, own) if points.is_empty() => own,
                (points, own) => format!("{points},{own}"),
            }
        }
        "ExternalName" => text(service, "/spec/externalName").to_owned(),
        _ => or_none(own),
    };
    let ports: Vec<String> = list(service, "/spec/ports")
        .iter()
        .map(|port| match int(port, "/nodePort") {
            0 => format!("{}/{}", int(port, "/port"), text(port, "/protocol")),
            node => format!("{}:{node}/{}", int(port, "/port"), text(port, "/protocol")),
        })
        .collect();
    vec![
        name(service),
        json!(kind),
        json!(cluster_ip),
        json!(external),
        json!(or_none(ports.join(","))),
        age(service, now),
        json!(labels(service, "/spec/selector")),
    ]
}

fn component_status(status: &Value) -> Vec<Value> {
    let condition = list(status, "/conditions").iter().find(|c| c["type"] == "Healthy");
    let health = match condition.map(|condition| text(condition, "/status")) {
        Some("True") => "Healthy",
        Some("False") => "Unhealthy",
        _ => "Unknown",
    };
    let cell = |field: &str| json!(condition.map_or("", |condition| text(condition, field)));
    vec![name(status), json!(health), cell("/message"), cell("/error")]
}

fn quota(quota: &Value, now: Timestamp) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in
        quota.pointer("/status/hard").and_then(Value::as_object).into_iter().flatten()
    {
        let used = quota["status"]["used"][resource].as_str().unwrap_or("0");
        let pair = format!("{resource}: {used}/{}", hard.as_str().unwrap_or("0"));
        if resource.starts_with("limits.") { limits.push(pair) } else { requests.push(pair) }
    }
    vec![name(quota), json!(requests.join(", ")), json!(limits.join(", ")), age(quota, now)]
}

fn api_service(service: &Value, now: Timestamp) -> Vec<Value> {
    let target = match service.pointer("/spec/service") {
        Some(service) => format!("{}/{}", text(service, "/namespace"), text(service, "/name")),
        None => "Local".to_owned(),
    };
    let available = list(service, "/status/conditions").iter().find(|c| c["type"] == "Available");
    let status = match available {
        Some(condition) if condition["status"] == "True" => "True".to_owned(),
        Some(condition) => {
            format!("{} ({})", text(condition, "/status"), text(condition, "/reason"))
        }
        None => "Unknown".to_owned(),
    };
    vec![name(service), json!(target), json!(status), age(service, now)]
}

fn signing_request(request: &Value, now: Timestamp) -> Vec<Value> {
    let has = |wanted: &str| {
        list(request, "/status/conditions").iter().any(|condition| condition["type"] == wanted)
    };
    let mut condition = String::new();
    for (wanted, word) in [("Approved", "Approved"), ("Denied", "Denied"), ("Failed", "Failed")] {
        if has(wanted) {
            condition =
                if condition.is_empty() { word.to_owned() } else { format!("{condition},{word}") };
        }
    }
    if condition.is_empty() {
        "Pending".clone_into(&mut condition);
    }
    if !text(request, "/status/certificate").is_empty() {
        condition.push_str(",Issued");
    }
    let duration = match int(request, "/spec/expirationSeconds") {
        0 => "<none>".to_owned(),
        seconds => super::human_duration(seconds),
    };
    vec![
        name(request),
        age(request, now),
        json!(text_or(request, "/spec/signerName", "<none>")),
        json!(text(request, "/spec/username")),
        json!(duration),
        json!(condition),
    ]
}

fn policy(resource: &str, policy: &Value, now: Timestamp) -> Vec<Value> {
    let list = if resource.starts_with('v') { "/spec/validations" } else { "/spec/mutations" };
    let kind = match policy.pointer("/spec/paramKind") {
        Some(kind) => format!("{}/{}", text(kind, "/apiVersion"), text(kind, "/kind")),
        None => "<unset>".to_owned(),
    };
    vec![name(policy), json!(count(policy, list)), json!(kind), age(policy, now)]
}

fn policy_binding(binding: &Value, now: Timestamp) -> Vec<Value> {
    let parameters = match binding.pointer("/spec/paramRef") {
        None => "<unset>".to_owned(),
        Some(reference) => match (text(reference, "/namespace"), text(reference, "/name")) {
            ("", name) => format!("*/{name}"),
            (namespace, "") => format!("{namespace}/*"),
            (namespace, name) => format!("{namespace}/{name}"),
        },
    };
    let policy = json!(text(binding, "/spec/policyName"));
    vec![name(binding), policy, json!(parameters), age(binding, now)]
}

fn flow_schema(schema: &Value, now: Timestamp) -> Vec<Value> {
    let dangling = list(schema, "/status/conditions").iter().find(|c| c["type"] == "Dangling");
    vec![
        name(schema),
        json!(text_or(schema, "/spec/priorityLevelConfiguration/name", "<none>")),
        json!(int(schema, "/spec/matchingPrecedence")),
        json!(text_or(schema, "/spec/distinguisherMethod/type", "<none>")),
        age(schema, now),
        json!(dangling.map_or("?", |condition| text(condition, "/status"))),
    ]
}

fn priority_level(level: &Value, now: Timestamp) -> Vec<Value> {
    let shares = scalar(level, "/spec/limited/nominalConcurrencyShares", "<none>");
    let shares = match level.pointer("/spec/exempt") {
        Some(exempt) => scalar(exempt, "/nominalConcurrencyShares", "<none>"),
        None => shares,
    };
    let queuing = |field: &str| {
        let at = format!("/spec/limited/limitResponse/queuing/{field}");
        json!(scalar(level, &at, "<none>"))
    };
    let kind = json!(text(level, "/spec/type"));
    let (queues, hand, length) =
        (queuing("queues"), queuing("handSize"), queuing("queueLengthLimit"));
    vec![name(level), kind, json!(shares), queues, hand, length, age(level, now)]
}

/// Shared with storage, whose cells mix booleans and texts.
pub(super) fn tri_state(object: &Value, pointer: &str) -> Value {
    json!(bool_text(object, pointer))
}

/// How long ago something last happened, or `<none>`.
pub(super) fn ago_or_none(object: &Value, pointer: &str, now: Timestamp) -> Value {
    match text(object, pointer) {
        "" => json!("<none>"),
        at => json!(since(at, now)),
    }
}
