//! What upstream's conformance suite demands of Deployments, of the sets below them, of daemons and
//! of the garbage collector, in small.

use http::Method;
use serde_json::{Value, json};

use crate::memory_api::{MemoryApi, REFUSED};
use crate::workloads::{PODS, Running, name, namespace};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/n/deployments";
const SETS: &str = "/apis/apps/v1/namespaces/n/replicasets";
const CONTROLLERS: &str = "/api/v1/namespaces/n/replicationcontrollers";
const DAEMON_SETS: &str = "/apis/apps/v1/namespaces/n/daemonsets";
const REVISION: &str = "deployment.kubernetes.io/revision";

/// The template of pods of an image; those of `bad` never run.
fn template(image: &str) -> Value {
    json!({ "metadata": { "labels": { "app": "w" } },
        "spec": { "containers": [{ "name": "c", "image": image }] } })
}

fn deployment(api: &MemoryApi, replicas: i32, strategy: &Value, history: i32) {
    api.create(
        DEPLOYMENTS,
        json!({ "metadata": { "name": "w" }, "spec": { "replicas": replicas,
            "selector": { "matchLabels": { "app": "w" } }, "template": template("one"),
            "progressDeadlineSeconds": 600, "revisionHistoryLimit": history,
            "strategy": strategy } }),
    );
}

fn rolling(surge: i32, unavailable: i32) -> Value {
    json!({ "type": "RollingUpdate",
        "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable } })
}

fn set_image(api: &MemoryApi, image: &str) {
    let change = json!({ "spec": { "template": template(image) } });
    api.patch(&format!("{DEPLOYMENTS}/w"), &change);
}

fn image(object: &Value) -> &Value {
    &object["spec"]["containers"][0]["image"]
}

/// Plays the kubelet, which cannot pull `bad`.
fn run_pods(api: &MemoryApi) {
    let waits = |pod: &&Value| pod["status"]["phase"].is_null() && *image(pod) != "bad";
    for pod in api.list(PODS).iter().filter(waits) {
        let ready = json!([{ "type": "Ready", "status": "True" }]);
        let status = json!({ "status": { "phase": "Running", "conditions": ready } });
        api.patch(&format!("{PODS}/{}", name(pod)), &status);
    }
}

/// Sizes of the ReplicaSets by their image.
fn sizes(api: &MemoryApi) -> Vec<(String, i64)> {
    let mut sizes: Vec<_> = api
        .list(SETS)
        .iter()
        .map(|set| {
            let image = set["spec"]["template"]["spec"]["containers"][0]["image"].clone();
            (image.as_str().unwrap().to_owned(), set["spec"]["replicas"].as_i64().unwrap())
        })
        .collect();
    sizes.sort();
    sizes
}

async fn becomes(api: &MemoryApi, expected: &[(&str, i64)]) {
    let expected: Vec<_> =
        expected.iter().map(|(image, size)| ((*image).to_owned(), *size)).collect();
    api.eventually(&format!("{expected:?}"), |api| {
        run_pods(api);
        sizes(api) == expected
    })
    .await;
}

/// Waits until the status has so many pods that serve.
async fn serves(api: &MemoryApi, available: i64) {
    api.eventually(&format!("{available} are available"), |api| {
        run_pods(api);
        let status = api.get(&format!("{DEPLOYMENTS}/w")).unwrap()["status"].clone();
        status["availableReplicas"] == available
    })
    .await;
}

#[tokio::test]
async fn a_roll_out_that_is_stuck_is_scaled_in_proportion() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    deployment(api, 10, &rolling(3, 2), 10);
    becomes(api, &[("one", 10)]).await;
    serves(api, 10).await;
    set_image(api, "bad");
    becomes(api, &[("bad", 5), ("one", 8)]).await;
    serves(api, 8).await;
    api.patch(&format!("{DEPLOYMENTS}/w"), &json!({ "spec": { "replicas": 30 } }));
    becomes(api, &[("bad", 13), ("one", 20)]).await;
}

#[tokio::test]
async fn a_roll_out_takes_the_place_of_one_that_is_stuck() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    deployment(api, 2, &rolling(1, 0), 10);
    serves(api, 2).await;
    set_image(api, "bad");
    becomes(api, &[("bad", 1), ("one", 2)]).await;
    set_image(api, "two");
    becomes(api, &[("bad", 0), ("one", 0), ("two", 2)]).await;
}

