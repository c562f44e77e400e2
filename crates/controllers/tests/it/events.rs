//! What the controllers tell of workloads and services, above all when the API refuses something.

use http::Method;
use serde_json::{Value, json};

use crate::memory_api::{MemoryApi, REFUSED};
use crate::workloads::{PODS, Running, name, namespace, ready_node};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/n/deployments";
const SETS: &str = "/apis/apps/v1/namespaces/n/replicasets";
const STATEFUL_SETS: &str = "/apis/apps/v1/namespaces/n/statefulsets";
const DAEMON_SETS: &str = "/apis/apps/v1/namespaces/n/daemonsets";
const JOBS: &str = "/apis/batch/v1/namespaces/n/jobs";
const CRON_JOBS: &str = "/apis/batch/v1/namespaces/n/cronjobs";
const SERVICES: &str = "/api/v1/namespaces/n/services";

/// A workload whose pods have the label `app: w`.
fn workload(replicas: i32, more: &Value) -> Value {
    let labels = json!({ "app": "w" });
    let mut spec = json!({ "replicas": replicas, "selector": { "matchLabels": labels },
        "template": { "metadata": { "labels": labels },
            "spec": { "containers": [{ "name": "c", "image": "i" }] } } });
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    json!({ "metadata": { "name": "w" }, "spec": spec })
}

fn deployment(api: &MemoryApi, replicas: i32) {
    let more = json!({ "progressDeadlineSeconds": 600, "strategy": { "type": "RollingUpdate",
        "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } } });
    api.create(DEPLOYMENTS, workload(replicas, &more));
}

fn replica_set(api: &MemoryApi, replicas: i32) {
    api.create(SETS, workload(replicas, &json!({})));
}

/// Status, reason and message of a condition.
fn condition(api: &MemoryApi, path: &str, kind: &str) -> Value {
    let status = api.get(path).unwrap()["status"].clone();
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.into_iter().find(|condition| condition["type"] == kind);
    let found = found.unwrap_or_default();
    json!([found["status"], found["reason"], found["message"]])
}

async fn says(api: &MemoryApi, path: &str, kind: &str, expected: Value) {
    api.eventually(&format!("{kind}: {expected}"), |api| condition(api, path, kind) == expected)
        .await;
}

#[tokio::test]
async fn every_step_of_a_deployment_is_told() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    deployment(api, 2);
    api.eventually("two pods", |api| api.list(PODS).len() == 2).await;
    let set = name(&api.list(SETS)[0]);
    api.tells("ScalingReplicaSet", &format!("Scaled up replica set {set} from 0 to 2")).await;
    for pod in api.list(PODS) {
        api.tells("SuccessfulCreate", &format!("Created pod: {}", name(&pod))).await;
    }
    let path = format!("{DEPLOYMENTS}/w");
    let text = "Deployment does not have minimum availability.";
    says(api, &path, "Available", json!(["False", "MinimumReplicasUnavailable", text])).await;
    api.patch(&path, &json!({ "spec": { "replicas": 1, "paused": true } }));
    says(api, &path, "Progressing", json!(["Unknown", "DeploymentPaused", "Deployment is paused"]))
        .await;
    api.tells("ScalingReplicaSet", &format!("Scaled down replica set {set} from 2 to 1")).await;
    api.eventually("one pod is deleted", |api| {
        let events = api.list("/api/v1/events");
        events.iter().any(|event| event["reason"] == "SuccessfulDelete")
    })
    .await;
    // The next roll-out is refused its ReplicaSet, and says so when it is resumed.
    api.refuse(Method::POST, "/replicasets");
    let image = json!([{ "name": "c", "image": "other" }]);
    let template = json!({ "template": { "spec": { "containers": image } }, "paused": false });
    api.patch(&path, &json!({ "spec": template }));
    api.eventually("the roll-out has failed", |api| {
        condition(api, &path, "Progressing")[1] == "ReplicaSetCreateError"
    })
    .await;
    let condition = condition(api, &path, "Progressing");
    let text = condition[2].as_str().unwrap();
    assert!(text.starts_with("Failed to create new replica set \"w-"), "{text}");
    assert!(text.ends_with(&format!(": {REFUSED}")), "{text}");
    api.tells("ReplicaSetCreateError", text).await;
}

#[tokio::test]
async fn a_deployment_that_goes_on_says_so() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    deployment(api, 0);
    let path = format!("{DEPLOYMENTS}/w");
    api.patch(&path, &json!({ "spec": { "paused": true } }));
    says(api, &path, "Progressing", json!(["Unknown", "DeploymentPaused", "Deployment is paused"]))
        .await;
    api.refuse(Method::POST, "/replicasets");
    api.refuse(Method::PUT, "/replicasets");
    api.patch(&path, &json!({ "spec": { "paused": false } }));
    api.eventually("it is resumed", |api| {
        condition(api, &path, "Progressing")[1] != "DeploymentPaused"
    })
    .await;
}

#[tokio::test]
async fn pods_that_are_refused_are_a_condition_and_an_event() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    api.refuse(Method::POST, "/pods");
    deployment(api, 1);
    api.tells("FailedCreate", &format!("Error creating: {REFUSED}")).await;
    let failed = json!(["True", "FailedCreate", REFUSED]);
    api.eventually("the set is there", |api| !api.list(SETS).is_empty()).await;
    let set = format!("{SETS}/{}", name(&api.list(SETS)[0]));
    says(api, &set, "ReplicaFailure", failed.clone()).await;
    says(api, &format!("{DEPLOYMENTS}/w"), "ReplicaFailure", failed).await;
}

