//! Lists and watches in every form and from every version.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clock::ManualClock;
use futures::StreamExt;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::fixture::{Fixture, admin};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const METADATA: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf;stream=watch";

async fn ask(server: &Fixture, path: &str, accept: &str) -> http::Response<apiserver::Body> {
    let request = Request::builder().method(Method::GET).uri(path).header("accept", accept);
    let request = request.body(Bytes::new()).expect("a request");
    server.handle.call(&admin(), request).await
}

async fn read(server: &Fixture, path: &str, accept: &str) -> (StatusCode, Value) {
    let response = ask(server, path, accept).await;
    let code = response.status();
    let bytes = response.into_body().collect().await.expect("a body");
    (code, serde_json::from_slice(&bytes).unwrap_or_default())
}

/// The first events of a watch, a line each, however they are cut into frames.
async fn watch(server: &Fixture, path: &str, accept: &str, count: usize) -> Vec<Bytes> {
    let response = ask(server, path, accept).await;
    assert_eq!(response.status(), StatusCode::OK);
    let mut frames = response.into_body().into_data_stream();
    let mut text = Vec::new();
    while text.iter().filter(|byte| **byte == b'\n').count() < count {
        let Some(frame) = frames.next().await else { break };
        text.extend_from_slice(&frame.expect("no error"));
    }
    let lines = text.split_inclusive(|byte| *byte == b'\n').take(count);
    lines.map(Bytes::copy_from_slice).collect()
}

async fn events(server: &Fixture, path: &str, accept: &str, count: usize) -> Vec<Value> {
    let lines = watch(server, path, accept, count).await;
    lines.iter().map(|line| serde_json::from_slice(line).expect("JSON")).collect()
}

async fn maps(server: &Fixture, names: &[&str]) {
    for name in names {
        let map = json!({"metadata": {"name": name, "labels": {"l": name}}, "data": {"a": "1"}});
        server.create(MAPS, &map).await;
    }
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().expect("items");
    items.iter().filter_map(|item| item["metadata"]["name"].as_str()).collect()
}

