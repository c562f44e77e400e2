//! Several versions, and webhooks that convert between them, well or badly.

use std::sync::Arc;
use std::time::Duration;

use clock::ManualClock;
use futures::StreamExt;
use http::{Method, StatusCode};
use jiff::Timestamp;
use meta::WatchEvent;
use serde_json::{Value, json};

use super::converter::{Converter, Reply, host_and_port, renaming};
use super::{DEFINITIONS, FOOS, code_of, define, definition, foo, message, patch, read, version};
use crate::fixture::{Fixture, admin};

const FOOS_V2: &str = "/apis/example.com/v2/namespaces/default/foos";

fn versions() -> Value {
    let text = json!({"type": "string"});
    let mut v1 = version("v1", true, &json!({"hostPort": text}));
    let mut v2 = version("v2", false, &json!({"host": text, "port": text}));
    v1["selectableFields"] = json!([{"jsonPath": ".spec.hostPort"}]);
    v2["selectableFields"] = json!([{"jsonPath": ".spec.host"}]);
    json!([v1, v2])
}

async fn with_converter(server: &Fixture, reply: fn(&Value) -> Reply) -> Converter {
    let converter = Converter::serve(server, reply).await;
    let mut definition = definition(&versions());
    definition["spec"]["conversion"] = converter.conversion(server);
    define(server, &definition).await;
    converter
}

/// `[sig-api-machinery] CustomResourceConversionWebhook should be able to convert from CR v1 to CR
/// v2`.
#[tokio::test]
async fn objects_are_converted_both_ways() {
    let server = Fixture::start().await;
    with_converter(&server, host_and_port).await;
    server.create(FOOS, &foo("a", &json!({"hostPort": "h:1"}))).await;
    let v2 = read(&server, &format!("{FOOS_V2}/a")).await;
    assert_eq!(v2["apiVersion"], "example.com/v2");
    assert_eq!(v2["spec"], json!({"host": "h", "port": "1"}));
    let (code, changed) =
        patch(&server, &format!("{FOOS_V2}/a"), &json!({"spec": {"port": "2"}})).await;
    assert_eq!(code, StatusCode::OK, "{changed}");
    assert_eq!(changed["spec"], json!({"host": "h", "port": "2"}));
    let v1 = read(&server, &format!("{FOOS}/a")).await;
    assert_eq!(v1["spec"], json!({"hostPort": "h:2"}));
    assert_eq!(v1["metadata"]["generation"], 2);
    assert_eq!(v1["metadata"]["uid"], v2["metadata"]["uid"]);
}

/// `[sig-api-machinery] CustomResourceConversionWebhook should be able to convert a non homogeneous
/// list of CRs`.
#[tokio::test]
async fn a_list_is_converted_together_whatever_it_is_stored_in() {
    let server = Fixture::start().await;
    let converter = with_converter(&server, host_and_port).await;
    for name in ["a", "b"] {
        server.create(FOOS, &foo(name, &json!({"hostPort": "h:1"}))).await;
    }
    let mut swapped = versions();
    swapped[0]["storage"] = json!(false);
    swapped[1]["storage"] = json!(true);
    let path = format!("{DEFINITIONS}/foos.example.com");
    let (code, answer) = patch(&server, &path, &json!({"spec": {"versions": swapped}})).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    assert_eq!(read(&server, &path).await["status"]["storedVersions"], json!(["v1", "v2"]));
    server.create(FOOS, &foo("c", &json!({"hostPort": "h:3"}))).await;
    converter.asked.lock().unwrap().clear();
    let list = read(&server, FOOS_V2).await;
    let hosts: Vec<&Value> =
        list["items"].as_array().unwrap().iter().map(|item| &item["spec"]["host"]).collect();
    assert_eq!(hosts, ["h", "h", "h"]);
    // The one that is stored in this version was not asked about.
    assert_eq!(*converter.asked.lock().unwrap(), [2]);
    let list = read(&server, FOOS).await;
    assert!(list["items"].as_array().unwrap().iter().all(|i| i["spec"]["hostPort"].is_string()));
}

