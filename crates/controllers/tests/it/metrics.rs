//! What the controllers count.

use http::Method;
use prometheus::IntGauge;
use serde_json::{Value, json};

use crate::memory_api::MemoryApi;
use crate::workloads::{PODS, Running, name, namespace, ready_node};

/// The metrics of controllers that upstream's kube-controller-manager has, all of them. What belongs
/// to every component, such as `rest_client_*` and `leader_election_*`, is the binary's.
const UPSTREAMS: &str = include_str!("metrics.txt");

/// Those that are not here, and why.
const ABSENT: &[(&str, &str)] = &[(
    "node_collector_update_all_nodes_health_duration_seconds",
    "no pass looks at all nodes: each is looked at by itself",
)];

/// Whether something of this name is registered: nothing else can be then.
fn is_registered(registry: &telemetry::Registry, name: &str) -> bool {
    let probe = IntGauge::new(name, "A probe.").unwrap();
    let registered = registry.register(Box::new(probe.clone()));
    if registered.is_ok() {
        registry.unregister(Box::new(probe)).unwrap();
    }
    registered.is_err()
}

#[tokio::test]
async fn every_metric_of_upstreams_controllers_is_here_or_named_as_absent() {
    let running = Running::start();
    // Some of them register what they count when they begin.
    for controller in [
        "persistentvolume-attach-detach-controller",
        "resourceclaim-controller",
        "selinux-warning-controller",
    ] {
        counts(&running, "running_managed_controllers", &[("name", controller)], 1.0).await;
    }
    assert!(!is_registered(&running.metrics, "nobody_counts_this"));
    let names: Vec<_> = UPSTREAMS.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(names.len() > 70);
    let is_absent = |name: &str| ABSENT.iter().any(|(absent, _)| *absent == name);
    for name in &names {
        let is_here = is_registered(&running.metrics, name);
        assert_ne!(is_here, is_absent(name), "{name}");
    }
    for (name, _) in ABSENT {
        assert!(names.contains(name), "{name}");
    }
}

/// Waits until a metric has a value.
async fn counts(running: &Running, name: &str, labels: &[(&str, &str)], value: f64) {
    let what = format!("{name} {labels:?} is {value}");
    running.api.eventually(&what, |_| running.metric(name, labels) == value).await;
}

/// What the histogram's observations add up to.
fn sum(running: &Running, name: &str) -> f64 {
    let families = running.metrics.gather();
    let family = families.iter().find(|family| family.name() == name).unwrap();
    family.get_metric().iter().map(|metric| metric.get_histogram().get_sample_sum()).sum()
}

fn running_pod(name: &str, ip: &str) -> Value {
    json!({ "metadata": { "name": name, "labels": { "app": "w" } },
        "spec": { "nodeName": "node" },
        "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
            "conditions": [{ "type": "Ready", "status": "True" }] } })
}

#[tokio::test]
async fn slices_of_services_are_counted() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let services = "/api/v1/namespaces/n/services";
    api.create(
        services,
        json!({ "metadata": { "name": "s" }, "spec": { "selector": { "app": "w" },
            "trafficDistribution": "PreferClose", "clusterIP": "10.96.0.9",
            "ports": [{ "port": 80, "protocol": "TCP" }] } }),
    );
    ready_node(api, "node");
    let of = |rest: &str| format!("endpoint_slice_controller_{rest}");
    counts(&running, &of("num_endpoint_slices"), &[], 1.0).await;
    for (name, ip) in [("p", "10.1.0.1"), ("q", "10.1.0.2")] {
        api.create(PODS, running_pod(name, ip));
    }
    counts(&running, &of("endpoints_desired"), &[], 2.0).await;
    counts(&running, &of("desired_endpoint_slices"), &[], 1.0).await;
    let close = [("traffic_distribution", "PreferClose")];
    counts(&running, &of("services_count_by_traffic_distribution"), &close, 1.0).await;
    api.eventually("slices have the pods", |_| {
        running.metric(&of("changes"), &[("operation", "create")]) >= 2.0
    })
    .await;
    assert!(sum(&running, &of("endpoints_added_per_sync")) >= 2.0);
    let changed = [("topology", "Disabled"), close[0]];
    assert!(running.metric(&of("endpointslices_changed_per_sync"), &changed) >= 2.0);
    api.delete(&format!("{PODS}/q"));
    counts(&running, &of("endpoints_desired"), &[], 1.0).await;
    assert_eq!(sum(&running, &of("endpoints_removed_per_sync")), 1.0);
    api.delete(&format!("{services}/s"));
    for rest in ["endpoints_desired", "num_endpoint_slices", "desired_endpoint_slices"] {
        counts(&running, &of(rest), &[], 0.0).await;
    }
    counts(&running, &of("services_count_by_traffic_distribution"), &close, 0.0).await;
}