#[tokio::test]
async fn a_recreated_deployment_has_no_new_pod_before_the_old_ones_are_gone() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    deployment(api, 2, &json!({ "type": "Recreate" }), 10);
    serves(api, 2).await;
    // The old pods stay until somebody lets them go.
    let held = json!({ "metadata": { "finalizers": ["test/held"] } });
    let old: Vec<_> = api.list(PODS).iter().map(name).collect();
    for pod in &old {
        api.patch(&format!("{PODS}/{pod}"), &held);
    }
    set_image(api, "two");
    becomes(api, &[("one", 0)]).await;
    api.eventually("the old ones are to go", |api| {
        api.list(PODS).iter().all(|pod| !pod["metadata"]["deletionTimestamp"].is_null())
    })
    .await;
    assert!(api.list(PODS).iter().all(|pod| image(pod) == "one"));
    let free = json!({ "metadata": { "finalizers": [] } });
    old.iter().for_each(|pod| drop(api.patch(&format!("{PODS}/{pod}"), &free)));
    becomes(api, &[("one", 0), ("two", 2)]).await;
    serves(api, 2).await;
}

#[tokio::test]
async fn old_sets_go_at_once_where_no_history_is_kept() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    deployment(api, 1, &rolling(1, 0), 0);
    serves(api, 1).await;
    set_image(api, "two");
    becomes(api, &[("two", 1)]).await;
}

#[tokio::test]
async fn a_set_is_adopted_and_its_revision_counted_on() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    api.create(
        SETS,
        json!({ "metadata": { "name": "old", "labels": { "app": "w" },
                "annotations": { REVISION: "3546343826724305832" } },
            "spec": { "replicas": 1, "selector": { "matchLabels": { "app": "w" } },
                "template": template("zero") } }),
    );
    deployment(api, 1, &rolling(1, 1), 10);
    becomes(api, &[("one", 1), ("zero", 0)]).await;
    let owner = |path: &str| api.get(path).unwrap()["metadata"]["ownerReferences"][0].clone();
    let adopted = owner(&format!("{SETS}/old"));
    assert_eq!((&adopted["name"], &adopted["controller"]), (&json!("w"), &json!(true)));
    let path = format!("{DEPLOYMENTS}/w");
    api.eventually("the next revision", |api| {
        api.get(&path).unwrap()["metadata"]["annotations"][REVISION] == "3546343826724305833"
    })
    .await;
}

/// A set or controller that wants one pod.
fn of_one(selector: &Value) -> Value {
    json!({ "metadata": { "name": "w" }, "spec": { "replicas": 1, "selector": selector,
        "template": template("one") } })
}

async fn adopts_and_releases(collection: &str, kind: &str, selector: Value) {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let pod = template("one");
    let lonely = json!({ "metadata": { "name": "lonely", "labels": { "app": "w" } },
        "spec": pod["spec"] });
    api.create(PODS, lonely);
    api.create(collection, of_one(&selector));
    let path = format!("{PODS}/lonely");
    let owner = |api: &MemoryApi| api.get(&path).unwrap()["metadata"]["ownerReferences"].clone();
    api.eventually("it is adopted", |api| owner(api)[0]["kind"] == kind).await;
    assert_eq!(owner(api)[0]["controller"], true);
    assert_eq!(api.list(PODS).len(), 1, "it is one");
    api.patch(&path, &json!({ "metadata": { "labels": { "app": "other" } } }));
    api.eventually("it is released, and another is made", |api| {
        owner(api).as_array().is_none_or(Vec::is_empty) && api.list(PODS).len() == 2
    })
    .await;
}

#[tokio::test]
async fn sets_and_controllers_adopt_and_release_pods() {
    let selector = json!({ "matchLabels": { "app": "w" } });
    adopts_and_releases(SETS, "ReplicaSet", selector).await;
    adopts_and_releases(CONTROLLERS, "ReplicationController", json!({ "app": "w" })).await;
}

