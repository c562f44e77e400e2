//! What the server says of ranges, services and addresses that are not as it would have made them:
//! from a store of another cluster, or of the time before the configuration was changed.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use clock::{ManualClock, SystemClock};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use store::{Expect, LogStore, Options, Store, Write};

use crate::fixture::{Fixture, admin};
use crate::service_ranges::{ADDRESSES, EVENTS, RANGES, SERVICES, service, until};

const DEFAULT: &str = "/apis/networking.k8s.io/v1/servicecidrs/kubernetes";
/// Between two passes.
const PASS: Duration = Duration::from_secs(180);

fn volatile() -> Arc<LogStore> {
    Arc::new(LogStore::volatile(&Options::default(), Arc::new(SystemClock)).unwrap())
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap()))
}

/// Puts a service into the store as another cluster has left it.
async fn restore(store: &LogStore, name: &str, spec: Value) {
    let service = json!({"kind": "Service", "apiVersion": "v1", "spec": spec,
        "metadata": {"name": name, "namespace": "default", "uid": name,
            "creationTimestamp": "2025-01-01T00:00:00Z"}});
    put(store, &format!("services/specs/default/{name}"), &service).await;
}

/// The default range as an older cluster has left it.
fn restored_range(cidr: &str) -> Value {
    json!({"kind": "ServiceCIDR", "apiVersion": "networking.k8s.io/v1",
        "metadata": {"name": "kubernetes", "uid": "u", "creationTimestamp": "2025-01-01T00:00:00Z"},
        "spec": {"cidrs": [cidr]}})
}

async fn put(store: &LogStore, path: &str, object: &Value) {
    let value = Some(object.to_string().into());
    let write = Write::new(format!("/registry/{path}").into(), value, Expect::Any);
    store.write(write).await.unwrap();
}

