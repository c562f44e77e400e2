//! What is refused, and in which words.

use super::*;
use serde_json::json;

fn findings(group: &str, kind: &str, mut object: Value) -> Vec<String> {
    let gvk = GroupVersionKind::new(group, "v1", kind);
    schema::apply_defaults(&gvk, &mut object);
    let resource = schema::registry().resource_of_kind(&gvk);
    if resource.is_some_and(|resource| !resource.namespaced)
        && let Some(metadata) = object["metadata"].as_object_mut()
    {
        metadata.remove("namespace");
    }
    validate_create(&gvk, &object).iter().map(ToString::to_string).collect()
}

/// What is found in a new object, after defaulting.
pub(crate) fn check(group: &str, kind: &str, object: Value, expected: &[&str]) {
    assert_eq!(findings(group, kind, object), expected);
}

/// What is found in a changed object: the new one, then the old one.
pub(crate) fn check_update(
    group: &str,
    kind: &str,
    subresource: &str,
    (new, old): (&Value, &Value),
    expected: &[&str],
) {
    let gvk = GroupVersionKind::new(group, "v1", kind);
    let defaulted = |object: &Value| {
        let mut object = object.clone();
        schema::apply_defaults(&gvk, &mut object);
        object
    };
    let found = validate_update(&gvk, subresource, &defaulted(new), &defaulted(old));
    let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(texts, expected);
}

/// An object of this spec, with a name and a namespace, of which the latter may be too much.
pub(crate) fn object(spec: Value) -> Value {
    json!({"metadata": {"name": "x", "namespace": "n"}, "spec": spec})
}

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec})
}

#[test]
fn a_plain_pod_is_valid() {
    let spec = json!({"containers": [{"name": "c", "image": "i"}]});
    assert_eq!(findings("", "Pod", pod(spec)), [""; 0]);
}

#[test]
fn a_pod_needs_containers_with_names_and_images() {
    assert_eq!(findings("", "Pod", pod(json!({}))), ["spec.containers: Required value"]);
    assert_eq!(
        findings(
            "",
            "Pod",
            pod(
                json!({"containers": [{}, {"name": "a", "image": "i"}, {"name": "a", "image": "i"}]})
            )
        ),
        [
            "spec.containers[0].name: Required value",
            "spec.containers[0].image: Required value",
            "spec.containers[2].name: Duplicate value: \"a\"",
        ]
    );
}

#[test]
fn mounts_must_name_volumes() {
    let mount = json!({"name": "v", "mountPath": "/a"});
    let spec = json!({"containers": [{"name": "c", "image": "i", "volumeMounts": [mount]}]});
    assert_eq!(
        findings("", "Pod", pod(spec)),
        ["spec.containers[0].volumeMounts[0].name: Not found: \"v\""]
    );
}

#[test]
fn names_are_checked_by_kind() {
    let named = |name: &str| json!({"metadata": {"name": name, "namespace": "n"}});
    assert!(findings("", "ConfigMap", named("a.b")).is_empty());
    assert_eq!(
        findings("", "ConfigMap", json!({"metadata": {"namespace": "n"}})),
        ["metadata.name: Required value: name or generateName is required"]
    );
    let namespace = findings("", "Namespace", json!({"metadata": {"name": "a.b"}}));
    assert_eq!(namespace, ["metadata.name: Invalid value: \"a.b\": must not contain dots"]);
}

#[test]
fn a_deployment_must_select_its_template() {
    let template = json!({"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let object = json!({"metadata": {"name": "d", "namespace": "n"},
        "spec": {"selector": {"matchLabels": {"a": "x"}}, "template": template}});
    assert_eq!(
        findings("apps", "Deployment", object),
        ["spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match \
          template `labels`"]
    );
}