#[tokio::test]
async fn a_version_in_the_past_is_read_as_it_was() {
    let server = Fixture::start().await;
    maps(&server, &["a", "b"]).await;
    let (_, before) = read(&server, MAPS, "*/*").await;
    let version = before["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    server.admin(Method::DELETE, &format!("{MAPS}/a"), &Value::Null).await;
    maps(&server, &["c"]).await;
    let exact = format!("{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact");
    let (code, list) = read(&server, &exact, "*/*").await;
    assert_eq!((code, names(&list)), (StatusCode::OK, vec!["a", "b"]));
    assert_eq!(list["metadata"]["resourceVersion"], *version);
    let (_, page) = read(&server, &format!("{exact}&limit=1"), "*/*").await;
    let token = page["metadata"]["continue"].as_str().unwrap();
    let (_, next) = read(&server, &format!("{MAPS}?continue={token}"), "*/*").await;
    assert_eq!((names(&page), names(&next)), (vec!["a"], vec!["b"]));
    let later = format!("{MAPS}?resourceVersion={version}&resourceVersionMatch=NotOlderThan");
    let (_, list) = read(&server, &later, "*/*").await;
    assert_eq!(names(&list), ["b", "c"]);
}

#[tokio::test]
async fn a_cache_read_is_not_paged() {
    let server = Fixture::start().await;
    maps(&server, &["a", "b", "c"]).await;
    let (_, list) = read(&server, &format!("{MAPS}?limit=1&resourceVersion=0"), "*/*").await;
    assert_eq!(names(&list), ["a", "b", "c"]);
    assert_eq!(list["metadata"].get("continue"), None);
}

#[tokio::test]
async fn a_version_of_the_future_is_waited_for_and_then_refused() {
    let server = Fixture::start().await;
    let (code, status) = read(&server, &format!("{MAPS}?resourceVersion=999999"), "*/*").await;
    assert_eq!(code, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(status["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    let text = status["message"].as_str().unwrap();
    assert!(text.starts_with("Timeout: Too large resource version: 999999, current: "), "{text}");
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let server = Fixture::start().await;
    maps(&server, &["a", "b"]).await;
    let path = format!(
        "{MAPS}?watch=true&sendInitialEvents=true&allowWatchBookmarks=true\
         &resourceVersionMatch=NotOlderThan&resourceVersion="
    );
    let seen = events(&server, &path, "application/json", 3).await;
    let sorts: Vec<_> = seen.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(sorts, ["ADDED", "ADDED", "BOOKMARK"]);
    let metadata = &seen[2]["object"]["metadata"];
    assert_eq!(metadata["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(seen[2]["object"]["kind"], "ConfigMap");
    let version: u64 = metadata["resourceVersion"].as_str().unwrap().parse().unwrap();
    let last = seen[1]["object"]["metadata"]["resourceVersion"].as_str().unwrap();
    assert!(version >= last.parse().unwrap());
}

#[tokio::test]
async fn a_watch_from_a_version_that_is_gone_ends_with_an_error_event() {
    let clock = Arc::new(ManualClock::new(jiff::Timestamp::UNIX_EPOCH));
    let server = Fixture::start_at(clock.clone()).await;
    maps(&server, &["a"]).await;
    let (_, list) = read(&server, MAPS, "*/*").await;
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    for name in ["b", "c", "d", "e", "f"] {
        maps(&server, &[name]).await;
        clock.advance(Duration::from_secs(150));
        tokio::task::yield_now().await;
    }
    let path = format!("{MAPS}?watch=true&resourceVersion={version}");
    let seen = tokio::time::timeout(Duration::from_secs(10), events(&server, &path, "*/*", 2));
    let seen = seen.await.expect("it ends");
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0]["type"], "ERROR");
    assert_eq!(seen[0]["object"]["code"], 410);
    assert_eq!(seen[0]["object"]["reason"], "Expired");
    let text = seen[0]["object"]["message"].as_str().unwrap();
    assert!(text.starts_with(&format!("too old resource version: {version} (")), "{text}");
    let path = format!("{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact");
    let (code, status) = read(&server, &path, "*/*").await;
    assert_eq!(code, StatusCode::GONE);
    assert_eq!(status["message"], "The resourceVersion for the provided list is too old.");
}

#[tokio::test]
async fn tables_bring_as_much_of_the_object_as_is_asked_for() {
    let server = Fixture::start().await;
    maps(&server, &["a"]).await;
    let of = async |include: &str| {
        let (_, table) = read(&server, &format!("{MAPS}?{include}"), TABLE).await;
        assert_eq!(table["kind"], "Table");
        assert_eq!(table["columnDefinitions"][0]["name"], "Name");
        table["rows"][0].clone()
    };
    assert!(of("includeObject=None").await["object"].is_null());
    for include in ["", "includeObject=Metadata"] {
        let row = of(include).await;
        assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(row["object"]["metadata"]["name"], "a");
        assert_eq!(row["object"].get("data"), None);
    }
    let row = of("includeObject=Object").await;
    assert_eq!(row["object"]["kind"], "ConfigMap");
    assert_eq!(row["object"]["data"]["a"], "1");
}

#[tokio::test]
async fn a_watch_of_tables_names_its_columns_once() {
    let server = Fixture::start().await;
    maps(&server, &["a", "b"]).await;
    let seen = events(&server, &format!("{MAPS}?watch=true"), TABLE, 2).await;
    assert!(seen[0]["object"]["columnDefinitions"].is_array());
    assert!(!seen[1]["object"]["columnDefinitions"].is_array(), "{}", seen[1]);
    assert_eq!(seen[1]["object"]["rows"][0]["cells"][0], "b");
}

#[tokio::test]
async fn metadata_alone_is_listed_and_watched() {
    let server = Fixture::start().await;
    maps(&server, &["a"]).await;
    let (_, list) = read(&server, MAPS, METADATA_LIST).await;
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["kind"], "PartialObjectMetadata");
    assert_eq!(list["items"][0].get("data"), None);
    let seen = events(&server, &format!("{MAPS}?watch=true"), METADATA, 1).await;
    assert_eq!(seen[0]["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(seen[0]["object"]["apiVersion"], "meta.k8s.io/v1");
    let (code, _) = read(&server, MAPS, METADATA).await;
    assert_eq!(code, StatusCode::NOT_ACCEPTABLE);
    let (code, _) = read(&server, &format!("{MAPS}/a"), METADATA_LIST).await;
    assert_eq!(code, StatusCode::NOT_ACCEPTABLE);
}

#[tokio::test]
async fn a_watch_in_protobuf_has_frames_with_their_length() {
    let server = Fixture::start().await;
    maps(&server, &["a"]).await;
    let response = ask(&server, &format!("{MAPS}?watch=true"), PROTOBUF).await;
    let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    assert_eq!(content_type, PROTOBUF);
    let frame = response.into_body().into_data_stream().next().await.unwrap().unwrap();
    let (length, event) = frame.split_at(4);
    assert_eq!(u32::from_be_bytes(length.try_into().unwrap()) as usize, event.len());
    assert_eq!(event[..7], *b"\x0a\x05ADDED");
    assert!(event.windows(4).any(|window| window == schema::PROTOBUF_MAGIC));
}

#[tokio::test]
async fn a_watch_ends_when_its_time_is_over() {
    let server = Fixture::start().await;
    let path = format!("{MAPS}?watch=true&timeoutSeconds=1");
    let response = ask(&server, &path, "application/json").await;
    let body = tokio::time::timeout(Duration::from_secs(10), response.into_body().collect());
    assert_eq!(body.await.expect("it ends").unwrap(), "");
}

#[tokio::test]
async fn selectors_that_are_none_are_refused() {
    let server = Fixture::start().await;
    for (query, expected) in [
        ("labelSelector=a%3D%3D%3D", "unable to parse requirement: "),
        (
            "fieldSelector=data%3Dx",
            "\"data\" is not a known field selector: only \"metadata.name\", ",
        ),
        ("fieldSelector=x", "invalid selector: 'x'; can't understand 'x'"),
    ] {
        let (code, status) = read(&server, &format!("{MAPS}?{query}"), "*/*").await;
        let message = status["message"].as_str().unwrap_or_default();
        assert_eq!(code, StatusCode::BAD_REQUEST);
        assert!(message.contains(expected), "{query}: {message}");
    }
}

/// Part of `[sig-instrumentation] Events should manage the lifecycle of an event`.
#[tokio::test]
async fn events_are_found_by_their_source_in_both_groups() {
    let server = Fixture::start().await;
    let event = json!({"metadata": {"name": "e"}, "type": "Normal", "reason": "r", "action": "a",
        "regarding": {"kind": "Pod", "namespace": "default", "name": "p"}, "note": "n",
        "eventTime": "2026-01-02T03:04:05.000006Z", "reportingController": "c",
        "reportingInstance": "i"});
    server.create("/apis/events.k8s.io/v1/namespaces/default/events", &event).await;
    for path in [
        "/api/v1/events?fieldSelector=source%3Dc",
        "/api/v1/events?fieldSelector=involvedObject.name%3Dp",
        "/apis/events.k8s.io/v1/events?fieldSelector=reportingController%3Dc",
        "/apis/events.k8s.io/v1/events?fieldSelector=regarding.name%3Dp",
    ] {
        let (code, list) = read(&server, path, "*/*").await;
        assert_eq!(code, StatusCode::OK, "{path}: {list}");
        assert_eq!(names(&list), ["e"], "{path}");
        assert_eq!(list["items"][0]["eventTime"], "2026-01-02T03:04:05.000006Z");
    }
}

/// Part of `[sig-node] Lease lease API should be available`.
#[tokio::test]
async fn times_of_the_first_year_survive() {
    let server = Fixture::start().await;
    let lease = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "h",
        "acquireTime": "0001-01-01T00:00:02.000000Z", "renewTime": "0001-01-01T00:00:05.000000Z"}});
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    server.create(path, &lease).await;
    let (_, found) = read(&server, &format!("{path}/l"), "*/*").await;
    assert_eq!(found["spec"]["acquireTime"], lease["spec"]["acquireTime"]);
    assert_eq!(found["spec"]["renewTime"], lease["spec"]["renewTime"]);
}

/// `[sig-api-machinery] Discovery …` and its aggregated form, with what clients keep it by.
#[tokio::test]
async fn aggregated_discovery_is_not_sent_twice() {
    let server = Fixture::start().await;
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                  application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,\
                  application/json";
    let response = ask(&server, "/apis", accept).await;
    assert_eq!(
        response.headers()["content-type"],
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    let etag = response.headers()["etag"].clone();
    let bytes = response.into_body().collect().await.unwrap();
    let list: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(list["kind"], "APIGroupDiscoveryList");
    let request = Request::builder()
        .uri("/apis")
        .header("accept", accept)
        .header("if-none-match", etag)
        .body(Bytes::new())
        .unwrap();
    let again = server.handle.call(&admin(), request).await;
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn documents_are_asked_for_by_their_hash() {
    let server = Fixture::start().await;
    let (_, index) = read(&server, "/openapi/v3", "*/*").await;
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let response = ask(&server, url, "application/json").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["cache-control"], "public, immutable");
    let stale = ask(&server, "/openapi/v3/apis/apps/v1?hash=00", "application/json").await;
    assert_eq!(stale.status(), StatusCode::MOVED_PERMANENTLY);
    assert_eq!(stale.headers()["location"], url);
    for accept in [
        "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
        "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
    ] {
        let response = ask(&server, "/openapi/v2", accept).await;
        assert_eq!(
            response.headers()["content-type"],
            "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
        );
        let bytes = response.into_body().collect().await.unwrap();
        assert_eq!(bytes[..5], *b"\x0a\x032.0");
    }
    for accept in [
        "application/com.github.proto-openapi.spec.v3@v1.0+protobuf",
        "application/com.github.proto-openapi.spec.v3.v1.0+protobuf",
    ] {
        // The hash is the same in both forms.
        let response = ask(&server, url, accept).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(
            response.headers()["content-type"],
            "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
        );
        let bytes = response.into_body().collect().await.unwrap();
        assert_eq!(bytes[..7], *b"\x0a\x053.0.0");
    }
    let other = ask(&server, url, "application/xml").await;
    assert_eq!(other.status(), StatusCode::NOT_ACCEPTABLE);
}
