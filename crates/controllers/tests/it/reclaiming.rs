//! What becomes of volumes that nobody outside makes, deletes or scrubs.

use std::path::Path;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::memory_api::{MemoryApi, REFUSED};
use crate::workloads::{PODS, Running, name, namespace};

const CLAIMS: &str = "/api/v1/namespaces/n/persistentvolumeclaims";
const VOLUMES: &str = "/api/v1/persistentvolumes";
const VOLUME: &str = "/api/v1/persistentvolumes/v";
/// Where upstream's template has the pods that scrub.
const RECYCLERS: &str = "/api/v1/namespaces/default/pods";
const RECYCLER: &str = "/api/v1/namespaces/default/pods/recycler-for-v";

/// Controllers that try again at once.
fn start() -> Running {
    let running = Running::start_configured(|config| {
        config.volumes.retry = Duration::from_millis(50);
    });
    namespace(&running.api);
    running
}

/// Makes the volume `v` and the claim `c`, and waits until they are bound.
async fn bound(api: &MemoryApi, policy: &str, source: Value) {
    let mut spec = json!({ "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "1Gi" },
        "persistentVolumeReclaimPolicy": policy });
    spec.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
    api.create(
        VOLUMES,
        json!({ "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": "v" },
            "spec": spec }),
    );
    claim(api, "", json!({}));
    api.eventually("they are bound", |api| phase(api) == "Bound").await;
}

fn claim(api: &MemoryApi, class: &str, more: Value) {
    let mut spec = json!({ "accessModes": ["ReadWriteOnce"], "storageClassName": class,
        "resources": { "requests": { "storage": "1Gi" } } });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    api.create(
        CLAIMS,
        json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": { "name": "c", "namespace": "n" }, "spec": spec }),
    );
}

fn phase(api: &MemoryApi) -> Value {
    api.get(VOLUME).unwrap_or_default()["status"]["phase"].clone()
}

async fn released(api: &MemoryApi) {
    api.delete(&format!("{CLAIMS}/c"));
    api.eventually("it is released", |api| phase(api) != "Bound").await;
}

/// How often the plugin for directories of the host was timed.
fn timed(running: &Running, operation: &str, status: &str) -> f64 {
    let labels = [
        ("volume_plugin", "kubernetes.io/host-path"),
        ("operation_name", operation),
        ("status", status),
        ("migrated", "false"),
    ];
    running.metric("storage_operation_duration_seconds", &labels)
}

fn directory() -> Value {
    json!({ "hostPath": { "path": "/data/v" } })
}

async fn scrubbing(api: &MemoryApi) -> Value {
    api.eventually("it is scrubbed", |api| api.get(RECYCLER).is_some()).await;
    api.get(RECYCLER).unwrap()
}

fn end(api: &MemoryApi, status: Value) {
    api.patch(RECYCLER, &json!({ "status": status }));
}

/// Ends the pod that scrubs, and waits until the volume is free.
async fn scrubbed(api: &MemoryApi) {
    end(api, json!({ "phase": "Succeeded" }));
    api.tells("VolumeRecycled", "Volume recycled").await;
    api.eventually("it is free", |api| phase(api) == "Available").await;
    assert!(api.list(RECYCLERS).is_empty());
    let volume = api.get(VOLUME).unwrap();
    assert!(volume["spec"]["claimRef"].is_null());
    assert!(volume["status"]["message"].is_null());
}

