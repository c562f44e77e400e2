//! What the controllers make of nodes that fail, and of the pods on them.

use std::time::Duration;

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
async fn a_node_without_a_network_takes_no_new_pods() {
    let running = Running::start();
    let api = &running.api;
    node(api, "a", "a", "True");
    let network = |status: &str| {
        let conditions = json!([{ "type": "Ready", "status": "True" },
            { "type": "NetworkUnavailable", "status": status }]);
        api.patch(&format!("{NODES}/a"), &json!({ "status": { "conditions": conditions } }));
    };
    let taints = |api: &MemoryApi| {
        let node = api.get(&format!("{NODES}/a")).unwrap();
        node["spec"]["taints"].as_array().cloned().unwrap_or_default()
    };
    network("True");
    api.eventually("it is tainted", |api| {
        let taints = taints(api);
        taints.len() == 1
            && taints[0]["key"] == "node.kubernetes.io/network-unavailable"
            && taints[0]["effect"] == "NoSchedule"
    })
    .await;
    network("False");
    api.eventually("it is open again", |api| taints(api).is_empty()).await;
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

#[tokio::test]
async fn a_node_that_renews_its_lease_is_alive_whatever_else_it_does_not_say() {
    let impatient = controllers::NodeHealth { grace: Duration::from_secs(1), ..Default::default() };
    let running = Running::start_with(impatient);
    let api = &running.api;
    node(api, "a", "a", "True");
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    api.create(leases, json!({ "metadata": { "name": "a" }, "spec": {} }));
    let ready = |api: &MemoryApi| {
        api.get(&format!("{NODES}/a")).unwrap()["status"]["conditions"][0]["status"].clone()
    };
    for beat in 0..30 {
        let renewed = json!({ "spec": { "renewTime": format!("2026-01-01T00:00:{beat:02}Z") } });
        api.patch(&format!("{leases}/a"), &renewed);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(ready(api), "True", "at beat {beat}");
    }
    api.eventually("it has fallen silent", |api| ready(api) == "Unknown").await;
}

#[tokio::test]
async fn every_node_has_a_range_of_its_own_for_pods() {
    let running = Running::start();
    let api = &running.api;
    ["a", "b"].into_iter().for_each(|name| node(api, name, "z", "True"));
    let range = |api: &MemoryApi, name: &str| {
        let spec = api.get(&format!("{NODES}/{name}")).unwrap()["spec"].clone();
        let range = spec["podCIDR"].as_str().unwrap_or_default().to_owned();
        assert!(range.is_empty() || spec["podCIDRs"] == json!([range]));
        range
    };
    api.eventually("both have one", |api| {
        let mut ranges = ["a", "b"].map(|name| range(api, name));
        ranges.sort();
        ranges == ["10.42.0.0/24", "10.42.1.0/24"]
    })
    .await;
    let free = range(api, "a");
    api.delete(&format!("{NODES}/a"));
    node(api, "c", "z", "True");
    api.eventually("the next one has another, or what is free again", |api| {
        range(api, "c") == free || range(api, "c") == "10.42.2.0/24"
    })
    .await;
}
