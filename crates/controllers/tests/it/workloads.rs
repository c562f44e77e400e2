//! What the controllers make of workloads, services and namespaces.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::{Value, json};
use stdx::shutdown::Shutdown;

use crate::memory_api::MemoryApi;
use crate::memory_directories::MemoryDirectories;

/// Controllers at work; they end with the test.
pub(crate) struct Running {
    pub(crate) api: MemoryApi,
    pub(crate) directories: MemoryDirectories,
    pub(crate) metrics: telemetry::Registry,
    shutdown: Shutdown,
}

/// The first of January 2026, and what passed of tokio's time since it was made.
struct TokiosClock(tokio::time::Instant);

impl clock::Clock for TokiosClock {
    fn now(&self) -> jiff::Timestamp {
        let start: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        start + self.0.elapsed()
    }

    fn monotonic(&self) -> std::time::Instant {
        tokio::time::Instant::now().into_std()
    }

    fn sleep(&self, duration: std::time::Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

impl Running {
    pub(crate) fn start() -> Self {
        Self::start_on(MemoryApi::default())
    }

    pub(crate) fn start_on(api: MemoryApi) -> Self {
        Self::start_configured_on(api, |_| {})
    }

    /// With no gates open but upstream's.
    pub(crate) fn start_ungated(api: MemoryApi) -> Self {
        Self::start_configured_on(api, |config| config.features = features::Features::default())
    }

    /// With a clock that passes with tokio's, which a test pauses.
    pub(crate) fn start_timed() -> Self {
        Self::start_timed_with(|_| {})
    }

    /// With such a clock, and what the test configures.
    pub(crate) fn start_timed_with(change: impl FnOnce(&mut controllers::Config)) -> Self {
        let clock = Arc::new(TokiosClock(tokio::time::Instant::now()));
        Self::start_all(MemoryApi::default(), clock, change)
    }

    /// With other times of nodes.
    pub(crate) fn start_with(nodes: controllers::NodeHealth) -> Self {
        Self::start_configured(|config| config.nodes = nodes)
    }

    /// With what the test configures.
    pub(crate) fn start_configured(change: impl FnOnce(&mut controllers::Config)) -> Self {
        Self::start_configured_on(MemoryApi::default(), change)
    }

    /// The same on an API.
    pub(crate) fn start_configured_on(
        api: MemoryApi,
        change: impl FnOnce(&mut controllers::Config),
    ) -> Self {
        Self::start_all(api, Arc::new(clock::SystemClock), change)
    }

    fn start_all(
        api: MemoryApi,
        clock: clock::SharedClock,
        change: impl FnOnce(&mut controllers::Config),
    ) -> Self {
        let mut config = config();
        change(&mut config);
        let shutdown = Shutdown::new();
        let directories = MemoryDirectories::default();
        let deps = deps(&api, &directories, clock);
        let metrics = deps.metrics.clone();
        let (ready, _) = stdx::ready::signal();
        let run = controllers::run(config, deps, ready, shutdown.clone());
        drop(stdx::task::spawn("controllers", run));
        Self { api, directories, metrics, shutdown }
    }

    /// A number of a metric: of a counter or gauge its value, of a histogram how often.
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let families = self.metrics.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.into_iter().flat_map(|family| family.get_metric());
        let fits = |metric: &&prometheus::proto::Metric| {
            labels.iter().all(|(label, value)| {
                metric
                    .get_label()
                    .iter()
                    .any(|pair| pair.name() == *label && pair.value() == *value)
            })
        };
        metrics
            .filter(fits)
            .map(|metric| {
                let times = metric.get_histogram().get_sample_count();
                metric.get_counter().get_value()
                    + metric.get_gauge().get_value()
                    + f64::from(u32::try_from(times).unwrap())
            })
            .sum()
    }
}

/// All controllers on an API.
pub(crate) fn manage(
    api: &MemoryApi,
    shutdown: Shutdown,
) -> BoxFuture<'static, Result<(), controllers::RunError>> {
    let deps = deps(api, &MemoryDirectories::default(), Arc::new(clock::SystemClock));
    let (ready, _) = stdx::ready::signal();
    controllers::run(config(), deps, ready, shutdown)
}

