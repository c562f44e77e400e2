//! G09: what becomes of that whose owner goes.

use std::collections::BTreeSet;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use testkit::POD_IMAGE;

use super::{at, controller, name, template, workload};
use crate::harness::{Harness, collection};
use crate::identities::{Nodes, nodes_with};

/// Pods of nodes that are simulated: there are many of them.
fn simulated(app: &str) -> Value {
    let mut template = template(&json!({ "app": app }));
    template["spec"]["nodeSelector"] = json!({ "ironclad/simulated": "simulated" });
    template
}

/// Nodes of 30 pods each, and how many pods the suite then makes: half of what fits, ten of each
/// node aside, no less than ten and no more than a hundred.
fn room(harness: &Harness) -> (Nodes, usize) {
    let nodes = nodes_with(harness, &["--count", "4", "--pods-per-node", "30"]);
    let path = "/api/v1/nodes?labelSelector=ironclad/simulated=simulated";
    let fits = harness.until("the nodes are there", || {
        let nodes = harness.items(path);
        let pods = |node: &Value| {
            let pods = node["status"]["allocatable"]["pods"].as_str()?;
            pods.parse::<usize>().ok()
        };
        (nodes.len() == 4)
            .then(|| nodes.iter().filter_map(pods).map(|pods| pods - 10).sum::<usize>())
    });
    (nodes, (fits / 2).clamp(10, 100))
}

/// Makes a controller of so many pods that run, and gives its path.
fn running_controller(harness: &Harness, app: &str, replicas: usize) -> String {
    harness.create("replicationcontrollers", &controller(app, &simulated(app), replicas));
    harness.ready_pods(&format!("app={app}"), replicas);
    at("replicationcontrollers", app)
}

fn owners(object: &Value) -> Vec<String> {
    let references = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    references.map(|reference| reference["name"].as_str().unwrap().to_owned()).collect()
}

/// \[sig-api-machinery\] Garbage collector should delete RS created by deployment when not
/// orphaning; should orphan RS created by deployment when deleteOptions.PropagationPolicy is Orphan
#[test]
fn what_a_deployment_owns_goes_in_the_background_or_is_orphaned() {
    let harness = Harness::start();
    let sets = |app: &str| {
        harness.items(&format!("{}?labelSelector=app={app}", collection("apps/v1/replicasets")))
    };
    for app in ["goes", "leaves"] {
        let pods = template(&json!({ "app": app }));
        let deployment = workload(app, &pods, &json!({ "replicas": 2 }));
        harness.create("apps/v1/deployments", &deployment);
        harness.ready_pods(&format!("app={app}"), 2);
        assert_eq!(owners(&sets(app)[0]), [app]);
    }
    harness.delete_as(&at("apps/v1/deployments", "goes"), "Background");
    harness.until("its sets are gone", || sets("goes").is_empty().then_some(()));
    harness.ready_pods("app=goes", 0);
    let before: Vec<_> = harness.pods("app=leaves").iter().map(name).collect();
    let leaves = at("apps/v1/deployments", "leaves");
    harness.delete_as(&leaves, "Orphan");
    harness.goes(&leaves);
    // The suite looks for half a minute; what is wrong here is wrong within moments.
    harness.stays("the set is nobody's", Duration::from_secs(4), || {
        let sets = sets("leaves");
        sets.len() == 1 && owners(&sets[0]).is_empty()
    });
    let after: Vec<_> = harness.pods("app=leaves").iter().map(name).collect();
    assert_eq!(after, before);
    assert_eq!(owners(&harness.pods("app=leaves")[0]), [name(&sets("leaves")[0])]);
}

