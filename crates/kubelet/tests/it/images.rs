//! Images: policies, credentials, back-off, and the disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cri::{Code, CriError};
use kubelet::{ImageGcPolicy, ImagesConfig};
use serde_json::{Value, json};

use crate::world::{World, images, one};

/// The waiting state of the only container: reason and message.
fn waiting(world: &World, pod: &str) -> (String, String) {
    let pod = world.pod(pod).unwrap_or_default();
    let waiting = pod["status"]["containerStatuses"][0]["state"]["waiting"].clone();
    let text = |key: &str| waiting[key].as_str().unwrap_or_default().to_owned();
    (text("reason"), text("message"))
}

fn pulls(world: &World) -> Vec<String> {
    world.runtime.calls().into_iter().filter(|call| call.starts_with("pull ")).collect()
}

fn secret(name: &str, kind: &str, key: &str, json: &Value) -> Value {
    use base64::Engine as _;
    let data = base64::engine::general_purpose::STANDARD.encode(json.to_string());
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": kind,
        "metadata": {"name": name, "namespace": "n", "uid": name}, "data": {key: data},
    })
}

#[tokio::test(start_paused = true)]
async fn a_pull_is_told_and_an_image_that_is_there_is_not_pulled() {
    let world = World::new().await;
    world.runtime.set_pull(|_, _| Ok(()));
    world.create_pod("a", one(json!({"image": "new:1"})));
    world.until_ready("a").await;
    let events = world.events();
    assert!(events.contains(&"Pulling: Pulling image \"new:1\"".to_owned()), "{events:?}");
    let done = "Pulled: Successfully pulled image \"new:1\" in 1.5s (1.5s including waiting). Image \
                size: 0 bytes.";
    assert!(events.iter().any(|event| event == done), "{events:?}");
    world.create_pod("b", one(json!({"image": "new:1"})));
    world.until_ready("b").await;
    assert_eq!(pulls(&world), ["pull new:1 as nobody"]);
    world.create_pod("c", one(json!({"image": "new:1", "imagePullPolicy": "Always"})));
    world.until_ready("c").await;
    assert_eq!(pulls(&world).len(), 2);
    world.create_pod("d", one(json!({"image": "absent:1", "imagePullPolicy": "Never"})));
    world.until("it is refused", || waiting(&world, "d").0 == "ErrImageNeverPull").await;
    let text = "Container image \"absent:1\" is not present with pull policy of Never";
    assert_eq!(waiting(&world, "d").1, text);
    assert!(world.events().contains(&format!("ErrImageNeverPull: {text}")));
}

