//! G24: endpoints, slices and their mirrors, and the ranges of services.

use std::time::Duration;

use clock::{Clock, SystemClock};
use serde_json::{Value, json};

use super::{at, condition, name};
use crate::harness::{Harness, collection, server};

const SLICES: &str = "discovery.k8s.io/v1/endpointslices";

fn service(name: &str, selector: &Value, ports: &Value) -> Value {
    json!({ "metadata": { "name": name }, "spec": { "selector": selector, "ports": ports } })
}

fn slices(harness: &Harness, service: &str) -> Vec<Value> {
    let selector = format!("labelSelector=kubernetes.io/service-name={service}");
    harness.items(&format!("{}?{selector}", collection(SLICES)))
}

/// A pod that serves under a named port, of a number of its own.
fn with_port(pod: &str, label: &str, port: u16) -> Value {
    let mut pod = server(pod);
    pod["metadata"]["labels"] = json!({ label: "yes", "serves": "yes" });
    let container = &mut pod["spec"]["containers"][0];
    container["args"] = json!(["serve", port.to_string()]);
    container["ports"] = json!([{ "name": "example", "containerPort": port }]);
    pod
}

/// \[sig-network\] EndpointSlice should create and delete EndpointSlices for a Service with a selector
/// that matches no pods; EndpointsController should create and delete Endpoints for a Service with a
/// selector that matches no pods
#[test]
fn a_service_of_no_pods_has_endpoints_without_addresses_that_go_with_it() {
    let harness = Harness::start();
    let ports = json!([{ "name": "example", "port": 80 }]);
    harness.create("services", &service("empty", &json!({ "does-not": "match" }), &ports));
    let endpoints = at("endpoints", "empty");
    let object = harness.becomes(&endpoints, "is there", |_| true);
    assert!(object["subsets"].as_array().is_none_or(Vec::is_empty), "{object}");
    let slice = harness.until("a slice", || slices(&harness, "empty").pop());
    assert!(slice["endpoints"].as_array().is_none_or(Vec::is_empty), "{slice}");
    assert_eq!(slice["metadata"]["ownerReferences"][0]["name"], "empty");
    harness.delete(&at("services", "empty"));
    harness.goes(&endpoints);
    harness.until("no slice", || slices(&harness, "empty").is_empty().then_some(()));
}

