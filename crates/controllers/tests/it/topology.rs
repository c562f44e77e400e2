//! Endpoints that serve zones.

use serde_json::{Value, json};

use crate::memory_api::MemoryApi;
use crate::workloads::{PODS, Running, namespace};

const SERVICE: &str = "/api/v1/namespaces/n/services/s";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/n/endpointslices";
const MODE: &str = "service.kubernetes.io/topology-mode";

const ENABLED: &str = "Topology Aware Hints has been enabled, addressType: IPv4";
const DISABLED: &str = "Topology Aware Hints has been disabled, addressType: IPv4";
const NODES: &str = "Insufficient Node information: allocatable CPU or zone not specified on one \
                     or more nodes, addressType: IPv4";

/// A ready node of a zone with so many CPUs; without a zone when this is empty.
fn node(api: &MemoryApi, name: &str, zone: &str, cpu: &str) {
    let mut labels = json!({});
    if !zone.is_empty() {
        labels["topology.kubernetes.io/zone"] = zone.into();
    }
    let status = json!({ "allocatable": { "cpu": cpu },
        "conditions": [{ "type": "Ready", "status": "True" }] });
    api.create(
        "/api/v1/nodes",
        json!({ "metadata": { "name": name, "labels": labels }, "status": status }),
    );
}

/// A ready pod on a node.
fn pod(api: &MemoryApi, at: usize, node: &str) {
    let ip = format!("10.1.0.{at}");
    api.create(
        PODS,
        json!({ "metadata": { "name": format!("p{at}"), "labels": { "app": "w" } },
            "spec": { "nodeName": node },
            "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
                "conditions": [{ "type": "Ready", "status": "True" }] } }),
    );
}

fn service(api: &MemoryApi, annotations: Value, distribution: Option<&str>) {
    api.create(
        "/api/v1/namespaces/n/services",
        json!({ "metadata": { "name": "s", "annotations": annotations },
            "spec": { "clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"], "selector": { "app": "w" },
                "trafficDistribution": distribution,
                "ports": [{ "port": 80, "protocol": "TCP" }] } }),
    );
}

/// The zones that the endpoints serve, in the order of their addresses; `-` is for all.
fn served(api: &MemoryApi) -> String {
    let slices = api.list(SLICES);
    let endpoints = slices.iter().flat_map(|slice| slice["endpoints"].as_array().unwrap());
    let mut zones: Vec<(String, String)> = endpoints
        .map(|endpoint| {
            let zone = endpoint["hints"]["forZones"][0]["name"].as_str().unwrap_or("-");
            (endpoint["addresses"][0].to_string(), zone.to_owned())
        })
        .collect();
    zones.sort();
    zones.into_iter().map(|(_, zone)| zone).collect()
}

async fn serve(api: &MemoryApi, zones: &str) {
    api.eventually(&format!("endpoints serve {zones}"), |api| served(api) == zones).await;
}

#[tokio::test]
async fn endpoints_serve_zones_by_their_cpu_as_long_as_it_is_known() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    node(api, "na", "a", "6");
    node(api, "nb", "b", "2");
    for (at, node) in [(1, "na"), (2, "nb"), (3, "nb"), (4, "nb")] {
        pod(api, at, node);
    }
    service(api, json!({ MODE: "Auto" }), None);
    // Three quarters of the CPU, and of the endpoints.
    serve(api, "aaab").await;
    api.tells("TopologyAwareHintsEnabled", ENABLED).await;
    let auto = [("topology", "Auto"), ("traffic_distribution", "")];
    let changed = "endpoint_slice_controller_endpointslices_changed_per_sync";
    api.eventually("it is counted", |_| running.metric(changed, &auto) >= 1.0).await;
    // Another node makes the zones equal: one has too few endpoints then.
    node(api, "nb2", "b", "4");
    serve(api, "aabb").await;
    // One that does not say where it is.
    node(api, "nowhere", "", "4");
    serve(api, "----").await;
    api.tells("TopologyAwareHintsDisabled", NODES).await;
    // And has gone again: nothing of the service or its pods has changed.
    api.delete("/api/v1/nodes/nowhere");
    serve(api, "aabb").await;
}

