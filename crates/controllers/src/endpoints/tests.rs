//! Endpoints of services and their pods.

use serde_json::{Value, json};

use super::*;

fn service(spec: Value) -> Service {
    serde_json::from_value(json!({
        "metadata": { "name": "svc", "namespace": "n", "labels": { "l": "v" } },
        "spec": spec,
    }))
    .unwrap()
}

fn pod(name: &str, ip: &str, ready: bool) -> Arc<PodView> {
    let status = if ready { "True" } else { "False" };
    Arc::new(PodView::new(
        serde_json::from_value(json!({
            "metadata": { "name": name, "namespace": "n", "uid": name },
            "spec": { "nodeName": "node", "hostname": "h", "subdomain": "svc", "containers": [
                { "name": "c", "ports": [{ "name": "web", "containerPort": 8080 }] }] },
            "status": { "podIP": ip, "podIPs": [{ "ip": ip }], "phase": "Running",
                "conditions": [{ "type": "Ready", "status": status }] },
        }))
        .unwrap(),
    ))
}

#[test]
fn named_ports_are_resolved_and_readiness_divides() {
    let service = service(json!({ "clusterIP": "10.0.0.1", "selector": { "a": "b" }, "ports": [
        { "name": "http", "port": 80, "targetPort": "web", "protocol": "TCP" },
        { "name": "other", "port": 90, "targetPort": "none", "protocol": "TCP" }] }));
    let pods = [pod("a", "10.1.0.1", true), pod("b", "10.1.0.2", false)];
    let endpoints = wanted(&service, &pods, None).unwrap();
    assert_eq!(
        serde_json::to_value(&endpoints.subsets).unwrap(),
        json!([{
            "addresses": [{ "ip": "10.1.0.1", "hostname": "h", "nodeName": "node",
                "targetRef": { "kind": "Pod", "namespace": "n", "name": "a", "uid": "a" } }],
            "notReadyAddresses": [{ "ip": "10.1.0.2", "hostname": "h", "nodeName": "node",
                "targetRef": { "kind": "Pod", "namespace": "n", "name": "b", "uid": "b" } }],
            "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
        }])
    );
    assert_eq!(endpoints.metadata.labels.as_ref().unwrap()["l"], "v");
    assert_eq!(wanted(&service, &pods, Some(&endpoints)), None, "it must settle");
}

#[test]
fn ports_with_the_same_addresses_share_a_subset() {
    let service = service(json!({ "clusterIP": "10.0.0.1", "selector": { "a": "b" }, "ports": [
        { "name": "x", "port": 80 }, { "name": "y", "port": 81 }] }));
    let subsets = subsets(&service, &[pod("a", "10.1.0.1", true)]);
    assert_eq!(subsets.len(), 1);
    assert_eq!(subsets[0].ports.as_ref().unwrap().len(), 2);
}

#[test]
fn a_headless_service_may_have_no_ports() {
    let service = service(json!({ "clusterIP": "None", "selector": { "a": "b" } }));
    let endpoints = wanted(&service, &[pod("a", "10.1.0.1", true)], None).unwrap();
    assert_eq!(endpoints.subsets.as_ref().unwrap()[0].ports, None);
    assert!(endpoints.metadata.labels.unwrap().contains_key(HEADLESS));
}

#[test]
fn what_is_too_much_is_cut() {
    let service = service(json!({ "clusterIP": "10.0.0.1", "selector": { "a": "b" },
        "ports": [{ "port": 80 }] }));
    let pods: Vec<_> = (0..1200)
        .map(|at| pod(&format!("p{at}"), &format!("10.1.{}.{}", at / 250, at % 250), at >= 500))
        .collect();
    let endpoints = wanted(&service, &pods, None).unwrap();
    let subset = &endpoints.subsets.unwrap()[0];
    assert_eq!(subset.addresses.as_ref().unwrap().len(), 700);
    assert_eq!(subset.not_ready_addresses.as_ref().unwrap().len(), 300);
    assert_eq!(endpoints.metadata.annotations.unwrap()[ENDPOINTS_OVER_CAPACITY], "truncated");
}
