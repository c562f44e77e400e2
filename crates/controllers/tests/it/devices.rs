//! What the controllers make of claims for devices.

use std::time::Duration;

use serde_json::{Value, json};

use crate::memory_api::MemoryApi;
use crate::workloads::{PODS, Running, namespace};

const CLAIMS: &str = "/apis/resource.k8s.io/v1/namespaces/n/resourceclaims";
const TEMPLATES: &str = "/apis/resource.k8s.io/v1/namespaces/n/resourceclaimtemplates";
const SLICES: &str = "/apis/resource.k8s.io/v1/resourceslices";
const KEPT: &str = "resource.kubernetes.io/delete-protection";

fn pod(api: &MemoryApi, name: &str, node: Value) {
    api.create(
        PODS,
        json!({ "metadata": { "name": name }, "spec": { "nodeName": node, "containers": [],
            "resourceClaims": [{ "name": "gpu", "resourceClaimTemplateName": "t" }] } }),
    );
}

fn template(api: &MemoryApi) {
    api.create(
        TEMPLATES,
        json!({ "metadata": { "name": "t" }, "spec": { "spec": { "devices": {} } } }),
    );
}

/// The only claim there is.
fn claim(api: &MemoryApi) -> Value {
    let mut claims = api.list(CLAIMS);
    assert!(claims.len() < 2, "{claims:?}");
    claims.pop().unwrap_or_default()
}

fn path(claim: &Value) -> String {
    format!("{CLAIMS}/{}", claim["metadata"]["name"].as_str().unwrap())
}

/// Plays the scheduler: gives the claim a device.
fn allocate(api: &MemoryApi, tolerations: Value) {
    let result = json!({ "request": "r", "driver": "d", "pool": "p", "device": "one",
        "tolerations": tolerations });
    api.patch(
        &path(&claim(api)),
        &json!({ "metadata": { "finalizers": [KEPT] },
            "status": { "allocation": { "devices": { "results": [result] } } } }),
    );
}

fn status_of(api: &MemoryApi, pod: &str) -> Value {
    api.get(&format!("{PODS}/{pod}")).unwrap_or_default()["status"].clone()
}

