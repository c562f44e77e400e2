//! Where services get their addresses from, and the objects that say which they have.

use std::sync::Arc;
use std::time::Duration;

use clock::ManualClock;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::fixture::Fixture;

pub(crate) const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";
pub(crate) const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
pub(crate) const SERVICES: &str = "/api/v1/namespaces/default/services";
pub(crate) const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

pub(crate) fn service(name: &str, ip: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"clusterIP": ip, "ports": [{"port": 80}]}})
}

/// Asks until the answer is as it should be.
pub(crate) async fn until(what: &str, ask: impl AsyncFn() -> bool) {
    for _ in 0..500 {
        if ask().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited for: {what}");
}

async fn event_reasons(server: &Fixture) -> Vec<String> {
    let (_, list) = server.admin(Method::GET, EVENTS, &Value::Null).await;
    let items = list["items"].as_array().unwrap().iter();
    items.map(|event| event["reason"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn further_ranges_serve_until_they_go() {
    let server = Fixture::start().await;
    let make =
        async |name: &str, ip: &str| server.admin(Method::POST, SERVICES, &service(name, ip)).await;
    let (code, refused) = make("early", "10.99.0.7").await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{refused}");
    let range = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.99.0.0/24"]}});
    server.create(RANGES, &range).await;
    until("the range is used", async || make("s", "10.99.0.7").await.0 == StatusCode::CREATED)
        .await;
    let (_, address) =
        server.admin(Method::GET, &format!("{ADDRESSES}/10.99.0.7"), &Value::Null).await;
    assert_eq!(address["spec"]["parentRef"]["name"], "s");

    let condition = json!({"status": {"conditions": [{"type": "Ready", "status": "False",
        "reason": "Terminating", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    let admin = crate::fixture::admin();
    let status = format!("{RANGES}/more/status");
    let merge = "application/merge-patch+json";
    let (code, answer) = server.call(&admin, Method::PATCH, &status, merge, &condition).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    let mut tried = 0;
    for n in 0..100 {
        tried = n;
        if make(&format!("t{n}"), &format!("10.99.0.{}", 20 + n)).await.0 != StatusCode::CREATED {
            break;
        }
    }
    assert!(tried < 99, "nothing is taken from a range that is not ready");
}

#[tokio::test]
async fn addresses_of_others_are_not_given_to_services() {
    let server = Fixture::start().await;
    let address = json!({"metadata": {"name": "10.96.5.5"}, "spec": {"parentRef":
        {"group": "gateway.x.io", "resource": "gateways", "namespace": "default", "name": "g"}}});
    server.create(ADDRESSES, &address).await;
    until("the address is taken", async || {
        let dry = format!("{SERVICES}?dryRun=All");
        let (code, _) = server.admin(Method::POST, &dry, &service("s", "10.96.5.5")).await;
        code == StatusCode::UNPROCESSABLE_ENTITY
    })
    .await;
    server.admin(Method::DELETE, &format!("{ADDRESSES}/10.96.5.5"), &Value::Null).await;
    until("the address is free", async || {
        server.admin(Method::POST, SERVICES, &service("s", "10.96.5.5")).await.0
            == StatusCode::CREATED
    })
    .await;
}

#[tokio::test]
async fn an_address_that_is_deleted_under_its_service_comes_back() {
    let server = Fixture::start().await;
    server.create(SERVICES, &service("s", "10.96.5.5")).await;
    let path = format!("{ADDRESSES}/10.96.5.5");
    let (_, before) = server.admin(Method::GET, &path, &Value::Null).await;
    server.admin(Method::DELETE, &path, &Value::Null).await;
    until("the address is back", async || {
        let (code, after) = server.admin(Method::GET, &path, &Value::Null).await;
        code == StatusCode::OK && after["metadata"]["uid"] != before["metadata"]["uid"]
    })
    .await;
    until("the event", async || {
        event_reasons(&server).await.contains(&"ClusterIPNotAllocated".to_owned())
    })
    .await;
    server.admin(Method::DELETE, &format!("{SERVICES}/s"), &Value::Null).await;
    let (code, _) = server.admin(Method::GET, &path, &Value::Null).await;
    assert_eq!(code, StatusCode::NOT_FOUND, "it goes with its service");
}

#[tokio::test]
async fn addresses_that_belong_to_no_service_are_cleaned_up() {
    let clock = Arc::new(ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap()));
    let server = Fixture::start_at(clock.clone()).await;
    server.create(SERVICES, &service("s", "10.96.5.5")).await;
    let leaked = |name: &str, of: &str, resource: &str| {
        json!({"metadata": {"name": name, "labels":
            {"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
             "ipaddress.kubernetes.io/ip-family": "IPv4"}},
            "spec": {"parentRef": {"resource": resource, "namespace": "default", "name": of}}})
    };
    server.create(ADDRESSES, &leaked("10.96.5.6", "s", "services")).await;
    server.create(ADDRESSES, &leaked("10.96.5.7", "gone", "services")).await;
    server.create(ADDRESSES, &leaked("10.96.5.8", "s", "things")).await;
    until("they are gone", async || {
        clock.advance(Duration::from_secs(60));
        let (_, list) = server.admin(Method::GET, ADDRESSES, &Value::Null).await;
        let items = list["items"].as_array().unwrap().iter();
        let names: Vec<_> = items.map(|i| i["metadata"]["name"].as_str().unwrap()).collect();
        names == ["10.96.0.1", "10.96.5.5"]
    })
    .await;
    let reasons = event_reasons(&server).await;
    // The one of a service that has another address, the one of a service that is not there, and
    // the one of no service.
    for reason in ["IPAddressNotAllocated", "IPAddressWrongReference"] {
        // Events about objects without a namespace are in `default`.
        assert!(reasons.contains(&reason.to_owned()), "{reasons:?}");
    }
}