/// `[sig-api-machinery] CustomResourceFieldSelectors MUST list and watch custom resources matching
/// the field selector`.
#[tokio::test]
async fn selectors_see_converted_objects() {
    let server = Fixture::start().await;
    with_converter(&server, host_and_port).await;
    let path = format!("{FOOS_V2}?watch=true&fieldSelector=spec.host%3Dx");
    let mut watch = server.handle.watch(&admin(), &path).await.unwrap();
    for (name, host) in [("a", "x:1"), ("b", "y:1")] {
        server.create(FOOS, &foo(name, &json!({ "hostPort": host }))).await;
    }
    let list = read(&server, &format!("{FOOS_V2}?fieldSelector=spec.host%3Dx")).await;
    let names: Vec<&Value> =
        list["items"].as_array().unwrap().iter().map(|i| &i["metadata"]["name"]).collect();
    assert_eq!(names, ["a"]);
    let list = read(&server, &format!("{FOOS}?fieldSelector=spec.hostPort%3Dy:1")).await;
    assert_eq!(list["items"][0]["metadata"]["name"], "b");
    let (code, answer) = server
        .admin(Method::GET, &format!("{FOOS}?fieldSelector=spec.host%3Dx"), &Value::Null)
        .await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    assert_eq!(message(&answer), "field label not supported: spec.host");
    patch(&server, &format!("{FOOS}/b"), &json!({"spec": {"hostPort": "x:2"}})).await;
    patch(&server, &format!("{FOOS}/a"), &json!({"spec": {"hostPort": "z:1"}})).await;
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let event = tokio::time::timeout(Duration::from_secs(10), watch.next()).await;
        match event.unwrap().unwrap().unwrap() {
            WatchEvent::Added(object) => seen.push(format!("+{}", object.header().name)),
            WatchEvent::Modified(object) => seen.push(format!("~{}", object.header().name)),
            WatchEvent::Deleted(object) => seen.push(format!("-{}", object.header().name)),
            WatchEvent::Bookmark { .. } => {}
        }
    }
    assert_eq!(seen, ["+a", "+b", "-a"]);
}

/// Who would read on after a change that could not be converted would never hear of it.
#[tokio::test]
async fn a_watch_ends_with_what_cannot_be_converted() {
    let (server, _converter) = renaming().await;
    let path = "/apis/example.com/v3/namespaces/default/foos?watch=true";
    let mut watch = server.handle.watch(&admin(), path).await.unwrap();
    let mut broken = foo("b", &json!({"size": "1"}));
    broken["metadata"]["annotations"] = json!({"broken": "yes"});
    server.create(FOOS, &foo("a", &json!({"size": "1"}))).await;
    server.create(FOOS, &broken).await;
    server.create(FOOS, &foo("c", &json!({"size": "1"}))).await;
    let mut names = Vec::new();
    let failure = loop {
        let event = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.unwrap();
        match event.unwrap() {
            Ok(WatchEvent::Added(object)) => names.push(object.header().name.to_string()),
            Ok(event) => panic!("{event:?}"),
            Err(status) => break status,
        }
    };
    assert_eq!(names, ["a"]);
    assert!(failure.message.contains("it is broken"), "{}", failure.message);
    let end = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.unwrap();
    assert!(end.is_none(), "{end:?}");
}

/// The same test: what is deleted together is selected in the version of the request.
#[tokio::test]
async fn collections_are_deleted_by_what_converted_objects_say() {
    let server = Fixture::start().await;
    with_converter(&server, host_and_port).await;
    for (name, host) in [("a", "x:1"), ("b", "y:1"), ("c", "x:2")] {
        server.create(FOOS, &foo(name, &json!({ "hostPort": host }))).await;
    }
    let path = format!("{FOOS_V2}?fieldSelector=spec.host%3Dx");
    let (code, answer) = server.admin(Method::DELETE, &path, &Value::Null).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    let left = read(&server, FOOS).await;
    let names: Vec<&Value> =
        left["items"].as_array().unwrap().iter().map(|item| &item["metadata"]["name"]).collect();
    assert_eq!(names, ["b"]);
}

/// What reading in the other version answers with a webhook that replies so.
async fn refusal(reply: fn(&Value) -> Reply) -> String {
    let server = Fixture::start().await;
    with_converter(&server, reply).await;
    server.create(FOOS, &foo("a", &json!({"hostPort": "h:1"}))).await;
    let path = format!("{FOOS_V2}/a");
    let (code, answer) = server.admin(Method::GET, &path, &Value::Null).await;
    assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR, "{answer}");
    // In its own version the object is well.
    assert_eq!(code_of(&server, &format!("{FOOS}/a")).await, StatusCode::OK);
    message(&answer).to_owned()
}

