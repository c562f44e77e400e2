//! Critical pods, for which others make room.

use serde_json::{Value, json};

use crate::world::{World, one};

/// A container that asks for so many thousandths of a CPU.
fn asking(milli: i64) -> Value {
    one(json!({ "resources": { "requests": { "cpu": format!("{milli}m") } } }))
}

/// Thousandths of a CPU that the node gives to pods.
fn milli(world: &World) -> i64 {
    let node = world.api.get("/api/v1/nodes/node").unwrap();
    node["status"]["allocatable"]["cpu"].as_str().unwrap().parse::<i64>().unwrap() * 1000
}

fn manifest(milli: i64) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "web", "namespace": "n" },
            "spec": asking(milli) })
}

fn status(world: &World, name: &str) -> Value {
    world.pod(name).unwrap_or_default()["status"].clone()
}

#[tokio::test]
async fn a_static_pod_sends_others_away_when_there_is_no_room_for_it() {
    let world = World::with_manifests(&[]);
    world.api.set_down(false);
    world.until("the node is there", || world.api.get("/api/v1/nodes/node").is_some()).await;
    let all = milli(&world);
    world.create_pod("small", asking(100));
    world.create_pod("large", asking(all - 200));
    world.until_ready("small").await;
    world.until_ready("large").await;
    world.write_manifest("web.yaml", &manifest(500));
    world.until_ready("web-node").await;
    let large = status(&world, "large");
    assert_eq!((&large["phase"], &large["reason"]), (&json!("Failed"), &json!("Preempting")));
    let text = "Preempted in order to admit critical pod";
    assert_eq!(large["message"], text);
    let conditions = large["conditions"].as_array().unwrap();
    let target = conditions.iter().find(|c| c["type"] == "DisruptionTarget").unwrap();
    assert_eq!(
        (&target["status"], &target["reason"], &target["message"]),
        (
            &json!("True"),
            &json!("TerminationByKubelet"),
            &json!("Pod was preempted by Kubelet to accommodate a critical pod.")
        )
    );
    assert!(world.events().contains(&format!("Preempting: {text}")), "{:?}", world.events());
    assert_eq!(status(&world, "small")["phase"], "Running");
    let calls = world.runtime.calls();
    let at = |call: &str| calls.iter().position(|other| other == call).unwrap();
    assert!(at("stop sandbox") < at("run sandbox web-node"), "it waits for the room: {calls:?}");
}

#[tokio::test]
async fn nobody_is_sent_away_for_a_pod_that_never_fits() {
    let world = World::with_manifests(&[]);
    world.api.set_down(false);
    world.until("the node is there", || world.api.get("/api/v1/nodes/node").is_some()).await;
    let all = milli(&world);
    world.create_pod("other", asking(100));
    world.until_ready("other").await;
    world.write_manifest("web.yaml", &manifest(all + 300));
    world.until("it is refused", || status(&world, "web-node")["phase"] == "Failed").await;
    let refused = status(&world, "web-node");
    assert_eq!(refused["reason"], "UnexpectedAdmissionError");
    assert_eq!(
        refused["message"],
        "Pod was rejected: Unexpected error while attempting to recover from admission failure: \
         preemption: error finding a set of pods to preempt: no set of running pods found to \
         reclaim resources: [(res: cpu, q: 300), ]"
    );
    assert_eq!(status(&world, "other")["phase"], "Running");
}
