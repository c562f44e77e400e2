//! Every component under its own account, with its bootstrap role and no more.

use std::collections::BTreeSet;
use std::process::{Child, Stdio};

use http::Method;
use serde_json::{Value, json};
use testkit::{Options, POD_IMAGE};

use crate::harness::{Harness, IRONCLAD, collection, pod_path};

/// Requests of components that the authorizer refused: who, what.
fn refused(log: &str) -> BTreeSet<String> {
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let forbidden = events.filter(|event| {
        let user = event["user"]["username"].as_str().unwrap_or_default();
        let is_component = user.starts_with("system:serviceaccount:kube-system:")
            || user.starts_with("system:kube-")
            || user.starts_with("system:node:");
        is_component && event["annotations"]["authorization.k8s.io/decision"] == "forbid"
    });
    let told = |event: Value| {
        let of = &event["objectRef"];
        format!(
            "{} may not {} {}/{} of {}",
            event["user"]["username"],
            event["verb"],
            of["resource"],
            of["subresource"],
            of["apiGroup"]
        )
    };
    forbidden.map(told).collect()
}

fn template(labels: &Value) -> Value {
    json!({ "metadata": { "labels": labels }, "spec": {
        "terminationGracePeriodSeconds": 1,
        "containers": [{ "name": "c", "image": POD_IMAGE, "args": ["serve", "8080"] }] } })
}

fn workload(name: &str, mut spec: Value) -> Value {
    let labels = json!({ "app": name });
    spec["selector"] = json!({ "matchLabels": labels });
    spec["template"] = template(&labels);
    json!({ "metadata": { "name": name }, "spec": spec })
}

/// One of nearly everything that a controller works on.
fn objects() -> Vec<(&'static str, Value)> {
    let mut job = json!({ "metadata": { "name": "job" }, "spec": {
        "ttlSecondsAfterFinished": 0, "template": template(&json!({})) } });
    job["spec"]["template"]["spec"]["restartPolicy"] = "Never".into();
    job["spec"]["template"]["spec"]["containers"][0]["args"] = json!(["cat", "/proc/uptime"]);
    let mut cron = json!({ "metadata": { "name": "cron" }, "spec": {
        "schedule": "* * * * *", "jobTemplate": { "spec": job["spec"] } } });
    cron["spec"]["jobTemplate"]["spec"]["suspend"] = true.into();
    let set = workload("set", json!({ "serviceName": "set", "replicas": 1 }));
    let claim = json!({ "accessModes": ["ReadWriteOnce"], "storageClassName": "",
        "resources": { "requests": { "storage": "1Mi" } } });
    let mut controller = workload("old", json!({ "replicas": 1 }));
    controller["spec"]["selector"] = json!({ "app": "old" });
    vec![
        (
            "resourcequotas",
            json!({ "metadata": { "name": "quota" },
            "spec": { "hard": { "pods": "20" } } }),
        ),
        ("apps/v1/deployments", workload("web", json!({ "replicas": 2 }))),
        ("apps/v1/daemonsets", workload("daemon", json!({}))),
        ("apps/v1/statefulsets", set),
        ("replicationcontrollers", controller),
        ("batch/v1/jobs", job),
        ("batch/v1/cronjobs", cron),
        (
            "services",
            json!({ "metadata": { "name": "web" }, "spec": { "type": "LoadBalancer",
            "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": 8080 }] } }),
        ),
        (
            "services",
            json!({ "metadata": { "name": "bare" }, "spec": { "ports": [{ "port": 80 }] } }),
        ),
        (
            "endpoints",
            json!({ "metadata": { "name": "bare" }, "subsets": [
            { "addresses": [{ "ip": "192.0.2.1" }], "ports": [{ "port": 80 }] }] }),
        ),
        (
            "policy/v1/poddisruptionbudgets",
            json!({ "metadata": { "name": "web" }, "spec": {
            "minAvailable": 1, "selector": { "matchLabels": { "app": "web" } } } }),
        ),
        (
            "autoscaling/v2/horizontalpodautoscalers",
            json!({ "metadata": { "name": "web" },
            "spec": { "maxReplicas": 3, "scaleTargetRef": { "apiVersion": "apps/v1",
                "kind": "Deployment", "name": "web" } } }),
        ),
        (
            "persistentvolumeclaims",
            json!({ "metadata": { "name": "claim" }, "spec": claim.clone() }),
        ),
        (
            "resource.k8s.io/v1/resourceclaimtemplates",
            json!({ "metadata": { "name": "devices" }, "spec": { "spec": {} } }),
        ),
        (
            "pods",
            json!({ "metadata": { "name": "waits" }, "spec": {
                "resourceClaims": [{ "name": "d", "resourceClaimTemplateName": "devices" }],
                "volumes": [{ "name": "v", "ephemeral": { "volumeClaimTemplate": {
                    "spec": claim } } }],
                "containers": [{ "name": "c", "image": POD_IMAGE }] } }),
        ),
        (
            "secrets",
            json!({ "metadata": { "name": "token",
            "annotations": { "kubernetes.io/service-account.name": "default" } },
            "type": "kubernetes.io/service-account-token" }),
        ),
    ]
}

/// Simulated nodes, which go with this value.
pub(crate) struct Nodes(Child);

impl Drop for Nodes {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).ok();
    }
}