fn with_address(ip: &str) -> Value {
    json!({"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "sessionAffinity": "None",
        "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]})
}

fn with_port(ip: &str, port: u16) -> Value {
    let mut spec = with_address(ip);
    spec["type"] = json!("NodePort");
    spec["ports"][0]["nodePort"] = json!(port);
    spec
}

async fn read(server: &Fixture, path: &str) -> Value {
    let (code, object) = server.admin(Method::GET, path, &Value::Null).await;
    assert_eq!(code, StatusCode::OK, "{object}");
    object
}

/// The events with a reason.
async fn told(server: &Fixture, reason: &str) -> Vec<Value> {
    let list = read(server, EVENTS).await;
    let items = list["items"].as_array().unwrap().iter();
    items.filter(|event| event["reason"] == reason).cloned().collect()
}

/// Waits for an event about an object, in these words.
async fn tells(server: &Fixture, reason: &str, about: &str, note: &str) -> Value {
    let find = async || {
        let events = told(server, reason).await;
        events.into_iter().find(|event| event["regarding"]["name"] == about)
    };
    until(&format!("{reason} of {about}"), async || find().await.is_some()).await;
    let event = find().await.unwrap();
    assert_eq!((&event["note"], &event["type"]), (&json!(note), &json!("Warning")));
    event
}

/// Lets time go by until something is so.
async fn later(clock: &ManualClock, by: Duration, what: &str, ask: impl AsyncFn() -> bool) {
    until(what, async || {
        clock.advance(by);
        ask().await
    })
    .await;
}

async fn until_ready(server: &Fixture) {
    until("the default range is ready", async || {
        read(server, DEFAULT).await["status"]["conditions"][0]["status"] == "True"
    })
    .await;
}

#[tokio::test]
async fn the_default_range_is_ready_and_comes_back() {
    let clock = clock();
    let server = Fixture::start_at(clock.clone()).await;
    until_ready(&server).await;
    let condition = read(&server, DEFAULT).await["status"]["conditions"][0].clone();
    assert_eq!(condition["type"], "Ready");
    assert_eq!(condition["message"], "Kubernetes default Service CIDR is ready");
    let range = read(&server, DEFAULT).await;
    let managers = range["metadata"]["managedFields"].as_array().unwrap();
    let of_status = managers.iter().find(|manager| manager["subresource"] == "status").unwrap();
    assert_eq!(of_status["manager"], "kubernetes-service-cidr-controller");
    assert_eq!(of_status["operation"], "Apply");
    server.admin(Method::DELETE, DEFAULT, &Value::Null).await;
    later(&clock, Duration::from_secs(10), "it is back", async || {
        let (code, found) = server.admin(Method::GET, DEFAULT, &Value::Null).await;
        code == StatusCode::OK && found["metadata"]["uid"] != range["metadata"]["uid"]
    })
    .await;
    until_ready(&server).await;
}

#[tokio::test]
async fn a_default_range_that_somebody_calls_not_ready_is_left_so_and_told_of_once() {
    let clock = clock();
    let server = Fixture::start_at(clock.clone()).await;
    until_ready(&server).await;
    let condition = json!({"type": "Ready", "status": "False", "reason": "Broken",
        "message": "a switch is on fire", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let status = json!({"status": {"conditions": [condition]}});
    let (path, merge) = (format!("{DEFAULT}/status"), "application/merge-patch+json");
    let (code, _) = server.call(&admin(), Method::PATCH, &path, merge, &status).await;
    assert_eq!(code, StatusCode::OK);
    later(&clock, Duration::from_secs(10), "it is told", async || {
        !told(&server, "Broken").await.is_empty()
    })
    .await;
    let note = "Configuration matches, but a switch is on fire";
    tells(&server, "Broken", "kubernetes", note).await;
    for _ in 0..5 {
        clock.advance(Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(read(&server, DEFAULT).await["status"]["conditions"], json!([condition]));
    let events = told(&server, "Broken").await;
    assert_eq!((events.len(), &events[0]["deprecatedCount"]), (1, &json!(1)));
}

#[tokio::test]
async fn a_default_range_of_before_the_flag_was_changed_is_told_of_and_still_used() {
    let store = volatile();
    drop(Fixture::start_on(store.clone()).await);
    let server = Fixture::start_configured(store, |config| {
        config.service_cluster_ip_range = (IpAddr::from([10, 98, 0, 0]), 16);
    })
    .await;
    let note = "The default ServiceCIDR [10.96.0.0/16] does not match the controller flag \
                configurations [10.98.0.0/16]";
    let reason = "KubernetesDefaultServiceCIDRInconsistent";
    let event = tells(&server, reason, "kubernetes", note).await;
    assert_eq!(event["regarding"]["kind"], "ServiceCIDR");
    assert_eq!(event["deprecatedSource"]["component"], "kubernetes-service-cidr-controller");
    assert_eq!(read(&server, DEFAULT).await["spec"]["cidrs"], json!(["10.96.0.0/16"]));
    let made = server.create(SERVICES, &service("s", "")).await;
    let ip = made["spec"]["clusterIP"].as_str().unwrap();
    assert!(ip.starts_with("10.96."), "{ip}");
    let (code, _) = server.admin(Method::POST, SERVICES, &service("t", "10.98.0.9")).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(told(&server, "ClusterIPOutOfRange").await.is_empty());
}

#[tokio::test]
async fn a_server_starts_whose_own_address_is_in_no_range() {
    let store = volatile();
    put(&store, "servicecidrs/kubernetes", &restored_range("10.97.0.0/16")).await;
    let server = Fixture::start_on(store).await;
    let note = "The default ServiceCIDR [10.97.0.0/16] does not match the controller flag \
                configurations [10.96.0.0/16]";
    tells(&server, "KubernetesDefaultServiceCIDRInconsistent", "kubernetes", note).await;
    let (code, _) =
        server.admin(Method::GET, &format!("{SERVICES}/kubernetes"), &Value::Null).await;
    assert_eq!(code, StatusCode::NOT_FOUND);
    let made = server.create(SERVICES, &service("s", "")).await;
    assert!(made["spec"]["clusterIP"].as_str().unwrap().starts_with("10.97."), "{made}");
}

#[tokio::test]
async fn a_default_range_that_a_policy_refuses_is_told_of() {
    let (store, clock) = (volatile(), clock());
    let server = Fixture::start_with(store.clone(), clock.clone()).await;
    let rules = json!([{"apiGroups": ["networking.k8s.io"], "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"], "resources": ["servicecidrs/status"]},
        {"apiGroups": ["networking.k8s.io"], "apiVersions": ["v1"], "operations": ["CREATE"],
        "resources": ["servicecidrs"]}]);
    let configurations = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic";
    let policy = json!({"metadata": {"name": "p"}, "spec": {
        "matchConstraints": {"resourceRules": rules}, "validations": [{"expression": "false"}]}});
    until_ready(&server).await;
    server.create(&format!("{configurations}ies"), &policy).await;
    let bindings = format!("{configurations}ybindings");
    let binding = json!({"metadata": {"name": "b"},
        "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    server.create(&bindings, &binding).await;
    server.admin(Method::DELETE, DEFAULT, &Value::Null).await;
    let reason = "KubernetesDefaultServiceCIDRError";
    let count = async || {
        let events = told(&server, reason).await;
        events.first().and_then(|event| event["deprecatedCount"].as_u64()).unwrap_or_default()
    };
    let tick = Duration::from_secs(10);
    later(&clock, tick, "it is told", async || count().await >= 1).await;
    later(&clock, tick, "it is counted", async || count().await >= 3).await;
    let events = told(&server, reason).await;
    assert_eq!(events.len(), 1, "what is told again is the same event");
    assert_eq!(events[0]["note"], "The default ServiceCIDR can not be created");
    assert!(events[0]["regarding"].get("name").is_none());
    // One that is there without a status, as one of an older cluster, may not be given one.
    put(&store, "servicecidrs/kubernetes", &restored_range("10.96.0.0/16")).await;
    let note = "The default ServiceCIDR Status can not be set to Ready=True";
    later(&clock, tick, "it is told", async || {
        told(&server, reason).await.iter().any(|event| event["note"] == note)
    })
    .await;
}

#[tokio::test]
async fn addresses_of_restored_services_that_cannot_be_right_are_told_of() {
    let (store, clock) = (volatile(), clock());
    restore(&store, "a", with_address("10.96.7.7")).await;
    restore(&store, "b", with_address("10.96.7.7")).await;
    restore(&store, "elsewhere", with_address("172.20.0.9")).await;
    restore(&store, "odd", with_address("10.96.7")).await;
    restore(&store, "old", with_address("010.096.007.008")).await;
    let server = Fixture::start_with(store, clock.clone()).await;
    let note = "Cluster IP [IPv4]: 10.96.7.7 is not allocated; repairing";
    tells(&server, "ClusterIPNotAllocated", "a", note).await;
    let note =
        "Cluster IP [IPv4]:10.96.7.7 was assigned to multiple services; please recreate service";
    let event = tells(&server, "ClusterIPAlreadyAllocated", "b", note).await;
    assert_eq!(event["action"], "ClusterIPAllocation");
    assert_eq!(event["reportingController"], "ipallocator-repair-controller");
    assert_eq!(event["series"], Value::Null);
    let note = "Cluster IP [IPv4]: 172.20.0.9 is not within any configured Service CIDR; please \
                recreate service";
    tells(&server, "ClusterIPOutOfRange", "elsewhere", note).await;
    let note = "Cluster IP <nil> is not a valid IP; please recreate Service";
    let event = tells(&server, "ClusterIPNotValid", "odd", note).await;
    assert_eq!(event["action"], "ClusterIPValidation");
    let address = read(&server, &format!("{ADDRESSES}/10.96.7.8")).await;
    assert_eq!(address["spec"]["parentRef"]["name"], "old");
    // The next pass counts in the series of the first. Time goes by only once: after two passes'
    // time without a word the series would be over.
    clock.advance(PASS);
    until("the series", async || {
        told(&server, "ClusterIPAlreadyAllocated").await[0]["series"]["count"] == 2
    })
    .await;
    for reason in ["ClusterIPAlreadyAllocated", "ClusterIPOutOfRange", "ClusterIPNotValid"] {
        assert_eq!(told(&server, reason).await.len(), 1, "{reason}");
    }
    // When one of the two goes, the other one keeps the address.
    server.admin(Method::DELETE, &format!("{SERVICES}/a"), &Value::Null).await;
    later(&clock, PASS, "it has the address", async || {
        let path = format!("{ADDRESSES}/10.96.7.7");
        let (_, address) = server.admin(Method::GET, &path, &Value::Null).await;
        address["spec"]["parentRef"]["name"] == "b"
    })
    .await;
    later(&clock, PASS, "nobody gets it", async || {
        let dry = format!("{SERVICES}?dryRun=All");
        let (_, answer) = server.admin(Method::POST, &dry, &service("c", "10.96.7.7")).await;
        answer["message"].as_str().is_some_and(|text| text.contains("already allocated"))
    })
    .await;
}

#[tokio::test]
async fn a_range_that_is_going_still_has_its_services() {
    let store = volatile();
    let server = Fixture::start_on(store.clone()).await;
    let range = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.99.0.0/24"]}});
    server.create(RANGES, &range).await;
    until("the range is used", async || {
        let (code, _) = server.admin(Method::POST, SERVICES, &service("s", "10.99.0.7")).await;
        code == StatusCode::CREATED
    })
    .await;
    let condition = json!({"status": {"conditions": [{"type": "Ready", "status": "False",
        "reason": "Terminating", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    let (path, merge) = (format!("{RANGES}/more/status"), "application/merge-patch+json");
    server.call(&admin(), Method::PATCH, &path, merge, &condition).await;
    let address = format!("{ADDRESSES}/10.99.0.7");
    server.admin(Method::DELETE, &address, &Value::Null).await;
    until("its address is repaired", async || {
        server.admin(Method::GET, &address, &Value::Null).await.0 == StatusCode::OK
    })
    .await;
    assert!(told(&server, "ClusterIPOutOfRange").await.is_empty());
}

#[tokio::test]
async fn node_ports_of_restored_services_that_cannot_be_right_are_told_of() {
    let (store, clock) = (volatile(), clock());
    restore(&store, "a", with_port("10.96.7.1", 30_001)).await;
    restore(&store, "b", with_port("10.96.7.2", 30_001)).await;
    restore(&store, "elsewhere", with_port("10.96.7.3", 20_000)).await;
    let server = Fixture::start_with(store, clock.clone()).await;
    let note = "Port 30001 was assigned to multiple services; please recreate service";
    let event = tells(&server, "PortAlreadyAllocated", "b", note).await;
    assert_eq!(event["action"], "PortAllocation");
    assert_eq!(event["reportingController"], "portallocator-repair-controller");
    let note = "Port 20000 is not within the port range 30000-32767; please recreate service";
    tells(&server, "PortOutOfRange", "elsewhere", note).await;
    assert!(told(&server, "PortNotAllocated").await.is_empty(), "all were taken at start");
    // The one that goes gives the port back which the other still has.
    server.admin(Method::DELETE, &format!("{SERVICES}/a"), &Value::Null).await;
    later(&clock, PASS, "it is told", async || !told(&server, "PortNotAllocated").await.is_empty())
        .await;
    let note = "Port 30001 is not allocated; repairing";
    tells(&server, "PortNotAllocated", "b", note).await;
    let mut taken = service("c", "");
    taken["spec"]["type"] = json!("NodePort");
    taken["spec"]["ports"][0]["nodePort"] = json!(30_001);
    let (code, refused) = server.admin(Method::POST, SERVICES, &taken).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{refused}");
    let (_, text) = crate::metrics::scrape(&server).await;
    for kind in ["duplicate", "outOfRange", "repair"] {
        let line = format!("apiserver_nodeport_repair_port_errors_total{{type=\"{kind}\"}}");
        assert!(text.contains(&line), "{line}");
    }
}

#[tokio::test]
async fn a_node_port_that_nobody_has_is_given_back_after_three_passes() {
    let (store, clock) = (volatile(), clock());
    restore(&store, "a", with_port("10.96.7.1", 30_001)).await;
    let server = Fixture::start_with(store.clone(), clock.clone()).await;
    // It goes behind the server's back, as its restored predecessor came.
    let key = "/registry/services/specs/default/a";
    store.write(Write::new(key.into(), None, Expect::Any)).await.unwrap();
    let mut wanted = service("c", "");
    wanted["spec"]["type"] = json!("NodePort");
    wanted["spec"]["ports"][0]["nodePort"] = json!(30_001);
    let (code, _) = server.admin(Method::POST, SERVICES, &wanted).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    later(&clock, PASS, "it is free", async || {
        server.admin(Method::POST, SERVICES, &wanted).await.0 == StatusCode::CREATED
    })
    .await;
    let (_, text) = crate::metrics::scrape(&server).await;
    assert!(text.contains("apiserver_nodeport_repair_port_errors_total{type=\"leak\"} 1"));
}