#[tokio::test]
async fn a_volume_is_scrubbed_by_a_pod_and_is_free_again() {
    let running = start();
    let api = &running.api;
    bound(api, "Recycle", directory()).await;
    released(api).await;
    let pod = scrubbing(api).await;
    assert_eq!(pod["spec"]["volumes"][0]["hostPath"], json!({ "path": "/data/v" }));
    assert_eq!(pod["spec"]["activeDeadlineSeconds"], 60);
    for (at, (uid, kind)) in
        [(&pod["metadata"]["uid"], "Warning"), (&json!("other"), "Normal")].into_iter().enumerate()
    {
        let about = json!({ "kind": "Pod", "namespace": "default", "name": "recycler-for-v",
            "uid": uid });
        api.create(
            "/api/v1/namespaces/default/events",
            json!({ "metadata": { "name": format!("e{at}") }, "involvedObject": about,
                "type": kind, "reason": "FailedMount", "message": format!("message {at}") }),
        );
    }
    api.tells("RecyclerPod", "Recycler pod: message 0").await;
    assert_eq!(phase(api), "Released");
    scrubbed(api).await;
    assert!(!api.has_told("RecyclerPod", "Recycler pod: message 1"), "it is about another pod");
    let events = api.list("/api/v1/events");
    let told: Vec<_> = events.iter().filter(|one| one["reason"] == "RecyclerPod").collect();
    assert_eq!(told[0]["type"], "Warning");
    assert_eq!(told[0]["involvedObject"]["kind"], "PersistentVolume");
    claim(api, "", json!({}));
    api.eventually("the next claim gets it", |api| phase(api) == "Bound").await;
}

#[tokio::test]
async fn a_share_that_a_claim_was_named_for_waits_for_the_next_of_its_name() {
    let running = start();
    let api = &running.api;
    let mut share = json!({ "nfs": { "server": "s", "path": "/x" },
        "capacity": { "storage": "20Gi" } });
    share["claimRef"] = json!({ "namespace": "n", "name": "c" });
    bound(api, "Recycle", share).await;
    released(api).await;
    let pod = scrubbing(api).await;
    assert_eq!(pod["spec"]["volumes"][0]["nfs"], json!({ "server": "s", "path": "/x" }));
    assert_eq!(pod["spec"]["activeDeadlineSeconds"], 600);
    end(api, json!({ "phase": "Succeeded" }));
    api.eventually("it is free", |api| phase(api) == "Available").await;
    let reference = api.get(VOLUME).unwrap()["spec"]["claimRef"].clone();
    assert_eq!((&reference["name"], &reference["uid"]), (&json!("c"), &Value::Null));
}

#[tokio::test]
async fn what_pods_use_is_not_scrubbed() {
    let running = start();
    let api = &running.api;
    bound(api, "Recycle", directory()).await;
    let mounted = json!({ "name": "v", "persistentVolumeClaim": { "claimName": "c" } });
    let pod = |name: &str, phase: &str| {
        json!({ "metadata": { "name": name }, "status": { "phase": phase },
            "spec": { "nodeName": "a", "containers": [], "volumes": [mounted] } })
    };
    for (name, phase) in [("p", "Running"), ("q", "Pending"), ("done", "Succeeded")] {
        api.create(PODS, pod(name, phase));
    }
    // Somebody insists.
    let path = format!("{CLAIMS}/c");
    api.eventually("it is protected", |api| {
        !api.get(&path).unwrap()["metadata"]["finalizers"].is_null()
    })
    .await;
    api.delete(&path);
    api.patch(&path, &json!({ "metadata": { "finalizers": null } }));
    api.tells("VolumeFailedRecycle", "Volume is used by pods: n/p,n/q").await;
    assert_eq!(phase(api), "Released");
    api.delete(&format!("{PODS}/p"));
    api.tells("VolumeFailedRecycle", "Volume is used by pods: n/q").await;
    assert!(api.list(RECYCLERS).is_empty());
    api.patch(&format!("{PODS}/q"), &json!({ "status": { "phase": "Failed" } }));
    scrubbing(api).await;
    scrubbed(api).await;
}

/// The cache of pods hears late of one that the server knows.
#[tokio::test]
async fn a_pod_that_only_the_server_knows_of_keeps_its_volume() {
    let running = start();
    let api = &running.api;
    bound(api, "Recycle", directory()).await;
    api.hold("/api/v1/pods");
    let mounted = json!({ "name": "v", "persistentVolumeClaim": { "claimName": "c" } });
    api.create(
        PODS,
        json!({ "metadata": { "name": "p" }, "status": { "phase": "Running" },
            "spec": { "containers": [], "volumes": [mounted] } }),
    );
    released(api).await;
    api.tells("VolumeFailedRecycle", "Volume is used by pods: n/p").await;
    assert!(api.list(RECYCLERS).is_empty());
}

