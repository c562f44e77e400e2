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
    let numbers = || {
        let metadata = harness.get(&path)["metadata"].clone();
        let revision = metadata["annotations"]["deployment.kubernetes.io/revision"].clone();
        (metadata["generation"].clone(), revision)
    };
    // What the controller notes is no change of what is wanted.
    assert_eq!(numbers(), (json!(1), json!("1")));

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
    assert_eq!(numbers(), (json!(2), json!("2")));
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

/// The finalizer that keeps a job's pods until they are counted must not keep one that never ran.
#[test]
fn a_jobs_pod_that_is_deleted_before_it_runs_goes_and_is_counted() {
    let harness = Harness::start();
    let job = json!({
        "metadata": { "name": "stuck" },
        "spec": { "backoffLimit": 6, "template": { "spec": {
            "restartPolicy": "Never",
            "containers": [{ "name": "c", "image": "absent.example/none:1",
                             "imagePullPolicy": "Never" }],
        } } },
    });
    harness.create("batch/v1/jobs", &job);
    let pods = format!("{}?labelSelector=job-name=stuck", collection("pods"));
    let lost = harness.until("the job has a pod that waits for its image", || {
        let pod = harness.get(&pods)["items"].as_array()?.first()?.clone();
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        waiting["reason"].is_string().then(|| name(&pod))
    });
    harness.delete(&pod_path(&lost));
    harness.until("the pod is gone", || (!harness.exists(&pod_path(&lost))).then_some(()));
    let path = format!("{}/stuck", collection("batch/v1/jobs"));
    harness
        .until("the job counts it", || (harness.get(&path)["status"]["failed"] == 1).then_some(()));
    harness.until("the job has another pod", || {
        let pod = harness.get(&pods)["items"].as_array()?.first()?.clone();
        (name(&pod) != lost).then_some(())
    });
}