#[tokio::test]
async fn mirrored_slices_are_counted_and_what_is_left_out_is_told() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    api.create(
        "/api/v1/namespaces/n/services",
        json!({ "metadata": { "name": "s" }, "spec": { "ports": [{ "port": 80 }] } }),
    );
    let endpoints = "/api/v1/namespaces/n/endpoints";
    let address = |at: usize| json!({ "ip": format!("192.0.{}.{}", at / 250, at % 250 + 1) });
    let subset = |count: usize| {
        let addresses: Vec<_> = (0..count).map(address).collect();
        json!([{ "addresses": addresses, "ports": [{ "port": 80, "protocol": "TCP" }] }])
    };
    api.create(endpoints, json!({ "metadata": { "name": "s" }, "subsets": subset(1003) }));
    let text = "A max of 1000 addresses can be mirrored to EndpointSlices per Endpoints subset. 3 \
                addresses were skipped";
    api.tells("TooManyAddressesToMirror", text).await;
    let of = |rest: &str| format!("endpoint_slice_mirroring_controller_{rest}");
    counts(&running, &of("endpoints_desired"), &[], 1000.0).await;
    counts(&running, &of("num_endpoint_slices"), &[], 10.0).await;
    counts(&running, &of("desired_endpoint_slices"), &[], 10.0).await;
    counts(&running, &of("changes"), &[("operation", "create")], 10.0).await;
    assert!(sum(&running, &of("addresses_skipped_per_sync")) >= 3.0);
    assert!(sum(&running, &of("endpoints_added_per_sync")) >= 1000.0);
    assert!(running.metric(&of("endpoints_sync_duration"), &[]) >= 1.0);
    let mut named = subset(1);
    named[0]["addresses"][0]["hostname"] = "a".into();
    api.patch(&format!("{endpoints}/s"), &json!({ "subsets": named }));
    counts(&running, &of("endpoints_desired"), &[], 1.0).await;
    assert!(sum(&running, &of("endpoints_removed_per_sync")) >= 999.0);
    assert_eq!(sum(&running, &of("endpoints_updated_per_sync")), 1.0);
    api.delete(&format!("{endpoints}/s"));
    counts(&running, &of("endpoints_desired"), &[], 0.0).await;
    counts(&running, &of("num_endpoint_slices"), &[], 0.0).await;
}

fn job(api: &MemoryApi, more: &Value) {
    let labels = json!({ "batch.kubernetes.io/controller-uid": "job" });
    let mut spec = json!({ "parallelism": 2, "completions": 2, "backoffLimit": 6,
        "completionMode": "Indexed", "selector": { "matchLabels": labels },
        "template": { "metadata": { "labels": labels },
            "spec": { "restartPolicy": "Never", "containers": [{ "name": "c" }] } } });
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    let job = json!({ "metadata": { "name": "j", "uid": "job" }, "spec": spec });
    api.create("/apis/batch/v1/namespaces/n/jobs", job);
}