#[tokio::test]
async fn a_pod_that_fails_to_scrub_is_told_and_followed_by_another() {
    let running = start();
    let api = &running.api;
    bound(api, "Recycle", directory()).await;
    released(api).await;
    let uid = scrubbing(api).await["metadata"]["uid"].clone();
    end(api, json!({ "phase": "Failed", "message": "Pod was active on the node too long" }));
    let failed = "Recycle failed: failed to recycle volume: ";
    let text = format!("{failed}Pod was active on the node too long");
    api.tells("VolumeFailedRecycle", &text).await;
    assert_eq!(api.get(VOLUME).unwrap()["status"]["message"], text);
    let another = |api: &MemoryApi| api.get(RECYCLER).is_some_and(|p| p["metadata"]["uid"] != uid);
    api.eventually("another one", another).await;
    assert_eq!(phase(api), "Failed");
    end(api, json!({ "phase": "Failed" }));
    api.eventually("it is gone", |api| {
        let phases = api.history(RECYCLER);
        phases.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_string()).count() >= 2
    })
    .await;
    let unknown = format!("{failed}pod failed, pod.Status.Message unknown");
    assert!(!api.has_told("VolumeFailedRecycle", &unknown), "it has failed before");
    scrubbing(api).await;
    scrubbed(api).await;
}

#[tokio::test]
async fn a_pod_that_is_deleted_or_refused_has_not_scrubbed() {
    let running = start();
    let api = &running.api;
    bound(api, "Recycle", directory()).await;
    released(api).await;
    scrubbing(api).await;
    api.delete(RECYCLER);
    let text = "Recycle failed: failed to recycle volume: recycler pod was deleted";
    api.tells("VolumeFailedRecycle", text).await;
    scrubbing(api).await;
    scrubbed(api).await;

    api.refuse(Method::POST, "/pods");
    claim(api, "", json!({}));
    api.eventually("it is bound again", |api| phase(api) == "Bound").await;
    released(api).await;
    let text = format!("Recycle failed: unexpected error creating recycler pod:  {REFUSED}");
    api.tells("VolumeFailedRecycle", &text).await;
}

/// Whose it is nobody can tell.
#[tokio::test]
async fn a_pod_that_former_controllers_left_is_deleted_first() {
    let first = start();
    let api = first.api.clone();
    bound(&api, "Recycle", directory()).await;
    released(&api).await;
    let uid = scrubbing(&api).await["metadata"]["uid"].clone();
    drop(first);
    // What it did meanwhile says nothing.
    end(&api, json!({ "phase": "Succeeded" }));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(phase(&api), "Released");
    let _next = Running::start_configured_on(api.clone(), |config| {
        config.volumes.retry = Duration::from_millis(50);
    });
    let text = "Recycle failed: old recycler pod found, will retry later";
    api.tells("VolumeFailedRecycle", text).await;
    api.eventually("another one", |api| {
        api.get(RECYCLER).is_some_and(|pod| pod["metadata"]["uid"] != uid)
    })
    .await;
    scrubbed(&api).await;
}

#[tokio::test]
async fn the_operators_pod_scrubs_as_long_as_the_operator_says() {
    let running = Running::start_configured(|config| {
        let template = "{apiVersion: v1, kind: Pod, metadata: {namespace: 'n'}, spec: {containers: \
                        [{name: mine, image: mine}], volumes: [{name: first}, {name: second}]}}";
        let recycler = &mut config.volumes.host_path_recycler;
        recycler.template = controllers::read_template(template.as_bytes()).unwrap();
        recycler.timeout_secs_min = 7;
    });
    let api = &running.api;
    namespace(api);
    bound(api, "Recycle", directory()).await;
    released(api).await;
    let path = format!("{PODS}/recycler-for-v");
    api.eventually("it is scrubbed", |api| api.get(&path).is_some()).await;
    let spec = api.get(&path).unwrap()["spec"].clone();
    assert_eq!(spec["containers"][0]["image"], "mine");
    assert_eq!(spec["activeDeadlineSeconds"], 30, "of one GiB");
    let volumes = json!([{ "name": "first", "hostPath": { "path": "/data/v" } },
        { "name": "second" }]);
    assert_eq!(spec["volumes"], volumes);
}