fn deps(
    api: &MemoryApi,
    directories: &MemoryDirectories,
    clock: clock::SharedClock,
) -> controllers::Deps {
    let client = api.client();
    controllers::Deps {
        client: client.clone(),
        client_for: Arc::new(move |_| client.clone()),
        sign_token: Some(Arc::new(|subject| Ok(format!("token of {}", subject.account_uid)))),
        directories: Arc::new(directories.clone()),
        clock,
        metrics: telemetry::Registry::new(),
    }
}

fn config() -> controllers::Config {
    controllers::Config {
        controllers: [
            "*",
            "bootstrap-signer-controller",
            "selinux-warning-controller",
            "token-cleaner-controller",
        ]
        .map(str::to_owned)
        .to_vec(),
        cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap()],
        node_cidr_mask_size_v4: 24,
        node_cidr_mask_size_v6: 64,
        root_ca: "PEM".to_owned(),
        signing: None,
        unused_tokens: jiff::SignedDuration::from_hours(24),
        force_detach_on_timeout: true,
        volumes: controllers::VolumeSettings::default(),
        nodes: controllers::NodeHealth::default(),
        features: features::Features::parse(&[GATES]).unwrap(),
    }
}

/// What is off by default and has a controller.
const GATES: &str = "DRADeviceTaintRules=true,ClusterTrustBundle=true,GenericWorkload=true,\
                     PodCertificateRequest=true,StorageVersionMigrator=true,\
                     MaxUnavailableStatefulSet=true,StorageVersionAPI=true,\
                     DRAResourcePoolStatus=true,PersistentVolumeClaimUnusedSinceTime=true,\
                     HPAScaleToZero=true";

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/n/deployments";
const SETS: &str = "/apis/apps/v1/namespaces/n/replicasets";
pub(crate) const PODS: &str = "/api/v1/namespaces/n/pods";

pub(crate) fn namespace(api: &MemoryApi) {
    api.create(
        "/api/v1/namespaces",
        json!({ "metadata": { "name": "n" }, "spec": { "finalizers": ["kubernetes"] } }),
    );
}

/// A node that is ready: one that is not is tainted.
pub(crate) fn ready_node(api: &MemoryApi, name: &str) -> Value {
    let ready = json!({ "conditions": [{ "type": "Ready", "status": "True" }] });
    api.create("/api/v1/nodes", json!({ "metadata": { "name": name }, "status": ready }))
}

fn deployment(api: &MemoryApi, replicas: i32) {
    api.create(
        DEPLOYMENTS,
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": "web" },
            "spec": { "replicas": replicas, "selector": { "matchLabels": { "app": "web" } },
                "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10,
                "strategy": { "type": "RollingUpdate",
                    "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } },
                "template": { "metadata": { "labels": { "app": "web" } },
                    "spec": { "containers": [{ "name": "c", "image": "one" }] } } },
        }),
    );
}

pub(crate) fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}

/// Plays the kubelet: every pod runs, with an address of its own.
fn run_pods(api: &MemoryApi) {
    for (at, pod) in api.list(PODS).iter().enumerate() {
        if pod["metadata"]["deletionTimestamp"].is_null() && pod["status"]["phase"].is_null() {
            let ip = format!("10.1.0.{}", at + 1);
            let status = json!({ "status": { "phase": "Running", "podIP": ip,
                "podIPs": [{ "ip": ip }],
                "conditions": [{ "type": "Ready", "status": "True" }] } });
            api.patch(&format!("{PODS}/{}", name(pod)), &status);
        }
    }
}

async fn complete(api: &MemoryApi, replicas: i32) {
    api.eventually("the deployment is complete", |api| {
        run_pods(api);
        let status = &api.get(&format!("{DEPLOYMENTS}/web")).unwrap()["status"];
        let reasons = status["conditions"].as_array().cloned().unwrap_or_default();
        status["availableReplicas"] == replicas
            && status["updatedReplicas"] == replicas
            && status["replicas"] == replicas
            && reasons.iter().any(|c| c["reason"] == "NewReplicaSetAvailable")
    })
    .await;
}

