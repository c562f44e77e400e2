//! Defaults, before and after.

use super::*;
use crate::registry::EVERY_VERSION;
use crate::{FieldValidation, decode_json};
use serde_json::json;

fn check(group: &str, kind: &str, input: Value, expected: &Value) {
    let gvk = GroupVersionKind::new(group, "v1", kind);
    let ty = registry().kind(&gvk).unwrap();
    let text = serde_json::to_vec(&input).unwrap();
    let mut value = decode_json(ty, &text, FieldValidation::Strict).unwrap().value;
    apply_defaults(&gvk, &mut value);
    assert_eq!(value, *expected, "{kind}");
    apply_defaults(&gvk, &mut value);
    assert_eq!(value, *expected, "{kind} again");
}

#[test]
fn every_rule_names_a_type_and_a_field() {
    // Some types have no stable version yet.
    let types = || EVERY_VERSION.types();
    for (path, field, json) in RULES.iter().copied().flatten() {
        let found: Vec<_> = types().filter(|ty| stable_path(&ty.path) == *path).collect();
        assert!(!found.is_empty(), "{path}");
        assert!(found.iter().any(|ty| ty.field(field).is_some()), "{path}.{field}");
        serde_json::from_str::<Value>(json).unwrap();
    }
    for (path, _) in LOGIC.iter().copied().flatten() {
        assert!(types().any(|ty| stable_path(&ty.path) == *path), "{path}");
    }
}

#[test]
fn a_pod_gets_its_defaults() {
    check(
        "",
        "Pod",
        json!({"spec": {"containers": [{"name": "c", "image": "a:1",
            "resources": {"limits": {"cpu": "1.0001"}}}], "volumes": [{"name": "v"}]}}),
        &json!({"spec": {
            "containers": [{"name": "c", "image": "a:1", "imagePullPolicy": "IfNotPresent",
                "resources": {"limits": {"cpu": "1001m"}, "requests": {"cpu": "1001m"}},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File"}],
            "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always",
            "schedulerName": "default-scheduler", "securityContext": {},
            "terminationGracePeriodSeconds": 30,
            "volumes": [{"name": "v", "emptyDir": {}}]}}),
    );
}

#[test]
fn pull_policy_follows_the_tag() {
    for (image, expected) in [
        ("a", "Always"),
        ("host:5000/a", "Always"),
        ("a:latest", "Always"),
        ("a:1", "IfNotPresent"),
        ("a@sha256:0", "IfNotPresent"),
    ] {
        let mut value = json!({"spec": {"containers": [{"image": image}]}});
        apply_defaults(&GroupVersionKind::new("", "v1", "Pod"), &mut value);
        assert_eq!(value["spec"]["containers"][0]["imagePullPolicy"], expected, "{image}");
    }
}

#[test]
fn a_deployment_gets_its_defaults_without_those_of_a_pod() {
    let mut value = json!({"spec": {"template": {"spec": {"containers": [{"image": "a"}]}}}});
    apply_defaults(&GroupVersionKind::new("apps", "v1", "Deployment"), &mut value);
    assert_eq!(value["spec"]["strategy"]["rollingUpdate"]["maxSurge"], "25%");
    assert_eq!(value["spec"]["template"]["spec"]["enableServiceLinks"], Value::Null);
    assert_eq!(value["spec"]["template"]["spec"]["dnsPolicy"], "ClusterFirst");
}

#[test]
fn a_service_gets_its_target_ports() {
    check(
        "",
        "Service",
        json!({"spec": {"ports": [{"port": 80}]}}),
        &json!({"spec": {"ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
            "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"}}),
    );
}