#[tokio::test]
async fn too_few_endpoints_serve_all_zones() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    for (name, zone) in [("na", "a"), ("nb", "b"), ("nc", "c")] {
        node(api, name, zone, "2");
    }
    service(api, json!({ MODE: "auto" }), None);
    let few = "Insufficient number of endpoints (0 endpoints, 3 zones), addressType: IPv4";
    api.tells("TopologyAwareHintsDisabled", few).await;
    for (at, node) in [(1, "na"), (2, "nb"), (3, "nc")] {
        pod(api, at, node);
    }
    serve(api, "abc").await;
    pod(api, 4, "na");
    // Two for each zone would be six.
    let text = "Unable to allocate minimum required endpoints to each zone without exceeding \
                overload threshold (4 endpoints, 3 zones), addressType: IPv4";
    api.tells("TopologyAwareHintsDisabled", text).await;
    serve(api, "----").await;
}

#[tokio::test]
async fn an_endpoint_without_a_zone_leaves_all_without_hints() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    node(api, "na", "a", "2");
    node(api, "nb", "b", "2");
    let control_plane = json!({ "node-role.kubernetes.io/control-plane": "" });
    let ready = json!({ "conditions": [{ "type": "Ready", "status": "True" }] });
    api.create(
        "/api/v1/nodes",
        json!({ "metadata": { "name": "c", "labels": control_plane }, "status": ready }),
    );
    service(api, json!({ MODE: "Auto" }), None);
    for (at, node) in [(1, "na"), (2, "nb")] {
        pod(api, at, node);
    }
    serve(api, "ab").await;
    api.delete(&format!("{PODS}/p2"));
    pod(api, 3, "c");
    let text = "One or more endpoints do not have a zone specified, addressType: IPv4";
    api.tells("TopologyAwareHintsDisabled", text).await;
    serve(api, "--").await;
}

#[tokio::test]
async fn the_annotation_comes_before_the_distribution_and_may_go() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    node(api, "na", "a", "2");
    node(api, "nb", "b", "2");
    let old = "service.kubernetes.io/topology-aware-hints";
    service(api, json!({ old: "Auto", MODE: "Auto" }), Some("PreferSameZone"));
    for (at, node) in [(1, "na"), (2, "na")] {
        pod(api, at, node);
    }
    serve(api, "ba").await;
    let count = "endpoint_slice_controller_services_count_by_traffic_distribution";
    let zone = [("traffic_distribution", "PreferSameZone")];
    assert_eq!(running.metric(count, &zone), 0.0);
    // The old one counts as long as it is there.
    api.patch(SERVICE, &json!({ "metadata": { "annotations": { MODE: null } } }));
    api.patch(SERVICE, &json!({ "metadata": { "annotations": { old: "Disabled" } } }));
    serve(api, "aa").await;
    api.tells("TopologyAwareHintsDisabled", DISABLED).await;
    api.eventually("it is counted", |_| running.metric(count, &zone) == 1.0).await;
}

/// A node may be heard of later than its pods, or be gone before them.
#[tokio::test]
async fn pods_of_unknown_nodes_are_left_out_unless_all_are_wanted() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    node(api, "na", "a", "2");
    pod(api, 1, "na");
    pod(api, 2, "nb");
    service(api, json!({}), None);
    let text = "Error updating Endpoint Slices for Service n/s: skipping Pod p2 for Service n/s: \
                Node nb Not Found";
    api.tells("FailedToUpdateEndpointSlices", text).await;
    serve(api, "-").await;
    let all = |wanted: bool| json!({ "spec": { "publishNotReadyAddresses": wanted } });
    api.patch(SERVICE, &all(true));
    serve(api, "--").await;
    api.patch(SERVICE, &all(false));
    serve(api, "-").await;
    // Nothing of the service or its pods changes.
    node(api, "nb", "a", "2");
    serve(api, "--").await;
    let syncs = "endpoint_slice_controller_syncs";
    assert!(running.metric(syncs, &[("result", "error")]) >= 1.0);
}