#[tokio::test]
async fn what_nobody_can_reclaim_fails() {
    let local = || json!({ "local": { "path": "/data/v" } });
    let getting = "error getting deleter volume plugin for volume \"v\"";
    for (policy, source, reason, text) in [
        ("Recycle", local(), "VolumeFailedRecycle", "No recycler plugin found for the volume!"),
        (
            "Other",
            local(),
            "VolumeUnknownReclaimPolicy",
            "Volume has unrecognized PersistentVolumeReclaimPolicy",
        ),
        ("Delete", local(), "VolumeFailedDelete", &format!("{getting}: no volume plugin matched")),
        (
            "Delete",
            json!({ "nfs": { "server": "s", "path": "/x" } }),
            "VolumeFailedDelete",
            &format!("{getting}: no deletable volume plugin matched"),
        ),
        (
            "Delete",
            directory(),
            "VolumeFailedDelete",
            "host_path deleter only supports /tmp/.+ but received provided /data/v",
        ),
    ] {
        let running = start();
        let api = &running.api;
        bound(api, policy, source).await;
        released(api).await;
        api.tells(reason, text).await;
        let status = api.get(VOLUME).unwrap()["status"].clone();
        assert_eq!(status, json!({ "phase": "Failed", "message": text }));
    }
}

#[tokio::test]
async fn a_directory_below_tmp_goes_with_its_claim() {
    let running = start();
    let api = &running.api;
    let path = Path::new("/tmp/v");
    controllers::HostDirectories::make(&running.directories, path).await.unwrap();
    bound(api, "Delete", json!({ "hostPath": { "path": path } })).await;
    running.directories.stay();
    released(api).await;
    api.tells("VolumeFailedDelete", "unlinkat /tmp/v: device or resource busy").await;
    running.directories.go();
    api.eventually("it is gone", |api| api.get(VOLUME).is_none()).await;
    assert!(running.directories.list().is_empty());
    assert!(timed(&running, "volume_delete", "success") >= 1.0);
    assert!(timed(&running, "volume_delete", "fail-unknown") >= 1.0);
}

fn class(api: &MemoryApi, more: &Value) {
    let mut class = json!({ "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": { "name": "here" }, "provisioner": "kubernetes.io/host-path",
        "volumeBindingMode": "Immediate", "reclaimPolicy": "Delete" });
    class.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    api.create("/apis/storage.k8s.io/v1/storageclasses", class);
}

#[tokio::test]
async fn a_claim_gets_a_directory_of_the_host_where_the_operator_lets_it() {
    let running = Running::start_configured(|config| config.volumes.host_path_provisioning = true);
    let api = &running.api;
    namespace(api);
    class(api, &json!({}));
    claim(api, "here", json!({}));
    let path = format!("{CLAIMS}/c");
    api.eventually("it is bound", |api| api.get(&path).unwrap()["status"]["phase"] == "Bound")
        .await;
    let volume = api.list(VOLUMES).remove(0);
    let uid = api.get(&path).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    let volume_name = name(&volume);
    assert_eq!(volume_name, format!("pvc-{uid}"));
    let metadata = &volume["metadata"];
    assert_eq!(metadata["finalizers"][0], "kubernetes.io/pv-controller");
    let annotations = json!({ "kubernetes.io/createdby": "hostpath-dynamic-provisioner",
        "pv.kubernetes.io/bound-by-controller": "yes",
        "pv.kubernetes.io/provisioned-by": "kubernetes.io/host-path" });
    assert_eq!(metadata["annotations"], annotations);
    assert_eq!(volume["spec"]["storageClassName"], "here");
    let directory = format!("/tmp/hostpath_pv/{uid}");
    assert_eq!(volume["spec"]["hostPath"], json!({ "path": directory }));
    assert_eq!(running.directories.list(), [Path::new(&directory)]);
    let text =
        format!("Successfully provisioned volume {volume_name} using kubernetes.io/host-path");
    api.tells("ProvisioningSucceeded", &text).await;
    assert_eq!(timed(&running, "volume_provision", "success"), 1.0);
    api.delete(&path);
    api.eventually("the volume goes", |api| api.list(VOLUMES).is_empty()).await;
    assert!(running.directories.list().is_empty());
}

