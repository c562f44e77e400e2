//! Decisions over small snapshots.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::*;
use crate::plugins::default_plugins;
use crate::snapshot::Budget;

struct Cluster {
    snapshot: Snapshot,
}

impl Cluster {
    /// Nodes of 4 CPUs, 8 GiB and 10 pods.
    fn of(nodes: &[&str]) -> Self {
        let mut cluster = Self { snapshot: Snapshot::default() };
        for name in nodes {
            cluster.node(name, json!({}));
        }
        cluster
    }

    fn node(&mut self, name: &str, spec: Value) -> &mut Self {
        let zone = name.split('-').next().unwrap();
        let node: Node = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": {
                "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone } },
            "spec": spec,
            "status": { "allocatable": { "cpu": "4", "memory": "8Gi", "pods": "10" } },
        }))
        .unwrap();
        self.snapshot.set_node(&NodeInfo::from(&node));
        self
    }

    fn pod(&mut self, name: &str, node: &str, spec: Value) -> &mut Self {
        let mut spec = spec;
        spec["nodeName"] = node.into();
        self.snapshot.add_pod(Arc::new(pod(name, spec)));
        self
    }

    fn decide(&self, spec: Value) -> Decision {
        decide(&default_plugins(), &self.snapshot, &pod("new", spec), &mut 0)
    }

    #[track_caller]
    fn binds(&self, spec: Value, expected: &str) {
        match self.decide(spec) {
            Decision::Bind { node } => assert_eq!(node, expected),
            Decision::Reject(error) => panic!("{error}"),
        }
    }

    #[track_caller]
    fn rejects(&self, spec: Value, expected: &str) {
        match self.decide(spec) {
            Decision::Bind { node } => panic!("bound to {node}"),
            Decision::Reject(error) => assert_eq!(error.to_string(), expected),
        }
    }

    #[track_caller]
    fn preempts(&self, spec: Value, node: &str, victims: &[&str]) {
        let Decision::Reject(error) = self.decide(spec) else { panic!("fits") };
        let preemption = error.preemption.unwrap_or_else(|| panic!("{}", error.post_filter));
        let names: Vec<_> = preemption.victims.iter().map(|v| v.key.name.as_str()).collect();
        assert_eq!((preemption.node.as_str(), names.as_slice()), (node, victims));
    }
}

fn pod(name: &str, mut spec: Value) -> PodInfo {
    if spec.get("containers").is_none() {
        spec["containers"] = json!([]);
    }
    let pod = json!({
        "metadata": { "name": name, "namespace": "ns", "uid": name, "labels": { "app": "web" } },
        "spec": spec,
    });
    PodInfo::new(&serde_json::from_value(pod).unwrap())
}

fn asks(cpu: &str) -> Value {
    json!({ "containers": [{ "name": "c", "resources": { "requests": { "cpu": cpu } } }] })
}

fn with(mut spec: Value, more: Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    spec
}

const NOT_HELPFUL: &str = "no new claims to deallocate, preemption: 0/1 nodes are available: \
                           1 Preemption is not helpful for scheduling.";

#[test]
fn without_nodes_nothing_fits() {
    Cluster::of(&[]).rejects(json!({}), "no nodes available to schedule pods");
}

#[test]
fn reasons_are_counted_and_sorted() {
    let mut cluster = Cluster::of(&["a"]);
    cluster.node("b", json!({ "taints": [{ "key": "k", "effect": "NoSchedule" }] }));
    cluster.rejects(
        asks("5"),
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s). \
         no new claims to deallocate, preemption: 0/2 nodes are available: \
         2 Preemption is not helpful for scheduling.",
    );
}

#[test]
fn a_full_node_without_victims_says_so() {
    let mut cluster = Cluster::of(&["a"]);
    cluster.pod("p", "a", asks("3"));
    cluster.rejects(
        asks("2"),
        "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: \
         0/1 nodes are available: 1 No preemption victims found for incoming pod.",
    );
    cluster.rejects(
        with(asks("2"), json!({ "preemptionPolicy": "Never" })),
        "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: \
         not eligible due to preemptionPolicy=Never.",
    );
}

#[test]
fn the_emptier_node_wins() {
    let mut cluster = Cluster::of(&["a", "b"]);
    cluster.pod("p", "a", asks("2"));
    cluster.binds(asks("1"), "b");
}

#[test]
fn selectors_and_cordons_are_obeyed() {
    let mut cluster = Cluster::of(&["a", "b"]);
    cluster.binds(json!({ "nodeSelector": { "kubernetes.io/hostname": "b" } }), "b");
    cluster.node("a", json!({ "unschedulable": true }));
    cluster.binds(json!({}), "b");
    let mut one = Cluster::of(&["a"]);
    one.rejects(
        json!({ "nodeSelector": { "disk": "ssd" } }),
        &format!(
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. \
             {NOT_HELPFUL}"
        ),
    );
    one.node("a", json!({ "unschedulable": true }));
    one.rejects(
        json!({}),
        &format!("0/1 nodes are available: 1 node(s) were unschedulable. {NOT_HELPFUL}"),
    );
}