fn texts(api: &MemoryApi, reason: &str) -> Vec<String> {
    let events = api.list("/api/v1/events").into_iter().filter(|event| event["reason"] == reason);
    events.map(|event| event["message"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_pod_gets_a_claim_of_its_template_and_gives_it_back() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    pod(api, "p", json!("a"));
    api.eventually("the missing template is told", |api| {
        let text = "PodResourceClaim gpu: resource claim template \"t\": \
                    resourceclaimtemplate.resource.k8s.io \"t\" not found";
        texts(api, "FailedResourceClaimCreation").contains(&text.to_owned())
    })
    .await;
    template(api);
    api.eventually("claim and status", |api| {
        let name = &claim(api)["metadata"]["name"];
        !name.is_null()
            && status_of(api, "p")["resourceClaimStatuses"]
                == json!([{ "name": "gpu", "resourceClaimName": name }])
    })
    .await;
    let made = claim(api);
    assert_eq!(made["metadata"]["annotations"]["resource.kubernetes.io/pod-claim-name"], "gpu");
    assert_eq!(made["metadata"]["ownerReferences"][0]["name"], "p");
    allocate(api, json!([]));
    api.eventually("the pod has it", |api| claim(api)["status"]["reservedFor"][0]["name"] == "p")
        .await;
    api.patch(&format!("{PODS}/p"), &json!({ "status": { "phase": "Succeeded" } }));
    api.eventually("the devices are given back, and the claim goes", |api| {
        api.list(CLAIMS).is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_claim_of_the_user_stays_and_is_free_again() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    api.create(CLAIMS, json!({ "metadata": { "name": "mine" }, "spec": { "devices": {} } }));
    allocate(api, json!([]));
    for name in ["p", "q"] {
        api.create(
            PODS,
            json!({ "metadata": { "name": name }, "spec": { "nodeName": "a", "containers": [],
                "resourceClaims": [{ "name": "gpu", "resourceClaimName": "mine" }] } }),
        );
    }
    let consumers =
        |api: &MemoryApi| claim(api)["status"]["reservedFor"].as_array().map_or(0, Vec::len);
    api.eventually("both have it", |api| consumers(api) == 2).await;
    api.delete(&format!("{PODS}/p"));
    api.eventually("one has it", |api| consumers(api) == 1).await;
    assert!(!claim(api)["status"]["allocation"].is_null());
    api.delete(&format!("{PODS}/q"));
    api.eventually("nobody has it", |api| {
        claim(api)["status"]["allocation"].is_null()
            && claim(api)["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty)
    })
    .await;
    assert_eq!(claim(api)["metadata"]["name"], "mine");
}

#[tokio::test]
async fn pods_leave_tainted_devices_when_their_time_is_over() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    template(api);
    let slice = |taints: Value| {
        json!({ "spec": { "driver": "d", "nodeName": "a",
            "pool": { "name": "p", "generation": 1, "resourceSliceCount": 1 },
            "devices": [{ "name": "one", "taints": taints }] } })
    };
    let mut first = slice(json!([]));
    first["metadata"] = json!({ "name": "s" });
    api.create(SLICES, first);
    pod(api, "p", json!("a"));
    api.eventually("the claim", |api| !claim(api).is_null()).await;
    let long = json!([{ "key": "broken", "operator": "Exists", "effect": "NoExecute",
        "tolerationSeconds": 1_000_000_000 }]);
    allocate(api, long);
    api.eventually("the pod has it", |api| claim(api)["status"]["reservedFor"][0]["name"] == "p")
        .await;
    let taint = |key: &str| json!([{ "key": key, "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z" }]);
    api.patch(&format!("{SLICES}/s"), &slice(taint("broken")));
    // It waits, and is told when it need not any more.
    let mut tries = 0;
    while texts(api, "DeviceTaintManagerEviction").is_empty() && tries < 200 {
        api.patch(&format!("{SLICES}/s"), &slice(json!([])));
        tokio::time::sleep(Duration::from_millis(20)).await;
        api.patch(&format!("{SLICES}/s"), &slice(taint("broken")));
        tokio::time::sleep(Duration::from_millis(20)).await;
        tries += 1;
    }
    assert_eq!(texts(api, "DeviceTaintManagerEviction"), ["Cancelling deletion"]);
    assert!(api.get(&format!("{PODS}/p")).is_some());
    api.patch(&format!("{SLICES}/s"), &slice(taint("gone")));
    api.eventually("it is evicted", |api| api.get(&format!("{PODS}/p")).is_none()).await;
    let last = api.history(&format!("{PODS}/p")).pop().unwrap();
    let told = &last["status"]["conditions"][0];
    assert_eq!((&told["type"], &told["status"]), (&json!("DisruptionTarget"), &json!("True")));
    assert_eq!(told["reason"], "DeletionByDeviceTaintManager");
    assert_eq!(told["message"], "Device Taint manager: deleting due to NoExecute taint");
    api.eventually("and told so", |api| {
        texts(api, "DeviceTaintManagerEviction").contains(&"Marking for deletion".to_owned())
    })
    .await;
}

#[tokio::test]
async fn rules_taint_devices_and_tell_how_far_they_are() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    template(api);
    pod(api, "p", json!("a"));
    api.eventually("the claim", |api| !claim(api).is_null()).await;
    allocate(api, json!([]));
    api.eventually("the pod has it", |api| claim(api)["status"]["reservedFor"][0]["name"] == "p")
        .await;
    let rules = "/apis/resource.k8s.io/v1beta2/devicetaintrules";
    let rule = |effect: &str| {
        json!({ "spec": { "deviceSelector": { "driver": "d", "device": "one" },
            "taint": { "key": "k", "effect": effect, "timeAdded": "2026-01-01T00:00:00Z" } } })
    };
    let mut first = rule("None");
    first["metadata"] = json!({ "name": "r" });
    api.create(rules, first);
    let told = |api: &MemoryApi| {
        api.get(&format!("{rules}/r")).unwrap()["status"]["conditions"][0].clone()
    };
    api.eventually("what would be", |api| {
        told(api)["message"].as_str().is_some_and(|text| text.starts_with("1 pod(s) would be"))
    })
    .await;
    assert!(api.get(&format!("{PODS}/p")).is_some());
    api.patch(&format!("{rules}/r"), &rule("NoExecute"));
    api.eventually("the pod goes", |api| api.get(&format!("{PODS}/p")).is_none()).await;
    api.eventually("and that it is over", |api| {
        let text = "1 pod(s) evicted since starting the controller.";
        told(api)["reason"] == "Completed" && told(api)["message"] == text
    })
    .await;
}

#[tokio::test]
async fn a_claim_is_given_back_by_a_pod_that_no_watch_has_told_of() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    template(api);
    pod(api, "heard-of", json!(""));
    api.eventually("watches have begun", |api| !api.list(CLAIMS).is_empty()).await;
    api.hold("/api/v1/pods");
    api.create(
        PODS,
        json!({ "metadata": { "name": "p" }, "spec": { "nodeName": "a", "containers": [],
            "resourceClaims": [{ "name": "gpu", "resourceClaimName": "c" }] } }),
    );
    let uid = api.get(&format!("{PODS}/p")).unwrap()["metadata"]["uid"].clone();
    let used = json!({ "reservedFor": [{ "resource": "pods", "name": "p", "uid": uid }] });
    api.create(CLAIMS, json!({ "metadata": { "name": "c" }, "spec": {}, "status": used }));
    let is_kept = |api: &MemoryApi| {
        api.get(&format!("{CLAIMS}/c")).unwrap()["status"]["reservedFor"].is_array()
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(is_kept(api), "the server has the pod");
    api.delete(&format!("{PODS}/p"));
    api.eventually("nobody has it", |api| !is_kept(api)).await;
}
