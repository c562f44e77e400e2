//! Conversion webhooks and APIs of others, served by a pod behind a service.

use http::Method;
use serde_json::{Value, json};

use crate::extension::{CONFIG_MAPS, Extended};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const GROUP: &str = "/apis/wardle.example.com/v1alpha1";

/// `[sig-api-machinery] CustomResourceConversionWebhook should be able to convert from CR v1 to CR v2`
/// and `should be able to convert a non homogeneous list of CRs`.
#[test]
fn a_pod_converts_custom_resources() {
    let extended = Extended::start();
    let harness = &extended.harness;
    let text = json!({"type": "string"});
    let version = |name: &str, is_stored: bool, properties: Value| {
        json!({"name": name,
        "served": true, "storage": is_stored,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}}})
    };
    let versions = |stored: &str| {
        json!([
            version("v1", stored == "v1", json!({"hostPort": text})),
            version("v2", stored == "v2", json!({"host": text, "port": text}))
        ])
    };
    let conversion = json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
        "clientConfig": extended.client("/convert")}});
    let definition = json!({"metadata": {"name": "ends.stable.example.com"}, "spec": {
        "group": "stable.example.com", "scope": "Namespaced", "conversion": conversion,
        "names": {"plural": "ends", "kind": "End"}, "versions": versions("v1")}});
    harness.request(Method::POST, DEFINITIONS, Some(&definition)).unwrap();
    let end = |name: &str| {
        json!({"apiVersion": "stable.example.com/v1", "kind": "End",
        "metadata": {"name": name}, "hostPort": "localhost:8080"})
    };
    harness.until("the custom resource is served", || {
        extended.post("stable.example.com/v1/ends", &end("a")).ok()
    });
    let v2 = "/apis/stable.example.com/v2/namespaces/default/ends";
    let converted = harness.get(&format!("{v2}/a"));
    assert_eq!((&converted["host"], &converted["port"]), (&json!("localhost"), &json!("8080")));
    harness.patch(
        &format!("{DEFINITIONS}/ends.stable.example.com"),
        &json!({"spec": {"versions": versions("v2")}}),
    );
    harness.until("the other version is stored", || {
        let path = format!("{DEFINITIONS}/ends.stable.example.com");
        (harness.get(&path)["status"]["storedVersions"] == json!(["v1", "v2"])).then_some(())
    });
    harness.create("stable.example.com/v1/ends", &end("b"));
    for (path, field) in [(v2, "host"), ("/apis/stable.example.com/v1/ends", "hostPort")] {
        let list = harness.get(path);
        let items = list["items"].as_array().unwrap();
        assert_eq!(items.len(), 2);
        assert!(items.iter().all(|item| item[field].is_string()), "{list}");
    }
}

/// `[sig-api-machinery] Aggregator Should be able to support the 1.17 Sample API Server using the
/// current Aggregator`.
#[test]
fn a_pod_serves_an_api() {
    let extended = Extended::start();
    let harness = &extended.harness;
    let service = json!({"namespace": "default", "name": "extension", "port": 8443});
    let registration = json!({"metadata": {"name": "v1alpha1.wardle.example.com"}, "spec": {
        "service": service, "group": "wardle.example.com", "version": "v1alpha1",
        "caBundle": extended.bundle(), "groupPriorityMinimum": 2000, "versionPriority": 200}});
    harness.request(Method::POST, SERVICES, Some(&registration)).unwrap();
    let path = format!("{SERVICES}/v1alpha1.wardle.example.com");
    let condition = harness.until("the API is available", || {
        let found = harness.get(&path)["status"]["conditions"][0].clone();
        (found["status"] == "True").then_some(found)
    });
    assert_eq!(condition["type"], "Available");
    assert_eq!(condition["reason"], "Passed");
    assert_eq!(condition["message"], "all checks passed");

    let flunders = format!("{GROUP}/namespaces/default/flunders");
    let flunder = json!({"metadata": {"name": "f", "annotations": {}}});
    let made = harness.request(Method::POST, &flunders, Some(&flunder)).unwrap();
    assert_eq!(made["metadata"]["annotations"]["made-by"], "kubernetes-admin");
    assert_eq!(harness.get(&flunders)["items"][0]["metadata"]["name"], "f");
    let again = harness.request(Method::POST, &flunders, Some(&flunder)).unwrap_err();
    assert!(again.to_string().contains("already exists"), "{again}");
    let groups = harness.get("/apis");
    let groups = groups["groups"].as_array().unwrap().clone();
    assert!(groups.iter().any(|group| group["name"] == "wardle.example.com"));
    assert_eq!(harness.get(GROUP)["resources"][0]["name"], "flunders");
    harness.delete(&format!("{flunders}/f"));
    assert!(!harness.exists(&format!("{flunders}/f")));

    harness.delete(&path);
    harness.until("the API is gone", || {
        let is_gone = harness.request(Method::GET, &flunders, None).is_err();
        let groups = harness.get("/apis");
        let mut groups = groups["groups"].as_array().unwrap().iter();
        (is_gone && groups.all(|group| group["name"] != "wardle.example.com")).then_some(())
    });
    // Namespaces can go all the same, and everything else is as it was.
    harness.get(CONFIG_MAPS);
}