#[test]
fn the_old_name_of_a_topology_mode_says_the_same() {
    let service = |old: &str| {
        json!({"metadata": {"name": "s", "namespace": "n", "annotations": {
            "service.kubernetes.io/topology-mode": "Auto",
            "service.kubernetes.io/topology-aware-hints": old}},
            "spec": {"ports": [{"port": 80}]}})
    };
    assert!(findings("", "Service", service("Auto")).is_empty());
    assert_eq!(
        findings("", "Service", service("auto")),
        ["metadata.annotations[service.kubernetes.io/topology-mode]: Invalid value: \"Auto\": \
          must match annotations[service.kubernetes.io/topology-aware-hints] when both are \
          specified"]
    );
}

#[test]
fn only_the_image_of_a_pod_may_change() {
    let gvk = GroupVersionKind::new("", "v1", "Pod");
    let mut old = pod(json!({"containers": [{"name": "c", "image": "i"}]}));
    schema::apply_defaults(&gvk, &mut old);
    let mut new = old.clone();
    new["spec"]["containers"][0]["image"] = json!("other");
    assert_eq!(validate_update(&gvk, "", &new, &old), []);
    new["spec"]["nodeName"] = json!("n");
    let findings = validate_update(&gvk, "", &new, &old);
    assert_eq!(findings.len(), 1);
    assert!(findings[0].to_string().starts_with("spec: Forbidden: pod updates may not change"));
}

#[test]
fn immutable_config_stays() {
    let gvk = GroupVersionKind::new("", "v1", "ConfigMap");
    let with = |value: &str, fixed: bool| json!({"metadata": {"name": "a"}, "data": {"k": value}, "immutable": fixed});
    assert_eq!(validate_update(&gvk, "", &with("1", true), &with("1", true)), []);
    let findings = validate_update(&gvk, "", &with("2", true), &with("1", true));
    assert_eq!(
        findings[0].to_string(),
        "data: Forbidden: field is immutable when `immutable` is set"
    );
}

#[test]
fn a_status_may_not_change_the_quality_of_service() {
    let gvk = GroupVersionKind::new("", "v1", "Pod");
    let with = |class: &str, ip: &str| json!({"metadata": {"name": "p"}, "status": {"qosClass": class, "podIPs": [{"ip": ip}]}});
    let old = with("Burstable", "10.0.0.1");
    assert_eq!(validate_update(&gvk, "status", &with("Burstable", "10.0.0.2"), &old), []);
    let findings = validate_update(&gvk, "status", &with("Guaranteed", "bad"), &old);
    let texts: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "status.podIPs[0]: Invalid value: \"bad\": must be a valid IP address, (e.g. 10.9.8.7 \
             or 2001:db8::ffff)",
            "status.qosClass: Invalid value: \"Guaranteed\": field is immutable",
        ]
    );
}

#[test]
fn a_webhook_needs_a_qualified_name_and_its_side_effects() {
    let service = json!({"name": "s", "namespace": "n"});
    let hook = json!({"name": "a.b", "clientConfig": {"service": service},
        "admissionReviewVersions": ["v1"]});
    let object = json!({"metadata": {"name": "w"}, "webhooks": [hook]});
    assert_eq!(
        findings("admissionregistration.k8s.io", "ValidatingWebhookConfiguration", object),
        [
            "webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least three \
             segments separated by dots",
            "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
        ]
    );
}

#[test]
fn an_ingress_needs_a_backend_or_rules() {
    let object = json!({"metadata": {"name": "i", "namespace": "n"}, "spec": {"tls": []}});
    assert_eq!(
        findings("networking.k8s.io", "Ingress", object),
        ["spec: Invalid value: {\"tls\":[]}: either `defaultBackend` or `rules` must be specified"]
    );
    let path = json!({"path": "a", "pathType": "Prefix", "backend": {}});
    let object = json!({"metadata": {"name": "i", "namespace": "n"},
        "spec": {"rules": [{"http": {"paths": [path]}}]}});
    assert_eq!(
        findings("networking.k8s.io", "Ingress", object),
        [
            "spec.rules[0].http.paths[0].path: Invalid value: \"a\": must be an absolute path",
            "spec.rules[0].http.paths[0].backend: Invalid value: \"\": resource or service backend \
             is required",
        ]
    );
}