#[tokio::test]
async fn a_namespace_gets_what_pods_in_it_need() {
    let running = Running::start();
    namespace(&running.api);
    running
        .api
        .eventually("service account and root CA", |api| {
            let map = api.get("/api/v1/namespaces/n/configmaps/kube-root-ca.crt");
            map.is_some_and(|map| map["data"]["ca.crt"] == "PEM")
                && api.get("/api/v1/namespaces/n/serviceaccounts/default").is_some()
        })
        .await;
}

#[tokio::test]
async fn a_deployment_goes_back_where_an_annotation_asks_for_it() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    deployment(api, 1);
    complete(api, 1).await;
    let image = |image: &str| {
        json!({ "spec": { "template": { "spec": {
            "containers": [{ "name": "c", "image": image }] } } } })
    };
    let path = format!("{DEPLOYMENTS}/web");
    api.patch(&path, &image("two"));
    let is_running = |api: &MemoryApi, image: &str| {
        run_pods(api);
        let pods = api.list(PODS);
        pods.len() == 1 && pods[0]["spec"]["containers"][0]["image"] == image
    };
    api.eventually("the second image runs", |api| is_running(api, "two")).await;
    let key = "deprecated.deployment.rollback.to";
    let go_back = |to: &str| json!({ "metadata": { "annotations": { key: to } } });
    api.patch(&path, &go_back("0"));
    api.eventually("the first image runs again", |api| is_running(api, "one")).await;
    api.patch(&path, &go_back("3"));
    let text = "The rollback revision contains the same template as current deployment \"web\"";
    api.tells("DeploymentRollbackTemplateUnchanged", text).await;
    api.patch(&path, &go_back("77"));
    api.eventually("what cannot be is told", |api| {
        let has = |reason: &str, text: &str| {
            api.list("/api/v1/events")
                .iter()
                .any(|event| event["reason"] == reason && event["message"] == text)
        };
        let lost = "Unable to find the revision to rollback to.";
        has("DeploymentRollback", "Rolled back deployment \"web\" to revision 1")
            && has("DeploymentRollbackRevisionNotFound", lost)
            && api.get(&path).unwrap()["metadata"]["annotations"][key].is_null()
    })
    .await;
}

#[tokio::test]
async fn a_deployment_is_rolled_out_and_over_and_collected() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    deployment(api, 3);
    complete(api, 3).await;
    let first = name(&api.list(SETS)[0]);
    assert_eq!(api.list(PODS).len(), 3);
    let image = json!({ "spec": { "template": { "spec": {
        "containers": [{ "name": "c", "image": "two" }] } } } });
    api.patch(&format!("{DEPLOYMENTS}/web"), &image);
    api.eventually("the new template is everywhere", |api| {
        run_pods(api);
        let pods = api.list(PODS);
        pods.len() == 3 && pods.iter().all(|pod| pod["spec"]["containers"][0]["image"] == "two")
    })
    .await;
    complete(api, 3).await;
    let old = api.get(&format!("{SETS}/{first}")).unwrap();
    assert_eq!(old["spec"]["replicas"], 0);
    let annotations = &api.get(&format!("{DEPLOYMENTS}/web")).unwrap()["metadata"]["annotations"];
    assert_eq!(annotations["deployment.kubernetes.io/revision"], "2");
    api.delete(&format!("{DEPLOYMENTS}/web"));
    api.eventually("everything it owned is gone", |api| {
        api.list(SETS).is_empty() && api.list(PODS).is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_deleted_pod_is_replaced() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    deployment(api, 2);
    complete(api, 2).await;
    let victim = name(&api.list(PODS)[0]);
    api.delete(&format!("{PODS}/{victim}"));
    api.eventually("another pod", |api| {
        let pods = api.list(PODS);
        pods.len() == 2 && pods.iter().all(|pod| name(pod) != victim)
    })
    .await;
}

#[tokio::test]
async fn a_service_with_a_balancer_gets_addresses_and_is_told() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    api.create(
        "/api/v1/nodes",
        json!({ "metadata": { "name": "a" }, "status": {
            "conditions": [{ "type": "Ready", "status": "True" }],
            "addresses": [{ "type": "InternalIP", "address": "192.0.2.1" }] } }),
    );
    let services = "/api/v1/namespaces/n/services";
    api.create(
        services,
        json!({ "metadata": { "name": "s" },
            "spec": { "type": "LoadBalancer", "ipFamilies": ["IPv4"] } }),
    );
    let told = |api: &MemoryApi, reason: &str| {
        api.list("/api/v1/events").iter().any(|event| event["reason"] == reason)
    };
    api.eventually("the address of the node", |api| {
        let service = api.get(&format!("{services}/s")).unwrap();
        service["status"]["loadBalancer"]["ingress"][0]["ip"] == "192.0.2.1"
            && told(api, "EnsuredLoadBalancer")
    })
    .await;
    api.patch(&format!("{services}/s"), &json!({ "spec": { "type": "ClusterIP" } }));
    api.eventually("it has none any more", |api| {
        let service = api.get(&format!("{services}/s")).unwrap();
        service["status"]["loadBalancer"]["ingress"].is_null() && told(api, "DeletedLoadBalancer")
    })
    .await;
}

