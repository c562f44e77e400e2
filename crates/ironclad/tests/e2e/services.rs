//! Services and names.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Harness, collection, server};

fn service(kind: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "web" },
        "spec": { "type": kind, "selector": { "app": "web" },
                  "ports": [{ "port": 80, "targetPort": 8080 }] },
    })
}

#[test]
fn a_service_answers_at_all_its_addresses_and_by_its_name() {
    let harness = Harness::start();
    harness.create("pods", &server("web"));
    harness.create("pods", &server("client"));
    let service = harness.create("services", &service("LoadBalancer"));
    harness.ready_pod("web");
    let client = harness.ready_pod("client")["status"]["podIP"].as_str().unwrap().to_owned();
    let cluster_ip = service["spec"]["clusterIP"].as_str().unwrap();
    let node_port =
        u16::try_from(service["spec"]["ports"][0]["nodePort"].as_u64().unwrap()).unwrap();
    let balanced = harness.until("the service has a load balancer's address", || {
        let service = harness.get(&format!("{}/web", collection("services")));
        let address = service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str()?.to_owned();
        Some(address)
    });
    assert_eq!(balanced, "192.168.77.2");
    // Rules follow the endpoints within moments.
    harness.until("the cluster address answers", || {
        harness.fetch(cluster_ip, 80, "/hostname").ok().filter(|name| name == "web")
    });
    assert_eq!(harness.fetch("192.168.77.2", node_port, "/hostname").unwrap(), "web");
    assert_eq!(harness.fetch_from_outside("192.168.77.2", node_port, "/hostname").unwrap(), "web");
    harness.until("the load balancer's address answers", || {
        harness
            .fetch_from_outside("192.168.77.2", 80, "/hostname")
            .ok()
            .filter(|name| name == "web")
    });

    let from_pod = |path: &str| harness.fetch(&client, 8080, path).unwrap();
    assert_eq!(from_pod(&format!("/fetch?{cluster_ip}:80/hostname")), "web");
    assert_eq!(from_pod("/resolve?web.default.svc.cluster.local"), cluster_ip);
    assert_eq!(from_pod("/resolve?web"), cluster_ip, "by the search list");
    assert_eq!(from_pod("/fetch?web:80/hostname"), "web");
    assert_eq!(from_pod("/resolve?kubernetes.default.svc"), "10.43.0.1");
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    let harness = Harness::start();
    harness.create("pods", &server("web"));
    let service = harness.create("services", &service("ClusterIP"));
    // Not by its name: in the pod that is the pod itself.
    let path = format!("/fetch?{}:80/hostname", service["spec"]["clusterIP"].as_str().unwrap());
    let address = harness.ready_pod("web")["status"]["podIP"].as_str().unwrap().to_owned();
    harness.until("the pod reaches itself", || {
        harness.fetch(&address, 8080, &path).ok().filter(|name| name == "web")
    });
}

#[test]
fn a_service_leads_to_the_endpoints_of_the_zone_that_its_node_is_in() {
    let harness = Harness::start();
    for name in ["first", "second"] {
        harness.create("pods", &server(name));
    }
    let endpoint = |name: &str, zone: &str| {
        let pod = harness.ready_pod(name);
        json!({ "addresses": [pod["status"]["podIP"]], "conditions": { "ready": true },
            "hints": { "forZones": [{ "name": zone }] } })
    };
    let mut service = service("ClusterIP");
    service["spec"]["selector"] = Value::Null;
    let made = harness.create("services", &service);
    let slice = json!({
        "metadata": { "name": "web", "labels": { "kubernetes.io/service-name": "web" } },
        "addressType": "IPv4", "ports": [{ "name": "", "port": 8080, "protocol": "TCP" }],
        "endpoints": [endpoint("first", "a"), endpoint("second", "b")],
    });
    harness.create("discovery.k8s.io/v1/endpointslices", &slice);
    let nodes = harness.get("/api/v1/nodes");
    let node = nodes["items"][0]["metadata"]["name"].as_str().unwrap();
    let node = format!("/api/v1/nodes/{node}");
    let cluster_ip = made["spec"]["clusterIP"].as_str().unwrap();
    // Ten answers of one of two that share the work are chance once in a thousand.
    let only = |name: &str| {
        let answers = |_| harness.fetch(cluster_ip, 80, "/hostname").is_ok_and(|it| it == name);
        (0..10).all(answers).then_some(())
    };
    for (zone, name) in [("a", "first"), ("b", "second"), ("a", "first")] {
        let labels = json!({ "metadata": { "labels": { "topology.kubernetes.io/zone": zone } } });
        harness.request(Method::PATCH, &node, Some(&labels)).unwrap();
        harness.until(&format!("{name} answers in zone {zone}"), || only(name));
    }
}

#[test]
fn a_service_range_is_kept_while_a_service_uses_it() {
    let harness = Harness::start();
    let ranges = "/apis/networking.k8s.io/v1/servicecidrs";
    let range = json!({ "metadata": { "name": "more" }, "spec": { "cidrs": ["10.44.0.0/28"] } });
    harness.request(Method::POST, ranges, Some(&range)).unwrap();
    let path = format!("{ranges}/more");
    let ready = |range: &Value| {
        let conditions = range["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|condition| condition["type"] == "Ready")
    };
    let condition = harness.until("the range is ready", || ready(&harness.get(&path)));
    assert_eq!(condition["status"], "True");
    assert_eq!(condition["message"], "Kubernetes Service CIDR is ready");
    let range = harness.get(&path);
    let finalizers = json!(["networking.k8s.io/service-cidr-finalizer"]);
    assert_eq!(range["metadata"]["finalizers"], finalizers);
    let mut service = service("ClusterIP");
    service["spec"]["clusterIP"] = json!("10.44.0.5");
    harness.create("services", &service);

    harness.delete(&path);
    let condition = harness.until("the range waits", || {
        ready(&harness.get(&path)).filter(|condition| condition["status"] == "False")
    });
    assert_eq!(condition["reason"], "Terminating");
    service["metadata"]["name"] = json!("late");
    service["spec"]["clusterIP"] = json!("10.44.0.6");
    let refused = harness.request(Method::POST, &collection("services"), Some(&service));
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("does not match the current range"), "{error}");
    harness.delete(&format!("{}/web", collection("services")));
    harness.until("the range is gone", || (!harness.exists(&path)).then_some(()));
}