#[test]
fn host_ports_conflict() {
    let port = json!({ "containers": [{ "name": "c", "ports": [
        { "containerPort": 80, "hostPort": 80, "protocol": "TCP" }] }] });
    let mut cluster = Cluster::of(&["a", "b"]);
    cluster.pod("p", "a", port.clone());
    cluster.binds(port.clone(), "b");
    cluster.pod("q", "b", port.clone());
    cluster.rejects(
        port,
        "0/2 nodes are available: 2 node(s) didn't have free ports for the requested pod ports. \
         no new claims to deallocate, preemption: 0/2 nodes are available: \
         2 No preemption victims found for incoming pod.",
    );
}

#[test]
fn the_number_of_pods_is_limited() {
    let mut cluster = Cluster::of(&["a"]);
    for at in 0..10 {
        cluster.pod(&format!("p{at}"), "a", json!({}));
    }
    let Decision::Reject(error) = cluster.decide(json!({})) else { panic!("fits") };
    assert!(error.reasons.contains_key("Too many pods"));
}

fn spread(key: &str, when: &str) -> Value {
    json!({ "topologySpreadConstraints": [{ "maxSkew": 1, "topologyKey": key,
        "whenUnsatisfiable": when, "labelSelector": { "matchLabels": { "app": "web" } } }] })
}

#[test]
fn pods_are_spread_over_zones() {
    let mut cluster = Cluster::of(&["z1-a", "z1-b", "z2-a"]);
    cluster.pod("p", "z1-a", asks("1"));
    cluster.binds(spread("topology.kubernetes.io/zone", "DoNotSchedule"), "z2-a");
    cluster.binds(spread("topology.kubernetes.io/zone", "ScheduleAnyway"), "z2-a");
    cluster.binds(
        with(
            spread("topology.kubernetes.io/zone", "DoNotSchedule"),
            json!({ "nodeSelector": { "topology.kubernetes.io/zone": "z1" } }),
        ),
        "z1-b",
    );
    cluster.rejects(
        spread("rack", "DoNotSchedule"),
        "0/3 nodes are available: 3 node(s) didn't match pod topology spread constraints \
         (missing required label). no new claims to deallocate, preemption: \
         0/3 nodes are available: 3 Preemption is not helpful for scheduling.",
    );
}

#[test]
fn pods_of_a_service_are_spread_by_default() {
    let mut cluster = Cluster::of(&["a", "b"]);
    cluster.pod("p", "a", asks("1")).pod("other", "b", asks("1"));
    cluster.snapshot.remove_pod("other");
    let mut other = pod("other", with(asks("1"), json!({ "nodeName": "b" })));
    other.labels = Arc::default();
    cluster.snapshot.add_pod(Arc::new(other));
    let selector = meta::LabelSelector::from_labels([("app", "web")]);
    cluster.snapshot.services.insert(("ns".to_owned(), "svc".to_owned()), selector);
    cluster.binds(asks("1"), "b");
}

fn affinity(kind: &str, key: &str) -> Value {
    json!({ "affinity": { kind: { "requiredDuringSchedulingIgnoredDuringExecution": [
        { "topologyKey": key, "labelSelector": { "matchLabels": { "app": "web" } } }] } } })
}

#[test]
fn pods_may_want_company_or_shun_it() {
    let mut cluster = Cluster::of(&["a", "b"]);
    let host = "kubernetes.io/hostname";
    // The first of a group that wants to be together may go anywhere.
    assert!(matches!(cluster.decide(affinity("podAffinity", host)), Decision::Bind { .. }));
    cluster.pod("p", "b", json!({}));
    cluster.binds(affinity("podAffinity", host), "b");
    cluster.binds(affinity("podAntiAffinity", host), "a");
    cluster.pod("q", "a", affinity("podAntiAffinity", host));
    // What is placed already may refuse as well.
    cluster.binds(json!({}), "b");
}

#[test]
fn the_least_important_pods_have_to_go() {
    let mut cluster = Cluster::of(&["a", "b"]);
    cluster.pod("low", "a", with(asks("3"), json!({ "priority": 1 })));
    cluster.pod("mid", "b", with(asks("3"), json!({ "priority": 5 })));
    let urgent = with(asks("3"), json!({ "priority": 10 }));
    cluster.preempts(urgent.clone(), "a", &["low"]);
    cluster.snapshot.budgets.insert(
        ("ns".to_owned(), "pdb".to_owned()),
        Budget {
            selector: meta::LabelSelector::from_labels([("app", "web")]),
            allowed: 0,
            disrupted: vec!["mid".to_owned()],
        },
    );
    cluster.preempts(urgent, "b", &["mid"]);
}

#[test]
fn no_more_pods_go_than_needed() {
    let mut cluster = Cluster::of(&["a"]);
    cluster.pod("one", "a", with(asks("2"), json!({ "priority": 1 })));
    cluster.pod("two", "a", with(asks("2"), json!({ "priority": 2 })));
    cluster.preempts(with(asks("1"), json!({ "priority": 10 })), "a", &["one"]);
}

#[test]
fn room_is_kept_for_a_nominated_pod() {
    let mut cluster = Cluster::of(&["a"]);
    let nominated = Arc::new(pod("nominated", with(asks("3"), json!({ "priority": 10 }))));
    cluster.snapshot.nominate(&nominated, "a");
    let Decision::Reject(error) = cluster.decide(asks("2")) else { panic!("took the room") };
    assert!(error.reasons.contains_key("Insufficient cpu"));
    cluster.binds(with(asks("2"), json!({ "priority": 11 })), "a");
}