#[tokio::test]
async fn a_failure_is_a_condition_as_long_as_it_lasts() {
    for (collection, selector) in
        [(SETS, json!({ "matchLabels": { "app": "w" } })), (CONTROLLERS, json!({ "app": "w" }))]
    {
        let running = Running::start();
        let api = &running.api;
        namespace(api);
        api.refuse(Method::POST, "/namespaces/n/pods");
        api.create(collection, of_one(&selector));
        let path = format!("{collection}/w");
        let conditions = |api: &MemoryApi| api.get(&path).unwrap()["status"]["conditions"].clone();
        api.eventually("the failure", |api| {
            let failure = &conditions(api)[0];
            failure["type"] == "ReplicaFailure"
                && failure["reason"] == "FailedCreate"
                && failure["message"] == REFUSED
        })
        .await;
        api.refuse_nothing();
        // As somebody does who wants less.
        api.patch(&path, &json!({ "spec": { "replicas": 0 } }));
        api.eventually("it is over", |api| conditions(api).as_array().is_none_or(Vec::is_empty))
            .await;
    }
}

fn node(api: &MemoryApi, name: &str, color: &str) {
    api.create(
        "/api/v1/nodes",
        json!({ "metadata": { "name": name, "labels": { "color": color } }, "status": {
            "conditions": [{ "type": "Ready", "status": "True" }] } }),
    );
}

/// The nodes that daemons are meant for.
fn daemons(api: &MemoryApi) -> Vec<String> {
    let pods = api.list(PODS);
    let mut nodes: Vec<_> = pods
        .iter()
        .map(|pod| {
            let affinity = &pod["spec"]["affinity"]["nodeAffinity"];
            let terms =
                &affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
            let field = &terms[0]["matchFields"][0];
            assert_eq!(
                (&field["key"], &field["operator"]),
                (&json!("metadata.name"), &json!("In"))
            );
            field["values"][0].as_str().unwrap().to_owned()
        })
        .collect();
    nodes.sort();
    nodes
}

#[tokio::test]
async fn daemons_follow_the_labels_of_nodes_and_tolerate_what_nodes_suffer() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    node(api, "a", "blue");
    node(api, "b", "green");
    let mut pods = template("one");
    pods["spec"]["nodeSelector"] = json!({ "color": "blue" });
    api.create(
        DAEMON_SETS,
        json!({ "metadata": { "name": "d" }, "spec": { "revisionHistoryLimit": 10,
            "selector": { "matchLabels": { "app": "w" } }, "template": pods } }),
    );
    api.eventually("only on the blue one", |api| daemons(api) == ["a"]).await;
    let keys = [
        "not-ready",
        "unreachable",
        "disk-pressure",
        "memory-pressure",
        "pid-pressure",
        "unschedulable",
    ];
    let tolerations = api.list(PODS)[0]["spec"]["tolerations"].as_array().unwrap().clone();
    for key in keys {
        let key = format!("node.kubernetes.io/{key}");
        assert!(tolerations.iter().any(|one| one["key"] == key), "{key}");
    }
    let color = |color: &str| json!({ "metadata": { "labels": { "color": color } } });
    api.patch("/api/v1/nodes/b", &color("blue"));
    api.eventually("on both", |api| daemons(api) == ["a", "b"]).await;
    api.patch("/api/v1/nodes/a", &color("green"));
    api.eventually("on the other one", |api| daemons(api) == ["b"]).await;
}

