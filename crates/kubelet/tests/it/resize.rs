//! Pods that are resized while they run.

use serde_json::{Value, json};

use crate::world::{World, one, path};

fn limits(cpu: &str) -> Value {
    json!({ "limits": { "cpu": cpu, "memory": "64Mi" },
            "requests": { "cpu": cpu, "memory": "64Mi" } })
}

async fn resize(world: &World, cpu: &str) -> i64 {
    let generation = world.pod("p").unwrap()["metadata"]["generation"].as_i64().unwrap() + 1;
    world.api.change(&path("p"), |pod| {
        pod["spec"]["containers"][0]["resources"] = limits(cpu);
        pod["metadata"]["generation"] = generation.into();
    });
    let status = || world.pod("p").unwrap()["status"].clone();
    let observed = || status()["observedGeneration"] == generation;
    world.until("the generation is observed", observed).await;
    generation
}

fn condition(world: &World, kind: &str) -> Option<Value> {
    let pod = world.pod("p").unwrap();
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    conditions.iter().find(|condition| condition["type"] == kind).cloned()
}

fn container(world: &World) -> Value {
    world.pod("p").unwrap()["status"]["containerStatuses"][0].clone()
}

async fn told(world: &World, event: &str) {
    world.until(event, || world.events().iter().any(|other| other.starts_with(event))).await;
}

#[tokio::test]
async fn a_running_container_gets_its_new_limits() {
    let world = World::new().await;
    world.create_pod("p", one(json!({ "resources": limits("100m") })));
    world.until_ready("p").await;
    resize(&world, "200m").await;
    world.until("it is done", || condition(&world, "PodResizeInProgress").is_none()).await;
    assert_eq!(world.runtime.calls()[3..], ["resize c to 20000"]);
    assert_eq!(container(&world)["resources"], limits("200m"));
    assert_eq!(container(&world)["allocatedResources"], limits("200m")["requests"]);
    assert_eq!(container(&world)["restartCount"], 0);
    let summary = "{\"containers\":[{\"name\":\"c\",\"resources\":{\"limits\":{\"cpu\":\"200m\",\
                   \"memory\":\"64Mi\"},\"requests\":{\"cpu\":\"200m\",\"memory\":\"64Mi\"}}}],\
                   \"generation\":2}";
    told(&world, &format!("ResizeStarted: Pod resize started: {summary}")).await;
    told(&world, &format!("ResizeCompleted: Pod resize completed: {summary}")).await;
}

#[tokio::test]
async fn a_resize_for_which_there_is_no_room_waits_for_some() {
    let mut world = World::new().await;
    let node = world.api.get("/api/v1/nodes/node").unwrap();
    let cpus: i64 = node["status"]["allocatable"]["cpu"].as_str().unwrap().parse().unwrap();
    let most = format!("{}m", cpus * 1000 - 500);
    world.create_pod("other", one(json!({ "resources": limits("1") })));
    world.until_ready("other").await;
    world.create_pod("p", one(json!({ "resources": limits("100m") })));
    world.until_ready("p").await;
    let generation = resize(&world, &most).await;
    let pending = condition(&world, "PodResizePending").unwrap();
    assert_eq!(pending["reason"], "Deferred");
    assert_eq!(pending["observedGeneration"], generation);
    let text = format!(
        "Node didn't have enough resource: cpu, requested: {}, used: 1000, capacity: {}",
        cpus * 1000 - 500,
        cpus * 1000
    );
    assert_eq!(pending["message"], text);
    assert_eq!(container(&world)["resources"], limits("100m"), "it keeps what it has");
    told(&world, "ResizeDeferred: Pod resize Deferred: {").await;
    world.restart().await;
    world.until_ready("p").await;
    assert_eq!(container(&world)["resources"], limits("100m"), "after a restart, too");
    world.delete_pod("other", 0);
    world.until("it has room", || condition(&world, "PodResizePending").is_none()).await;
    world.until("it is done", || container(&world)["resources"] == limits(&most)).await;
    told(&world, "ResizeCompleted: ").await;
}

#[tokio::test]
async fn a_resize_beyond_the_node_is_infeasible() {
    let world = World::new().await;
    world.create_pod("p", one(json!({ "resources": limits("100m") })));
    world.until_ready("p").await;
    resize(&world, "5000").await;
    let pending = condition(&world, "PodResizePending").unwrap();
    assert_eq!(pending["reason"], "Infeasible");
    let message = pending["message"].as_str().unwrap();
    let start = "Node didn't have enough capacity: cpu, requested: 5000000, capacity: ";
    assert!(message.starts_with(start), "{message}");
    told(&world, "ResizeInfeasible: Pod resize Infeasible: {").await;
    resize(&world, "100m").await;
    world.until("it is withdrawn", || condition(&world, "PodResizePending").is_none()).await;
    assert_eq!(world.runtime.calls().len(), 3, "nothing was changed");
}

#[tokio::test]
async fn a_container_may_ask_to_be_restarted_for_new_limits() {
    let world = World::new().await;
    let policy = json!([{ "resourceName": "cpu", "restartPolicy": "RestartContainer" }]);
    world.create_pod("p", one(json!({ "resources": limits("100m"), "resizePolicy": policy })));
    world.until_ready("p").await;
    resize(&world, "200m").await;
    world.until("it is restarted", || container(&world)["restartCount"] == 1).await;
    world.until("it is done", || condition(&world, "PodResizeInProgress").is_none()).await;
    assert_eq!(container(&world)["resources"], limits("200m"));
    told(&world, "Killing: Container c resize requires restart").await;
    told(&world, "ResizeCompleted: ").await;
}
