//! Pods from their creation to their end.

use serde_json::json;

use crate::world::{World, one};

#[tokio::test]
async fn a_pod_is_started_and_reported_ready() {
    let world = World::new().await;
    world.create_pod("p", one(json!({})));
    world.until_ready("p").await;
    assert_eq!(world.runtime.calls(), ["run sandbox p", "create c", "start c"]);
    let status = &world.pod("p").unwrap()["status"];
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["podIP"], "10.0.0.9");
    assert_eq!(status["hostIP"], "192.0.2.1");
    assert_eq!(status["qosClass"], "BestEffort");
    assert_eq!(status["containerStatuses"][0]["restartCount"], 0);
    assert_eq!(status["containerStatuses"][0]["imageID"], "x@sha256:1");
    world.until("the events are written", || world.events().len() == 3).await;
    let events = world.events();
    for event in [
        "Pulled: Container image \"x:1\" already present on machine and can be accessed by the pod",
        "Created: Container created",
        "Started: Container started",
    ] {
        assert!(events.iter().any(|other| other == event), "{events:?}");
    }
}

#[tokio::test]
async fn a_deleted_pod_is_ended_and_then_removed() {
    let world = World::new().await;
    world.create_pod(
        "p",
        one(json!({ "lifecycle": { "preStop": { "exec": { "command": ["0"] } } } })),
    );
    world.until_ready("p").await;
    world.delete_pod("p", 30);
    world.until("the object is gone", || world.pod("p").is_none()).await;
    let calls = world.runtime.calls();
    assert_eq!(calls[3], "exec c 0");
    assert!(calls[4].starts_with("stop c "), "{calls:?}");
    assert_eq!(calls[5..], ["stop sandbox", "remove sandbox"]);
    assert!(!world.dir.path().join("kubelet/pods/u-p").exists());
    world
        .until("the end is told", || {
            world.events().iter().any(|event| event == "Killing: Stopping container c")
        })
        .await;
}

