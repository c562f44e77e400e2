//! Pods of files, and what the API shows of them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{World, one};

const MIRROR: &str = "kubernetes.io/config.mirror";
const HASH: &str = "kubernetes.io/config.hash";

fn manifest(name: &str, container: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "namespace": "n" },
        "spec": one(container),
    })
}

/// A kubelet with an API server and one static pod, whose mirror pod is ready.
async fn web() -> World {
    let world = World::with_manifests(&[("web.yaml", manifest("web", json!({})))]);
    world.api.set_down(false);
    world.until_ready("web-node").await;
    world
}

fn annotation(world: &World, key: &str) -> String {
    let pod = world.pod("web-node").unwrap_or_default();
    pod["metadata"]["annotations"][key].as_str().unwrap_or_default().to_owned()
}

fn uid(world: &World) -> String {
    let pod = world.pod("web-node").unwrap_or_default();
    pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}

fn has_called(world: &World, call: &str) -> bool {
    world.runtime.calls().iter().any(|other| other == call)
}

#[tokio::test]
async fn a_static_pod_runs_without_an_api_server_and_is_shown_to_it_later() {
    let world = World::with_manifests(&[("web.yaml", manifest("web", json!({})))]);
    world.until("the container runs", || has_called(&world, "start c")).await;
    assert_eq!(world.runtime.calls(), ["run sandbox web-node", "create c", "start c"]);
    assert!(world.pod("web-node").is_none());
    world.api.set_down(false);
    world.until_ready("web-node").await;
    let pod = world.pod("web-node").unwrap();
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["status"]["podIP"], "10.0.0.9");
    assert_eq!(pod["spec"]["nodeName"], "node");
    let annotations = &pod["metadata"]["annotations"];
    assert_eq!(annotations["kubernetes.io/config.source"], "file");
    assert_eq!(annotations[MIRROR], annotations[HASH]);
    let node = world.api.get("/api/v1/nodes/node").unwrap();
    assert_eq!(
        pod["metadata"]["ownerReferences"],
        json!([{
            "apiVersion": "v1", "kind": "Node", "name": "node",
            "uid": node["metadata"]["uid"], "controller": true,
        }])
    );
    assert_ne!(pod["metadata"]["uid"], annotations[HASH], "the API gives the uid");
    assert_eq!(world.runtime.calls().len(), 3, "the mirror pod starts nothing");
    world.runtime.exit("c", 1);
    world
        .until("the restart is shown", || {
            world.pod("web-node").unwrap()["status"]["containerStatuses"][0]["restartCount"] == 1
        })
        .await;
}

#[tokio::test]
async fn a_mirror_pod_that_is_deleted_or_differs_comes_again_and_the_pod_goes_on() {
    let world = web().await;
    let first = uid(&world);
    world.api.remove(&crate::world::path("web-node"));
    world.until("another one comes", || !["", &first].contains(&uid(&world).as_str())).await;
    world.until_ready("web-node").await;
    let second = uid(&world);
    world.delete_pod("web-node", 30);
    world.until("another one comes", || !["", &second].contains(&uid(&world).as_str())).await;
    world.until_ready("web-node").await;
    let third = uid(&world);
    world.api.change(&crate::world::path("web-node"), |pod| {
        pod["metadata"]["annotations"][MIRROR] = "other".into();
    });
    world.until("another one comes", || !["", &third].contains(&uid(&world).as_str())).await;
    world.until_ready("web-node").await;
    assert_eq!(annotation(&world, MIRROR), annotation(&world, HASH));
    assert_eq!(world.runtime.calls().len(), 3, "{:?}", world.runtime.calls());
}