#[tokio::test]
async fn pods_that_stay_are_a_condition_and_an_event() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    replica_set(api, 1);
    api.eventually("a pod", |api| api.list(PODS).len() == 1).await;
    api.refuse(Method::DELETE, "/pods/");
    let path = format!("{SETS}/w");
    api.patch(&path, &json!({ "spec": { "replicas": 0 } }));
    api.tells("FailedDelete", &format!("Error deleting: {REFUSED}")).await;
    says(api, &path, "ReplicaFailure", json!(["True", "FailedDelete", REFUSED])).await;
}

#[tokio::test]
async fn a_selector_of_everything_is_told() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let all = json!({ "selector": {} });
    api.create(DEPLOYMENTS, workload(1, &all));
    let text = "This deployment is selecting all pods. A non-empty selector is required.";
    api.tells("SelectingAll", text).await;
    api.create(DAEMON_SETS, workload(1, &all));
    let text = "This daemon set is selecting all pods. A non-empty selector is required.";
    api.tells("SelectingAll", text).await;
    assert!(api.list(PODS).is_empty());
}

#[tokio::test]
async fn daemons_that_end_are_told_and_deleted() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    ready_node(api, "a");
    api.create(DAEMON_SETS, workload(1, &json!({})));
    api.eventually("a daemon", |api| !api.list(PODS).is_empty()).await;
    for (phase, reason, doing) in [
        ("Failed", "FailedDaemonPod", "failed daemon pod n/{} on node a, will try to kill it"),
        (
            "Succeeded",
            "SucceededDaemonPod",
            "succeeded daemon pod n/{} on node a, will try to delete it",
        ),
    ] {
        let is_new = |pod: &Value| pod["status"]["phase"].is_null();
        api.eventually("a new daemon", |api| api.list(PODS).iter().any(is_new)).await;
        let pod = name(api.list(PODS).iter().find(|pod| is_new(pod)).unwrap());
        let path = format!("{PODS}/{pod}");
        api.patch(&path, &json!({ "spec": { "nodeName": "a" }, "status": { "phase": phase } }));
        api.tells(reason, &format!("Found {}", doing.replace("{}", &pod))).await;
        api.eventually("it is gone", |api| api.get(&path).is_none()).await;
    }
}

#[tokio::test]
async fn pods_and_claims_of_a_stateful_set_are_told() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let more = json!({ "serviceName": "s", "volumeClaimTemplates": [{
        "metadata": { "name": "data" }, "spec": { "accessModes": ["ReadWriteOnce"] } }] });
    api.create(STATEFUL_SETS, workload(1, &more));
    api.tells("SuccessfulCreate", "create Claim data-w-0 Pod w-0 in StatefulSet w success").await;
    api.tells("SuccessfulCreate", "create Pod w-0 in StatefulSet w successful").await;
    let path = format!("{PODS}/w-0");
    let ready = json!([{ "type": "Ready", "status": "True" }]);
    api.patch(
        &path,
        &json!({ "metadata": { "labels": { "statefulset.kubernetes.io/pod-name": null } },
            "status": { "phase": "Running", "conditions": ready } }),
    );
    api.tells("SuccessfulUpdate", "update Pod w-0 in StatefulSet w successful").await;
    api.refuse(Method::DELETE, "/pods/");
    api.patch(&format!("{STATEFUL_SETS}/w"), &json!({ "spec": { "replicas": 0 } }));
    api.tells("FailedDelete", &format!("delete Pod w-0 in StatefulSet w failed error: {REFUSED}"))
        .await;
}