/// \[sig-network\] EndpointSlice should create Endpoints and EndpointSlices for Pods matching a
/// Service; EndpointsController should create Endpoints for Pods matching a Service
#[test]
fn pods_of_a_service_are_in_slices_by_the_number_of_their_port() {
    let harness = Harness::start();
    let by_name = json!([{ "name": "example", "port": 80, "targetPort": "example" }]);
    let by_number = json!([
        { "name": "portname1", "port": 80, "targetPort": 3001 },
        { "name": "portname2", "port": 81, "targetPort": 3002 }]);
    harness.create("services", &service("one", &json!({ "first": "yes" }), &by_number));
    harness.create("services", &service("all", &json!({ "serves": "yes" }), &by_name));
    harness.create("pods", &with_port("pod1", "first", 3000));
    harness.create("pods", &with_port("pod2", "second", 3001));
    let pods = ["pod1", "pod2"].map(|name| harness.ready_pod(name));
    let address = |pod: &Value| pod["status"]["podIP"].clone();
    let filled = |service: &str, count: usize| {
        harness.until(&format!("{count} slices of {service}"), || {
            let mut slices = slices(&harness, service);
            slices.sort_by_key(|slice| slice["ports"][0]["port"].as_u64());
            let one =
                |slice: &Value| slice["endpoints"].as_array().is_some_and(|all| all.len() == 1);
            (slices.len() == count && slices.iter().all(one)).then_some(slices)
        })
    };
    let check = |slice: &Value, service: &str, pod: &Value| {
        let metadata = &slice["metadata"];
        assert_eq!(metadata["ownerReferences"][0]["name"], service);
        let labels = &metadata["labels"];
        let manager = "endpointslice-controller.k8s.io";
        assert_eq!(labels["endpointslice.kubernetes.io/managed-by"], manager);
        assert_eq!(slice["addressType"], "IPv4");
        let endpoint = &slice["endpoints"][0];
        assert_eq!(endpoint["addresses"], json!([address(pod)]));
        let conditions = json!({ "ready": true, "serving": true, "terminating": false });
        assert_eq!(endpoint["conditions"], conditions);
        assert_eq!(endpoint["nodeName"], "node-1");
        let target = json!({ "kind": "Pod", "namespace": "default", "name": name(pod),
            "uid": pod["metadata"]["uid"] });
        assert_eq!(endpoint["targetRef"], target);
    };
    let one = filled("one", 1).remove(0);
    check(&one, "one", &pods[0]);
    let mut ports: Vec<_> =
        one["ports"].as_array().unwrap().iter().map(|port| &port["port"]).collect();
    ports.sort_by_key(|port| port.as_u64());
    assert_eq!(ports, [3001, 3002]);
    let all = filled("all", 2);
    for (slice, (pod, port)) in all.iter().zip([(&pods[0], 3000), (&pods[1], 3001)]) {
        check(slice, "all", pod);
        let expected = json!([{ "name": "example", "port": port, "protocol": "TCP" }]);
        assert_eq!(slice["ports"], expected);
    }
    let endpoints = harness.becomes(&at("endpoints", "all"), "has both", |endpoints| {
        endpoints["subsets"].as_array().is_some_and(|subsets| subsets.len() == 2)
    });
    let manager = &endpoints["metadata"]["labels"]["endpoints.kubernetes.io/managed-by"];
    assert_eq!(manager, "endpoint-controller");
    for subset in endpoints["subsets"].as_array().unwrap() {
        let pod = &pods[usize::from(subset["ports"][0]["port"] == 3001)];
        assert_eq!(subset["addresses"][0]["ip"], address(pod));
        assert_eq!(subset["addresses"][0]["targetRef"]["name"], pod["metadata"]["name"]);
    }

    // What is deleted comes back, for it is derived.
    let before = endpoints["metadata"]["uid"].clone();
    harness.delete(&at("endpoints", "all"));
    harness.becomes(&at("endpoints", "all"), "is there again", |endpoints| {
        endpoints["metadata"]["uid"] != before && endpoints["subsets"].is_array()
    });
    harness.delete(&at(SLICES, &name(&all[0])));
    harness.goes(&at(SLICES, &name(&all[0])));
    check(&filled("all", 2)[0], "all", &pods[0]);
    harness.delete(&at("services", "all"));
    harness.until("its slices are gone", || slices(&harness, "all").is_empty().then_some(()));
    harness.goes(&at("endpoints", "all"));
    assert_eq!(slices(&harness, "one").len(), 1);
}

/// \[sig-network\] EndpointSliceMirroring should mirror a custom Endpoints resource through create
/// update and delete, within twelve seconds each
#[test]
fn endpoints_of_ones_own_are_mirrored_at_once() {
    let harness = Harness::start();
    let ports = json!([{ "name": "example", "port": 80 }]);
    harness.create("services", &service("custom", &Value::Null, &ports));
    let quickly = |what: &str, is: &dyn Fn(&[Value]) -> bool| {
        let start = SystemClock.monotonic();
        harness.until(what, || {
            let slices = slices(&harness, "custom");
            is(&slices).then_some(())
        });
        let took = SystemClock.monotonic().saturating_duration_since(start);
        assert!(took < Duration::from_secs(12), "{what} took {took:?}");
    };
    let is_of = |slices: &[Value], address: &str| {
        let [slice] = slices else { return false };
        slice["endpoints"] == json!([{ "addresses": [address], "conditions": { "ready": true } }])
            && slice["ports"] == json!([{ "name": "", "port": 80, "protocol": "TCP" }])
            && slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"]
                == "endpointslicemirroring-controller.k8s.io"
    };
    let subsets =
        |address: &str| json!([{ "addresses": [{ "ip": address }], "ports": [{ "port": 80 }] }]);
    let endpoints = json!({ "metadata": { "name": "custom" }, "subsets": subsets("10.1.2.3") });
    harness.create("endpoints", &endpoints);
    quickly("they are mirrored", &|slices| is_of(slices, "10.1.2.3"));
    harness.update(&at("endpoints", "custom"), |all| all["subsets"] = subsets("10.2.3.4"));
    quickly("the mirror follows", &|slices| is_of(slices, "10.2.3.4"));
    harness.delete(&at("endpoints", "custom"));
    quickly("the mirror goes", &|slices| slices.is_empty());
}