#[tokio::test]
async fn a_container_that_fails_is_restarted_and_then_backs_off() {
    let world = World::new().await;
    world.create_pod("p", one(json!({})));
    world.until_ready("p").await;
    world.runtime.exit("c", 3);
    let restarts =
        || world.pod("p").unwrap()["status"]["containerStatuses"][0]["restartCount"].clone();
    world.until("the container is restarted", || restarts() == 1).await;
    world.until_ready("p").await;
    world.runtime.exit("c", 3);
    let state = || world.pod("p").unwrap()["status"]["containerStatuses"][0].clone();
    world
        .until("the container waits", || {
            state()["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        })
        .await;
    assert_eq!(
        state()["state"]["waiting"]["message"],
        "back-off 10s restarting failed container=c pod=p_n(u-p)"
    );
    assert_eq!(state()["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(state()["lastState"]["terminated"]["reason"], "Error");
    assert_eq!(world.pod("p").unwrap()["status"]["phase"], "Running");
}

#[tokio::test]
async fn a_job_succeeds_and_keeps_its_status() {
    let world = World::new().await;
    let mut spec = one(json!({}));
    spec["restartPolicy"] = "Never".into();
    world.create_pod("p", spec);
    world.until_ready("p").await;
    world.runtime.exit("c", 0);
    let phase = || world.pod("p").unwrap()["status"]["phase"].clone();
    world.until("the pod succeeds", || phase() == "Succeeded").await;
    let status = world.pod("p").unwrap()["status"].clone();
    assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    assert_eq!(status["podIP"], "10.0.0.9", "the address stays known");
    world
        .until("the sandbox is stopped", || {
            world.runtime.calls().contains(&"stop sandbox".to_owned())
        })
        .await;
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_is_told() {
    let world = World::new().await;
    world.create_pod("p", one(json!({ "image": "absent:1" })));
    let waiting =
        || world.pod("p").unwrap()["status"]["containerStatuses"][0]["state"]["waiting"].clone();
    world.until("the pull fails", || waiting()["reason"] == "ErrImagePull").await;
    world.until("the pull backs off", || waiting()["reason"] == "ImagePullBackOff").await;
    let message = waiting()["message"].as_str().unwrap().to_owned();
    assert!(
        message.starts_with("Back-off pulling image \"absent:1\": ErrImagePull: "),
        "{message}"
    );
    assert_eq!(world.pod("p").unwrap()["status"]["phase"], "Pending");
}

#[tokio::test]
async fn a_container_gets_its_configuration_and_waits_for_what_is_missing() {
    let world = World::new().await;
    let env =
        json!([{ "name": "A", "valueFrom": { "configMapKeyRef": { "name": "m", "key": "k" } } }]);
    world.create_pod("p", one(json!({ "env": env, "args": ["$(A)"] })));
    let waiting =
        || world.pod("p").unwrap()["status"]["containerStatuses"][0]["state"]["waiting"].clone();
    world.until("it waits", || waiting()["reason"] == "CreateContainerConfigError").await;
    assert_eq!(waiting()["message"], "configmap \"m\" not found");
    let map = json!({ "metadata": { "name": "m", "namespace": "n" }, "data": { "k": "v" } });
    world.api.put("/api/v1/namespaces/n/configmaps/m", map);
    world.until_ready("p").await;
    assert_eq!(world.runtime.config("c").unwrap().args, ["v"]);
}

#[tokio::test]
async fn files_of_a_config_map_follow_it() {
    let world = World::new().await;
    let map = json!({ "metadata": { "name": "m", "namespace": "n" }, "data": { "k": "1" } });
    world.api.put("/api/v1/namespaces/n/configmaps/m", map);
    let mut spec = one(json!({ "volumeMounts": [{ "name": "v", "mountPath": "/v" }] }));
    spec["volumes"] = json!([{ "name": "v", "configMap": { "name": "m" } }]);
    world.create_pod("p", spec);
    world.until_ready("p").await;
    let mounts = world.runtime.config("c").unwrap().mounts;
    let mount = mounts.iter().find(|mount| mount.container_path == "/v").unwrap();
    let file = std::path::Path::new(&mount.host_path).join("k");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "1");
    world.api.change("/api/v1/namespaces/n/configmaps/m", |map| map["data"]["k"] = "2".into());
    world.until("the file follows", || std::fs::read_to_string(&file).unwrap() == "2").await;
}

#[tokio::test]
async fn a_kubelet_that_comes_back_adopts_what_runs() {
    let mut world = World::new().await;
    world.create_pod("p", one(json!({})));
    world.create_pod("q", one(json!({})));
    world.until_ready("p").await;
    world.until_ready("q").await;
    let before = world.runtime.calls();
    world.api.remove(&crate::world::path("q"));
    world
        .until("the pod is removed", || world.runtime.calls().contains(&"remove sandbox".into()))
        .await;
    world.restart().await;
    world.runtime.exit("c", 1);
    let restarts =
        || world.pod("p").unwrap()["status"]["containerStatuses"][0]["restartCount"].clone();
    world.until("the container is restarted", || restarts() == 1).await;
    let after = world.runtime.calls();
    let runs = |calls: &[String]| calls.iter().filter(|c| *c == "run sandbox p").count();
    assert_eq!(runs(&before), runs(&after), "the sandbox was kept");
}

#[tokio::test]
async fn a_failed_liveness_probe_restarts_and_a_readiness_probe_decides() {
    let world = World::new().await;
    let probe = |code: &str| json!({ "exec": { "command": [code] }, "periodSeconds": 1, "failureThreshold": 1 });
    world.create_pod("ready", one(json!({ "readinessProbe": probe("0") })));
    world.until_ready("ready").await;
    world
        .create_pod("p", one(json!({ "livenessProbe": probe("1"), "readinessProbe": probe("1") })));
    let restarts = || {
        world.pod("p").unwrap()["status"]["containerStatuses"][0]["restartCount"]
            .as_i64()
            .unwrap_or(0)
    };
    world.until("the container is restarted", || restarts() > 0).await;
    assert_eq!(world.condition("p", "Ready"), "False");
    let told = |text: &str| world.events().iter().any(|event| event == text);
    world.until("the failure is told", || told("Unhealthy: Liveness probe failed: said")).await;
    world
        .until("the end is told", || {
            told("Killing: Container c failed liveness probe, will be restarted")
        })
        .await;
}

#[tokio::test]
async fn a_pod_that_does_not_belong_here_is_refused() {
    let world = World::new().await;
    let mut spec = one(json!({}));
    spec["nodeSelector"] = json!({ "disk": "ssd" });
    world.create_pod("p", spec);
    let status = || world.pod("p").unwrap()["status"].clone();
    world.until("the pod fails", || status()["phase"] == "Failed").await;
    assert_eq!(status()["reason"], "NodeAffinity");
    assert!(status()["containerStatuses"].is_null());
    assert!(world.runtime.calls().is_empty());
}

#[tokio::test]
async fn a_pod_that_is_active_too_long_fails() {
    let world = World::new().await;
    let mut spec = one(json!({}));
    spec["activeDeadlineSeconds"] = 1.into();
    world.create_pod("p", spec);
    world.until_ready("p").await;
    let status = || world.pod("p").unwrap()["status"].clone();
    world.until("the pod fails", || status()["phase"] == "Failed").await;
    assert_eq!(status()["reason"], "DeadlineExceeded");
}

#[tokio::test]
async fn a_container_may_have_all_of_them_begin_anew() {
    let world = World::new().await;
    let container = |name: &str| json!({ "name": name, "image": "x:1" });
    let mut asking = container("asking");
    asking["restartPolicy"] = "Never".into();
    asking["restartPolicyRules"] = json!([{ "action": "RestartAllContainers",
        "exitCodes": { "operator": "In", "values": [42] } }]);
    let mut other = container("other");
    other["lifecycle"] = json!({ "preStop": { "exec": { "command": ["0"] } } });
    world.create_pod(
        "p",
        json!({
            "restartPolicy": "Never", "initContainers": [container("init")],
            "containers": [asking, other],
        }),
    );
    let status = || world.pod("p").unwrap()["status"].clone();
    let running = |name: &str| world.runtime.calls().contains(&format!("start {name}"));
    world.until("init runs", || running("init")).await;
    world.runtime.exit("init", 0);
    world.until_ready("p").await;
    assert_eq!(world.condition("p", "AllContainersRestarting"), "False");
    let before = world.runtime.calls().len();
    world.runtime.exit("asking", 42);
    let again = || world.runtime.calls()[before..].contains(&"start init".to_owned());
    world.until("it begins anew", again).await;
    let after = world.runtime.calls()[before..].to_vec();
    assert_eq!(after, ["stop other 0s", "create init", "start init"], "no hook, no new sandbox");
    let told = |kind: &str, at: usize| status()[kind][at].clone();
    // It may be told in two writes that the old init container is there no more, and the new one is.
    let is_told =
        || told("initContainerStatuses", 0)["restartCount"] == 1 && status()["phase"] == "Pending";
    world.until("init is told", is_told).await;
    assert_eq!(told("containerStatuses", 0)["lastState"]["terminated"]["exitCode"], 42);
    assert_eq!(told("containerStatuses", 1)["state"]["waiting"]["reason"], "PodInitializing");
    world.runtime.exit("init", 0);
    world.until_ready("p").await;
    assert_eq!(told("containerStatuses", 0)["restartCount"], 1);
    assert_eq!(told("containerStatuses", 1)["restartCount"], 1);
    // Another end is no reason.
    world.runtime.exit("asking", 1);
    world
        .until("it stays", || told("containerStatuses", 0)["state"]["terminated"].is_object())
        .await;
    assert_eq!(world.runtime.config("other").unwrap().metadata.attempt, 0);
}

#[tokio::test]
async fn a_pod_whose_devices_nobody_prepares_does_not_run_without_them() {
    let world = World::new().await;
    let mut spec = one(json!({}));
    spec["resourceClaims"] = json!([{ "name": "gpu", "resourceClaimName": "claim" }]);
    world.create_pod("p", spec);
    let told = || world.events().iter().any(|e| e.starts_with("FailedPrepareDynamicResources: "));
    world.until("it is told", told).await;
    assert_eq!(world.runtime.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn a_runtime_without_user_namespaces_says_so() {
    let world = World::new().await;
    let mut spec = one(json!({}));
    spec["hostUsers"] = false.into();
    world.create_pod("p", spec);
    let text = "FailedCreatePodSandBox: Failed to create pod sandbox: RuntimeClass handler \"\" \
                does not support user namespaces";
    world.until("it is told", || world.events().iter().any(|event| event == text)).await;
    assert_eq!(world.runtime.calls(), Vec::<String>::new());
}
