//! What the controllers count for quotas.

use serde_json::{Value, json};

use crate::memory_api::MemoryApi;
use crate::workloads::{PODS, Running, namespace};

const QUOTAS: &str = "/api/v1/namespaces/n/resourcequotas";

fn quota(api: &MemoryApi, name: &str, spec: &Value) {
    api.create(QUOTAS, json!({ "metadata": { "name": name }, "spec": spec }));
}

async fn uses(api: &MemoryApi, name: &str, expected: &Value) {
    let path = format!("{QUOTAS}/{name}");
    api.eventually(&format!("{name}: {expected}"), |api| {
        let used = api.get(&path).unwrap()["status"]["used"].clone();
        used == *expected
    })
    .await;
}

/// A pod that asks for a processor or for nothing, with a deadline or without.
fn pod(api: &MemoryApi, name: &str, asks: bool, ends: bool) {
    let resources = if asks {
        json!({ "requests": { "cpu": "500m" }, "limits": { "cpu": "1" } })
    } else {
        json!({})
    };
    let mut spec = json!({ "containers": [{ "name": "c", "resources": resources }] });
    if ends {
        spec["activeDeadlineSeconds"] = 3600.into();
    }
    // The server says so from the beginning.
    let status = json!({ "qosClass": if asks { "Burstable" } else { "BestEffort" } });
    api.create(PODS, json!({ "metadata": { "name": name }, "spec": spec, "status": status }));
}

#[tokio::test]
async fn quotas_count_the_pods_of_their_scopes() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    for scope in ["Terminating", "NotTerminating", "BestEffort", "NotBestEffort"] {
        let spec = json!({ "hard": { "pods": "5" }, "scopes": [scope] });
        quota(api, &scope.to_lowercase(), &spec);
        uses(api, &scope.to_lowercase(), &json!({ "pods": "0" })).await;
    }
    pod(api, "a", true, true);
    pod(api, "b", true, false);
    pod(api, "c", false, false);
    pod(api, "d", false, false);
    for (scope, pods) in
        [("terminating", "1"), ("notterminating", "3"), ("besteffort", "2"), ("notbesteffort", "2")]
    {
        uses(api, scope, &json!({ "pods": pods })).await;
    }
    api.delete(&format!("{PODS}/c"));
    uses(api, "besteffort", &json!({ "pods": "1" })).await;
    uses(api, "notterminating", &json!({ "pods": "2" })).await;
}

#[tokio::test]
async fn quotas_count_what_pods_ask_for_and_what_else_there_is() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let hard = json!({ "pods": "9", "requests.cpu": "9", "limits.cpu": "9", "cpu": "9",
        "services": "9", "services.nodeports": "9", "services.loadbalancers": "9",
        "count/deployments.apps": "9", "persistentvolumeclaims": "9", "requests.storage": "9Gi",
        "gold.storageclass.storage.k8s.io/requests.storage": "9Gi",
        "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "9" });
    quota(api, "q", &json!({ "hard": hard }));
    pod(api, "a", true, false);
    pod(api, "b", true, false);
    let deployment = json!({ "metadata": { "name": "d" }, "spec": { "replicas": 0,
        "selector": { "matchLabels": { "a": "b" } }, "template": {
            "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [] } } } });
    api.create("/apis/apps/v1/namespaces/n/deployments", deployment);
    for (name, kind) in [("x", "ClusterIP"), ("y", "NodePort"), ("z", "LoadBalancer")] {
        api.create(
            "/api/v1/namespaces/n/services",
            json!({ "metadata": { "name": name }, "spec": { "type": kind,
                "clusterIP": "10.0.0.1", "ports": [{ "port": 80, "nodePort": 30000 }] } }),
        );
    }
    for (name, class) in [("p", "gold"), ("q", "iron")] {
        api.create(
            "/api/v1/namespaces/n/persistentvolumeclaims",
            json!({ "metadata": { "name": name }, "spec": { "storageClassName": class,
                "accessModes": ["ReadWriteOnce"],
                "resources": { "requests": { "storage": "1Gi" } } } }),
        );
    }
    let used = json!({ "pods": "2", "requests.cpu": "1", "limits.cpu": "2", "cpu": "1",
        "services": "3", "services.nodeports": "2", "services.loadbalancers": "1",
        "count/deployments.apps": "1", "persistentvolumeclaims": "2", "requests.storage": "2Gi",
        "gold.storageclass.storage.k8s.io/requests.storage": "1Gi",
        "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "1" });
    uses(api, "q", &used).await;
}

#[tokio::test]
async fn a_quota_says_its_own_limits_whatever_others_write() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    quota(api, "q", &json!({ "hard": { "pods": "5" } }));
    uses(api, "q", &json!({ "pods": "0" })).await;
    let path = format!("{QUOTAS}/q");
    let wrong = json!({ "status": { "hard": { "pods": "9" }, "used": { "pods": "7" } } });
    api.patch(&path, &wrong);
    api.eventually("it is put right", |api| {
        let status = api.get(&path).unwrap()["status"].clone();
        status == json!({ "hard": { "pods": "5" }, "used": { "pods": "0" } })
    })
    .await;
}