/// \[sig-network\] EndpointSlice should support a Service with multiple endpoint IPs specified in
/// multiple EndpointSlices; … with multiple ports specified in multiple EndpointSlices
#[test]
fn slices_of_ones_own_are_served_by_the_proxy() {
    let harness = Harness::start();
    harness.create("pods", &with_port("pod1", "first", 3000));
    harness.create("pods", &with_port("pod2", "second", 3001));
    let [first, second] =
        ["pod1", "pod2"].map(|name| harness.ready_pod(name)["status"]["podIP"].clone());
    let ports =
        json!([{ "name": "portname1", "port": 3000 }, { "name": "portname2", "port": 3001 }]);
    for (service_name, addresses, port_numbers) in [
        ("two-addresses", [&first, &second], [3000, 3001]),
        ("one-address", [&first, &first], [3000, 3000]),
    ] {
        let made = harness.create("services", &service(service_name, &Value::Null, &ports));
        for index in 0..2 {
            let slice = json!({ "metadata": { "name": format!("{service_name}-{index}"),
                    "labels": { "kubernetes.io/service-name": service_name,
                        "endpointslice.kubernetes.io/managed-by": "e2e-test.k8s.io" } },
                "addressType": "IPv4", "endpoints": [{ "addresses": [addresses[index]] }],
                "ports": [{ "name": format!("portname{}", index + 1),
                    "port": port_numbers[index], "protocol": "TCP" }] });
            harness.create(SLICES, &slice);
        }
        let address = made["spec"]["clusterIP"].as_str().unwrap();
        for (port, expected) in [(3000, addresses[0]), (3001, addresses[1])] {
            let expected = if *expected == first { "pod1" } else { "pod2" };
            harness.until(&format!("{service_name}:{port}"), || {
                harness.fetch(address, port, "/hostname").ok().filter(|name| name == expected)
            });
        }
        assert_eq!(slices(&harness, service_name).len(), 2, "nobody takes them for his own");
    }
}

/// \[sig-network\] ServiceCIDR and IPAddress API should support ServiceCIDR API operations: the
/// default range is there and ready, and says so to whoever asks for its status
#[test]
fn the_default_range_is_ready_and_services_have_addresses_of_it() {
    let harness = Harness::start();
    let path = "/apis/networking.k8s.io/v1/servicecidrs/kubernetes";
    let range =
        harness.becomes(path, "is ready", |range| condition(range, "Ready")["status"] == "True");
    assert_eq!(range["spec"]["cidrs"], json!(["10.43.0.0/16"]));
    let status = format!("{path}/status");
    let own = json!({ "type": "StatusPatched", "status": "True", "reason": "E2E", "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z" });
    harness.merge(&status, &json!({ "status": { "conditions": [own] } }));
    let range = harness.get(&status);
    assert_eq!(condition(&range, "StatusPatched")["status"], "True");
    assert_eq!(condition(&range, "Ready")["status"], "True", "{range}");
    let made = harness.create("services", &service("s", &Value::Null, &json!([{ "port": 80 }])));
    let address = made["spec"]["clusterIP"].as_str().unwrap();
    let path = format!("/apis/networking.k8s.io/v1/ipaddresses/{address}");
    let parent = harness.get(&path)["spec"]["parentRef"].clone();
    assert_eq!((&parent["resource"], &parent["name"]), (&json!("services"), &json!("s")));
    harness.delete(&at("services", "s"));
    harness.goes(&path);
    let kinds = harness.get("/apis/networking.k8s.io/v1");
    let has = |plural: &str| {
        kinds["resources"].as_array().unwrap().iter().any(|kind| kind["name"] == plural)
    };
    for plural in [
        "servicecidrs",
        "servicecidrs/status",
        "ipaddresses",
        "ingresses",
        "ingresses/status",
        "ingressclasses",
    ] {
        assert!(has(plural), "{plural}");
    }
}
