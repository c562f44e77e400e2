//! Configurations of webhooks and policies as objects: whatever is done to them takes effect.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::webhooks::{Hook, hook, rule};
use super::{MERGE, delete, patch, put, read};
use crate::fixture::Fixture;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1";

async fn is_created(server: &Fixture, data: &Value) -> bool {
    let body = json!({"metadata": {"generateName": "m-"}, "data": data});
    server.admin(Method::POST, CONFIG_MAPS, &body).await.0 == StatusCode::CREATED
}

/// `[sig-api-machinery] AdmissionWebhook patching/updating a validating webhook should work`, `listing
/// validating webhooks should work`.
#[tokio::test]
async fn what_is_done_to_a_validating_configuration_takes_effect() {
    let server = Fixture::start().await;
    let webhook = Hook::serve(&server, |_| json!({"allowed": false})).await;
    let collection = format!("{CONFIGURATIONS}/validatingwebhookconfigurations");
    let rules = rule(&["configmaps"], &["CREATE"]);
    for n in 0..3 {
        let body = json!({"metadata": {"name": format!("hooks-{n}"), "labels": {"all": "yes"}},
            "webhooks": [hook(&format!("w{n}"), &webhook.url(&server), &rules)]});
        server.create(&collection, &body).await;
    }
    assert!(!is_created(&server, &json!({})).await);
    let selected = format!("{collection}?labelSelector=all%3Dyes");
    assert_eq!(read(&server, &selected).await["items"].as_array().unwrap().len(), 3);
    delete(&server, &selected).await;
    assert!(is_created(&server, &json!({})).await);
    let body = json!({"metadata": {"name": "one"},
        "webhooks": [hook("w", &webhook.url(&server), &rules)]});
    let mut object = server.create(&collection, &body).await;
    assert!(!is_created(&server, &json!({})).await);
    let path = format!("{collection}/one");
    object["webhooks"][0]["rules"][0]["operations"] = json!(["UPDATE"]);
    put(&server, &path, &object).await;
    assert!(is_created(&server, &json!({})).await);
    let operations = json!([{"op": "replace", "path": "/webhooks/0/rules/0/operations",
        "value": ["CREATE"]}]);
    patch(&server, &path, "application/json-patch+json", &operations).await;
    assert!(!is_created(&server, &json!({})).await);
}

/// `[sig-api-machinery] AdmissionWebhook should reject validating webhook configurations with invalid
/// match conditions`, and updates with them.
#[tokio::test]
async fn a_configuration_stays_as_it_was_when_a_change_is_refused() {
    let server = Fixture::start().await;
    let collection = format!("{CONFIGURATIONS}/validatingwebhookconfigurations");
    let client = json!({"url": "https://localhost/"});
    let body = json!({"metadata": {"name": "one"},
        "webhooks": [hook("w", &client, &rule(&["configmaps"], &["DELETE"]))]});
    let mut object = server.create(&collection, &body).await;
    let path = format!("{collection}/one");
    object["webhooks"][0]["matchConditions"] =
        json!([{"name": "a", "expression": "... [] bad expression"}]);
    let (code, status) = server.admin(Method::PUT, &path, &object).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(status["message"].as_str().unwrap().contains("compilation failed"), "{status}");
    assert_eq!(read(&server, &path).await["webhooks"][0].get("matchConditions"), None);
}

/// `[sig-api-machinery] ValidatingAdmissionPolicy should support ValidatingAdmissionPolicy API
/// operations`: the status among them.
#[tokio::test]
async fn the_status_of_a_policy_is_read_replaced_and_patched() {
    let server = Fixture::start().await;
    let collection = format!("{CONFIGURATIONS}/validatingadmissionpolicies");
    let rules = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
        "resources": ["configmaps"]}]);
    let spec = json!({"matchConstraints": {"resourceRules": rules},
        "validations": [{"expression": "true"}]});
    let body = json!({"metadata": {"generateName": "p-", "labels": {"all": "yes"}}, "spec": spec});
    let made = server.create(&collection, &body).await;
    let name = made["metadata"]["name"].as_str().unwrap();
    let path = format!("{collection}/{name}");
    let status = format!("{path}/status");
    let condition = |reason: &str| {
        json!({"type": "E2E", "status": "True", "reason": reason, "message": "",
            "lastTransitionTime": "2024-01-01T00:00:00Z"})
    };
    let mut object = read(&server, &status).await;
    object["status"]["conditions"] = json!([condition("Put")]);
    object["spec"]["validations"] = json!([]);
    put(&server, &status, &object).await;
    let found = read(&server, &path).await;
    assert_eq!(found["status"]["conditions"][0]["reason"], "Put");
    assert_eq!(found["spec"]["validations"][0]["expression"], "true", "this is not the status's");
    let change = json!({"status": {"conditions": [condition("Patched")]}});
    patch(&server, &status, MERGE, &change).await;
    assert_eq!(read(&server, &status).await["status"]["conditions"][0]["reason"], "Patched");
    delete(&server, &format!("{collection}?labelSelector=all%3Dyes")).await;
    let (code, _) = server.admin(Method::GET, &path, &Value::Null).await;
    assert_eq!(code, StatusCode::NOT_FOUND);
}

/// `[sig-api-machinery] MutatingAdmissionPolicy ...`: made, changed, reinvoked, and gone at once.
#[tokio::test]
async fn what_is_done_to_a_mutating_policy_takes_effect() {
    let server = Fixture::start().await;
    let policies = format!("{CONFIGURATIONS}/mutatingadmissionpolicies");
    let bindings = format!("{CONFIGURATIONS}/mutatingadmissionpolicybindings");
    let rules = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
        "resources": ["configmaps"]}]);
    let expression = |value: &str| format!("Object{{data: {{'by': '{value}'}}}}");
    let mutation = |value: &str| {
        json!({"patchType": "ApplyConfiguration",
            "applyConfiguration": {"expression": expression(value)}})
    };
    let spec = json!({"matchConstraints": {"resourceRules": rules}, "mutations": [mutation("p")],
        "reinvocationPolicy": "IfNeeded", "failurePolicy": "Fail"});
    server.create(&policies, &json!({"metadata": {"name": "p"}, "spec": spec})).await;
    let created = async |name: &str| {
        let body = json!({"metadata": {"name": name}, "data": {"a": "1"}});
        server.create(CONFIG_MAPS, &body).await["data"].clone()
    };
    assert_eq!(created("a").await, json!({"a": "1"}), "it is not bound");
    let namespaces = json!({"matchLabels": {"mutate": "yes"}});
    let body = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p",
        "matchResources": {"namespaceSelector": namespaces}}});
    server.create(&bindings, &body).await;
    assert_eq!(created("b").await, json!({"a": "1"}), "not in this namespace");
    let label = json!({"metadata": {"labels": {"mutate": "yes"}}});
    patch(&server, "/api/v1/namespaces/default", MERGE, &label).await;
    assert_eq!(created("c").await, json!({"a": "1", "by": "p"}));
    let change = json!({"spec": {"mutations": [mutation("q")]}});
    patch(&server, &format!("{policies}/p"), MERGE, &change).await;
    // Deleted and made again in one breath, as who waits for a policy does.
    delete(&server, &format!("{CONFIG_MAPS}/c")).await;
    assert_eq!(created("c").await, json!({"a": "1", "by": "q"}));
    delete(&server, &format!("{bindings}/b")).await;
    assert_eq!(created("d").await, json!({"a": "1"}));
}
