//! The node object and its lease.

use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn a_node_registers_itself_and_is_ready_at_once() {
    let world = World::new().await;
    let node = world.api.get("/api/v1/nodes/node").unwrap();
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], "node");
    assert_eq!(node["status"]["nodeInfo"]["kubeletVersion"], "v1.36.0");
    assert_eq!(node["status"]["nodeInfo"]["containerRuntimeVersion"], "fake://1");
    assert_eq!(node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"], 10250);
    let conditions = node["status"]["conditions"].as_array().unwrap();
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready").unwrap();
    assert_eq!(ready["status"], "True");
    assert_eq!(ready["message"], "kubelet is posting ready status");
}

#[tokio::test]
async fn a_node_has_a_lease_that_goes_with_it() {
    let world = World::new().await;
    let path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node";
    world.until("there is a lease", || world.api.get(path).is_some()).await;
    let lease = world.api.get(path).unwrap();
    assert_eq!(lease["spec"]["holderIdentity"], "node");
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 40);
    assert_eq!(lease["metadata"]["ownerReferences"][0]["kind"], "Node");
}

#[tokio::test]
async fn the_pod_network_is_told_its_range() {
    let world = World::new().await;
    world
        .api
        .change("/api/v1/nodes/node", |node| node["spec"] = json!({ "podCIDR": "10.42.0.0/24" }));
    world.until("the range is told", || *world.cidrs.lock().unwrap() == ["10.42.0.0/24"]).await;
}
