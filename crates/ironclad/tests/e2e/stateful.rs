//! StatefulSets, and what keeps enough of their pods.

use serde_json::{Value, json};
use testkit::POD_IMAGE;

use crate::harness::{Harness, collection, pod_path};

fn set(greeting: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": { "name": "db" },
        "spec": {
            "replicas": 2, "serviceName": "db",
            "selector": { "matchLabels": { "app": "db" } },
            "template": {
                "metadata": { "labels": { "app": "db" } },
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "c", "image": POD_IMAGE, "args": ["serve", "8080"],
                        "env": [{ "name": "GREETING", "value": greeting }],
                    }],
                },
            },
        },
    })
}

#[test]
fn a_stateful_set_keeps_names_is_updated_and_goes() {
    let harness = Harness::start();
    let path = format!("{}/db", collection("apps/v1/statefulsets"));
    harness.create("apps/v1/statefulsets", &set("first"));
    let first = harness.ready_pod("db-0");
    let second = harness.ready_pod("db-1");
    let created = |pod: &Value| pod["metadata"]["creationTimestamp"].as_str().unwrap().to_owned();
    assert!(created(&first) <= created(&second));
    assert_eq!(second["spec"]["hostname"], "db-1");
    harness.delete(&pod_path("db-0"));
    harness.until("another pod of the same name", || {
        let pod = harness.request(http::Method::GET, &pod_path("db-0"), None).ok()?;
        (pod["metadata"]["uid"] != first["metadata"]["uid"]).then_some(())
    });
    harness.ready_pod("db-0");
    harness.patch(&path, &json!({ "spec": set("second")["spec"] }));
    harness.until("all pods are of the new template", || {
        let status = harness.get(&path)["status"].clone();
        (status["observedGeneration"] == 2
            && status["updatedReplicas"] == 2
            && status["availableReplicas"] == 2
            && status["currentRevision"] == status["updateRevision"])
            .then_some(())
    });
    let address = harness.get(&pod_path("db-1"))["status"]["podIP"].as_str().unwrap().to_owned();
    assert_eq!(harness.fetch(&address, 8080, "/env?GREETING").unwrap(), "second");
    let scale = json!({ "spec": { "replicas": 1 } });
    harness.patch(&format!("{path}/scale"), &scale);
    harness.ready_pods("app=db", 1);
    assert!(harness.exists(&pod_path("db-0")));
    harness.delete(&path);
    harness.ready_pods("app=db", 0);
    // Every controller has the rights it needs, under its own identity.
    let log = harness.cluster.log();
    assert!(!log.contains("forbidden"), "{log}");
}

#[test]
fn a_budget_keeps_enough_pods_from_being_evicted() {
    let harness = Harness::start();
    harness.create("apps/v1/statefulsets", &set("first"));
    harness.ready_pods("app=db", 2);
    let budget = json!({ "metadata": { "name": "keep" }, "spec": {
        "maxUnavailable": 1, "selector": { "matchLabels": { "app": "db" } } } });
    harness.create("policy/v1/poddisruptionbudgets", &budget);
    let path = format!("{}/keep", collection("policy/v1/poddisruptionbudgets"));
    let allowed = |count: u32| {
        harness.until(&format!("{count} may be evicted"), || {
            let status = harness.get(&path)["status"].clone();
            (status["disruptionsAllowed"] == count && status["expectedPods"] == 2).then_some(())
        });
    };
    allowed(1);
    let evict = |name: &str| {
        let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": { "name": name, "namespace": "default" } });
        let path = format!("{}/eviction", pod_path(name));
        harness.request(http::Method::POST, &path, Some(&eviction))
    };
    evict("db-1").unwrap();
    // Until it has come back, the other one stays.
    let refused = evict("db-0").unwrap_err();
    assert!(refused.to_string().contains("disruption budget"), "{refused}");
    harness.ready_pods("app=db", 2);
    allowed(1);
    evict("db-0").unwrap();
}