/// \[sig-api-machinery\] Garbage collector should delete pods created by rc when not orphaning;
/// should keep the rc around until all its pods are deleted if the deleteOptions says so; should
/// orphan pods created by rc if delete options say so
#[test]
fn pods_of_a_controller_go_after_it_or_before_it_or_not_at_all() {
    let harness = Harness::start();
    let (_nodes, many) = room(&harness);

    let path = running_controller(&harness, "background", 2);
    // Only this very object is to be deleted, not one of its name.
    let wrong = json!({ "propagationPolicy": "Background",
        "preconditions": { "uid": "00000000-0000-0000-0000-000000000000" } });
    let refused = harness.request(Method::DELETE, &path, Some(&wrong)).unwrap_err();
    assert!(refused.is_conflict(), "{refused}");
    let uid = harness.get(&path)["metadata"]["uid"].clone();
    let right = json!({ "propagationPolicy": "Background", "preconditions": { "uid": uid } });
    harness.request(Method::DELETE, &path, Some(&right)).unwrap();
    harness.goes(&path);
    harness.ready_pods("app=background", 0);

    let path = running_controller(&harness, "orphan", many / 2);
    harness.delete_as(&path, "Orphan");
    harness.goes(&path);
    harness.stays("the pods are nobody's", Duration::from_secs(4), || {
        let pods = harness.pods("app=orphan");
        pods.len() == many / 2 && pods.iter().all(|pod| owners(pod).is_empty())
    });

    let path = running_controller(&harness, "foreground", many - many / 2);
    let (controllers, pods) = (collection("replicationcontrollers"), collection("pods"));
    let there: BTreeSet<String> = harness.pods("app=foreground").iter().map(name).collect();
    assert_eq!(there.len(), many - many / 2);
    let since = harness.now(&controllers);
    harness.delete_as(&path, "Foreground");
    harness.goes(&path);
    let version = |(_, object): &(String, Value)| -> u64 {
        object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
    };
    let of_controller = harness.seen(&controllers, "app=foreground", &since);
    // Its status may have changed once more before that.
    let is_going = |event: &&(String, Value)| event.1["metadata"]["deletionTimestamp"].is_string();
    let (first, last) =
        (of_controller.iter().find(is_going).unwrap(), of_controller.last().unwrap());
    assert_eq!(first.1["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    assert_eq!(last.0, "DELETED");
    let of_pods = harness.seen(&pods, "app=foreground", &since);
    let gone: Vec<_> = of_pods.iter().filter(|event| event.0 == "DELETED").collect();
    let names: BTreeSet<String> = gone.iter().map(|event| name(&event.1)).collect();
    assert_eq!(gone.len(), names.len(), "each is gone once");
    // There may be more: who hears of a pod's end before the controller's makes another one.
    assert!(names.is_superset(&there), "all are gone");
    assert!(gone.iter().all(|event| version(event) < version(last)), "a pod outlived it");
}

/// \[sig-api-machinery\] Garbage collector should not delete dependents that have both valid owner
/// and owner that's waiting for dependents to be deleted
#[test]
fn pods_of_two_controllers_outlive_one_that_waits_for_its_pods() {
    let harness = Harness::start();
    let (_nodes, many) = room(&harness);
    let goes = running_controller(&harness, "goes", many);
    let stays =
        harness.create("replicationcontrollers", &controller("stays", &simulated("stays"), 0));
    let reference = json!({ "metadata": { "ownerReferences": [{ "apiVersion": "v1",
        "kind": "ReplicationController", "name": "stays", "uid": stays["metadata"]["uid"] }] } });
    let all = harness.pods("app=goes");
    let shared: Vec<_> = all[..many / 2].iter().map(name).collect();
    for pod in &shared {
        let pod = harness.merge(&at("pods", pod), &reference);
        assert_eq!(pod["metadata"]["ownerReferences"].as_array().unwrap().len(), 2);
    }
    harness.delete_as(&goes, "Foreground");
    harness.goes(&goes);
    harness.stays("the shared pods live", Duration::from_secs(4), || {
        let left = harness.pods("app=goes");
        let lives = |pod: &Value| {
            pod["metadata"]["deletionTimestamp"].is_null() && owners(pod) == ["stays"]
        };
        left.len() == shared.len() && left.iter().all(lives)
    });
}

/// \[sig-api-machinery\] Garbage collector should not be blocked by dependency circle
#[test]
fn three_pods_that_own_each_other_go_together() {
    let harness = Harness::start();
    let names = ["pod1", "pod2", "pod3"];
    let made = names.map(|name| {
        let spec = json!({ "nodeSelector": { "nowhere": "at-all" },
            "containers": [{ "name": "c", "image": POD_IMAGE }] });
        harness.create("pods", &json!({ "metadata": { "name": name }, "spec": spec }))
    });
    for (own, owner) in [(0, 2), (1, 0), (2, 1)] {
        let reference = json!([{ "apiVersion": "v1", "kind": "Pod", "name": names[owner],
            "uid": made[owner]["metadata"]["uid"], "controller": true,
            "blockOwnerDeletion": true }]);
        let patch = json!({ "metadata": { "ownerReferences": reference } });
        assert_eq!(owners(&harness.merge(&at("pods", names[own]), &patch)), [names[owner]]);
    }
    harness.delete(&at("pods", "pod1"));
    harness.until("all three are gone", || {
        harness.items(&collection("pods")).is_empty().then_some(())
    });
}
