//! What is concluded from a node's silence.

use super::*;

fn node(ready: Option<&str>, spec: Value) -> Node {
    let conditions: Vec<_> =
        ready.iter().map(|status| json!({ "type": "Ready", "status": status })).collect();
    serde_json::from_value(json!({
        "metadata": { "name": "n", "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": spec,
        "status": { "conditions": conditions },
    }))
    .unwrap()
}

#[track_caller]
fn check(node: &Node, any_ready: bool, expected: Option<&[&str]>) {
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    let taints = taints::wanted(node, any_ready, now).map(|taints| {
        let text = |taint: &Value| {
            format!("{}:{}", taint["key"].as_str().unwrap(), taint["effect"].as_str().unwrap())
        };
        taints.iter().map(text).collect::<Vec<_>>()
    });
    let expected = expected.map(|all| all.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
    assert_eq!(taints, expected);
}

const NOT_READY: [&str; 2] =
    ["node.kubernetes.io/not-ready:NoSchedule", "node.kubernetes.io/not-ready:NoExecute"];

#[test]
fn taints_follow_conditions() {
    check(&node(Some("True"), json!({})), true, None);
    check(&node(Some("False"), json!({})), true, Some(&NOT_READY));
    check(&node(Some("False"), json!({})), false, Some(&NOT_READY[..1]));
    let cordoned = json!({ "unschedulable": true });
    let taint = "node.kubernetes.io/unschedulable:NoSchedule";
    check(&node(Some("True"), cordoned), true, Some(&[taint]));
}

#[test]
fn a_node_that_becomes_ready_loses_our_taints_only() {
    let taints = json!({ "taints": [
        { "key": "node.kubernetes.io/not-ready", "effect": "NoSchedule" },
        { "key": "mine", "effect": "NoSchedule" } ] });
    check(&node(Some("True"), taints), true, Some(&["mine:NoSchedule"]));
}

#[test]
fn silence_makes_conditions_unknown() {
    let changed = unknown_conditions(&node(Some("True"), json!({})), "t");
    assert_eq!(changed.len(), 4);
    assert_eq!(changed[0]["reason"], "NodeStatusUnknown");
    assert_eq!(changed[1]["message"], "Kubelet never posted node status.");
    assert_eq!(unknown_conditions(&node(Some("Unknown"), json!({})), "t").len(), 3);
}

#[test]
fn what_we_wrote_ourselves_is_no_sign_of_life() {
    let (ready, unknown) = (node(Some("True"), json!({})), node(Some("Unknown"), json!({})));
    assert!(!spoke(&ready, &unknown));
    assert!(spoke(&unknown, &ready));
}