#[tokio::test]
async fn ready_pods_become_endpoints() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    api.create(
        "/api/v1/namespaces/n/services",
        json!({ "metadata": { "name": "svc" }, "spec": { "clusterIP": "10.0.0.1",
            "ipFamilies": ["IPv4"], "selector": { "app": "web" },
            "ports": [{ "name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP" }] } }),
    );
    deployment(api, 2);
    complete(api, 2).await;
    ready_node(api, "node");
    for pod in api.list(PODS) {
        let on_node = json!({ "spec": { "nodeName": "node" } });
        api.patch(&format!("{PODS}/{}", name(&pod)), &on_node);
    }
    api.eventually("endpoints and slices", |api| {
        let endpoints = api.get("/api/v1/namespaces/n/endpoints/svc").unwrap_or_default();
        let slices = api.list("/apis/discovery.k8s.io/v1/namespaces/n/endpointslices");
        let addresses = endpoints["subsets"][0]["addresses"].as_array().map_or(0, Vec::len);
        let ready = slices.iter().flat_map(|slice| slice["endpoints"].as_array().unwrap());
        let ready = ready.filter(|endpoint| endpoint["conditions"]["ready"] == true);
        addresses == 2 && ready.count() == 2
    })
    .await;
}

#[tokio::test]
async fn foreground_deletion_takes_the_dependents_first() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    deployment(api, 2);
    complete(api, 2).await;
    let held = name(&api.list(PODS)[0]);
    let finalizer = json!({ "metadata": { "finalizers": ["test/hold"] } });
    api.patch(&format!("{PODS}/{held}"), &finalizer);
    let options = client::DeleteOptions {
        propagation: Some(client::Propagation::Foreground),
        ..client::DeleteOptions::default()
    };
    let deployments = api.client().api::<k8s_openapi::api::apps::v1::Deployment>("n");
    deployments.delete("web", &options).await.unwrap();
    api.eventually("one pod is left", |api| api.list(PODS).len() == 1).await;
    assert!(api.get(&format!("{DEPLOYMENTS}/web")).is_some(), "it waits for the pod");
    api.patch(&format!("{PODS}/{held}"), &json!({ "metadata": { "finalizers": null } }));
    api.eventually("all are gone", |api| api.list(DEPLOYMENTS).is_empty()).await;
}

#[tokio::test]
async fn a_namespace_lets_its_pods_go_first() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let pod = json!({ "metadata": { "name": "p", "finalizers": ["test/hold"] } });
    api.create(PODS, pod);
    api.create("/api/v1/namespaces/n/configmaps", json!({ "metadata": { "name": "c" } }));
    api.delete("/api/v1/namespaces/n");
    api.eventually("the condition says what is in the way", |api| {
        let namespace = api.get("/api/v1/namespaces/n").unwrap();
        let conditions = namespace["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions
            .iter()
            .any(|c| c["type"] == "NamespaceDeletionContentFailure" && c["status"] == "True")
    })
    .await;
    assert!(api.get("/api/v1/namespaces/n/configmaps/c").is_some());
    api.patch(&format!("{PODS}/p"), &json!({ "metadata": { "finalizers": null } }));
    api.eventually("the namespace is gone", |api| api.get("/api/v1/namespaces/n").is_none()).await;
    assert!(api.list("/api/v1/namespaces/n/configmaps").is_empty());
}