#[tokio::test]
async fn why_a_claim_gets_no_directory_is_told() {
    let plugin = "kubernetes.io/host-path";
    let source = json!({ "dataSource": { "kind": "PersistentVolumeClaim", "name": "d" } });
    let block = json!({ "volumeMode": "Block" });
    let options = json!({ "mountOptions": ["a", "b"] });
    for (is_on, of_class, of_claim, text) in [
        (
            false,
            json!({}),
            json!({}),
            format!(
                "Failed to create provisioner: provisioning in volume plugin {plugin:?} is disabled"
            ),
        ),
        (
            true,
            json!({}),
            source,
            format!(
                "plugin {plugin:?} is not a CSI plugin. Only CSI plugin can provision a claim \
                 with a datasource"
            ),
        ),
        (
            true,
            options,
            json!({}),
            "Mount options are not supported by the provisioner but StorageClass \"here\" has \
             mount options [a b]"
                .to_owned(),
        ),
        (
            true,
            json!({}),
            block,
            format!(
                "Failed to provision volume with StorageClass \"here\": {plugin} does not support \
                 block volume provisioning"
            ),
        ),
    ] {
        let running =
            Running::start_configured(|config| config.volumes.host_path_provisioning = is_on);
        let api = &running.api;
        namespace(api);
        class(api, &of_class);
        claim(api, "here", of_claim);
        api.tells("ProvisioningFailed", &text).await;
        assert!(api.list(VOLUMES).is_empty() && running.directories.list().is_empty());
        let labels = [("operation_name", "provision"), ("plugin_name", plugin)];
        assert_eq!(running.metric("volume_operation_errors_total", &labels), 1.0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_nobody_knows_of_and_that_stays_is_told() {
    let running = Running::start_timed_with(|config| config.volumes.host_path_provisioning = true);
    let api = &running.api;
    namespace(api);
    class(api, &json!({}));
    api.refuse(Method::POST, "/persistentvolumes");
    running.directories.stay();
    claim(api, "here", json!({}));
    // Five tries each, ten seconds apart.
    tokio::time::sleep(Duration::from_secs(85)).await;
    let text = format!(
        "Error creating provisioned PV object for claim n/c: {REFUSED}. Deleting the volume."
    );
    api.tells("ProvisioningFailed", &text).await;
    let uid = api.get(&format!("{CLAIMS}/c")).unwrap()["metadata"]["uid"].clone();
    let path = format!("/tmp/hostpath_pv/{}", uid.as_str().unwrap());
    let text = format!(
        "Error cleaning provisioned volume for claim n/c: unlinkat {path}: device or resource \
         busy. Please delete manually."
    );
    api.tells("ProvisioningCleanupFailed", &text).await;
    assert_eq!(running.directories.list(), [Path::new(&path)]);
    // It is not given up.
    api.refuse_nothing();
    tokio::time::sleep(Duration::from_secs(30)).await;
    api.eventually("the next try succeeds", |api| api.list(VOLUMES).len() == 1).await;
    assert_eq!(running.directories.list(), [Path::new(&path)]);
}

#[tokio::test]
async fn nobody_is_asked_for_volumes_where_none_are_to_be_made() {
    let running = Running::start_configured(|config| config.volumes.provisioning = false);
    let api = &running.api;
    namespace(api);
    class(api, &json!({ "provisioner": "csi.example.com" }));
    claim(api, "here", json!({}));
    let path = format!("{CLAIMS}/c");
    api.eventually("it waits", |api| api.get(&path).unwrap()["status"]["phase"] == "Pending").await;
    assert!(api.get(&path).unwrap()["metadata"]["annotations"].is_null());
}
