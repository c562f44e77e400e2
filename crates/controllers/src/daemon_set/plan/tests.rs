//! Which pods come and go.

use serde_json::{Value, json};

use super::*;
use k8s_openapi::api::core::v1::Pod;

fn set(spec: &Value) -> DaemonSet {
    let mut set = json!({ "metadata": { "name": "d", "namespace": "n", "generation": 2 },
        "spec": { "selector": { "matchLabels": { "a": "b" } }, "template": { "spec": {} },
            "updateStrategy": { "type": "RollingUpdate" } } });
    for (name, value) in spec.as_object().unwrap() {
        set["spec"][name] = value.clone();
    }
    serde_json::from_value(set).unwrap()
}

fn node(name: &str, taints: &Value) -> Arc<Node> {
    let node = json!({ "metadata": { "name": name, "labels": { "zone": name } },
        "spec": { "taints": taints } });
    Arc::new(serde_json::from_value(node).unwrap())
}

/// A pod by name: on the node, of the template, in the phase; `Ready` is a phase here.
fn pod(name: &str, node: &str, hash: &str, phase: &str) -> Arc<PodView> {
    let ready = if phase == "Ready" { "True" } else { "False" };
    let phase = if phase == "Ready" { "Running" } else { phase };
    let pod = json!({ "metadata": { "name": name, "namespace": "n", "labels": { HASH: hash } },
        "spec": { "containers": [], "nodeName": node },
        "status": { "phase": phase, "conditions": [{ "type": "Ready", "status": ready }] } });
    Arc::new(PodView::new(serde_json::from_value::<Pod>(pod).unwrap()))
}

fn names(plan: &Plan) -> (Vec<&str>, Vec<&str>) {
    let delete = plan.delete.iter().map(|pod| pod.key.name.as_str()).collect();
    (delete, plan.create.iter().map(String::as_str).collect())
}

fn managed(set: &DaemonSet, nodes: &[Arc<Node>], pods: &[Arc<PodView>]) -> Plan {
    View::new(set, nodes, pods, "new", Timestamp::UNIX_EPOCH).manage(|_| None)
}

fn rolled(set: &DaemonSet, pods: &[Arc<PodView>]) -> Plan {
    let nodes = ["a", "b", "c"].map(|name| node(name, &json!([])));
    View::new(set, &nodes, pods, "new", Timestamp::UNIX_EPOCH).roll()
}

#[test]
fn every_node_that_fits_gets_one_pod() {
    let nodes = [
        node("a", &json!([])),
        node("b", &json!([{ "key": "k", "effect": "NoSchedule" }])),
        node("c", &json!([{ "key": "k", "effect": "NoExecute" }])),
        node("d", &json!([{ "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" }])),
    ];
    let plan = managed(&set(&json!({})), &nodes, &[]);
    assert_eq!(names(&plan), (vec![], vec!["a", "d"]));
    // A pod that is there may stay where no other may come, unless it is driven off.
    let pods = [pod("p", "b", "new", "Ready"), pod("q", "c", "new", "Ready")];
    let plan = managed(&set(&json!({})), &nodes, &pods);
    assert_eq!(names(&plan), (vec!["q"], vec!["a", "d"]));
}

#[test]
fn the_template_chooses_nodes() {
    let nodes = [node("a", &json!([])), node("b", &json!([]))];
    let selected = set(&json!({ "template": { "spec": { "containers": [],
        "nodeSelector": { "zone": "b" } } } }));
    let plan = managed(&selected, &nodes, &[pod("p", "a", "new", "Ready")]);
    assert_eq!(names(&plan), (vec!["p"], vec!["b"]));
    let terms =
        json!([{ "matchExpressions": [{ "key": "zone", "operator": "NotIn", "values": ["b"] }] }]);
    let required = json!({ "requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": terms } });
    let affine = set(&json!({ "template": { "spec": { "containers": [],
        "affinity": { "nodeAffinity": required } } } }));
    assert_eq!(names(&managed(&affine, &nodes, &[])), (vec![], vec!["a"]));
}