#[tokio::test]
async fn a_job_runs_to_completion_and_frees_its_pods() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let labels = json!({ "batch.kubernetes.io/controller-uid": "job" });
    api.create(
        "/apis/batch/v1/namespaces/n/jobs",
        json!({ "metadata": { "name": "j", "uid": "job" },
            "spec": { "parallelism": 2, "completions": 3, "backoffLimit": 0,
                "completionMode": "Indexed", "selector": { "matchLabels": labels },
                "template": { "metadata": { "labels": labels },
                    "spec": { "restartPolicy": "Never", "containers": [{ "name": "c" }] } } } }),
    );
    api.eventually("completion", |api| {
        for pod in api.list(PODS).iter().filter(|pod| pod["status"]["phase"].is_null()) {
            let done = json!({ "status": { "phase": "Succeeded" } });
            api.patch(&format!("{PODS}/{}", name(pod)), &done);
        }
        let job = api.get("/apis/batch/v1/namespaces/n/jobs/j").unwrap();
        let conditions = job["status"]["conditions"].as_array().cloned().unwrap_or_default();
        job["status"]["completedIndexes"] == "0-2"
            && conditions.iter().any(|c| c["type"] == "Complete" && c["status"] == "True")
    })
    .await;
    let pods = api.list(PODS);
    assert_eq!(pods.len(), 3);
    assert!(pods.iter().all(|pod| pod["metadata"]["finalizers"] == json!([])));
}

#[tokio::test]
async fn a_quota_is_given_back_what_is_deleted() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let maps = "/api/v1/namespaces/n/configmaps";
    let path = "/api/v1/namespaces/n/resourcequotas/q";
    api.create(maps, json!({ "metadata": { "name": "c" } }));
    api.create(
        "/api/v1/namespaces/n/resourcequotas",
        json!({ "metadata": { "name": "q" },
            "spec": { "hard": { "configmaps": "5", "count/replicasets.apps": "1", "no/such": "1" } } }),
    );
    // The root CA is a ConfigMap too.
    let used = |api: &MemoryApi| api.get(path).unwrap()["status"]["used"].clone();
    let counted = |maps: &str| json!({ "configmaps": maps, "count/replicasets.apps": "0" });
    api.eventually("the first count", |api| used(api) == counted("2")).await;
    assert_eq!(api.get(path).unwrap()["status"]["hard"]["no/such"], "1");
    api.delete(&format!("{maps}/c"));
    api.eventually("the count without it", |api| used(api) == counted("1")).await;
    api.patch(path, &json!({ "status": { "hard": { "configmaps": "9" } } }));
    api.eventually("the limits of the spec", |api| {
        api.get(path).unwrap()["status"]["hard"]["configmaps"] == "5"
    })
    .await;
}

const DAEMONS: &str = "/apis/apps/v1/namespaces/n/daemonsets";
const REVISIONS: &str = "/apis/apps/v1/namespaces/n/controllerrevisions";

fn daemon_set(api: &MemoryApi) {
    ["a", "b"].into_iter().for_each(|name| drop(ready_node(api, name)));
    api.create(
        DAEMONS,
        json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": "d" },
            "spec": { "selector": { "matchLabels": { "app": "d" } }, "revisionHistoryLimit": 10,
                "updateStrategy": { "type": "RollingUpdate",
                    "rollingUpdate": { "maxSurge": 0, "maxUnavailable": 1 } },
                "template": { "metadata": { "labels": { "app": "d" } },
                    "spec": { "containers": [{ "name": "c", "image": "one" }] } } } }),
    );
}

/// Plays the scheduler, which can only do what the affinity says, and the kubelet.
fn run_daemons(api: &MemoryApi) {
    for pod in api.list(PODS).iter().filter(|pod| pod["spec"]["nodeName"].is_null()) {
        let affinity = &pod["spec"]["affinity"]["nodeAffinity"];
        let terms =
            &affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
        let node = &terms[0]["matchFields"][0]["values"][0];
        api.patch(&format!("{PODS}/{}", name(pod)), &json!({ "spec": { "nodeName": node } }));
    }
    run_pods(api);
}

