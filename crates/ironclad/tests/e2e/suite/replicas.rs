//! G17: ReplicaSets and ReplicationControllers.

use http::Method;
use serde_json::{Value, json};

use super::{at, condition, controller, name, template, workload};
use crate::harness::{Harness, collection, is_ready, pod_path, server};

/// Both kinds, with an object of so many replicas.
fn kinds(app: &str, replicas: usize) -> [(&'static str, Value); 2] {
    let template = template(&json!({ "app": app }));
    [
        ("apps/v1/replicasets", workload(app, &template, &json!({ "replicas": replicas }))),
        ("replicationcontrollers", controller(app, &template, replicas)),
    ]
}

fn scaled(harness: &Harness, path: &str, replicas: u32) {
    harness.becomes(path, &format!("has {replicas} that serve"), |object| {
        let status = &object["status"];
        status["observedGeneration"] == object["metadata"]["generation"]
            && status["replicas"] == replicas
            && status["readyReplicas"].as_u64().unwrap_or(0) == u64::from(replicas)
            && status["availableReplicas"] == status["readyReplicas"]
    });
}

/// \[sig-apps\] ReplicaSet should adopt matching pods on creation and release no longer matching
/// pods; ReplicationController should adopt matching pods on creation; should release no longer
/// matching pods
#[test]
fn a_pod_is_adopted_and_released_by_its_labels() {
    let harness = Harness::start();
    for (resource, object) in kinds("adopt", 1) {
        harness.create("pods", &server("adopt"));
        harness.becomes(&pod_path("adopt"), "is Ready", is_ready);
        let owner = harness.create(resource, &object);
        let owners = |pod: &Value| pod["metadata"]["ownerReferences"].clone();
        let pod = harness.becomes(&pod_path("adopt"), "is adopted", |pod| owners(pod).is_array());
        assert_eq!(owners(&pod)[0]["uid"], owner["metadata"]["uid"]);
        assert_eq!(owners(&pod)[0]["controller"], true);
        scaled(&harness, &at(resource, "adopt"), 1);
        assert_eq!(harness.pods("app=adopt").len(), 1, "there was one already");
        harness.patch(&pod_path("adopt"), &json!({ "metadata": { "labels": { "app": "gone" } } }));
        let released = |pod: &Value| owners(pod).as_array().is_none_or(Vec::is_empty);
        harness.becomes(&pod_path("adopt"), "is released", released);
        let other = harness.ready_pods("app=adopt", 1).remove(0);
        assert_ne!(name(&other), "adopt");
        harness.delete_as(&at(resource, "adopt"), "Background");
        harness.delete(&pod_path("adopt"));
        harness.ready_pods("app=adopt", 0);
        harness.goes(&pod_path("adopt"));
    }
}

/// \[sig-apps\] ReplicationController should surface a failure condition on a common issue like
/// exceeded quota; the same of ReplicaSets
#[test]
fn a_quota_that_is_too_small_is_a_condition_until_less_is_wanted() {
    let harness = Harness::start();
    let quota = json!({ "metadata": { "name": "two" }, "spec": { "hard": { "pods": "2" } } });
    harness.create("resourcequotas", &quota);
    harness.becomes(&at("resourcequotas", "two"), "is counted", |quota| {
        quota["status"]["used"]["pods"] == "0"
    });
    for (resource, object) in kinds("many", 3) {
        harness.create(resource, &object);
        let path = at(resource, "many");
        let failed = harness.becomes(&path, "tells of the failure", |object| {
            condition(object, "ReplicaFailure")["status"] == "True"
        });
        let failure = condition(&failed, "ReplicaFailure");
        assert_eq!(failure["reason"], "FailedCreate");
        let message = failure["message"].as_str().unwrap();
        let expected = "is forbidden: exceeded quota: two, requested: pods=1, used: pods=2, \
                        limited: pods=2";
        assert!(message.starts_with("pods \"many-") && message.contains(expected), "{message}");
        harness.tells("FailedCreate", "Error creating: pods \"many-");
        harness.patch(&path, &json!({ "spec": { "replicas": 2 } }));
        harness.becomes(&path, "has no failure any more", |object| {
            condition(object, "ReplicaFailure").is_null() && object["status"]["replicas"] == 2
        });
        harness.delete_as(&path, "Foreground");
        harness.goes(&path);
        harness.becomes(&at("resourcequotas", "two"), "has room", |quota| {
            quota["status"]["used"]["pods"] == "0"
        });
    }
}

/// \[sig-apps\] ReplicationController should test the lifecycle of a ReplicationController; should
/// get and update a ReplicationController scale; should serve a basic image on each replica with a
/// public image; ReplicaSet Replicaset should have a working scale subresource; Replace and Patch
/// tests; should list and delete a collection of ReplicaSets
#[test]
fn a_watch_sees_every_step_of_a_controller() {
    let harness = Harness::start();
    for (resource, object) in kinds("life", 1) {
        let (all, path) = (collection(resource), at(resource, "life"));
        let since = harness.now(&all);
        harness.create(resource, &object);
        scaled(&harness, &path, 1);
        harness.merge(&path, &json!({ "metadata": { "labels": { "e2e": "patched" } } }));

        let scale = format!("{path}/scale");
        let mut found = harness.get(&scale);
        assert_eq!(found["spec"]["replicas"], 1);
        found["spec"]["replicas"] = json!(2);
        // Whoever names no version wants it whatever it is.
        found["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        harness.request(Method::PUT, &scale, Some(&found)).unwrap();
        scaled(&harness, &path, 2);
        for pod in harness.ready_pods("app=life", 2) {
            let answer = harness.text(&format!("{}:8080/proxy/hostname", pod_path(&name(&pod))));
            assert_eq!(answer, name(&pod));
        }
        harness.merge(&scale, &json!({ "spec": { "replicas": 3 } }));
        scaled(&harness, &path, 3);
        harness.update(&path, |object| {
            object["spec"]["replicas"] = json!(1);
            object["metadata"]["annotations"] = json!({ "replaced": "yes" });
        });
        scaled(&harness, &path, 1);
        let image = json!({ "spec": { "replicas": 2, "template": { "spec": {
            "terminationGracePeriodSeconds": 0 } } } });
        harness.merge(&path, &image);
        scaled(&harness, &path, 2);
        let everywhere = all.replace("/namespaces/default", "");
        assert_eq!(harness.items(&format!("{everywhere}?labelSelector=e2e=patched")).len(), 1);
        harness.delete(&format!("{all}?labelSelector=e2e=patched&propagationPolicy=Background"));
        harness.goes(&path);
        harness.ready_pods("app=life", 0);

        let seen = harness.seen(&all, "app=life", &since);
        assert_eq!(seen[0].0, "ADDED");
        assert_eq!(seen.last().unwrap().0, "DELETED");
        let mut steps = seen.iter();
        for ready in [1, 2, 3, 1, 2] {
            let is = |(sort, object): &&(String, Value)| {
                sort == "MODIFIED" && object["status"]["readyReplicas"] == ready
            };
            assert!(steps.by_ref().find(is).is_some(), "nobody saw {ready} of {resource}");
        }
    }
}