#[tokio::test]
async fn indexes_and_failures_of_jobs_are_counted() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let rule = json!({ "action": "FailIndex",
        "onExitCodes": { "operator": "In", "values": [7] } });
    job(api, &json!({ "backoffLimitPerIndex": 1, "podFailurePolicy": { "rules": [rule] } }));
    api.eventually("its pods", |api| api.list(PODS).len() == 2).await;
    for pod in api.list(PODS) {
        let index = &pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"];
        let (phase, code) = if index == "0" { ("Succeeded", 0) } else { ("Failed", 7) };
        let ended = json!({ "name": "c", "ready": false, "restartCount": 0, "image": "",
            "imageID": "", "state": { "terminated": { "exitCode": code } } });
        let status = json!({ "phase": phase, "containerStatuses": [ended] });
        api.patch(&format!("{PODS}/{}", name(&pod)), &json!({ "status": status }));
    }
    let of = |rest: &str| format!("job_controller_{rest}");
    let limit = ("backoffLimit", "perIndex");
    for status in ["succeeded", "failed"] {
        let labels = [limit, ("status", status)];
        counts(&running, &of("job_finished_indexes_total"), &labels, 1.0).await;
    }
    let policy = of("pod_failures_handled_by_failure_policy_total");
    counts(&running, &policy, &[("action", "FailIndex")], 1.0).await;
    for event in ["add", "delete"] {
        let held = of("terminated_pods_tracking_finalizer_total");
        counts(&running, &held, &[("event", event)], 2.0).await;
    }
}

#[tokio::test]
async fn a_job_that_counts_failures_together_counts_its_indexes_so() {
    let running = Running::start();
    namespace(&running.api);
    job(&running.api, &json!({}));
    running.api.eventually("its pods", |api| api.list(PODS).len() == 2).await;
    for pod in running.api.list(PODS) {
        let done = json!({ "status": { "phase": "Succeeded" } });
        running.api.patch(&format!("{PODS}/{}", name(&pod)), &done);
    }
    let labels = [("backoffLimit", "global"), ("status", "succeeded")];
    counts(&running, "job_controller_job_finished_indexes_total", &labels, 2.0).await;
}

#[tokio::test]
async fn how_many_pods_a_stateful_set_may_miss_and_does_is_counted() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let labels = json!({ "app": "web" });
    let rolling = json!({ "partition": 0, "maxUnavailable": "50%" });
    api.create(
        "/apis/apps/v1/namespaces/n/statefulsets",
        json!({ "metadata": { "name": "web" }, "spec": { "replicas": 4, "serviceName": "svc",
            "podManagementPolicy": "Parallel", "selector": { "matchLabels": labels },
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": rolling },
            "template": { "metadata": { "labels": labels },
                "spec": { "containers": [{ "name": "c", "image": "one" }] } } } }),
    );
    let of = |rest: &str| format!("statefulset_controller_statefulset_{rest}");
    let labels = [("pod_management_policy", "Parallel"), ("statefulset_name", "web")];
    counts(&running, &of("max_unavailable"), &labels, 2.0).await;
    counts(&running, &of("unavailable_replicas"), &labels, 4.0).await;
    api.eventually("its pods", |api| api.list(PODS).len() == 4).await;
    for pod in &api.list(PODS)[..3] {
        let ready = json!({ "status": { "phase": "Running",
            "conditions": [{ "type": "Ready", "status": "True" }] } });
        api.patch(&format!("{PODS}/{}", name(pod)), &ready);
    }
    counts(&running, &of("unavailable_replicas"), &labels, 1.0).await;
    api.delete("/apis/apps/v1/namespaces/n/statefulsets/web");
    counts(&running, &of("max_unavailable"), &labels, 0.0).await;
}

#[tokio::test]
async fn ages_of_pods_that_a_set_gives_up_are_counted() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let sets = "/apis/apps/v1/namespaces/n/replicasets";
    let labels = json!({ "app": "w" });
    api.create(
        sets,
        json!({ "metadata": { "name": "r" }, "spec": { "replicas": 2,
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels },
                "spec": { "containers": [{ "name": "c" }] } } } }),
    );
    api.eventually("its pods", |api| api.list(PODS).len() == 2).await;
    for pod in api.list(PODS) {
        let ready = json!({ "status": { "phase": "Running",
            "conditions": [{ "type": "Ready", "status": "True" }] } });
        api.patch(&format!("{PODS}/{}", name(&pod)), &ready);
    }
    let set = format!("{sets}/r");
    api.eventually("both are ready", |api| api.get(&set).unwrap()["status"]["readyReplicas"] == 2)
        .await;
    api.patch(&set, &json!({ "spec": { "replicas": 1 } }));
    // Both are as old as the API in memory makes them.
    let ratio = "replicaset_controller_sorting_deletion_age_ratio";
    counts(&running, ratio, &[], 1.0).await;
    assert_eq!(sum(&running, ratio), 1.0);
}

