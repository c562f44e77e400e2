//! `ironclad bench nodes` against a control plane.

use http::Method;
use serde_json::{Value, json};

use crate::harness::is_ready;
use crate::parts::Parts;

const PODS: &str = "/api/v1/namespaces/default/pods";
const NODES: &str = "/api/v1/nodes?labelSelector=ironclad%2Fsimulated=sim";

fn items(parts: &Parts, path: &str) -> Vec<Value> {
    let list = parts.get(path);
    list.and_then(|mut list| list["items"].as_array_mut().map(std::mem::take)).unwrap_or_default()
}

fn create(parts: &Parts, group: &str, plural: &str, object: &Value) {
    let path = format!("/apis/{group}/v1/namespaces/default/{plural}");
    parts.until(plural, || parts.request(Method::POST, &path, Some(object)));
}

fn template(restart: &str, labels: &Value) -> Value {
    json!({ "metadata": { "labels": labels }, "spec": { "restartPolicy": restart,
        "containers": [{ "name": "c", "image": "none.example/none" }] } })
}

#[test]
fn simulated_nodes_run_deployments_and_jobs_and_go_at_the_end() {
    let mut parts = Parts::new();
    parts.start_api_server();
    parts.start("controller-manager", &["--secure-port", "0"]);
    parts.start("scheduler", &["--secure-port", "0"]);
    let flags = ["--count", "50", "--name-prefix", "sim", "--start-delay", "100ms"];
    let behaviour = ["--run-for", "500ms", "--failure-rate", "0.3", "--lease-interval", "1s"];
    parts.start("bench", &[&["nodes"], &flags[..], &behaviour[..]].concat());
    parts.until("50 nodes are Ready", || {
        let nodes = items(&parts, NODES);
        (nodes.len() == 50 && nodes.iter().all(is_ready)).then_some(())
    });
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let renewed = |parts: &Parts| {
        parts.get(&format!("{leases}/sim-7")).map(|lease| lease["spec"]["renewTime"].clone())
    };
    let first = parts.until("a lease", || renewed(&parts));
    parts.until("it is renewed", || renewed(&parts).filter(|time| *time != first));

    let labels = json!({ "app": "web" });
    // With a failure rate, some pods crash and come back: the Deployment waits for them.
    create(
        &parts,
        "apps",
        "deployments",
        &json!({ "metadata": { "name": "web" },
        "spec": { "replicas": 40, "selector": { "matchLabels": labels },
            "template": template("Always", &labels) } }),
    );
    // When such a Job is done is a matter of luck: with each failure in a row its controller waits
    // twice as long as before. Of 40 first runs, though, some fail and some succeed.
    create(
        &parts,
        "batch",
        "jobs",
        &json!({ "metadata": { "name": "sum" },
        "spec": { "completions": 40, "parallelism": 40, "backoffLimit": 1000,
            "template": template("Never", &json!({})) } }),
    );
    let job = "/apis/batch/v1/namespaces/default/jobs/sum";
    parts.until("some runs succeed and some fail", || {
        let status = parts.get(job)?["status"].take();
        let runs = |outcome: &str| status[outcome].as_i64().unwrap_or(0);
        (runs("succeeded") > 0 && runs("failed") > 0).then_some(())
    });
    let deployment = "/apis/apps/v1/namespaces/default/deployments/web";
    parts.until("the pods run", || {
        parts.get(deployment).filter(|d| d["status"]["updatedReplicas"] == 40)?;
        let pods = items(&parts, &format!("{PODS}?labelSelector=app=web"));
        let started = |pod: &Value| pod["status"]["phase"] == "Running";
        (pods.len() == 40 && pods.iter().all(started)).then_some(())
    });
    let crashed = items(&parts, &format!("{PODS}?labelSelector=app=web"));
    let back_off = |pod: &Value| {
        let state = &pod["status"]["containerStatuses"][0];
        state["state"]["waiting"]["reason"] == "CrashLoopBackOff" || state["restartCount"] != 0
    };
    parts.until("some crashed", || {
        items(&parts, &format!("{PODS}?labelSelector=app=web")).iter().any(back_off).then_some(())
    });
    let addresses: std::collections::BTreeSet<&str> =
        crashed.iter().filter_map(|pod| pod["status"]["podIP"].as_str()).collect();
    assert_eq!(addresses.len(), 40, "every pod has an address of its own");

    assert!(parts.request(Method::DELETE, deployment, None).is_some());
    parts.until("deleted pods go", || {
        items(&parts, &format!("{PODS}?labelSelector=app=web")).is_empty().then_some(())
    });
    assert!(parts.interrupt("bench"), "{}", parts.log("bench"));
    let log = parts.log("bench");
    assert!(log.contains("50 nodes removed") && log.contains("BOUND TO RUNNING"), "{log}");
    assert!(items(&parts, NODES).is_empty());
    assert!(items(&parts, leases).is_empty(), "the leases go with the nodes");
}

#[test]
fn nodes_that_were_kept_are_cleaned_up() {
    let mut parts = Parts::new();
    parts.start_api_server();
    parts.start("bench", &["nodes", "--count", "3", "--name-prefix", "sim", "--keep"]);
    parts.until("they are there", || (items(&parts, NODES).len() == 3).then_some(()));
    parts.until("all are registered", || parts.log("bench").contains("Ctrl-C").then_some(()));
    assert!(parts.interrupt("bench"), "{}", parts.log("bench"));
    assert_eq!(items(&parts, NODES).len(), 3);

    let node = json!({ "metadata": { "name": "other-0" } });
    assert!(parts.request(Method::POST, "/api/v1/nodes", Some(&node)).is_some());
    let (succeeded, log) = parts.run("bench", &["nodes", "--count", "1", "--name-prefix", "other"]);
    assert!(!succeeded && log.contains("node of this name that is not simulated"), "{log}");
    assert!(parts.get("/api/v1/nodes/other-0").is_some(), "it is not ours to remove");

    let (succeeded, log) = parts.run("bench", &["nodes", "--name-prefix", "sim", "--cleanup"]);
    assert!(succeeded && log.contains("3 nodes removed"), "{log}");
    assert!(items(&parts, NODES).is_empty());
}