#[tokio::test]
async fn what_a_stateful_set_is_refused_is_told() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let more = json!({ "serviceName": "s", "volumeClaimTemplates": [{
        "metadata": { "name": "data" }, "spec": { "accessModes": ["ReadWriteOnce"] } }] });
    api.refuse(Method::POST, "/persistentvolumeclaims");
    api.create(STATEFUL_SETS, workload(1, &more));
    api.tells(
        "FailedCreate",
        &format!("create Claim data-w-0 for Pod w-0 in StatefulSet w failed error: {REFUSED}"),
    )
    .await;
    api.tells("FailedCreate", &format!("create Pod w-0 in StatefulSet w failed error: {REFUSED}"))
        .await;
}

#[tokio::test]
async fn a_claim_that_another_controller_has_is_told() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let other = json!([{ "apiVersion": "v1", "kind": "ConfigMap", "name": "m",
        "uid": api.create("/api/v1/namespaces/n/configmaps", json!({ "metadata": { "name": "m" } }))
            ["metadata"]["uid"], "controller": true }]);
    api.create(
        "/api/v1/namespaces/n/persistentvolumeclaims",
        json!({ "metadata": { "name": "data-w-0", "ownerReferences": other },
            "spec": { "accessModes": ["ReadWriteOnce"] } }),
    );
    let more = json!({ "serviceName": "s",
        "persistentVolumeClaimRetentionPolicy": { "whenDeleted": "Delete", "whenScaled": "Retain" },
        "volumeClaimTemplates": [{ "metadata": { "name": "data" },
            "spec": { "accessModes": ["ReadWriteOnce"] } }] });
    api.create(STATEFUL_SETS, workload(1, &more));
    let text = "PersistentVolumeClaim data-w-0 has a conflicting OwnerReference that acts as a \
                managing controller, the retention policy is ignored for this claim";
    api.tells("ConflictingController", text).await;
}

fn job(api: &MemoryApi, more: &Value) {
    let labels = json!({ "batch.kubernetes.io/controller-uid": "job" });
    let mut spec = json!({ "parallelism": 1, "completions": 1, "backoffLimit": 6,
        "completionMode": "NonIndexed", "selector": { "matchLabels": labels },
        "template": { "metadata": { "labels": labels },
            "spec": { "restartPolicy": "Never", "containers": [{ "name": "c" }] } } });
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    api.create(JOBS, json!({ "metadata": { "name": "j", "uid": "job" }, "spec": spec }));
}

#[tokio::test]
async fn a_job_tells_that_it_is_held_goes_on_and_is_complete() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    job(api, &json!({ "suspend": true }));
    let path = format!("{JOBS}/j");
    says(api, &path, "Suspended", json!(["True", "JobSuspended", "Job suspended"])).await;
    api.tells("Suspended", "Job suspended").await;
    api.patch(&path, &json!({ "spec": { "suspend": false } }));
    says(api, &path, "Suspended", json!(["False", "JobResumed", "Job resumed"])).await;
    api.tells("Resumed", "Job resumed").await;
    api.eventually("a pod", |api| !api.list(PODS).is_empty()).await;
    let pod = name(&api.list(PODS)[0]);
    api.patch(&format!("{PODS}/{pod}"), &json!({ "status": { "phase": "Succeeded" } }));
    let reached =
        json!(["True", "CompletionsReached", "Reached expected number of succeeded pods"]);
    says(api, &path, "Complete", reached.clone()).await;
    says(api, &path, "SuccessCriteriaMet", reached).await;
    api.tells("Completed", "Job completed").await;
    let mode = ("completion_mode", "NonIndexed");
    let ended = [mode, ("result", "succeeded"), ("reason", "CompletionsReached")];
    assert_eq!(running.metric("job_controller_jobs_finished_total", &ended), 1.0);
    assert_eq!(running.metric("job_controller_job_pods_finished_total", &ended[..2]), 1.0);
    let new = [("reason", "new"), ("status", "succeeded")];
    assert_eq!(running.metric("job_controller_job_pods_creation_total", &new), 1.0);
    let made = [mode, ("action", "pods_created"), ("result", "success")];
    assert_eq!(running.metric("job_controller_job_syncs_total", &made), 1.0);
    assert_eq!(running.metric("job_controller_job_sync_duration_seconds", &made), 1.0);
}