#[tokio::test]
async fn looks_at_nodes_and_the_ranges_that_they_are_given_are_counted() {
    let running = Running::start();
    let nodes = "/api/v1/nodes";
    running.api.create(nodes, json!({ "metadata": { "name": "a" }, "spec": {} }));
    let range = [("clusterCIDR", "10.42.0.0/16")];
    let of = |rest: &str| format!("node_ipam_controller_{rest}");
    counts(&running, &of("cidrset_cidrs_allocations_total"), &range, 1.0).await;
    counts(&running, &of("cirdset_max_cidrs"), &range, 256.0).await;
    counts(&running, &of("cidrset_usage_cidrs"), &range, 1.0 / 256.0).await;
    counts(&running, &of("cidrset_allocation_tries_per_request"), &range, 1.0).await;
    let looks = "node_collector_update_node_health_duration_seconds";
    running.api.eventually("it is looked at", |_| running.metric(looks, &[]) >= 1.0).await;
    running.api.delete(&format!("{nodes}/a"));
    counts(&running, &of("cidrset_cidrs_releases_total"), &range, 1.0).await;
    counts(&running, &of("cidrset_usage_cidrs"), &range, 0.0).await;
}

#[tokio::test]
async fn failures_to_learn_of_resources_are_counted() {
    let api = MemoryApi::default();
    api.refuse(Method::GET, "/apis");
    let running = Running::start_on(api);
    let errors = "garbagecollector_controller_resources_sync_error_total";
    running.api.eventually("one is counted", |_| running.metric(errors, &[]) >= 1.0).await;
}

fn class(api: &MemoryApi, name: &str, provisioner: &str, default: &str) {
    api.create(
        "/apis/storage.k8s.io/v1/storageclasses",
        json!({ "metadata": { "name": name, "annotations": {
                "storageclass.kubernetes.io/is-default-class": default } },
            "provisioner": provisioner, "volumeBindingMode": "Immediate" }),
    );
}

const CLAIMS: &str = "/api/v1/namespaces/n/persistentvolumeclaims";
const VOLUMES: &str = "/api/v1/persistentvolumes";

fn claim(api: &MemoryApi, name: &str, class: Value) {
    let size = json!({ "requests": { "storage": "1Gi" } });
    let mut spec = json!({ "accessModes": ["ReadWriteOnce"], "resources": size });
    if !class.is_null() {
        spec["storageClassName"] = class;
    }
    api.create(CLAIMS, json!({ "metadata": { "name": name }, "spec": spec }));
}

#[tokio::test]
async fn claims_that_get_their_class_later_are_counted() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    claim(api, "c", Value::Null);
    let pending =
        |api: &MemoryApi| api.get(&format!("{CLAIMS}/c")).unwrap()["status"]["phase"] == "Pending";
    api.eventually("it waits", pending).await;
    api.refuse(Method::PUT, "/persistentvolumeclaims/c");
    api.refuse(Method::PATCH, "/persistentvolumeclaims/c");
    class(api, "default", "driver.example.com", "true");
    let failed = "retroactive_storageclass_errors_total";
    api.eventually("it cannot be", |_| running.metric(failed, &[]) >= 1.0).await;
    api.refuse_nothing();
    counts(&running, "retroactive_storageclass_total", &[], 1.0).await;
}

