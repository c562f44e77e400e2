//! Version and discovery.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::read;
use crate::fixture::Fixture;

/// `[sig-api-machinery] server version should find the server version`.
#[tokio::test]
async fn the_version_has_integers_for_major_and_minor() {
    let server = Fixture::start().await;
    let version = read(&server, "/version").await;
    assert_eq!(version["major"], "1");
    let minor = version["minor"].as_str().unwrap().trim_end_matches('+');
    assert_eq!(minor.parse::<u32>(), Ok(36));
}

/// `[sig-api-machinery] Discovery should validate PreferredVersion for each APIGroup`.
#[tokio::test]
async fn the_preferred_version_of_every_group_is_one_it_has() {
    let server = Fixture::start().await;
    let groups = read(&server, "/apis").await;
    let groups = groups["groups"].as_array().unwrap();
    assert!(groups.len() > 15, "{} groups", groups.len());
    for group in groups {
        let name = group["name"].as_str().unwrap();
        let own = read(&server, &format!("/apis/{name}/")).await;
        assert_eq!(own["name"], name);
        let preferred = &own["preferredVersion"];
        assert!(own["versions"].as_array().unwrap().contains(preferred), "{own}");
        let at = preferred["groupVersion"].as_str().unwrap();
        let resources = read(&server, &format!("/apis/{at}")).await;
        assert_eq!(resources["groupVersion"], at);
        assert!(!resources["resources"].as_array().unwrap().is_empty());
    }
}

/// `[sig-cli] Kubectl client Kubectl api-versions should check if v1 is in available api versions`.
#[tokio::test]
async fn v1_is_among_the_versions() {
    let server = Fixture::start().await;
    for path in ["/api", "/api/"] {
        let versions = read(&server, path).await;
        assert_eq!(versions["versions"], json!(["v1"]));
    }
    for path in ["/api/v1", "/api/v1/"] {
        let resources = read(&server, path).await;
        let pods = resources["resources"].as_array().unwrap().iter().find(|r| r["name"] == "pods");
        assert_eq!(pods.unwrap()["kind"], "Pod");
    }
}

/// `[sig-api-machinery] Servers with support for Table transformation should return a 406 for a
/// backend which does not implement metadata`.
#[tokio::test]
async fn a_review_is_not_printed_as_a_table() {
    let server = Fixture::start().await;
    let review = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let request = http::Request::builder()
        .method(Method::POST)
        .uri("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(bytes::Bytes::from(review.to_string()))
        .unwrap();
    let response = server.handle.call(&crate::fixture::admin(), request).await;
    assert_eq!(response.status(), StatusCode::NOT_ACCEPTABLE);
    let bytes = response.into_body().collect().await.unwrap();
    let status: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(status["reason"], "NotAcceptable");
}