#[test]
fn the_replicas_of_an_autoscaler_stand_in_order() {
    let gvk = GroupVersionKind::new("autoscaling", "v2", "HorizontalPodAutoscaler");
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
    let object = json!({"metadata": {"name": "h", "namespace": "n"},
        "spec": {"minReplicas": 5, "maxReplicas": 3, "scaleTargetRef": target}});
    let findings: Vec<String> =
        validate_create(&gvk, &object).iter().map(ToString::to_string).collect();
    assert_eq!(
        findings,
        ["spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`"]
    );
}

#[test]
fn an_autoscaler_may_go_down_to_zero_behind_its_gate() {
    let gvk = GroupVersionKind::new("autoscaling", "v2", "HorizontalPodAutoscaler");
    let autoscaler = |least: i32, kind: &str| {
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
        let metric = match kind {
            "External" => json!({"type": kind, "external": {"metric": {"name": "q"},
                "target": {"type": "Value", "value": "1"}}}),
            _ => json!({"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 50}}}),
        };
        json!({"metadata": {"name": "h", "namespace": "n", "resourceVersion": "1"}, "spec": {
            "minReplicas": least, "maxReplicas": 3, "scaleTargetRef": target, "metrics": [metric]}})
    };
    let told = |findings: Vec<FieldError>| -> Vec<String> {
        findings.iter().map(ToString::to_string).collect()
    };
    let open = Allowed { scale_to_zero: true };
    let zero = autoscaler(0, "External");
    let closed = ["spec.minReplicas: Invalid value: 0: must be greater than or equal to 1"];
    assert_eq!(told(validate_create(&gvk, &zero)), closed);
    assert_eq!(told(validate_create_with(&gvk, &zero, open)), [""; 0]);
    let below = ["spec.minReplicas: Invalid value: -1: must be greater than or equal to 0"];
    assert_eq!(told(validate_create_with(&gvk, &autoscaler(-1, "External"), open)), below);
    let others =
        ["spec.metrics: Forbidden: must specify at least one Object or External metric to \
                   support scaling to zero replicas"];
    assert_eq!(told(validate_create_with(&gvk, &autoscaler(0, "cpu"), open)), others);
    let one = autoscaler(1, "External");
    assert_eq!(told(validate_update(&gvk, "", &zero, &one)), closed);
    assert_eq!(told(validate_update_with(&gvk, "", (&zero, &one), open)), [""; 0]);
    // What was set when the gate was open may stay.
    assert_eq!(told(validate_update(&gvk, "", &zero, &zero)), [""; 0]);
}

#[test]
fn webhooks_are_called_over_https_and_on_named_conditions() {
    let gvk = GroupVersionKind::new(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingWebhookConfiguration",
    );
    let hook = json!({"name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": "http://u@h/p?q#f"},
        "matchConditions": [{"name": "c", "expression": "true"}, {"name": "c"}]});
    let object = json!({"metadata": {"name": "w"}, "webhooks": [hook]});
    let findings: Vec<String> =
        validate_create(&gvk, &object).iter().map(ToString::to_string).collect();
    let url = "webhooks[0].clientConfig.url: Invalid value: \"http://u@h/p?q#f\": ";
    let expected = [
        format!("{url}'https' is the only allowed URL scheme; desired format: https://host[/path]"),
        format!("{url}user information is not permitted in the URL"),
        format!("{url}fragments are not permitted in the URL"),
        format!("{url}query parameters are not permitted in the URL"),
        "webhooks[0].matchConditions[1].expression: Required value".to_owned(),
        "webhooks[0].matchConditions[1].name: Duplicate value: \"c\"".to_owned(),
    ];
    assert_eq!(findings, expected);
}
