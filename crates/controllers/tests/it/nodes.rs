//! What the controllers make of nodes that fail, and of the pods on them.

use serde_json::{Value, json};

use crate::memory_api::MemoryApi;
use crate::workloads::{PODS, Running, name, namespace};

const NODES: &str = "/api/v1/nodes";
const ZONE: &str = "topology.kubernetes.io/zone";

fn node(api: &MemoryApi, name: &str, zone: &str, ready: &str) {
    api.create(
        NODES,
        json!({ "metadata": { "name": name, "labels": { ZONE: zone } }, "status": {
            "conditions": [{ "type": "Ready", "status": ready }] } }),
    );
}

fn set_ready(api: &MemoryApi, name: &str, ready: &str) {
    let conditions = json!([{ "type": "Ready", "status": ready }]);
    api.patch(&format!("{NODES}/{name}"), &json!({ "status": { "conditions": conditions } }));
}

/// Names of the nodes whose pods are made to leave.
fn given_up(api: &MemoryApi) -> Vec<String> {
    let leaves = |node: &&Value| {
        let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        taints.iter().any(|taint| taint["effect"] == "NoExecute")
    };
    api.list(NODES).iter().filter(leaves).map(name).collect()
}

/// Whether every node that is not ready takes no new pods.
fn are_closed(api: &MemoryApi) -> bool {
    api.list(NODES).iter().all(|node| {
        let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
        let is_closed = taints.iter().any(|taint| taint["effect"] == "NoSchedule");
        is_closed == (node["status"]["conditions"][0]["status"] != "True")
    })
}

#[tokio::test]
async fn nodes_of_a_zone_are_given_up_one_after_the_other() {
    let running = Running::start();
    let api = &running.api;
    for at in 0..6 {
        node(api, &format!("a{at}"), "a", "True");
    }
    node(api, "b0", "b", "True");
    api.eventually("all are open", are_closed).await;
    set_ready(api, "a0", "False");
    set_ready(api, "a1", "False");
    // One of them at once, another in ten seconds; none is given new pods.
    api.eventually("one is given up, both are closed", |api| {
        are_closed(api) && given_up(api).len() == 1
    })
    .await;
    let zone = [("zone", ":\0:a")];
    assert_eq!(running.metric("node_collector_evictions_total", &zone), 1.0);
    api.eventually("the zone is measured", |_| {
        running.metric("node_collector_unhealthy_nodes_in_zone", &zone) == 2.0
    })
    .await;
    assert_eq!(running.metric("node_collector_zone_size", &zone), 6.0);
    let lost = given_up(api);
    set_ready(api, &lost[0], "True");
    api.eventually("it is taken back when it is well", |api| given_up(api).is_empty()).await;
}

#[tokio::test]
async fn nobody_is_driven_off_when_all_or_most_nodes_fail() {
    let running = Running::start();
    let api = &running.api;
    for at in 0..4 {
        node(api, &format!("a{at}"), "a", "True");
    }
    api.eventually("all are open", are_closed).await;
    for at in 0..4 {
        set_ready(api, &format!("a{at}"), "Unknown");
    }
    api.eventually("all are closed, none is given up", |api| {
        are_closed(api) && given_up(api).is_empty()
    })
    .await;
    // Three of four are too many for a small zone.
    set_ready(api, "a0", "True");
    api.eventually("one is open again", are_closed).await;
    node(api, "b0", "b", "False");
    node(api, "b1", "b", "True");
    api.eventually("only in the other zone", |api| given_up(api) == ["b0"]).await;
}

#[tokio::test]
async fn pods_of_a_node_out_of_service_are_removed_when_they_are_to_go() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    node(api, "a", "a", "True");
    node(api, "b", "a", "True");
    for (pod, held) in [("goes", true), ("stays", false)] {
        let finalizers = if held { json!(["test/held"]) } else { json!([]) };
        api.create(
            PODS,
            json!({ "metadata": { "name": pod, "finalizers": finalizers },
                "spec": { "nodeName": "a", "tolerations": [{ "operator": "Exists" }] },
                "status": { "phase": "Running" } }),
        );
    }
    // A kubelet would have to see it end, as the finalizer stands for.
    api.delete(&format!("{PODS}/goes"));
    let taint = json!([{ "key": "node.kubernetes.io/out-of-service", "effect": "NoExecute" }]);
    api.patch(&format!("{NODES}/a"), &json!({ "spec": { "taints": taint } }));
    set_ready(api, "a", "Unknown");
    api.eventually("it has failed", |api| {
        api.get(&format!("{PODS}/goes")).is_some_and(|pod| pod["status"]["phase"] == "Failed")
    })
    .await;
    api.eventually("its removal is counted", |_| {
        let labels = [("namespace", "n"), ("reason", "out-of-service")];
        running.metric("pod_gc_collector_force_delete_pods_total", &labels) >= 1.0
    })
    .await;
    let stays = api.get(&format!("{PODS}/stays")).unwrap();
    assert_eq!(stays["status"]["phase"], "Running");
}