fn changed(request: &Value, change: fn(&mut Value)) -> Reply {
    let Reply::Objects(mut objects) = host_and_port(request) else { return Reply::Never };
    objects.iter_mut().for_each(change);
    Reply::Objects(objects)
}

#[tokio::test]
async fn webhooks_that_lie_are_not_believed() {
    const OF: &str = "conversion webhook for example.com/v1, Kind=Foo";
    let found =
        refusal(|request| changed(request, |o| o["metadata"]["uid"] = json!("other"))).await;
    assert!(found.starts_with(&format!("{OF} returned invalid object: must have the same UID: ")));
    let found = refusal(|request| changed(request, |o| o["metadata"]["name"] = json!("b"))).await;
    assert_eq!(found, format!("{OF} returned invalid object: must have the same name: a != b"));
    let found = refusal(|request| changed(request, |o| o["kind"] = json!("Bar"))).await;
    assert_eq!(
        found,
        format!(
            "{OF} returned invalid object at index 0: invalid kind (expected Foo, received Bar)"
        )
    );
    let found = refusal(|_| Reply::Objects(Vec::new())).await;
    assert_eq!(found, format!("{OF} returned 0 objects, expected 1"));
    let found = refusal(|request| {
        Reply::Response(json!({"uid": request["uid"],
            "result": {"status": "Failure", "message": "not today"}}))
    })
    .await;
    assert_eq!(found, format!("{OF} failed: not today"));
    let found = refusal(|_| Reply::Response(json!({"uid": "1"}))).await;
    assert!(found.contains("failed: expected response.uid="), "{found}");
}

#[tokio::test]
async fn webhooks_that_answer_garbage_are_refused() {
    let found = refusal(|_| Reply::Bytes(b"<html>".to_vec())).await;
    assert!(found.starts_with("conversion webhook for example.com/v1, Kind=Foo failed: "));
    let found = refusal(|_| Reply::Bytes(vec![b' '; 8 << 20])).await;
    assert!(
        found.starts_with("conversion webhook for example.com/v1, Kind=Foo failed: "),
        "{found}"
    );
    let found = refusal(|_| Reply::Bytes(b"[".repeat(100_000))).await;
    assert!(found.starts_with("conversion webhook for example.com/v1, Kind=Foo failed: "));
}

#[tokio::test]
async fn webhooks_that_hang_are_waited_for_half_a_minute() {
    let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
    let server = Fixture::start_at(clock.clone()).await;
    let converter = with_converter(&server, |_| Reply::Never).await;
    server.create(FOOS, &foo("a", &json!({"hostPort": "h:1"}))).await;
    let path = format!("{FOOS_V2}/a");
    let reading = server.admin(Method::GET, &path, &Value::Null);
    let passing = async {
        while converter.asked.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        clock.advance(Duration::from_secs(31));
        std::future::pending::<()>().await;
    };
    let (code, answer) = tokio::select! {
        answer = reading => answer,
        () = passing => unreachable!("it never ends"),
    };
    assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(message(&answer).ends_with("/convert?timeout=30s\": context deadline exceeded"));
}

#[tokio::test]
async fn versions_without_a_webhook_differ_in_name_and_schema_only() {
    let server = Fixture::start().await;
    let text = json!({"type": "string"});
    let mut old = version("v1beta1", false, &json!({"a": text, "old": text}));
    old["deprecated"] = json!(true);
    let mut unserved = version("v1alpha1", false, &json!({}));
    unserved["served"] = json!(false);
    define(&server, &definition(&json!([version("v1", true, &json!({"a": text})), old, unserved])))
        .await;
    let path = "/apis/example.com/v1beta1/namespaces/default/foos";
    let mut object = foo("a", &json!({"a": "1", "old": "2"}));
    object["apiVersion"] = json!("example.com/v1beta1");
    let created = server.create(path, &object).await;
    assert_eq!(created["spec"], json!({"a": "1"}));
    assert_eq!(created["apiVersion"], "example.com/v1beta1");
    assert_eq!(read(&server, &format!("{FOOS}/a")).await["spec"], json!({"a": "1"}));
    let path = "/apis/example.com/v1alpha1/namespaces/default/foos";
    assert_eq!(code_of(&server, path).await, StatusCode::NOT_FOUND);
}
