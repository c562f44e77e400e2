//! What extends the server and means no good: definitions, policies, patches and webhooks that would
//! take all its time or memory. Each ends soon, in upstream's words, and others are served meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use authn::UserInfo;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use crate::fixture::{Fixture, admin};
use crate::https;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1";
/// Far more than any of this takes on a busy machine, far less than it would without limits.
const SOON: Duration = Duration::from_secs(30);

/// All seats of all levels: `max_requests_inflight` and `max_mutating_requests_inflight`.
const SEATS: usize = 600;

async fn post(server: &Fixture, path: &str, body: &Value) -> (StatusCode, String) {
    let asked = server.admin(Method::POST, path, body);
    let (code, answer) = tokio::time::timeout(SOON, asked).await.expect("an answer");
    (code, answer["message"].as_str().unwrap_or_default().to_owned())
}

fn config_map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "b"}})
}

fn definition(spec: &Value) -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}});
    json!({"metadata": {"name": "foos.example.com"}, "spec": {"group": "example.com",
        "scope": "Namespaced", "names": {"plural": "foos", "kind": "Foo"}, "versions": [
        {"name": "v1", "served": true, "storage": true, "schema": schema}]}})
}

#[tokio::test]
async fn schemas_that_are_nested_without_end_are_refused() {
    let server = Fixture::start().await;
    let mut spec = json!({"type": "object"});
    for _ in 0..200 {
        spec = json!({"type": "object", "properties": {"a": spec}});
    }
    let (code, message) = post(&server, DEFINITIONS, &definition(&spec)).await;
    assert_eq!(code, StatusCode::BAD_REQUEST, "{message}");
    assert!(message.contains("exceeded max depth"), "{message}");
    server.create(CONFIG_MAPS, &config_map("x")).await;
}

#[tokio::test]
async fn schemas_of_many_fields_are_served() {
    let server = Fixture::start().await;
    let field = |n: usize| (format!("field{n}"), json!({"type": "string", "maxLength": 9}));
    let properties: serde_json::Map<String, Value> = (0..20_000).map(field).collect();
    let spec = json!({"type": "object", "properties": properties});
    let (code, message) = post(&server, DEFINITIONS, &definition(&spec)).await;
    assert_eq!(code, StatusCode::CREATED, "{message}");
    let foo = json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "a"},
        "spec": {"field19999": "much too long"}});
    let path = "/apis/example.com/v1/namespaces/default/foos";
    let mut found = (StatusCode::NOT_FOUND, String::new());
    for _ in 0..500 {
        found = post(&server, path, &foo).await;
        if found.0 != StatusCode::NOT_FOUND {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(found.0, StatusCode::UNPROCESSABLE_ENTITY, "{}", found.1);
    assert!(found.1.contains("spec.field19999: Too long"), "{}", found.1);
}

#[tokio::test]
async fn rules_that_would_take_too_long_are_not_accepted() {
    let server = Fixture::start().await;
    let list = |items: &Value| json!({"type": "array", "items": items});
    let nested = list(&list(&list(&json!({"type": "string"}))));
    let mut spec = json!({"type": "object", "properties": {"a": nested}});
    let rule = "self.a.all(x, x.all(y, y.all(z, self.a.all(w, w.size() > z.size()))))";
    spec["x-kubernetes-validations"] = json!([{"rule": rule}]);
    let (code, message) = post(&server, DEFINITIONS, &definition(&spec)).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(message.contains("estimated rule cost exceeds budget by factor of"), "{message}");
}

#[tokio::test]
async fn policies_that_would_take_too_long_end_at_their_budget() {
    let server = Fixture::start().await;
    let expression = "object.data.all(a, object.data.all(b, object.data.all(c, \
                      object.data.all(d, (a + b + c + d).size() > 0))))";
    let rules = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
        "resources": ["configmaps"]}]);
    let spec = json!({"matchConstraints": {"resourceRules": rules},
        "validations": [{"expression": expression}]});
    let policy = json!({"metadata": {"name": "p"}, "spec": spec});
    server.create(&format!("{CONFIGURATIONS}/validatingadmissionpolicies"), &policy).await;
    let binding = json!({"metadata": {"name": "b"},
        "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    server.create(&format!("{CONFIGURATIONS}/validatingadmissionpolicybindings"), &binding).await;
    let data: serde_json::Map<String, Value> =
        (0..1000).map(|n| (format!("key{n}"), json!("x"))).collect();
    let (code, message) =
        post(&server, CONFIG_MAPS, &json!({"metadata": {"name": "x"}, "data": data})).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{message}");
    assert!(
        message.contains("operation cancelled: actual cost limit exceeded")
            || message.contains("running out of cost budget"),
        "{message}"
    );
}

#[tokio::test]
async fn patches_that_copy_copies_are_refused() {
    let server = Fixture::start().await;
    server.create(CONFIG_MAPS, &config_map("x")).await;
    let copies: Vec<Value> = (0..64)
        .map(|n| json!({"op": "copy", "from": "/metadata", "path": format!("/metadata/c{n}")}))
        .collect();
    let path = format!("{CONFIG_MAPS}/x");
    let media = "application/json-patch+json";
    let user = admin();
    let body = json!(copies);
    let asked = server.call(&user, Method::PATCH, &path, media, &body);
    let (code, answer) = tokio::time::timeout(SOON, asked).await.expect("an answer");
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    assert_eq!(answer["message"], "the server rejected our request due to an error in our request");
}

/// Registers a webhook on the creation of config maps that answers so.
async fn hooked<F, Fut>(server: &Fixture, kind: &str, answer: F)
where
    F: Fn(Value) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let port = https::serve(server, &["localhost"], move |request| {
        let answer = answer.clone();
        async move {
            let body = request.into_body().collect().await.expect("a body").to_bytes();
            answer(serde_json::from_slice(&body).expect("a review")).await
        }
    })
    .await;
    let client = json!({"url": format!("https://localhost:{port}/ask"),
        "caBundle": STANDARD.encode(&server.authority.pem)});
    let rules = json!([{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"],
        "operations": ["CREATE"]}]);
    let hook = json!({"name": "w.example.com", "clientConfig": client, "rules": rules,
        "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 2});
    let body = json!({"metadata": {"name": "hooks"}, "webhooks": [hook]});
    server.create(&format!("{CONFIGURATIONS}/{kind}webhookconfigurations"), &body).await;
}

fn reviewed(review: &Value, mut response: Value) -> Response<Full<Bytes>> {
    response["uid"] = review["request"]["uid"].clone();
    let body = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "response": response});
    Response::new(Full::new(body.to_string().into()))
}