/// Simulated nodes that are quick, so many and with what else is said.
pub(crate) fn nodes_with(harness: &Harness, more: &[&str]) -> Nodes {
    let mut command = testkit::command(IRONCLAD);
    command.args(["bench", "nodes", "--start-delay", "10ms", "--run-for", "1s"]).args(more);
    command.arg("--kubeconfig").arg(harness.cluster.kubeconfig());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Nodes(harness.cluster.host().run(move || command.spawn()).unwrap())
}

#[test]
fn no_component_asks_for_what_its_role_does_not_allow() {
    let directory = tempfile::tempdir().unwrap();
    let (policy, log) = (directory.path().join("policy"), directory.path().join("log"));
    let head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";
    let rules = "omitStages: [RequestReceived]\nrules: [{level: Metadata}]\n";
    std::fs::write(&policy, format!("{head}{rules}")).unwrap();
    let mut options = Options::new(IRONCLAD);
    let flag = |name: &str, path: &std::path::Path| format!("--{name}={}", path.display());
    options.args.extend([flag("audit-policy-file", &policy), flag("audit-log-path", &log)]);
    let harness = Harness::with(options);
    // The roles of controllers are tried here, not a kubelet: with these nodes it is quick.
    let _nodes = nodes_with(&harness, &["--count", "3"]);

    let volume = json!({ "metadata": { "name": "volume" }, "spec": {
        "capacity": { "storage": "1Mi" }, "accessModes": ["ReadWriteOnce"],
        "hostPath": { "path": "/none" } } });
    harness.request(Method::POST, "/api/v1/persistentvolumes", Some(&volume)).unwrap();
    for (resource, object) in objects() {
        harness.create(resource, &object);
    }
    let claim = format!("{}/claim", collection("persistentvolumeclaims"));
    harness.until("the claim is bound", || {
        (harness.get(&claim)["status"]["phase"] == "Bound").then_some(())
    });
    harness.ready_pods("app=web", 2);
    harness.until("the daemons are ready", || {
        let status =
            harness.get(&format!("{}/daemon", collection("apps/v1/daemonsets")))["status"].clone();
        (status["numberReady"].as_i64() >= Some(3)).then_some(())
    });
    harness.until("claims of a pod are made", || {
        let status = harness.get(&pod_path("waits"))["status"].clone();
        let is_made = harness.exists(&format!("{}/waits-v", collection("persistentvolumeclaims")));
        (is_made && status["resourceClaimStatuses"][0]["resourceClaimName"].is_string())
            .then_some(())
    });
    harness.ready_pods("app=old", 1);
    harness.ready_pod("set-0");
    let job = format!("{}/job", collection("batch/v1/jobs"));
    harness.until("the job is done and gone", || (!harness.exists(&job)).then_some(()));
    let slices = format!(
        "{}?labelSelector=kubernetes.io/service-name=bare",
        collection("discovery.k8s.io/v1/endpointslices")
    );
    harness.until("endpoints are mirrored", || {
        let list = harness.get(&slices);
        list["items"].as_array().is_some_and(|items| !items.is_empty()).then_some(())
    });
    // Roll-outs, revisions, claims and evictions have requests of their own.
    for (resource, name) in
        [("deployments", "web"), ("daemonsets", "daemon"), ("statefulsets", "set")]
    {
        let path = format!("{}/{name}", collection(&format!("apps/v1/{resource}")));
        let change =
            json!({ "spec": { "template": { "metadata": { "annotations": { "v": "2" } } } } });
        let generation = harness.patch(&path, &change)["metadata"]["generation"].clone();
        harness.until("it is rolled out", || {
            let status = harness.get(&path)["status"].clone();
            let updated =
                status["updatedReplicas"].as_i64().or(status["updatedNumberScheduled"].as_i64());
            let ready = status["readyReplicas"].as_i64().or(status["numberReady"].as_i64());
            (status["observedGeneration"] == generation && updated == ready && ready > Some(0))
                .then_some(())
        });
    }
    let pods = harness.ready_pods("app=web", 2);
    let name = pods[0]["metadata"]["name"].as_str().unwrap();
    let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": { "name": name, "namespace": "default" } });
    harness.until("the eviction is allowed", || {
        harness.request(Method::POST, &format!("{}/eviction", pod_path(name)), Some(&eviction)).ok()
    });
    for (resource, object) in objects() {
        let name = object["metadata"]["name"].as_str().unwrap();
        let path = format!("{}/{name}", collection(resource));
        let how = json!({ "propagationPolicy": "Foreground" });
        // Some are gone by themselves.
        harness.request(Method::DELETE, &path, Some(&how)).ok();
    }
    harness.until("all pods are gone", || {
        let list = harness.get(&collection("pods"));
        list["items"].as_array().is_some_and(Vec::is_empty).then_some(())
    });
    harness.until("the claim is gone", || (!harness.exists(&claim)).then_some(()));

    let log = std::fs::read_to_string(&log).unwrap();
    for account in ["deployment-controller", "statefulset-controller", "job-controller"] {
        let user = format!("system:serviceaccount:kube-system:{account}");
        assert!(log.contains(&user), "{account} does not act under its own name");
    }
    let refused = refused(&log);
    assert!(refused.is_empty(), "{refused:#?}");
}