#[tokio::test(start_paused = true)]
async fn a_pull_that_fails_is_tried_again_ever_more_seldom() {
    let world = World::new().await;
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    world.runtime.set_pull(move |_, _| {
        let attempt = counted.fetch_add(1, Ordering::SeqCst);
        let refused = CriError::new(Code::Unknown, "connection refused");
        if attempt < 3 { Err(refused) } else { Ok(()) }
    });
    let begun = tokio::time::Instant::now();
    world.create_pod("a", one(json!({"image": "new:1"})));
    world.until("the pull fails", || waiting(&world, "a").0 == "ErrImagePull").await;
    assert_eq!(waiting(&world, "a").1, "connection refused");
    world.until("it is held back", || waiting(&world, "a").0 == "ImagePullBackOff").await;
    let text = "Back-off pulling image \"new:1\": ErrImagePull: connection refused";
    assert_eq!(waiting(&world, "a").1, text);
    world.until_ready("a").await;
    // 10, 20 and 40 seconds between four pulls of one and a half.
    let took = begun.elapsed().as_secs();
    assert!((76..80).contains(&took), "{took}");
    let events = world.events();
    for expected in [
        "Failed: Failed to pull image \"new:1\": connection refused",
        "Failed: Error: ErrImagePull",
        "Failed: Error: ImagePullBackOff",
        "BackOff: Back-off pulling image \"new:1\"",
    ] {
        assert!(events.iter().any(|event| event == expected), "{expected}: {events:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn pull_secrets_are_tried_the_most_specific_first_and_then_the_nodes() {
    let dir = tempfile::tempdir().unwrap();
    let auths = |of: &[(&str, &str)]| {
        let entries = of.iter().map(|(at, user)| ((*at).to_owned(), json!({"username": user})));
        json!({"auths": entries.collect::<serde_json::Map<_, _>>()})
    };
    let node = auths(&[("r.example", "node")]);
    std::fs::write(dir.path().join("config.json"), node.to_string()).unwrap();
    let docker_config_dirs = vec![dir.path().to_path_buf()];
    let world = World::with_images(ImagesConfig { docker_config_dirs, ..images() }).await;
    let new = auths(&[("r.example", "wide"), ("r.example/a", "narrow"), ("other", "other")]);
    let old = json!({"*.example": {"username": "glob"}});
    let path = |name: &str| format!("/api/v1/namespaces/n/secrets/{name}");
    let kind = "kubernetes.io/dockerconfigjson";
    world.api.put(&path("new"), secret("new", kind, ".dockerconfigjson", &new));
    world.api.put(&path("old"), secret("old", "kubernetes.io/dockercfg", ".dockercfg", &old));
    // Of another type, so nobody's credentials.
    world.api.put(&path("other"), secret("other", "Opaque", ".dockerconfigjson", &new));
    world.runtime.set_pull(|_, user| {
        let denied = CriError::new(Code::Unknown, format!("{user} denied"));
        if user == "node" { Ok(()) } else { Err(denied) }
    });
    let mut spec = one(json!({"image": "r.example/a/b:1"}));
    spec["imagePullSecrets"] =
        ["new", "old", "absent", "other"].iter().map(|name| json!({"name": name})).collect();
    world.create_pod("a", spec);
    world.until_ready("a").await;
    let users = ["narrow", "wide", "glob", "node"];
    assert_eq!(pulls(&world), users.map(|user| format!("pull r.example/a/b:1 as {user}")));
    let text = "FailedToRetrieveImagePullSecret: Unable to retrieve some image pull secrets \
                (absent); attempting to pull the image may not succeed.";
    world.until("what is missing is told", || world.events().iter().any(|e| e == text)).await;
}

#[tokio::test(start_paused = true)]
async fn images_are_pulled_one_after_the_other_unless_told_otherwise() {
    for (max_parallel_pulls, range) in
        [(Some(1), 4500..9000), (Some(2), 3000..4400), (None, 0..2900)]
    {
        let config = ImagesConfig { max_parallel_pulls, ..images() };
        let world = World::with_images(config).await;
        world.runtime.set_pull(|_, _| Ok(()));
        let begun = tokio::time::Instant::now();
        for name in ["a", "b", "c"] {
            world.create_pod(name, one(json!({"image": format!("{name}:1")})));
        }
        for name in ["a", "b", "c"] {
            world.until_ready(name).await;
        }
        let took = begun.elapsed().as_millis();
        assert!(range.contains(&took), "{max_parallel_pulls:?}: {took}");
        if max_parallel_pulls == Some(1) {
            let events = world.events();
            let waited = |event: &String| event.contains(" in 1.5s (4.5s including waiting)");
            assert!(events.iter().any(waited), "{events:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn more_pulls_than_allowed_in_a_second_fail_for_now() {
    let config =
        ImagesConfig { max_parallel_pulls: None, registry_qps: 1, registry_burst: 1, ..images() };
    let world = World::with_images(config).await;
    world.runtime.set_pull(|_, _| Ok(()));
    for name in ["a", "b"] {
        world.create_pod(name, one(json!({"image": format!("{name}:1")})));
    }
    let both = || ["a", "b"].map(|name| waiting(&world, name).1);
    world.until("one has to wait", || both().iter().any(|m| m == "pull QPS exceeded")).await;
    world.until_ready("a").await;
    world.until_ready("b").await;
}

#[tokio::test(start_paused = true)]
async fn when_the_disk_is_full_unused_images_go_and_used_ones_stay() {
    let gc = ImageGcPolicy {
        high_threshold_percent: 0,
        low_threshold_percent: 0,
        ..ImageGcPolicy::default()
    };
    let world = World::with_images(ImagesConfig { gc, ..ImagesConfig::default() }).await;
    world.runtime.set_pull(|_, _| Ok(()));
    world.create_pod("a", one(json!({})));
    world.until_ready("a").await;
    world.runtime.add_image("unused:1");
    // What the fake says that all of its containers use.
    world.runtime.add_image("sha256:1");
    let removed = |image: &str| {
        let call = format!("remove image {image}");
        world.runtime.calls().contains(&call)
    };
    // First it is detected, five minutes later it is old enough.
    tokio::time::sleep(Duration::from_secs(601)).await;
    world.until("the image is removed", || removed("unused:1")).await;
    let events = || world.api.below("/api/v1/namespaces/default/events/");
    let told = |reason: &str| events().iter().any(|event| event["reason"] == reason);
    world.until("the node tells", || told("FreeDiskSpaceFailed") && told("ImageGCFailed")).await;
    let events = events();
    assert_eq!(events[0]["involvedObject"]["kind"], "Node");
    assert!(!removed("sha256:1"));
}

#[tokio::test(start_paused = true)]
async fn an_image_pulled_with_a_secret_is_for_those_who_have_it() {
    let world = World::new().await;
    let auths = json!({"auths": {"r.example": {"username": "u", "password": "p"}}});
    let kind = "kubernetes.io/dockerconfigjson";
    let path = "/api/v1/namespaces/n/secrets/pull";
    world.api.put(path, secret("pull", kind, ".dockerconfigjson", &auths));
    world.runtime.set_pull(|_, user| {
        let denied = CriError::new(Code::Unknown, "denied");
        if user == "u" { Ok(()) } else { Err(denied) }
    });
    let pod = |policy: &str, secret: bool| {
        let mut spec = one(json!({"image": "r.example/a:1", "imagePullPolicy": policy}));
        if secret {
            spec["imagePullSecrets"] = json!([{"name": "pull"}]);
        }
        spec
    };
    world.create_pod("first", pod("IfNotPresent", true));
    world.until_ready("first").await;
    world.create_pod("second", pod("IfNotPresent", true));
    world.until_ready("second").await;
    assert_eq!(pulls(&world).len(), 1, "it is here, and the pod has the secret");
    world.create_pod("stranger", pod("IfNotPresent", false));
    world.until("it is refused", || waiting(&world, "stranger").0 == "ErrImagePull").await;
    assert_eq!(waiting(&world, "stranger").1, "denied");
    world.create_pod("never", pod("Never", false));
    world.until("it is refused", || waiting(&world, "never").0 == "ErrImageNeverPull").await;
    world.create_pod("never-with", pod("Never", true));
    world.until_ready("never-with").await;
}

#[tokio::test(start_paused = true)]
async fn an_image_volume_is_pulled_by_its_policy() {
    let world = World::new().await;
    world.runtime.set_pull(|_, _| Ok(()));
    let using = |policy: &str| {
        let mut spec = one(json!({ "volumeMounts": [{ "name": "i", "mountPath": "/i" }] }));
        let image = json!({ "reference": "files:1", "pullPolicy": policy });
        spec["volumes"] = json!([{ "name": "i", "image": image }]);
        spec
    };
    for (name, policy, so_far) in
        [("a", "IfNotPresent", 1), ("b", "IfNotPresent", 1), ("c", "Always", 2), ("d", "Always", 3)]
    {
        world.create_pod(name, using(policy));
        world.until_ready(name).await;
        assert_eq!(pulls(&world), vec!["pull files:1 as nobody"; so_far], "{name}");
    }
    let mount = world.runtime.config("c").unwrap().mounts;
    let mount = mount.iter().find(|mount| mount.container_path == "/i").unwrap();
    assert_eq!(mount.image.as_ref().unwrap().image, "files:1");
}
