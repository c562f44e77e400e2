//! Defaults and bounds of a limit range.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{delete, put, read};
use crate::fixture::Fixture;

const NAMESPACE: &str = "/api/v1/namespaces/default";

fn limits(min: &str, max: &str) -> Value {
    json!({"metadata": {"name": "limit-range"}, "spec": {"limits": [{"type": "Container",
        "min": {"cpu": min, "memory": "100Mi"}, "max": {"cpu": max, "memory": "500Mi"},
        "default": {"cpu": "500m", "memory": "500Mi"},
        "defaultRequest": {"cpu": "100m", "memory": "200Mi"}}]}})
}

fn pod(name: &str, resources: &Value) -> Value {
    json!({"metadata": {"name": name},
        "spec": {"containers": [{"name": "pause", "image": "pause", "resources": resources}]}})
}

/// `[sig-scheduling] LimitRange should create a LimitRange with defaults and ensure pod has those
/// defaults applied.`
#[tokio::test]
async fn pods_get_the_defaults_of_the_limit_range_and_stay_within_it() {
    let server = Fixture::start().await;
    let accounts = format!("{NAMESPACE}/serviceaccounts");
    server.create(&accounts, &json!({"metadata": {"name": "default"}})).await;
    let ranges = format!("{NAMESPACE}/limitranges");
    let path = format!("{ranges}/limit-range");
    server.create(&ranges, &limits("50m", "500m")).await;
    let pods = format!("{NAMESPACE}/pods");
    let resources = |pod: &Value| pod["spec"]["containers"][0]["resources"].clone();
    let none = server.create(&pods, &pod("none", &json!({}))).await;
    let defaults = json!({"requests": {"cpu": "100m", "memory": "200Mi"},
        "limits": {"cpu": "500m", "memory": "500Mi"}});
    assert_eq!(resources(&none), defaults);
    let some = json!({"requests": {"cpu": "150m"}, "limits": {"cpu": "300m"}});
    let partly = server.create(&pods, &pod("partly", &some)).await;
    let filled = json!({"requests": {"cpu": "150m", "memory": "200Mi"},
        "limits": {"cpu": "300m", "memory": "500Mi"}});
    assert_eq!(resources(&partly), filled);
    let little = pod("little", &json!({"requests": {"cpu": "10m", "memory": "50Mi"}}));
    let (code, refused) = server.admin(Method::POST, &pods, &little).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("minimum cpu usage per Container is 50m, but request is 10m"));
    let much = pod("much", &json!({"limits": {"cpu": "600m"}}));
    let (code, refused) = server.admin(Method::POST, &pods, &much).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("maximum cpu usage per Container is 500m, but limit is 600m"));
    let mut range = read(&server, &path).await;
    range["spec"]["limits"][0]["min"]["cpu"] = json!("9m");
    put(&server, &path, &range).await;
    let little = pod("little", &json!({"requests": {"cpu": "10m", "memory": "150Mi"}}));
    server.create(&pods, &little).await;
    delete(&server, &path).await;
    let free = server.create(&pods, &pod("free", &json!({}))).await;
    assert_eq!(resources(&free), json!({}));
}
