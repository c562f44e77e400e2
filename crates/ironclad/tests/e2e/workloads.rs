//! Deployments.

use serde_json::{Value, json};
use testkit::POD_IMAGE;

use crate::harness::{Harness, collection, pod_path};

fn deployment(replicas: u32, greeting: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": "web" },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
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

fn name(pod: &Value) -> String {
    pod["metadata"]["name"].as_str().unwrap().to_owned()
}

#[test]
fn a_deployment_keeps_its_pods_rolls_out_and_goes() {
    let harness = Harness::start();
    let path = format!("{}/web", collection("apps/v1/deployments"));
    harness.create("apps/v1/deployments", &deployment(2, "first"));
    let pods = harness.ready_pods("app=web", 2);
    assert_ne!(pods[0]["status"]["podIP"], pods[1]["status"]["podIP"]);

    let lost = name(&pods[0]);
    harness.delete(&pod_path(&lost));
    harness.until("the lost pod is gone", || (!harness.exists(&pod_path(&lost))).then_some(()));
    harness.ready_pods("app=web", 2);

    harness.patch(&path, &json!({ "spec": deployment(3, "second")["spec"] }));
    harness.until("all pods are of the new template", || {
        let status = harness.get(&path)["status"].clone();
        (status["updatedReplicas"] == 3
            && status["replicas"] == 3
            && status["availableReplicas"] == 3)
            .then_some(())
    });
    let pods = harness.ready_pods("app=web", 3);
    let address = pods[0]["status"]["podIP"].as_str().unwrap();
    assert_eq!(harness.fetch(address, 8080, "/env?GREETING").unwrap(), "second");

    harness.delete(&path);
    harness.ready_pods("app=web", 0);
    harness.until("its ReplicaSets are gone", || {
        let sets = harness.get(&collection("apps/v1/replicasets"));
        sets["items"].as_array().unwrap().is_empty().then_some(())
    });
}
