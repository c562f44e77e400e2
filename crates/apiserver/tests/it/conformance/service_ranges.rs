//! ServiceCIDRs and IPAddresses, and endpoints that nobody manages.

use serde_json::{Value, json};

use super::{MERGE, STRATEGIC, delete, names, patch, put, read};
use crate::fixture::Fixture;

const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";

/// `[sig-network] ServiceCIDR and IPAddress API should support ServiceCIDR API operations`.
#[tokio::test]
async fn a_range_is_read_changed_and_deleted_and_the_default_one_is_there() {
    let server = Fixture::start().await;
    assert!(names(&server, RANGES).await.contains(&"kubernetes".to_owned()));
    let range = json!({"metadata": {"name": "extra", "labels": {"e2e": "yes"}},
        "spec": {"cidrs": ["10.96.77.0/24"]}});
    server.create(RANGES, &range).await;
    let path = format!("{RANGES}/extra");
    let label = json!({"metadata": {"labels": {"patched": "x"}}});
    for content_type in [MERGE, STRATEGIC] {
        let patched = patch(&server, &path, content_type, &label).await;
        assert_eq!(patched["metadata"]["labels"]["patched"], "x");
    }
    let mut found = read(&server, &path).await;
    found["metadata"]["annotations"] = json!({"updated": "x"});
    assert_eq!(put(&server, &path, &found).await["metadata"]["annotations"]["updated"], "x");
    let condition = json!({"type": "StatusPatched", "status": "True", "reason": "R",
        "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let status = format!("{path}/status");
    let patched = json!({"status": {"conditions": [condition]}});
    patch(&server, &status, STRATEGIC, &patched).await;
    let kinds = |range: &Value| -> Vec<String> {
        let conditions = range["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().map(|found| found["type"].as_str().unwrap().to_owned()).collect()
    };
    assert!(kinds(&read(&server, &status).await).contains(&"StatusPatched".to_owned()));
    delete(&server, &format!("{RANGES}?labelSelector=e2e%3Dyes")).await;
    let found = server.admin(http::Method::GET, &path, &Value::Null).await;
    let is_going = found.1["metadata"]["deletionTimestamp"].is_string();
    assert!(found.0 == http::StatusCode::NOT_FOUND || is_going, "{}", found.1);
}

/// The same suite: `should support IPAddress API operations`.
#[tokio::test]
async fn an_address_is_read_changed_and_deleted() {
    let server = Fixture::start().await;
    let address = json!({"metadata": {"name": "192.0.2.77", "labels": {"e2e": "yes"}},
        "spec": {"parentRef": {"group": "", "resource": "services", "namespace": "default",
            "name": "s"}}});
    server.create(ADDRESSES, &address).await;
    let path = format!("{ADDRESSES}/192.0.2.77");
    let label = json!({"metadata": {"labels": {"patched": "x"}}});
    assert_eq!(patch(&server, &path, MERGE, &label).await["metadata"]["labels"]["patched"], "x");
    let mut found = read(&server, &path).await;
    found["metadata"]["annotations"] = json!({"updated": "x"});
    assert_eq!(put(&server, &path, &found).await["metadata"]["annotations"]["updated"], "x");
    delete(&server, &format!("{ADDRESSES}?labelSelector=e2e%3Dyes")).await;
    assert!(names(&server, &format!("{ADDRESSES}?labelSelector=e2e%3Dyes")).await.is_empty());
}

/// `[sig-network] Endpoints should test the lifecycle of an Endpoint`.
#[tokio::test]
async fn endpoints_live_without_a_service() {
    let server = Fixture::start().await;
    let endpoints = "/api/v1/namespaces/default/endpoints";
    let subset =
        json!({"addresses": [{"ip": "10.0.0.24"}], "ports": [{"name": "http", "port": 80}]});
    let object = json!({"metadata": {"name": "e", "labels": {"t": "x"}}, "subsets": [subset]});
    server.create(endpoints, &object).await;
    let path = format!("{endpoints}/e");
    let mut found = read(&server, &path).await;
    found["subsets"][0]["addresses"][0]["ip"] = json!("10.0.0.25");
    put(&server, &path, &found).await;
    let moved = json!({"subsets": [{"addresses": [{"ip": "10.0.0.26"}],
        "ports": [{"name": "http", "port": 8080}]}]});
    let patched = patch(&server, &path, MERGE, &moved).await;
    assert_eq!(patched["subsets"][0]["ports"][0]["port"], 8080);
    assert_eq!(patched["subsets"][0]["ports"][0]["protocol"], "TCP");
    delete(&server, &format!("{endpoints}?labelSelector=t%3Dx")).await;
    assert!(names(&server, &format!("{endpoints}?labelSelector=t%3Dx")).await.is_empty());
}