#[tokio::test]
async fn what_provisioners_do_is_timed_and_what_none_does_is_counted() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    class(api, "gold", "driver.example.com", "false");
    claim(api, "c", json!("gold"));
    api.eventually("the driver is asked", |api| {
        let claim = api.get(&format!("{CLAIMS}/c")).unwrap();
        let by = &claim["metadata"]["annotations"]["volume.kubernetes.io/storage-provisioner"];
        by == "driver.example.com"
    })
    .await;
    let volume = |name: &str, annotations: Value| {
        json!({ "metadata": { "name": name, "annotations": annotations }, "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "1Gi" },
            "storageClassName": "gold", "persistentVolumeReclaimPolicy": "Delete",
            "csi": { "driver": "driver.example.com", "volumeHandle": name } } })
    };
    let by = json!({ "pv.kubernetes.io/provisioned-by": "driver.example.com" });
    api.create(VOLUMES, volume("v", by));
    let seconds = "volume_operation_total_seconds";
    let of = |operation| [("operation_name", operation), ("plugin_name", "driver.example.com")];
    counts(&running, seconds, &of("provision"), 1.0).await;
    api.delete(&format!("{CLAIMS}/c"));
    let phase = |api: &MemoryApi, name: &str| {
        api.get(&format!("{VOLUMES}/{name}")).unwrap()["status"]["phase"].clone()
    };
    api.eventually("it is released", |api| phase(api, "v") == "Released").await;
    assert_eq!(running.metric(seconds, &of("delete")), 0.0);
    api.patch(&format!("{VOLUMES}/v"), &json!({ "metadata": { "finalizers": null } }));
    api.delete(&format!("{VOLUMES}/v"));
    counts(&running, seconds, &of("delete"), 1.0).await;

    claim(api, "d", json!("gold"));
    let mut directory = volume("w", json!({}));
    directory["spec"]["csi"] = Value::Null;
    directory["spec"]["hostPath"] = json!({ "path": "/x" });
    api.create(VOLUMES, directory);
    api.eventually("the other is bound", |api| phase(api, "w") == "Bound").await;
    api.delete(&format!("{CLAIMS}/d"));
    api.eventually("it cannot be deleted", |api| phase(api, "w") == "Failed").await;
    let here = [("operation_name", "delete"), ("plugin_name", "kubernetes.io/host-path")];
    for errors in ["volume_operation_errors_total", "volume_operation_total_errors"] {
        counts(&running, errors, &here, 1.0).await;
    }
}

const ATTACHMENTS: &str = "/apis/storage.k8s.io/v1/volumeattachments";

/// A pod on a node whose volumes are attached by controllers, with one of a driver.
fn mount(api: &MemoryApi) {
    let managed = json!({ "volumes.kubernetes.io/controller-managed-attach-detach": "true" });
    api.create(
        "/api/v1/nodes",
        json!({ "metadata": { "name": "a", "annotations": managed },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }] } }),
    );
    api.create(
        VOLUMES,
        json!({ "metadata": { "name": "v" }, "spec": { "accessModes": ["ReadWriteOnce"],
            "capacity": { "storage": "1Gi" },
            "csi": { "driver": "csi.example.com", "volumeHandle": "h" } } }),
    );
    claim(api, "c", json!(""));
    let mounted = json!({ "name": "v", "persistentVolumeClaim": { "claimName": "c" } });
    api.create(
        PODS,
        json!({ "metadata": { "name": "p" }, "spec": { "nodeName": "a", "containers": [],
            "volumes": [mounted] } }),
    );
}

/// How often what is done about it was timed.
fn timed(running: &Running, operation: &str, status: &str) -> f64 {
    let labels = [
        ("volume_plugin", "kubernetes.io/csi:csi.example.com"),
        ("operation_name", operation),
        ("status", status),
        ("migrated", "false"),
    ];
    running.metric("storage_operation_duration_seconds", &labels)
}

#[tokio::test]
async fn volumes_that_nodes_use_and_have_are_counted() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    mount(api);
    let plugin = "kubernetes.io/csi:csi.example.com";
    let in_use = [("node", "a"), ("volume_plugin", plugin)];
    counts(&running, "storage_count_attachable_volumes_in_use", &in_use, 1.0).await;
    let total = "attachdetach_controller_total_volumes";
    let of = |state| [("plugin_name", plugin), ("state", state)];
    counts(&running, total, &of("desired_state_of_world"), 1.0).await;
    assert_eq!(running.metric(total, &of("actual_state_of_world")), 0.0);
    api.eventually("it is to be attached", |api| !api.list(ATTACHMENTS).is_empty()).await;
    let attachment = name(&api.list(ATTACHMENTS)[0]);
    let attached = json!({ "status": { "attached": true } });
    api.patch(&format!("{ATTACHMENTS}/{attachment}"), &attached);
    counts(&running, total, &of("actual_state_of_world"), 1.0).await;
    api.delete(&format!("{PODS}/p"));
    counts(&running, total, &of("desired_state_of_world"), 0.0).await;
    counts(&running, "storage_count_attachable_volumes_in_use", &in_use, 0.0).await;
}

