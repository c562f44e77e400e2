//! Slices of services and their pods.

use serde_json::{Value, json};

use super::slices::plan;
use super::*;

fn service(more: Value) -> Service {
    let mut spec = json!({ "clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"],
        "selector": { "a": "b" }, "ports": [{ "name": "http", "port": 80, "targetPort": "web" }] });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    serde_json::from_value(json!({
        "metadata": { "name": "svc", "namespace": "n", "uid": "u" }, "spec": spec,
    }))
    .unwrap()
}

fn pod(name: &str, port: i32, more: Value) -> Arc<PodView> {
    let mut pod = json!({
        "metadata": { "name": name, "namespace": "n", "uid": name },
        "spec": { "nodeName": "node", "containers": [
            { "name": "c", "ports": [{ "name": "web", "containerPort": port }] }] },
        "status": { "podIP": format!("10.1.0.{name}"), "phase": "Running",
            "conditions": [{ "type": "Ready", "status": "True" }] },
    });
    for (key, value) in more.as_object().unwrap() {
        pod["metadata"][key] = value.clone();
    }
    Arc::new(PodView::new(serde_json::from_value(pod).unwrap()))
}

fn groups(service: &Service, pods: &[Arc<PodView>]) -> Vec<Group> {
    let spec = service.spec.as_ref().unwrap();
    let in_zone = |pod: &Arc<PodView>| Placed { pod: pod.clone(), zone: Some("z".to_owned()) };
    let placed: Vec<Placed> = pods.iter().map(in_zone).collect();
    groups_of(service, spec, &placed, AddressType::Ipv4)
}

fn planned(service: &Service, pods: &[Arc<PodView>], present: &[EndpointSlice]) -> slices::Plan {
    let parent = parent(service, service.spec.as_ref().unwrap(), None);
    let present: Vec<_> = present.iter().cloned().map(Arc::new).collect();
    plan(&parent, &[AddressType::Ipv4], groups(service, pods), &present)
}

fn named(mut slice: EndpointSlice, name: &str) -> EndpointSlice {
    slice.metadata.name = Some(name.to_owned());
    slice
}

#[test]
fn a_service_without_pods_has_an_empty_slice() {
    let service = service(json!({}));
    let plan = planned(&service, &[], &[]);
    assert_eq!(plan.create.len(), 1);
    assert_eq!(plan.create[0].endpoints, Some(vec![]));
    assert_eq!(plan.create[0].metadata.generate_name.as_deref(), Some("svc-"));
    let settled = planned(&service, &[], &[named(plan.create[0].clone(), "s")]);
    assert_eq!(settled.changes(), 0);
}

#[test]
fn endpoints_tell_of_their_pod() {
    let service = service(json!({}));
    let deleted = json!({ "deletionTimestamp": "2026-01-01T00:00:00Z" });
    let plan = planned(&service, &[pod("1", 8080, deleted)], &[]);
    assert_eq!(
        serde_json::to_value(&plan.create[0].endpoints).unwrap(),
        json!([{ "addresses": ["10.1.0.1"], "nodeName": "node", "zone": "z",
            "conditions": { "ready": false, "serving": true, "terminating": true },
            "targetRef": { "kind": "Pod", "namespace": "n", "name": "1", "uid": "1" } }])
    );
    let labels = plan.create[0].metadata.labels.as_ref().unwrap();
    assert_eq!(labels["kubernetes.io/service-name"], "svc");
}

#[test]
fn pods_with_other_ports_are_in_another_slice() {
    let service = service(json!({}));
    let pods = [pod("1", 8080, json!({})), pod("2", 9090, json!({}))];
    assert_eq!(planned(&service, &pods, &[]).create.len(), 2);
}

#[test]
fn the_empty_slice_gives_way_to_endpoints() {
    let service = service(json!({}));
    let empty = named(planned(&service, &[], &[]).create[0].clone(), "empty");
    let plan = planned(&service, &[pod("1", 8080, json!({}))], &[empty]);
    assert_eq!((plan.create.len(), plan.delete.as_slice()), (1, &["empty".to_owned()][..]));
}

#[test]
fn slices_are_filled_and_few_are_changed() {
    let service = service(json!({}));
    let pods: Vec<_> = (0..150).map(|at| pod(&at.to_string(), 80, json!({}))).collect();
    let created = planned(&service, &pods, &[]).create;
    let sizes: Vec<_> = created.iter().map(|s| s.endpoints.as_ref().unwrap().len()).collect();
    assert_eq!(sizes, [100, 50]);
    let present = [named(created[0].clone(), "full"), named(created[1].clone(), "half")];
    let mut more = pods.clone();
    more.push(pod("200", 80, json!({})));
    let plan = planned(&service, &more, &present);
    assert_eq!((plan.create.len(), plan.update.len()), (0, 1));
    assert_eq!(plan.update[0].metadata.name.as_deref(), Some("half"));
    assert_eq!(planned(&service, &pods, &present).changes(), 0);
}

#[test]
fn traffic_may_prefer_what_is_close() {
    let service = service(json!({ "trafficDistribution": "PreferClose" }));
    let groups = groups(&service, &[pod("1", 80, json!({}))]);
    let hints = groups[0].endpoints[0].hints.as_ref().unwrap();
    assert_eq!(hints.for_zones.as_ref().unwrap()[0].name, "z");
}

#[test]
fn only_what_is_ready_is_preferred() {
    let service = service(json!({ "trafficDistribution": "PreferSameNode" }));
    let deleted = json!({ "deletionTimestamp": "2026-01-01T00:00:00Z" });
    let groups = groups(&service, &[pod("1", 80, deleted)]);
    assert_eq!(groups[0].endpoints[0].hints, None);
}
