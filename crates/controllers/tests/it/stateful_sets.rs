//! What the controllers make of StatefulSets.

use serde_json::{Value, json};

use crate::memory_api::MemoryApi;
use crate::workloads::{PODS, Running, name, namespace};

const SETS: &str = "/apis/apps/v1/namespaces/n/statefulsets";
const CLAIMS: &str = "/api/v1/namespaces/n/persistentvolumeclaims";
const REVISIONS: &str = "/apis/apps/v1/namespaces/n/controllerrevisions";

fn set(api: &MemoryApi, spec: &Value) {
    let mut set = json!({ "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": { "name": "web" },
        "spec": { "replicas": 3, "serviceName": "svc", "revisionHistoryLimit": 10,
            "selector": { "matchLabels": { "app": "web" } },
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } },
            "template": { "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "c", "image": "one" }] } } } });
    for (name, value) in spec.as_object().unwrap() {
        set["spec"][name] = value.clone();
    }
    api.create(SETS, set);
}

fn set_image(api: &MemoryApi, image: &str) {
    let template = json!({ "spec": { "containers": [{ "name": "c", "image": image }] } });
    api.patch(&format!("{SETS}/web"), &json!({ "spec": { "template": template } }));
}

/// Makes every pod ready, and keeps book of the names in the order in which they came.
fn run(api: &MemoryApi, seen: &std::sync::Mutex<Vec<String>>) {
    for pod in api.list(PODS) {
        if pod["status"]["phase"].is_null() {
            seen.lock().unwrap().push(format!("{} {}", name(&pod), image(&pod)));
            let ready = json!({ "status": { "phase": "Running",
                "conditions": [{ "type": "Ready", "status": "True" }] } });
            api.patch(&format!("{PODS}/{}", name(&pod)), &ready);
        }
    }
}

fn image(pod: &Value) -> &str {
    pod["spec"]["containers"][0]["image"].as_str().unwrap()
}

fn status(api: &MemoryApi) -> Value {
    api.get(&format!("{SETS}/web")).unwrap()["status"].clone()
}

async fn all_are(api: &MemoryApi, image: &str) -> Vec<String> {
    let seen = std::sync::Mutex::default();
    api.eventually(&format!("all pods are of {image}"), |api| {
        run(api, &seen);
        let pods = api.list(PODS);
        let status = status(api);
        pods.len() == 3
            && pods.iter().all(|pod| self::image(pod) == image)
            && status["availableReplicas"] == 3
            && status["updatedReplicas"] == 3
            && status["currentRevision"] == status["updateRevision"]
    })
    .await;
    seen.into_inner().unwrap()
}

#[tokio::test]
async fn a_stateful_set_comes_in_order_is_updated_and_rolled_back() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    set(api, &json!({}));
    assert_eq!(all_are(api, "one").await, ["web-0 one", "web-1 one", "web-2 one"]);
    let pod = api.get(&format!("{PODS}/web-1")).unwrap();
    let labels = &pod["metadata"]["labels"];
    assert_eq!(labels["apps.kubernetes.io/pod-index"], "1");
    assert_eq!(labels["statefulset.kubernetes.io/pod-name"], "web-1");
    assert_eq!(labels["controller-revision-hash"], status(api)["currentRevision"]);
    assert_eq!(pod["spec"]["hostname"], "web-1");
    assert_eq!(pod["spec"]["subdomain"], "svc");
    set_image(api, "two");
    assert_eq!(all_are(api, "two").await, ["web-2 two", "web-1 two", "web-0 two"]);
    set_image(api, "one");
    assert_eq!(all_are(api, "one").await, ["web-2 one", "web-1 one", "web-0 one"]);
    let mut numbers: Vec<_> =
        api.list(REVISIONS).iter().map(|one| one["revision"].as_i64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3], "a rollback raises the number of what is there");
    api.eventually("the events", |api| {
        let events = api.list("/apis/events.k8s.io/v1/namespaces/n/events");
        let core = api.list("/api/v1/namespaces/n/events");
        let has = |text: &str| {
            events.iter().any(|event| event["note"] == text)
                || core.iter().any(|event| event["message"] == text)
        };
        has("create Pod web-0 in StatefulSet web successful")
            && has("delete Pod web-2 in StatefulSet web successful")
    })
    .await;
}

#[tokio::test]
async fn claims_are_made_and_go_as_the_policy_says() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    set(
        api,
        &json!({
            "persistentVolumeClaimRetentionPolicy": { "whenScaled": "Delete", "whenDeleted": "Retain" },
            "volumeClaimTemplates": [{ "metadata": { "name": "data" },
                "spec": { "accessModes": ["ReadWriteOnce"] } }] }),
    );
    all_are(api, "one").await;
    let claims = |api: &MemoryApi| {
        let mut names: Vec<_> = api.list(CLAIMS).iter().map(name).collect();
        names.sort();
        names
    };
    assert_eq!(claims(api), ["data-web-0", "data-web-1", "data-web-2"]);
    let pod = api.get(&format!("{PODS}/web-2")).unwrap();
    let volume = &pod["spec"]["volumes"][0];
    assert_eq!(volume["persistentVolumeClaim"]["claimName"], "data-web-2");
    api.patch(&format!("{SETS}/web"), &json!({ "spec": { "replicas": 1 } }));
    api.eventually("one claim is left", |api| {
        // Nobody here takes the finalizer that protects claims but its controller.
        claims(api) == ["data-web-0"]
    })
    .await;
}

#[tokio::test]
async fn claims_outlive_their_set_unless_the_policy_says_otherwise() {
    for (policy, left) in [("Retain", 3), ("Delete", 0)] {
        let running = Running::start();
        let api = &running.api;
        namespace(api);
        let retention = json!({ "whenScaled": "Retain", "whenDeleted": policy });
        let template = json!({ "metadata": { "name": "data" },
            "spec": { "accessModes": ["ReadWriteOnce"] } });
        set(
            api,
            &json!({ "persistentVolumeClaimRetentionPolicy": retention,
                "volumeClaimTemplates": [template] }),
        );
        all_are(api, "one").await;
        api.delete(&format!("{SETS}/web"));
        api.eventually("the pods are gone", |api| api.list(PODS).is_empty()).await;
        api.eventually(policy, |api| api.list(CLAIMS).len() == left).await;
    }
}

#[tokio::test]
async fn nothing_else_is_taken_before_a_pod_is_seen_going() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    set(api, &json!({}));
    all_are(api, "one").await;
    let web = format!("{SETS}/web");
    let partition = |from: u32| json!({ "spec": { "updateStrategy": { "rollingUpdate": { "partition": from } } } });
    api.patch(&web, &partition(2));
    set_image(api, "two");
    let seen = std::sync::Mutex::default();
    api.eventually("the last pod is new", |api| {
        run(api, &seen);
        let status = status(api);
        status["updatedReplicas"] == 1 && status["availableReplicas"] == 3
    })
    .await;
    api.hold("/api/v1/pods");
    api.patch(&web, &partition(0));
    let is_there = |name: &str| api.get(&format!("{PODS}/{name}")).is_some();
    api.eventually("the next one goes", |_| !is_there("web-1")).await;
    // By what the controller has heard all three serve, and the last one is old now.
    set_image(api, "three");
    for at in 0..10 {
        api.patch(&web, &json!({ "metadata": { "annotations": { "at": at.to_string() } } }));
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        assert!(is_there("web-2") && is_there("web-0"));
    }
    api.release();
    all_are(api, "three").await;
}
