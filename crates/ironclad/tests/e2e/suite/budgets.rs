//! G21: disruption budgets and evictions.

use client::ClientError;
use http::Method;
use serde_json::{Value, json};

use super::{at, condition, name, template, workload};
use crate::harness::{Harness, collection, pod_path};

const BUDGETS: &str = "policy/v1/poddisruptionbudgets";

fn budget(spec: &Value) -> Value {
    let mut spec = spec.clone();
    spec["selector"] = json!({ "matchLabels": { "app": "web" } });
    json!({ "metadata": { "name": "b", "labels": { "e2e": "budget" } }, "spec": spec })
}

fn evict(harness: &Harness, pod: &str) -> Result<Value, ClientError> {
    let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": { "name": pod, "namespace": "default" } });
    harness.request(Method::POST, &format!("{}/eviction", pod_path(pod)), Some(&eviction))
}

/// What was refused because of a budget says so.
fn refuses(harness: &Harness, pod: &str) {
    let error = evict(harness, pod).unwrap_err();
    let status = serde_json::to_value(error.status().unwrap()).unwrap();
    assert_eq!((&status["code"], &status["reason"]), (&json!(429), &json!("TooManyRequests")));
    assert_eq!(
        status["message"],
        "Cannot evict pod as it would violate the pod's disruption budget."
    );
    let cause = &status["details"]["causes"][0];
    assert_eq!(cause["reason"], "DisruptionBudget");
    let text = "The disruption budget b needs 3 healthy pods and has 3 currently";
    assert_eq!(cause["message"], text);
}

/// Healthy, wanted, allowed and expected pods.
fn numbers(harness: &Harness, expected: [u32; 4]) -> Value {
    harness.becomes(&at(BUDGETS, "b"), &format!("{expected:?}"), |budget| {
        let status = &budget["status"];
        let fields = ["currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods"];
        status["observedGeneration"] == budget["metadata"]["generation"]
            && fields.iter().zip(expected).all(|(field, number)| status[*field] == number)
    })
}

fn replicas(harness: &Harness, count: usize) {
    let pods = template(&json!({ "app": "web" }));
    let set = workload("web", &pods, &json!({ "replicas": count }));
    harness.create("apps/v1/replicasets", &set);
    harness.ready_pods("app=web", count);
}

/// \[sig-apps\] DisruptionController should block an eviction until the PDB is updated to allow it;
/// should observe PodDisruptionBudget status updated
#[test]
fn an_eviction_waits_for_its_budget() {
    let harness = Harness::start();
    replicas(&harness, 3);
    harness.create(BUDGETS, &budget(&json!({ "minAvailable": 3 })));
    let none = numbers(&harness, [3, 3, 0, 3]);
    let allowed = condition(&none, "DisruptionAllowed");
    assert_eq!(
        (&allowed["status"], &allowed["reason"]),
        (&json!("False"), &json!("InsufficientPods"))
    );
    let pod = name(&harness.pods("app=web")[0]);
    refuses(&harness, &pod);
    assert!(harness.get(&pod_path(&pod))["metadata"]["deletionTimestamp"].is_null());

    let path = at(BUDGETS, "b");
    harness.update(&path, |budget| budget["spec"]["minAvailable"] = json!(2));
    let one = numbers(&harness, [3, 2, 1, 3]);
    let allowed = condition(&one, "DisruptionAllowed");
    assert_eq!(
        (&allowed["status"], &allowed["reason"]),
        (&json!("True"), &json!("SufficientPods"))
    );
    evict(&harness, &pod).unwrap();
    harness.goes(&pod_path(&pod));
    harness.ready_pods("app=web", 3);
    numbers(&harness, [3, 2, 1, 3]);

    harness.patch(&path, &json!({ "spec": { "minAvailable": 3 } }));
    numbers(&harness, [3, 3, 0, 3]);
    let pod = name(&harness.pods("app=web")[0]);
    refuses(&harness, &pod);
    harness.delete(&path);
    evict(&harness, &pod).unwrap();
    harness.goes(&pod_path(&pod));
}

/// \[sig-apps\] DisruptionController should create a PodDisruptionBudget; Listing
/// PodDisruptionBudgets for all namespaces should list and delete a collection of
/// PodDisruptionBudgets; should update/patch PodDisruptionBudget status
#[test]
fn a_budget_is_changed_its_status_written_and_its_collection_deleted() {
    let harness = Harness::start();
    let path = at(BUDGETS, "b");
    harness.create(BUDGETS, &budget(&json!({ "minAvailable": "2%" })));
    harness.becomes(&path, "is known", |budget| budget["status"]["observedGeneration"] == 1);
    harness.update(&path, |budget| budget["spec"]["minAvailable"] = json!("3%"));
    let patched = harness.merge(&path, &json!({ "spec": { "minAvailable": "4%" } }));
    assert_eq!(patched["spec"]["minAvailable"], "4%");
    harness.becomes(&path, "follows", |budget| budget["status"]["observedGeneration"] == 3);

    let status = format!("{path}/status");
    let since = harness.now(&collection(BUDGETS));
    harness.update(&status, |budget| {
        budget["status"]["disruptedPods"] = json!({ "lost": "2026-01-01T00:00:00Z" });
    });
    // Nothing was disrupted: the controller takes it back after all have seen it.
    let patch = json!({ "status": { "disruptedPods": { "other": "2026-01-01T00:00:00Z" } } });
    harness.patch(&status, &patch);
    let seen = harness.seen(&collection(BUDGETS), "e2e=budget", &since);
    for pod in ["lost", "other"] {
        let has =
            |(_, budget): &(String, Value)| budget["status"]["disruptedPods"][pod].is_string();
        assert!(seen.iter().any(has), "{pod}");
    }

    let namespace = json!({ "metadata": { "name": "elsewhere" } });
    harness.request(Method::POST, "/api/v1/namespaces", Some(&namespace)).unwrap();
    let elsewhere = collection(BUDGETS).replace("/default/", "/elsewhere/");
    let other = budget(&json!({ "maxUnavailable": 1 }));
    harness.request(Method::POST, &elsewhere, Some(&other)).unwrap();
    let all = "/apis/policy/v1/poddisruptionbudgets?labelSelector=e2e=budget";
    assert_eq!(harness.items(all).len(), 2);
    harness.delete(&format!("{}?labelSelector=e2e=budget", collection(BUDGETS)));
    harness.goes(&path);
    assert_eq!(harness.items(all).len(), 1, "those of other namespaces stay");
}