async fn all_have(api: &MemoryApi, image: &str) {
    api.eventually("a ready pod of the image on each node", |api| {
        run_daemons(api);
        let pods = api.list(PODS);
        let status = &api.get(&format!("{DAEMONS}/d")).unwrap()["status"];
        pods.len() == 2
            && pods.iter().all(|pod| pod["spec"]["containers"][0]["image"] == image)
            && status["numberAvailable"] == 2
            && status["updatedNumberScheduled"] == 2
            && status["desiredNumberScheduled"] == 2
    })
    .await;
}

fn set_image(api: &MemoryApi, image: &str) {
    let template = json!({ "spec": { "containers": [{ "name": "c", "image": image }] } });
    api.patch(&format!("{DAEMONS}/d"), &json!({ "spec": { "template": template } }));
}

#[tokio::test]
async fn a_daemon_set_is_rolled_out_and_back() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    daemon_set(api);
    all_have(api, "one").await;
    assert_eq!(api.get(&format!("{DAEMONS}/d")).unwrap()["status"]["observedGeneration"], 1);
    set_image(api, "two");
    all_have(api, "two").await;
    set_image(api, "one");
    all_have(api, "one").await;
    let numbers = |api: &MemoryApi| {
        let mut all: Vec<_> =
            api.list(REVISIONS).iter().map(|one| one["revision"].as_i64().unwrap()).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(numbers(api), [2, 3]);
    ready_node(api, "c");
    api.eventually("a pod for the new node", |api| {
        run_daemons(api);
        api.list(PODS).iter().any(|pod| pod["spec"]["nodeName"] == "c")
    })
    .await;
}

#[tokio::test]
async fn a_failed_daemon_is_replaced() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    daemon_set(api);
    all_have(api, "one").await;
    let victim = name(&api.list(PODS)[0]);
    api.patch(&format!("{PODS}/{victim}"), &json!({ "status": { "phase": "Failed" } }));
    api.eventually("another pod", |api| {
        run_daemons(api);
        let pods = api.list(PODS);
        pods.len() == 2 && pods.iter().all(|pod| name(pod) != victim)
    })
    .await;
    all_have(api, "one").await;
    api.eventually("the event", |api| {
        api.list("/api/v1/namespaces/n/events").iter().any(|e| e["reason"] == "FailedDaemonPod")
            || api
                .list("/apis/events.k8s.io/v1/namespaces/n/events")
                .iter()
                .any(|e| e["reason"] == "FailedDaemonPod")
    })
    .await;
}

#[tokio::test]
async fn a_cron_job_starts_a_job_and_follows_it() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let (crons, jobs) =
        ("/apis/batch/v1/namespaces/n/cronjobs", "/apis/batch/v1/namespaces/n/jobs");
    // A run each year: none comes due while the test runs, and the last one was missed.
    api.create(
        crons,
        json!({ "metadata": { "name": "c" },
            "spec": { "schedule": "@yearly", "concurrencyPolicy": "Forbid",
                "successfulJobsHistoryLimit": 0, "failedJobsHistoryLimit": 1,
                "jobTemplate": { "metadata": { "labels": { "a": "b" } },
                    "spec": { "suspend": true, "template": {} } } } }),
    );
    let status = |api: &MemoryApi| api.get(&format!("{crons}/c")).unwrap()["status"].clone();
    // It was created at the very time of a run, which is not one after its creation.
    let earlier = json!({ "status": { "lastScheduleTime": "2025-06-01T00:00:00Z" } });
    api.patch(&format!("{crons}/c"), &earlier);
    api.eventually("a job on the list", |api| status(api)["active"][0]["kind"] == "Job").await;
    let job = api.list(jobs).remove(0);
    assert_eq!(status(api)["active"][0]["uid"], job["metadata"]["uid"]);
    assert_eq!(job["metadata"]["labels"]["a"], "b");
    assert_eq!(job["metadata"]["ownerReferences"][0]["name"], "c");
    let at = &job["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"];
    assert_eq!(*at, status(api)["lastScheduleTime"]);
    let done = json!({ "status": { "completionTime": "2026-01-01T00:01:00Z",
        "conditions": [{ "type": "Complete", "status": "True" }] } });
    api.patch(&format!("{jobs}/{}", name(&job)), &done);
    api.eventually("the list is empty and the job gone", |api| {
        status(api)["active"].is_null()
            && status(api)["lastSuccessfulTime"] == "2026-01-01T00:01:00Z"
            && api.list(jobs).is_empty()
    })
    .await;
}