#[tokio::test]
async fn a_job_of_an_unknown_mode_is_left_alone_and_told() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    job(api, &json!({ "completionMode": "Sometimes" }));
    let text = "Skipped Job sync because completion mode is unknown";
    api.tells("UnknownCompletionMode", text).await;
    assert!(api.list(PODS).is_empty());
}

fn cron(api: &MemoryApi, policy: &str) {
    api.create(
        CRON_JOBS,
        json!({ "metadata": { "name": "c" }, "spec": { "schedule": "* * * * *",
            "concurrencyPolicy": policy, "successfulJobsHistoryLimit": 0,
            "jobTemplate": { "spec": { "suspend": true, "template": {} } } } }),
    );
}

#[tokio::test]
async fn runs_of_a_cron_job_are_told() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    cron(api, "Allow");
    api.eventually("a run", |api| !api.list(JOBS).is_empty()).await;
    let run = name(&api.list(JOBS)[0]);
    api.tells("SuccessfulCreate", &format!("Created job {run}")).await;
    let skew = "cronjob_controller_job_creation_skew_duration_seconds";
    assert_eq!(running.metric(skew, &[]), 1.0);
    let done = json!({ "status": { "conditions": [{ "type": "Complete", "status": "True" }],
        "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:01Z" } });
    api.patch(&format!("{JOBS}/{run}"), &done);
    api.tells("SawCompletedJob", &format!("Saw completed job: {run}, condition: Complete")).await;
    api.tells("SuccessfulDelete", &format!("Deleted job {run}")).await;
    api.patch(&format!("{CRON_JOBS}/c"), &json!({ "spec": { "schedule": "every day" } }));
    let text = "unparseable schedule for cronjob: every day";
    api.tells("UnParseableCronJobSchedule", text).await;
}

#[tokio::test]
async fn what_a_cron_job_is_refused_is_told() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    // One that runs and one that has ended: the first is to be replaced, the second to be deleted.
    let owner = json!([{ "apiVersion": "batch/v1", "kind": "CronJob", "name": "c", "uid": "cron",
        "controller": true }]);
    let done = json!({ "conditions": [{ "type": "Complete", "status": "True" }] });
    for (name, status) in [("runs", json!({})), ("done", done)] {
        api.create(
            JOBS,
            json!({ "metadata": { "name": name, "uid": name, "ownerReferences": owner },
                "spec": { "suspend": true }, "status": status }),
        );
    }
    api.refuse(Method::DELETE, "/jobs/");
    api.refuse(Method::GET, "/jobs/");
    let active = json!([{ "apiVersion": "batch/v1", "kind": "Job", "name": "runs", "uid": "runs",
        "namespace": "n" }]);
    api.create(
        CRON_JOBS,
        json!({ "metadata": { "name": "c", "uid": "cron" }, "spec": { "schedule": "* * * * *",
            "concurrencyPolicy": "Replace", "successfulJobsHistoryLimit": 0,
            "jobTemplate": { "spec": {} } }, "status": { "active": active } }),
    );
    api.tells("FailedDelete", &format!("Deleted job: {REFUSED}")).await;
    api.tells("FailedGet", &format!("Get job: {REFUSED}")).await;
}

#[tokio::test]
async fn a_run_that_is_refused_is_told() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    api.refuse(Method::POST, "/jobs");
    cron(api, "Allow");
    api.tells("FailedCreate", &format!("Error creating job: {REFUSED}")).await;
}

fn service(api: &MemoryApi, kind: &str) {
    let spec = json!({ "type": kind, "clusterIP": "10.96.0.9", "selector": { "app": "w" },
        "ipFamilies": ["IPv4"], "ports": [{ "port": 80, "protocol": "TCP" }] });
    api.create(SERVICES, json!({ "metadata": { "name": "s" }, "spec": spec }));
}

