//! G16 to G20: `… should validate … Status endpoints`, with the controllers that write these too.

use serde_json::{Value, json};

use super::{at, condition, controller, nowhere, workload};
use crate::harness::{Harness, collection};

/// One of every kind, of pods that no node has room for.
fn kinds() -> Vec<(&'static str, Value)> {
    let pods = nowhere(&json!({ "app": "w" }));
    let more = |name: &str, value: Value| workload("w", &pods, &json!({ name: value }));
    vec![
        ("apps/v1/deployments", more("replicas", json!(1))),
        ("apps/v1/replicasets", more("replicas", json!(1))),
        ("apps/v1/daemonsets", more("minReadySeconds", json!(0))),
        ("apps/v1/statefulsets", more("serviceName", json!("s"))),
        ("replicationcontrollers", controller("w", &pods, 1)),
    ]
}

fn own(kind: &str, reason: &str) -> Value {
    json!({ "type": kind, "status": "True", "reason": reason, "message": "Set from e2e test" })
}

#[test]
fn a_condition_that_somebody_writes_is_seen_beside_those_of_the_controller() {
    let harness = Harness::start();
    for (resource, object) in kinds() {
        let (all, path) = (collection(resource), at(resource, "w"));
        harness.create(resource, &object);
        harness.becomes(&path, "is known", |object| object["status"]["observedGeneration"] == 1);
        let since = harness.now(&all);
        let status = format!("{path}/status");
        let updated = harness.update(&status, |object| {
            let conditions = &mut object["status"]["conditions"];
            if conditions.is_null() {
                *conditions = json!([]);
            }
            conditions.as_array_mut().unwrap().push(own("StatusUpdate", "E2E"));
        });
        assert_eq!(condition(&updated, "StatusUpdate")["reason"], "E2E", "{resource}");
        let patch = json!({ "status": { "conditions": [own("StatusPatched", "E2E patched")] } });
        let patched = harness.merge(&status, &patch);
        assert_eq!(condition(&patched, "StatusPatched")["status"], "True", "{resource}");
        let read = harness.get(&status);
        assert_eq!(condition(&read, "StatusPatched")["reason"], "E2E patched", "{resource}");
        // The controller writes its own part and leaves the rest.
        let label = json!({ "spec": { "minReadySeconds": 1 } });
        harness.patch(&path, &label);
        let after = harness
            .becomes(&path, "is known again", |object| object["status"]["observedGeneration"] == 2);
        for kind in ["StatusUpdate", "StatusPatched"] {
            assert_eq!(condition(&after, kind)["status"], "True", "{resource}: {after}");
            let saw = |(_, object): &(String, Value)| condition(object, kind)["status"] == "True";
            assert!(harness.seen(&all, "app=w", &since).iter().any(saw), "{resource}: {kind}");
        }
        harness.delete_as(&path, "Background");
        harness.goes(&path);
        harness.ready_pods("app=w", 0);
    }
}