#[tokio::test]
async fn what_attachers_do_is_timed() {
    let running = Running::start_timed();
    let api = &running.api;
    namespace(api);
    let timed = |operation: &str, status: &str| timed(&running, operation, status);
    api.refuse(Method::POST, ATTACHMENTS);
    mount(api);
    api.eventually("it is refused", |_| timed("volume_attach", "fail-unknown") >= 1.0).await;
    api.refuse_nothing();
    api.eventually("it is to be attached", |api| !api.list(ATTACHMENTS).is_empty()).await;
    let refused = timed("volume_attach", "fail-unknown");
    let path = format!("{ATTACHMENTS}/{}", name(&api.list(ATTACHMENTS)[0]));
    let error = json!({ "attachError": { "message": "no" }, "attached": false });
    api.patch(&path, &json!({ "status": error }));
    api.eventually("it fails", |_| timed("volume_attach", "fail-unknown") == refused + 1.0).await;
    assert_eq!(timed("volume_attach", "success"), 0.0);
    api.patch(&path, &json!({ "status": { "attachError": null, "attached": true } }));
    api.eventually("it is attached", |_| timed("volume_attach", "success") == 1.0).await;
    // The driver's attacher keeps it until it is detached.
    api.patch(&path, &json!({ "metadata": { "finalizers": ["external-attacher"] } }));
    api.delete(&format!("{PODS}/p"));
    api.eventually("it is to be detached", |api| {
        !api.get(&path).unwrap()["metadata"]["deletionTimestamp"].is_null()
    })
    .await;
    api.patch(&path, &json!({ "status": { "detachError": { "message": "no" } } }));
    api.eventually("it fails", |_| timed("volume_detach", "fail-unknown") == 1.0).await;
    api.patch(&path, &json!({ "metadata": { "finalizers": null } }));
    api.eventually("it is detached", |_| timed("volume_detach", "success") == 1.0).await;
    assert_eq!(timed("volume_attach", "success"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn an_attachment_that_does_not_come_is_timed_every_two_minutes() {
    let running = Running::start_timed();
    let api = &running.api;
    namespace(api);
    mount(api);
    api.eventually("it is to be attached", |api| !api.list(ATTACHMENTS).is_empty()).await;
    let after = async |seconds: u64| {
        tokio::time::sleep(std::time::Duration::from_secs(seconds)).await;
        let labels = json!({ "metadata": { "labels": { "at": seconds.to_string() } } });
        api.patch(&format!("{VOLUMES}/v"), &labels);
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        timed(&running, "volume_attach", "fail-unknown")
    };
    assert_eq!(after(100).await, 0.0);
    assert_eq!(after(30).await, 1.0);
    assert_eq!(after(20).await, 1.0, "it is waited for anew");
    assert_eq!(after(120).await, 2.0);
    assert_eq!(sum(&running, "storage_operation_duration_seconds").floor(), 240.0);
}

#[tokio::test]
async fn claims_for_devices_are_counted_by_what_made_them() {
    let running = Running::start();
    namespace(&running.api);
    let claims = "/apis/resource.k8s.io/v1/namespaces/n/resourceclaims";
    running.api.create(claims, json!({ "metadata": { "name": "c" }, "spec": {} }));
    let labels = [("allocated", "false"), ("admin_access", "false"), ("source", "")];
    counts(&running, "resourceclaim_controller_resource_claims", &labels, 1.0).await;
    running.api.delete(&format!("{claims}/c"));
    counts(&running, "resourceclaim_controller_resource_claims", &labels, 0.0).await;
}