#[tokio::test]
async fn webhooks_cannot_make_an_object_grow_without_end() {
    let server = Fixture::start().await;
    hooked(&server, "mutating", |review| async move {
        let copies: Vec<Value> = (0..64)
            .map(|n| json!({"op": "copy", "from": "/metadata", "path": format!("/metadata/c{n}")}))
            .collect();
        let patch = STANDARD.encode(json!(copies).to_string());
        reviewed(&review, json!({"allowed": true, "patchType": "JSONPatch", "patch": patch}))
    })
    .await;
    let (code, message) = post(&server, CONFIG_MAPS, &config_map("x")).await;
    assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR, "{message}");
}

#[tokio::test]
async fn webhooks_cannot_send_the_server_elsewhere() {
    let server = Fixture::start().await;
    hooked(&server, "validating", |_| async {
        let mut answer = Response::new(Full::new(Bytes::new()));
        *answer.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        answer.headers_mut().insert("location", "https://localhost:1/".parse().expect("a header"));
        answer
    })
    .await;
    let (code, message) = post(&server, CONFIG_MAPS, &config_map("x")).await;
    assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(message.contains("failed calling webhook \"w.example.com\""), "{message}");
    assert!(message.contains("status code 307"), "{message}");
}

#[tokio::test]
async fn answers_of_webhooks_that_are_garbage_are_refused() {
    for garbage in ["<html>", "[", "{\"response\":{\"allowed\":1}}"] {
        let server = Fixture::start().await;
        hooked(
            &server,
            "validating",
            move |_| async move { Response::new(Full::new(garbage.into())) },
        )
        .await;
        let (code, message) = post(&server, CONFIG_MAPS, &config_map("x")).await;
        assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(message.contains("failed calling webhook \"w.example.com\""), "{message}");
    }
}

/// A webhook that makes, whenever it is asked about a config map, another one. Each of them takes a
/// seat of its level, and when there are none any more, nobody is asked further.
#[tokio::test]
async fn webhooks_that_cause_what_they_are_asked_about_end_with_their_time() {
    let server = Fixture::start().await;
    let binding = json!({"metadata": {"name": "looper"}, "roleRef": {"kind": "ClusterRole",
        "apiGroup": "rbac.authorization.k8s.io", "name": "cluster-admin"}, "subjects":
        [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "looper"}]});
    server.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let (handle, counted) = (server.handle.clone(), asked.clone());
    hooked(&server, "validating", move |review| {
        let (handle, counted) = (handle.clone(), counted.clone());
        async move {
            let n = counted.fetch_add(1, Ordering::Relaxed);
            let request = http::Request::builder()
                .method(Method::POST)
                .uri(CONFIG_MAPS)
                .header("content-type", "application/json")
                .body(Bytes::from(config_map(&format!("made-{n}")).to_string()))
                .expect("a request");
            let looper = UserInfo::new("looper", &[UserInfo::AUTHENTICATED]);
            handle.call(&looper, request).await;
            reviewed(&review, json!({"allowed": true}))
        }
    })
    .await;
    let (code, message) = post(&server, CONFIG_MAPS, &config_map("x")).await;
    assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR, "{message}");
    assert!(message.ends_with("context deadline exceeded"), "{message}");
    let asked = asked.load(Ordering::Relaxed);
    assert!(asked <= SEATS, "{asked} were asked");
    let path = format!("{CONFIGURATIONS}/validatingwebhookconfigurations/hooks");
    let (code, _) = server.admin(Method::DELETE, &path, &Value::Null).await;
    assert_eq!(code, StatusCode::OK);
    server.create(CONFIG_MAPS, &config_map("y")).await;
}
