//! Policies and match conditions about a version to which only a webhook converts.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::converter::renaming;
use super::{FOOS, foo, message, patch, read};
use crate::fixture::Fixture;

const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1";

/// Creations and updates of objects in v2, and what is equivalent.
fn of_v2() -> Value {
    json!([{"apiGroups": ["example.com"], "apiVersions": ["v2"], "resources": ["foos"],
        "operations": ["CREATE", "UPDATE"]}])
}

async fn bind(server: &Fixture, kind: &str, mut spec: Value, binding: Value) {
    spec["matchConstraints"] = json!({"resourceRules": of_v2()});
    let path = format!("{CONFIGURATIONS}/{kind}admissionpolicies");
    server.create(&path, &json!({"metadata": {"name": "p"}, "spec": spec})).await;
    let path = format!("{CONFIGURATIONS}/{kind}admissionpolicybindings");
    server.create(&path, &json!({"metadata": {"name": "b"}, "spec": binding})).await;
}

#[tokio::test]
async fn a_policy_sees_the_version_that_it_names() {
    let (server, converter) = renaming().await;
    server.create(FOOS, &foo("old", &json!({"size": "small"}))).await;
    let spec = json!({"validations": [
        {"expression": "object.apiVersion == 'example.com/v2' && !has(object.spec.size)"},
        {"expression": "object.spec.magnitude != 'huge'"},
        {"expression": "oldObject == null || oldObject.spec.magnitude == 'small'"}]});
    let binding = json!({"policyName": "p", "validationActions": ["Deny"]});
    bind(&server, "validating", spec, binding).await;
    converter.asked.lock().unwrap().clear();
    server.create(FOOS, &foo("a", &json!({"size": "small"}))).await;
    assert_eq!(*converter.asked.lock().unwrap(), [1]);
    let (code, answer) =
        server.admin(Method::POST, FOOS, &foo("b", &json!({"size": "huge"}))).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    assert!(
        message(&answer).ends_with("failed expression: object.spec.magnitude != 'huge'"),
        "{answer}"
    );
    let change = json!({"spec": {"size": "medium"}});
    assert_eq!(patch(&server, &format!("{FOOS}/old"), &change).await.0, StatusCode::OK);
    let (code, _) = patch(&server, &format!("{FOOS}/old"), &change).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "it is not small any more");
}

#[tokio::test]
async fn what_a_policy_changes_is_converted_back() {
    let (server, _converter) = renaming().await;
    let spec = json!({"reinvocationPolicy": "Never", "mutations": [
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
            "Object{spec: Object.spec{colour: 'like ' + object.spec.magnitude}}"}},
        {"patchType": "JSONPatch", "jsonPatch": {"expression":
            "[JSONPatch{op: 'test', path: '/spec/colour', value: 'like 1'},
              JSONPatch{op: 'replace', path: '/spec/magnitude', value: '2'}]"}}]});
    bind(&server, "mutating", spec, json!({"policyName": "p"})).await;
    let created = server.create(FOOS, &foo("a", &json!({"size": "1"}))).await;
    assert_eq!(created["apiVersion"], "example.com/v1");
    assert_eq!(created["spec"], json!({"size": "2", "color": "like 1"}));
    assert_eq!(read(&server, &format!("{FOOS}/a")).await["spec"], created["spec"]);
}

#[tokio::test]
async fn match_conditions_see_the_version_that_the_rule_names() {
    let (server, converter) = renaming().await;
    let hooks = json!([{"name": "w.example.com", "sideEffects": "None",
        "clientConfig": {"url": "https://localhost:1/"}, "rules": of_v2(),
        "admissionReviewVersions": ["v1"],
        "matchConditions": [{"name": "c", "expression": "object.spec.magnitude == 'huge'"}]}]);
    let body = json!({"metadata": {"name": "hooks"}, "webhooks": hooks});
    server.create(&format!("{CONFIGURATIONS}/validatingwebhookconfigurations"), &body).await;
    server.create(FOOS, &foo("a", &json!({"size": "small"}))).await;
    converter.asked.lock().unwrap().clear();
    let (code, answer) =
        server.admin(Method::POST, FOOS, &foo("b", &json!({"size": "huge"}))).await;
    assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR, "nobody is at home: {answer}");
    assert!(message(&answer).contains("failed calling webhook \"w.example.com\""));
    // Once for the condition and the webhook.
    assert_eq!(*converter.asked.lock().unwrap(), [1]);
}

#[tokio::test]
async fn an_object_that_cannot_be_converted_for_a_policy_is_refused() {
    let (server, _converter) = renaming().await;
    let spec = json!({"validations": [{"expression": "true"}]});
    let binding = json!({"policyName": "p", "validationActions": ["Deny"]});
    bind(&server, "validating", spec, binding).await;
    let path = format!("{CONFIGURATIONS}/validatingadmissionpolicies/p");
    let v3 = json!({"spec": {"matchConstraints": {"resourceRules": [{"apiGroups": ["example.com"],
        "apiVersions": ["v3"], "resources": ["foos"], "operations": ["CREATE"]}]}}});
    patch(&server, &path, &v3).await;
    let mut object = foo("a", &json!({"size": "1"}));
    object["metadata"]["annotations"] = json!({"broken": "yes"});
    let (code, answer) = server.admin(Method::POST, FOOS, &object).await;
    assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR, "{answer}");
    assert!(message(&answer).contains("Kind=Foo failed: it is broken"), "{answer}");
}