#[tokio::test]
async fn endpoints_that_cannot_be_made_are_told() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    api.refuse(Method::POST, "/endpoints");
    service(api, "ClusterIP");
    let text = format!("Failed to create endpoint for service n/s: {REFUSED}");
    api.tells("FailedToCreateEndpoint", &text).await;
    // The slices' path begins in the same way.
    let text = format!("Error updating Endpoint Slices for Service n/s: {REFUSED}");
    api.tells("FailedToUpdateEndpointSlices", &text).await;
}

#[tokio::test]
async fn endpoints_that_cannot_be_changed_are_told() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    service(api, "ClusterIP");
    let endpoints = "/api/v1/namespaces/n/endpoints/s";
    api.eventually("the endpoints", |api| api.get(endpoints).is_some()).await;
    api.eventually("a slice is counted", |_| {
        running.metric("endpoint_slice_controller_changes", &[("operation", "create")]) == 1.0
            && running.metric("endpoint_slice_controller_syncs", &[("result", "success")]) >= 1.0
    })
    .await;
    api.refuse(Method::PUT, "/endpoints/");
    api.create(
        PODS,
        json!({ "metadata": { "name": "p", "labels": { "app": "w" } }, "spec": {},
            "status": { "phase": "Running", "podIP": "10.1.0.1", "podIPs": [{ "ip": "10.1.0.1" }],
                "conditions": [{ "type": "Ready", "status": "True" }] } }),
    );
    let text = format!("Failed to update endpoint n/s: {REFUSED}");
    api.tells("FailedToUpdateEndpoint", &text).await;
}

#[tokio::test]
async fn a_balancer_that_cannot_be_written_is_told() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    addressed_node(api, "a", "192.0.2.1");
    api.refuse(Method::PATCH, "/services/s/status");
    service(api, "LoadBalancer");
    let why = format!("failed to update load balancer status: {REFUSED}");
    api.tells("SyncLoadBalancerFailed", &format!("Error syncing load balancer: {why}")).await;
}

/// A ready node with an address.
fn addressed_node(api: &MemoryApi, name: &str, address: &str) {
    api.create(
        "/api/v1/nodes",
        json!({ "metadata": { "name": name }, "status": {
            "addresses": [{ "type": "InternalIP", "address": address }],
            "conditions": [{ "type": "Ready", "status": "True" }] } }),
    );
}

#[tokio::test]
async fn a_balancer_tells_what_becomes_of_it() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    addressed_node(api, "a", "192.0.2.1");
    service(api, "LoadBalancer");
    api.tells("EnsuringLoadBalancer", "Ensuring load balancer").await;
    api.tells("EnsuredLoadBalancer", "Ensured load balancer").await;
    addressed_node(api, "b", "192.0.2.2");
    api.tells("UpdatedLoadBalancer", "Updated load balancer with new hosts").await;
    api.refuse(Method::PATCH, "/services/s/status");
    addressed_node(api, "c", "192.0.2.3");
    let text = format!(
        "Error updating load balancer with new hosts [a b c] [node names limited, total number of \
         nodes: 3], error: {REFUSED}"
    );
    api.tells("UpdateLoadBalancerFailed", &text).await;
    api.refuse_nothing();
    let unavailable =
        json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } });
    for name in ["a", "b", "c"] {
        api.patch(&format!("/api/v1/nodes/{name}"), &unavailable);
    }
    let text = "There are no available nodes for LoadBalancer";
    api.tells("UnAvailableLoadBalancer", text).await;
}