#[tokio::test]
async fn a_file_that_changes_ends_its_pod_before_the_next_one_starts() {
    let world = web().await;
    let before = annotation(&world, MIRROR);
    let began = tokio::time::Instant::now();
    world.write_manifest("web.yaml", &manifest("web", json!({ "args": ["2"] })));
    world.until("the old pod ends", || has_called(&world, "stop sandbox")).await;
    assert!(began.elapsed() < Duration::from_secs(10), "the change is noticed at once");
    world
        .until("the mirror pod is another", || {
            !["", &before].contains(&annotation(&world, MIRROR).as_str())
        })
        .await;
    world.until_ready("web-node").await;
    let calls = world.runtime.calls();
    assert!(calls[3].starts_with("stop c "), "{calls:?}");
    assert_eq!(
        calls[4..],
        ["stop sandbox", "remove sandbox", "run sandbox web-node", "create c", "start c"]
    );
    assert_eq!(world.runtime.config("c").unwrap().args, ["2"]);
}

#[tokio::test]
async fn a_file_that_goes_ends_its_pod_and_then_its_mirror_pod() {
    let world = web().await;
    let directory = world.dir.path().join("kubelet/pods").join(annotation(&world, HASH));
    assert!(directory.exists());
    std::fs::remove_file(world.manifest("web.yaml")).unwrap();
    world.until("the mirror pod goes", || world.pod("web-node").is_none()).await;
    let calls = world.runtime.calls();
    assert!(calls[3].starts_with("stop c "), "{calls:?}");
    assert_eq!(calls[4..], ["stop sandbox", "remove sandbox"]);
    assert!(!directory.exists());
    world.write_manifest("web.yaml", &manifest("web", json!({})));
    world.until_ready("web-node").await;
}

#[tokio::test]
async fn what_cannot_be_used_leaves_the_others_alone() {
    let world = World::with_manifests(&[
        (".hidden", manifest("hidden", json!({}))),
        ("a.json", json!("no pod")),
        ("b.json", manifest("web", json!({}))),
        ("c.json", manifest("web", json!({ "args": ["second of the name"] }))),
        ("d.json", {
            let mut pod = manifest("account", json!({}));
            pod["spec"]["serviceAccountName"] = "a".into();
            pod
        }),
    ]);
    std::fs::create_dir(world.manifest("directory")).unwrap();
    world.api.set_down(false);
    world.until_ready("web-node").await;
    let names = |world: &World| world.api.below("/api/v1/namespaces/n/pods/").len();
    assert_eq!((names(&world), world.runtime.calls().len()), (1, 3));
    assert!(world.runtime.config("c").unwrap().args.is_empty());
    std::fs::remove_file(world.manifest("c.json")).unwrap();
    // A file may be seen while it is written: its pod ends only when it stays so.
    std::fs::write(world.manifest("b.json"), "{").unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.runtime.calls().len(), 3);
    world.until("the pod ends", || world.pod("web-node").is_none()).await;
}

#[tokio::test]
async fn a_kubelet_that_comes_back_adopts_static_pods_and_ends_those_without_a_file() {
    let mut world = World::with_manifests(&[
        ("web.yaml", manifest("web", json!({}))),
        ("old.yaml", manifest("old", json!({ "name": "o" }))),
    ]);
    world.api.set_down(false);
    world.until_ready("web-node").await;
    world.until_ready("old-node").await;
    let mirror = uid(&world);
    let before = world.pod("web-node").unwrap()["status"]["startTime"].clone();
    assert!(before.is_string());
    world.stop_kubelet();
    tokio::time::sleep(Duration::from_secs(5)).await;
    std::fs::remove_file(world.manifest("old.yaml")).unwrap();
    world.restart().await;
    world.until("the other mirror pod goes", || world.pod("old-node").is_none()).await;
    world.until("the other pod ends", || has_called(&world, "remove sandbox")).await;
    let calls = world.runtime.calls();
    let runs = calls.iter().filter(|call| *call == "run sandbox web-node").count();
    assert_eq!(runs, 1, "{calls:?}");
    assert_eq!(uid(&world), mirror, "the mirror pod stays");
    world.runtime.exit("c", 1);
    world
        .until("the restart is shown", || {
            world.pod("web-node").unwrap()["status"]["containerStatuses"][0]["restartCount"] == 1
        })
        .await;
    let pod = world.pod("web-node").unwrap();
    assert_eq!(pod["status"]["startTime"], before, "it began before");
}
