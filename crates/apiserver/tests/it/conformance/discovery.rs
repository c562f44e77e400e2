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

/// `[sig-api-machinery] Discovery should locate the groupVersion and a resource within each
/// APIGroup`, as typed clients ask: with and without a slash, in protobuf, and for everything at
/// once in the newest form that the server has.
#[tokio::test]
async fn discovery_comes_in_every_form_that_clients_ask_for() {
    let server = Fixture::start().await;
    let ask = async |path: &str, accept: &str| {
        let request = http::Request::builder().uri(path).header("accept", accept);
        let request = request.body(bytes::Bytes::new()).unwrap();
        let response = server.handle.call(&crate::fixture::admin(), request).await;
        assert_eq!(response.status(), StatusCode::OK, "{path} {accept}");
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        (kind, response.into_body().collect().await.unwrap())
    };
    for path in ["/apis", "/apis/", "/apis/apps", "/apis/apps/", "/apis/apps/v1", "/apis/apps/v1/"]
    {
        let (kind, bytes) = ask(path, "application/vnd.kubernetes.protobuf").await;
        assert_eq!(kind, "application/vnd.kubernetes.protobuf");
        assert_eq!(bytes[..4], *b"k8s\0", "{path}");
        let (kind, bytes) = ask(path, "application/json").await;
        assert_eq!(kind, "application/json");
        assert!(serde_json::from_slice::<Value>(&bytes).unwrap()["kind"].is_string());
    }
    let newest = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                  application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,\
                  application/json";
    for path in ["/api", "/apis"] {
        let (kind, bytes) = ask(path, newest).await;
        assert!(kind.contains("v=v2;as=APIGroupDiscoveryList"), "{kind}");
        let list: Value = serde_json::from_slice(&bytes).unwrap();
        let version = &list["items"][0]["versions"][0];
        assert_eq!(version["freshness"], "Current");
        let resource = &version["resources"][0];
        for field in ["resource", "responseKind", "scope", "singularResource", "verbs"] {
            assert!(resource.get(field).is_some(), "{path}: {field}");
        }
    }
}

/// The same suite: the groups that it looks for are there, with the versions it looks for.
#[tokio::test]
async fn the_groups_that_clients_count_on_are_there() {
    let server = Fixture::start().await;
    let found = read(&server, "/apis").await;
    let versions: Vec<&str> = found["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["versions"].as_array().unwrap())
        .map(|version| version["groupVersion"].as_str().unwrap())
        .collect();
    for wanted in [
        "admissionregistration.k8s.io/v1",
        "apiextensions.k8s.io/v1",
        "apiregistration.k8s.io/v1",
        "apps/v1",
        "authentication.k8s.io/v1",
        "authorization.k8s.io/v1",
        "autoscaling/v1",
        "autoscaling/v2",
        "batch/v1",
        "certificates.k8s.io/v1",
        "coordination.k8s.io/v1",
        "discovery.k8s.io/v1",
        "events.k8s.io/v1",
        "flowcontrol.apiserver.k8s.io/v1",
        "networking.k8s.io/v1",
        "node.k8s.io/v1",
        "policy/v1",
        "resource.k8s.io/v1",
        "scheduling.k8s.io/v1",
        "storage.k8s.io/v1",
    ] {
        assert!(versions.contains(&wanted), "{wanted}");
    }
}