#[tokio::test]
async fn a_daemon_that_was_not_updated_yet_lives_through_a_rollback() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    node(api, "a", "blue");
    node(api, "b", "blue");
    api.create(
        DAEMON_SETS,
        json!({ "metadata": { "name": "d" }, "spec": { "revisionHistoryLimit": 10,
            "updateStrategy": { "type": "RollingUpdate",
                "rollingUpdate": { "maxSurge": 0, "maxUnavailable": 1 } },
            "selector": { "matchLabels": { "app": "w" } }, "template": template("one") } }),
    );
    let images = |api: &MemoryApi| {
        run_pods(api);
        let mut images: Vec<_> =
            api.list(PODS).iter().map(|pod| image(pod).as_str().unwrap().to_owned()).collect();
        images.sort();
        images
    };
    let available = |api: &MemoryApi| {
        api.get(&format!("{DAEMON_SETS}/d")).unwrap()["status"]["numberAvailable"].clone()
    };
    api.eventually("both run", |api| images(api) == ["one", "one"] && available(api) == 2).await;
    let update = |image: &str| {
        api.patch(&format!("{DAEMON_SETS}/d"), &json!({ "spec": { "template": template(image) } }));
    };
    update("bad");
    api.eventually("one is bad", |api| images(api) == ["bad", "one"]).await;
    let kept = api.list(PODS).into_iter().find(|pod| image(pod) == "one").unwrap();
    update("one");
    api.eventually("both run again", |api| images(api) == ["one", "one"] && available(api) == 2)
        .await;
    let still = api.get(&format!("{PODS}/{}", name(&kept))).unwrap();
    assert_eq!(still["metadata"]["uid"], kept["metadata"]["uid"], "it was restarted for nothing");
}

/// References of a pod to other pods, which all are alive.
fn owned_by(owners: &[&Value]) -> Value {
    let reference = |owner: &&Value| {
        json!({ "apiVersion": "v1", "kind": "Pod", "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"], "blockOwnerDeletion": true })
    };
    json!({ "metadata": { "ownerReferences":
        owners.iter().map(reference).collect::<Vec<_>>() } })
}

#[tokio::test]
async fn owners_in_a_circle_go_together() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let pods: Vec<_> = ["a", "b", "c"]
        .map(|name| api.create(PODS, json!({ "metadata": { "name": name }, "spec": {} })))
        .to_vec();
    for (at, name) in ["a", "b", "c"].iter().enumerate() {
        api.patch(&format!("{PODS}/{name}"), &owned_by(&[&pods[(at + 2) % 3]]));
    }
    api.delete(&format!("{PODS}/a"));
    api.eventually("all are gone", |api| api.list(PODS).is_empty()).await;
}

#[tokio::test]
async fn who_has_a_living_owner_outlives_the_other_one() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    let pod = |name: &str| api.create(PODS, json!({ "metadata": { "name": name }, "spec": {} }));
    let (goes, stays) = (pod("goes"), pod("stays"));
    for name in ["both", "one"] {
        pod(name);
    }
    api.patch(&format!("{PODS}/both"), &owned_by(&[&goes, &stays]));
    api.patch(&format!("{PODS}/one"), &owned_by(&[&goes]));
    let options = client::DeleteOptions {
        propagation: Some(client::Propagation::Foreground),
        ..client::DeleteOptions::default()
    };
    let pods = api.client().api::<k8s_openapi::api::core::v1::Pod>("n");
    pods.delete("goes", &options).await.unwrap();
    api.eventually("the owner and its own dependent are gone", |api| {
        let mut names: Vec<_> = api.list(PODS).iter().map(name).collect();
        names.sort();
        names == ["both", "stays"]
    })
    .await;
    let owners = api.get(&format!("{PODS}/both")).unwrap()["metadata"]["ownerReferences"].clone();
    assert_eq!(owners[0]["name"], "stays");
}

#[tokio::test]
async fn dependents_are_orphaned_where_it_is_asked_for() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    deployment(api, 2, &rolling(1, 0), 10);
    serves(api, 2).await;
    let options = client::DeleteOptions {
        propagation: Some(client::Propagation::Orphan),
        ..client::DeleteOptions::default()
    };
    let deployments = api.client().api::<k8s_openapi::api::apps::v1::Deployment>("n");
    deployments.delete("w", &options).await.unwrap();
    api.eventually("it is gone, and its set is nobody's", |api| {
        api.get(&format!("{DEPLOYMENTS}/w")).is_none()
            && api.list(SETS).iter().all(|set| {
                let owners = &set["metadata"]["ownerReferences"];
                owners.as_array().is_none_or(Vec::is_empty)
            })
    })
    .await;
    assert_eq!((api.list(SETS).len(), api.list(PODS).len()), (1, 2));
}