#[tokio::test]
async fn a_balancer_goes_with_its_service() {
    // One service is gone at once, the other one when somebody has let it go.
    for finalizers in [json!([]), json!(["test/hold"])] {
        let running = Running::start();
        let api = &running.api;
        namespace(api);
        addressed_node(api, "a", "192.0.2.1");
        service(api, "LoadBalancer");
        let path = format!("{SERVICES}/s");
        let is_held = finalizers != json!([]);
        api.patch(&path, &json!({ "metadata": { "finalizers": finalizers } }));
        api.tells("EnsuredLoadBalancer", "Ensured load balancer").await;
        api.delete(&path);
        api.tells("DeletingLoadBalancer", "Deleting load balancer").await;
        api.tells("DeletedLoadBalancer", "Deleted load balancer").await;
        if is_held {
            api.eventually("it has no address", |api| {
                let service = api.get(&path).unwrap();
                service["status"]["loadBalancer"]["ingress"].is_null()
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_range_whose_status_cannot_be_written_is_told() {
    let running = Running::start();
    let api = &running.api;
    api.refuse(Method::PATCH, "/servicecidrs/r/status");
    api.create(
        "/apis/networking.k8s.io/v1/servicecidrs",
        json!({ "metadata": { "name": "r" }, "spec": { "cidrs": ["10.9.0.0/24"] } }),
    );
    let text = "The ServiceCIDR Status can not be set to Ready=True";
    api.tells("KubernetesServiceCIDRError", text).await;
}

#[tokio::test]
async fn an_owner_of_another_namespace_is_told_and_does_not_count() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let owner =
        api.create("/api/v1/namespaces/other/configmaps", json!({ "metadata": { "name": "o" } }));
    let uid = owner["metadata"]["uid"].as_str().unwrap();
    let reference = json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": uid });
    api.create(
        "/api/v1/namespaces/n/configmaps",
        json!({ "metadata": { "name": "d", "ownerReferences": [reference] } }),
    );
    let text = format!(
        "ownerRef [v1/ConfigMap, namespace: n, name: o, uid: {uid}] does not exist in namespace \
         \"n\""
    );
    api.tells("OwnerRefInvalidNamespace", &text).await;
}

#[tokio::test]
async fn nodes_that_come_and_go_are_told_and_their_pods_are_evicted() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let node = ready_node(api, "a");
    api.tells("RegisteredNode", "Node a event: Registered Node a in Controller").await;
    let pod = json!({ "metadata": { "name": "p", "finalizers": ["test/kept"] },
        "spec": { "nodeName": "a" } });
    api.create(PODS, pod);
    assert!(node["spec"]["taints"].is_null());
    let taint = json!({ "spec": { "taints": [{ "key": "k", "effect": "NoExecute" }] } });
    api.patch("/api/v1/nodes/a", &taint);
    api.tells("TaintManagerEviction", "Marking for deletion Pod n/p").await;
    let text = "Taint manager: deleting due to NoExecute taint";
    let path = format!("{PODS}/p");
    says(api, &path, "DisruptionTarget", json!(["True", "DeletionByTaintManager", text])).await;
    api.eventually("it is being deleted", |api| {
        !api.get(&path).unwrap()["metadata"]["deletionTimestamp"].is_null()
    })
    .await;
    assert_eq!(running.metric("taint_eviction_controller_pod_deletions_total", &[]), 1.0);
    let late = "taint_eviction_controller_pod_deletion_duration_seconds";
    assert_eq!(running.metric(late, &[]), 1.0);
    api.delete("/api/v1/nodes/a");
    api.tells("RemovingNode", "Node a event: Removing Node a from Controller").await;
}

#[tokio::test]
async fn budgets_without_pods_and_pods_of_two_budgets_are_told() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let budgets = "/apis/policy/v1/namespaces/n/poddisruptionbudgets";
    for budget in ["a", "b"] {
        api.create(
            budgets,
            json!({ "metadata": { "name": budget }, "spec": { "maxUnavailable": 1,
                "selector": { "matchLabels": { "app": "w" } } } }),
        );
    }
    api.tells("NoPods", "No matching pods found").await;
    api.eventually("both are known", |api| {
        api.list(budgets).iter().all(|budget| budget["status"]["observedGeneration"] == 1)
    })
    .await;
    api.create(
        PODS,
        json!({ "metadata": { "name": "p", "labels": { "app": "w" } }, "spec": {},
        "status": { "phase": "Running" } }),
    );
    let told = |api: &MemoryApi| {
        ["a", "b"].iter().any(|chosen| {
            let text = format!(
                "Pod \"n\"/\"p\" matches multiple PodDisruptionBudgets.  Chose \"{chosen}\" \
                 arbitrarily."
            );
            api.has_told("MultiplePodDisruptionBudgets", &text)
        })
    };
    api.eventually("two budgets are told", told).await;
    let text = "Pods selected by this PodDisruptionBudget (selector: &LabelSelector{MatchLabels:\
                map[string]string{app: w,},MatchExpressions:[]LabelSelectorRequirement{},}) were \
                found to be unmanaged. As a result, the status of the PDB cannot be calculated \
                correctly, which may result in undefined behavior. To account for these pods \
                please set \".spec.minAvailable\" field of the PDB to an integer value.";
    api.tells("UnmanagedPods", text).await;
}