#[test]
fn a_failed_pod_is_deleted_unless_its_node_failed_a_moment_ago() {
    let nodes = [node("a", &json!([]))];
    let (set, pods) = (set(&json!({})), [pod("p", "a", "new", "Failed")]);
    let plan = managed(&set, &nodes, &pods);
    assert_eq!(names(&plan), (vec!["p"], vec![]));
    let text = "Found failed daemon pod n/p on node a, will try to kill it";
    assert_eq!(plan.events, [(EventType::Warning, "FailedDaemonPod", text.to_owned())]);
    assert_eq!(plan.failed, ["a"]);
    let view = View::new(&set, &nodes, &pods, "new", Timestamp::UNIX_EPOCH);
    let held = view.manage(|_| Some(Duration::from_secs(3)));
    assert_eq!((names(&held), held.wait), ((vec![], vec![]), Some(Duration::from_secs(3))));
}

#[test]
fn of_two_pods_on_a_node_the_older_stays() {
    let pods = [pod("q", "a", "new", "Ready"), pod("p", "a", "new", "Ready")];
    let plan = managed(&set(&json!({})), &[node("a", &json!([]))], &pods);
    assert_eq!(names(&plan), (vec!["q"], vec![]));
}

#[test]
fn no_more_pods_are_replaced_than_may_be_unavailable() {
    let limited = |max: Value| {
        set(&json!({ "updateStrategy": { "type": "RollingUpdate",
            "rollingUpdate": { "maxUnavailable": max, "maxSurge": 0 } } }))
    };
    let ready = |name: &str| pod(name, name, "old", "Ready");
    let all = [ready("a"), ready("b"), ready("c")];
    assert_eq!(names(&rolled(&limited(json!(1)), &all)).0, ["a"]);
    assert_eq!(names(&rolled(&limited(json!("50%")), &all)).0, ["a", "b"]);
    let waiting = [pod("a", "a", "new", "Pending"), ready("b"), ready("c")];
    assert_eq!(names(&rolled(&limited(json!(1)), &waiting)).0, Vec::<&str>::new());
    // What does not work is replaced whatever else is unavailable.
    let broken = [pod("a", "a", "new", "Pending"), pod("b", "b", "old", "Pending"), ready("c")];
    assert_eq!(names(&rolled(&limited(json!(1)), &broken)).0, ["b"]);
    let on_delete = set(&json!({ "updateStrategy": { "type": "OnDelete" } }));
    assert_eq!(names(&rolled(&on_delete, &all)).0, Vec::<&str>::new());
}

#[test]
fn a_surge_makes_the_new_pod_first() {
    let set = set(&json!({ "updateStrategy": { "type": "RollingUpdate",
        "rollingUpdate": { "maxUnavailable": 0, "maxSurge": 1 } } }));
    let ready = |name: &str| pod(name, name, "old", "Ready");
    let all = [ready("a"), ready("b"), ready("c")];
    assert_eq!(names(&rolled(&set, &all)), (vec![], vec!["a"]));
    let mut coming = all.to_vec();
    coming.push(pod("x", "a", "new", "Pending"));
    assert_eq!(names(&rolled(&set, &coming)), (vec![], vec![]));
    let mut come = all.to_vec();
    come.push(pod("x", "a", "new", "Ready"));
    assert_eq!(names(&rolled(&set, &come)), (vec!["a"], vec!["b"]));
}

#[test]
fn the_status_counts_the_first_pod_of_every_node() {
    let nodes = ["a", "b", "c"].map(|name| node(name, &json!([])));
    let selected = set(&json!({ "template": { "spec": { "containers": [] } } }));
    let pods = [pod("p", "a", "new", "Ready"), pod("q", "b", "old", "Pending")];
    let view = View::new(&selected, &nodes, &pods, "new", Timestamp::UNIX_EPOCH);
    let status = serde_json::to_value(view.status(true)).unwrap();
    assert_eq!(
        status,
        json!({ "currentNumberScheduled": 2, "desiredNumberScheduled": 3, "numberAvailable": 1,
            "numberMisscheduled": 0, "numberReady": 1, "numberUnavailable": 2,
            "observedGeneration": 2, "updatedNumberScheduled": 1 })
    );
    assert_eq!(view.status(false).observed_generation, None);
}
