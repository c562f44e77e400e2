//! G16: Deployments, with pods that run and pods that never do.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{ABSENT, at, broken, condition, name, template, workload};
use crate::harness::{Harness, collection};

const DEPLOYMENTS: &str = "apps/v1/deployments";
const SETS: &str = "apps/v1/replicasets";
const REVISION: &str = "deployment.kubernetes.io/revision";

fn labels() -> Value {
    json!({ "app": "web" })
}

/// A template that is another one than those of other numbers.
fn numbered(number: &str) -> Value {
    let mut template = template(&labels());
    template["spec"]["containers"][0]["env"] = json!([{ "name": "NUMBER", "value": number }]);
    template
}

fn rolling(surge: u32, unavailable: u32) -> Value {
    json!({ "type": "RollingUpdate",
        "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable } })
}

fn sets(harness: &Harness) -> Vec<Value> {
    harness.items(&format!("{}?labelSelector=app=web", collection(SETS)))
}

/// The set of a template's pods, told by their image or their number.
fn set_of(harness: &Harness, mark: &str) -> Option<Value> {
    let is = |set: &Value| {
        let container = &set["spec"]["template"]["spec"]["containers"][0];
        container["image"] == mark || container["env"][0]["value"] == mark
    };
    sets(harness).into_iter().find(is)
}

fn size(harness: &Harness, mark: &str) -> Value {
    set_of(harness, mark).map(|set| set["spec"]["replicas"].clone()).unwrap_or_default()
}

fn change(harness: &Harness, template: &Value) {
    let spec = json!({ "spec": { "template": template } });
    // Lists of a merge patch are replaced as a whole, environment and all.
    harness.patch(&at(DEPLOYMENTS, "web"), &spec);
}

/// Waits until all pods are of the present template and serve.
fn is_complete(harness: &Harness, replicas: u32) -> Value {
    harness.becomes(&at(DEPLOYMENTS, "web"), "is complete", |object| {
        let status = &object["status"];
        status["observedGeneration"] == object["metadata"]["generation"]
            && ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"]
                .iter()
                .all(|field| status[*field] == replicas)
            && status["unavailableReplicas"].is_null()
            && condition(object, "Progressing")["reason"] == "NewReplicaSetAvailable"
    })
}

/// \[sig-apps\] Deployment RollingUpdateDeployment should delete old pods and create new ones: a set
/// that was there before is adopted, and revisions count on from its own
#[test]
fn a_set_that_was_there_is_adopted_and_rolled_over() {
    let harness = Harness::start();
    let old = {
        let mut set = workload("old", &numbered("old"), &json!({ "replicas": 1 }));
        set["metadata"]["annotations"] = json!({ REVISION: "3546343826724305832" });
        set
    };
    harness.create(SETS, &old);
    let pod = harness.ready_pods("app=web", 1).remove(0);
    let more = json!({ "replicas": 1, "minReadySeconds": 1 });
    harness.create(DEPLOYMENTS, &workload("web", &numbered("new"), &more));
    let done = is_complete(&harness, 1);
    assert_eq!(done["metadata"]["annotations"][REVISION], "3546343826724305833");
    assert_eq!(condition(&done, "Available")["status"], "True");
    let (old, new) = (set_of(&harness, "old").unwrap(), set_of(&harness, "new").unwrap());
    for set in [&old, &new] {
        let owner = &set["metadata"]["ownerReferences"][0];
        assert_eq!((&owner["kind"], &owner["name"]), (&json!("Deployment"), &json!("web")));
        assert_eq!(owner["controller"], true);
    }
    assert_eq!((&old["spec"]["replicas"], &new["spec"]["replicas"]), (&json!(0), &json!(1)));
    assert_eq!(new["metadata"]["annotations"][REVISION], "3546343826724305833");
    let hash = &new["metadata"]["labels"]["pod-template-hash"];
    assert_eq!(name(&new), format!("web-{}", hash.as_str().unwrap()));
    let left = harness.ready_pods("app=web", 1).remove(0);
    assert_ne!(name(&left), name(&pod));
    assert_eq!(left["metadata"]["labels"]["pod-template-hash"], *hash);
}

/// \[sig-apps\] Deployment RecreateDeployment should delete old pods and create new ones: no pod of
/// one template runs beside one of the other
#[test]
fn pods_that_are_recreated_never_run_beside_the_old_ones() {
    let harness = Harness::start();
    let more = json!({ "replicas": 2, "strategy": { "type": "Recreate" } });
    harness.create(DEPLOYMENTS, &workload("web", &numbered("first"), &more));
    is_complete(&harness, 2);
    let pods = collection("pods");
    let since = harness.now(&pods);
    change(&harness, &numbered("second"));
    is_complete(&harness, 2);
    let mut ended = BTreeSet::new();
    for (sort, pod) in harness.seen(&pods, "app=web", &since) {
        let is_old = pod["spec"]["containers"][0]["env"][0]["value"] == "first";
        let has_ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        if is_old && (has_ended || sort == "DELETED") {
            ended.insert(name(&pod));
        }
        assert!(is_old || ended.len() == 2, "{} came too early", name(&pod));
    }
    assert_eq!(ended.len(), 2);
}

/// \[sig-apps\] Deployment deployment should support rollover: a set of pods is adopted, a roll-out
/// that is stuck is given up for another template
#[test]
fn a_roll_out_that_is_stuck_is_given_up_for_the_next_one() {
    let harness = Harness::start();
    harness.create(SETS, &workload("old", &numbered("old"), &json!({ "replicas": 1 })));
    harness.ready_pods("app=web", 1);
    let more = json!({ "replicas": 1, "minReadySeconds": 1, "strategy": rolling(1, 0) });
    harness.create(DEPLOYMENTS, &workload("web", &broken(&labels()), &more));
    harness.until("the bad set has its pod", || {
        let set = set_of(&harness, ABSENT)?;
        (set["status"]["replicas"] == 1).then_some(())
    });
    assert_eq!(size(&harness, "old"), 1, "as long as the new one does not run");
    change(&harness, &numbered("good"));
    let done = is_complete(&harness, 1);
    assert_eq!(size(&harness, "old"), 0);
    assert_eq!(size(&harness, ABSENT), 0);
    assert_eq!(size(&harness, "good"), 1);
    // What was adopted had no number.
    assert_eq!(done["metadata"]["annotations"][REVISION], "2");
    harness.ready_pods("app=web", 1);
}

/// \[sig-apps\] Deployment deployment should support proportional scaling, with the numbers of the
/// suite
#[test]
fn a_roll_out_that_is_stuck_is_scaled_in_proportion() {
    let harness = Harness::start();
    let more = json!({ "replicas": 10, "strategy": rolling(3, 2) });
    harness.create(DEPLOYMENTS, &workload("web", &numbered("first"), &more));
    is_complete(&harness, 10);
    change(&harness, &broken(&labels()));
    let first = |replicas: u32, bad: u32| {
        harness.until(&format!("{replicas} and {bad}"), || {
            (size(&harness, "first") == replicas && size(&harness, ABSENT) == bad).then_some(())
        });
    };
    first(8, 5);
    harness.becomes(&at(DEPLOYMENTS, "web"), "says so", |object| {
        let status = &object["status"];
        status["availableReplicas"] == 8
            && status["unavailableReplicas"] == 5
            && status["updatedReplicas"] == 5
            && status["replicas"] == 13
    });
    harness.patch(&at(DEPLOYMENTS, "web"), &json!({ "spec": { "replicas": 30 } }));
    first(20, 13);
}

/// \[sig-apps\] Deployment deployment should delete old replica sets
#[test]
fn sets_of_no_use_go_where_no_history_is_kept() {
    let harness = Harness::start();
    harness.create(SETS, &workload("old", &numbered("old"), &json!({ "replicas": 1 })));
    harness.ready_pods("app=web", 1);
    let more = json!({ "replicas": 1, "revisionHistoryLimit": 0 });
    harness.create(DEPLOYMENTS, &workload("web", &numbered("new"), &more));
    harness.until("one set is left", || {
        let sets = sets(&harness);
        (sets.len() == 1 && set_of(&harness, "new").is_some()).then_some(())
    });
}

/// \[sig-apps\] Deployment should have a working scale subresource; should run the lifecycle of a
/// Deployment
#[test]
fn a_watch_sees_every_step_of_a_deployment() {
    let harness = Harness::start();
    let path = at(DEPLOYMENTS, "web");
    let all = collection(DEPLOYMENTS);
    let since = harness.now(&all);
    harness.create(DEPLOYMENTS, &workload("web", &numbered("1"), &json!({ "replicas": 2 })));
    is_complete(&harness, 2);

    let scale = format!("{path}/scale");
    let mut found = harness.get(&scale);
    assert_eq!((&found["spec"]["replicas"], &found["status"]["replicas"]), (&json!(2), &json!(2)));
    found["spec"]["replicas"] = json!(1);
    harness.request(http::Method::PUT, &scale, Some(&found)).unwrap();
    is_complete(&harness, 1);
    harness.merge(&scale, &json!({ "spec": { "replicas": 3 } }));
    is_complete(&harness, 3);
    assert_eq!(harness.get(&scale)["status"]["replicas"], 3);

    // Pods that do not go at once, so that the watch sees how many are left.
    let labelled = json!({ "metadata": { "labels": { "test-deployment": "patched" } },
        "spec": { "replicas": 2, "template": numbered("2") } });
    harness.merge(&path, &labelled);
    is_complete(&harness, 2);
    let status = format!("{path}/status");
    assert_eq!(harness.get(&status)["status"]["readyReplicas"], 2);
    let patch = json!({ "metadata": { "annotations": { "patched": "yes" } },
        "status": { "readyReplicas": 2 } });
    assert_eq!(harness.merge(&status, &patch)["metadata"]["annotations"]["patched"], "yes");
    harness.delete(&path);
    harness.goes(&path);

    let seen = harness.seen(&all, "app=web", &since);
    assert_eq!(seen[0].0, "ADDED");
    assert_eq!(seen.last().unwrap().0, "DELETED");
    assert!(seen[1..seen.len() - 1].iter().all(|event| event.0 == "MODIFIED"));
    let first = |what: &str, is: &dyn Fn(&Value) -> bool| {
        let at = seen.iter().position(|(_, object)| is(object));
        at.unwrap_or_else(|| panic!("nobody saw {what}"))
    };
    let ready = first("two ready pods", &|object| object["status"]["readyReplicas"] == 2);
    let less = first("one wanted", &|object| object["spec"]["replicas"] == 1);
    let more = first("three ready pods", &|object| object["status"]["readyReplicas"] == 3);
    let patched =
        first("the label", &|object| object["metadata"]["labels"]["test-deployment"] == "patched");
    let annotated =
        first("the annotation", &|object| object["metadata"]["annotations"]["patched"] == "yes");
    assert!(ready < less && less < more && more < patched && patched < annotated);
    let by_new_label = harness.seen(&all, "test-deployment=patched", &since);
    assert_eq!(by_new_label[0].0, "ADDED", "it came into the selection");
}
