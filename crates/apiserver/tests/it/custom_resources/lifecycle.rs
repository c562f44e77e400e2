//! Definitions come, change and go.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    DEFINITIONS, FOOS, code_of, define, definition, foo, message, patch, read, until, version,
    wait_for_condition,
};
use crate::fixture::Fixture;

const DEFINITION: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/foos.example.com";

#[tokio::test]
async fn objects_go_before_their_definition() {
    let server = Fixture::start().await;
    define(&server, &definition(&json!([version("v1", true, &json!({}))]))).await;
    let mut object = foo("held", &json!({}));
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.create(FOOS, &object).await;
    server.create(FOOS, &foo("free", &json!({}))).await;
    let (code, answer) = server.admin(Method::DELETE, DEFINITION, &Value::Null).await;
    assert_eq!(code, StatusCode::OK);
    let finalizers = &answer["metadata"]["finalizers"];
    assert_eq!(*finalizers, json!(["customresourcecleanup.apiextensions.k8s.io"]));
    wait_for_condition(&server, "foos.example.com", "Terminating", "True").await;
    until("the free object goes", async || {
        code_of(&server, &format!("{FOOS}/free")).await == StatusCode::NOT_FOUND
    })
    .await;
    let (code, answer) = server.admin(Method::POST, FOOS, &foo("late", &json!({}))).await;
    assert_eq!(code, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(
        message(&answer),
        "create not allowed while custom resource definition is terminating"
    );
    assert_eq!(code_of(&server, DEFINITION).await, StatusCode::OK);
    patch(&server, &format!("{FOOS}/held"), &json!({"metadata": {"finalizers": null}})).await;
    until("the definition goes", async || {
        code_of(&server, DEFINITION).await == StatusCode::NOT_FOUND
    })
    .await;
    assert_eq!(code_of(&server, FOOS).await, StatusCode::NOT_FOUND);
    // The name is free again, and nothing is left of what was.
    define(&server, &definition(&json!([version("v1", true, &json!({}))]))).await;
    assert_eq!(read(&server, FOOS).await["items"], json!([]));
}

#[tokio::test]
async fn names_are_accepted_once_and_free_again() {
    let server = Fixture::start().await;
    define(&server, &definition(&json!([version("v1", true, &json!({}))]))).await;
    let mut other = definition(&json!([version("v1", true, &json!({}))]));
    other["metadata"]["name"] = json!("bars.example.com");
    other["spec"]["names"] = json!({"plural": "bars", "kind": "Foo"});
    server.create(DEFINITIONS, &other).await;
    wait_for_condition(&server, "bars.example.com", "NamesAccepted", "False").await;
    let found = read(&server, &format!("{DEFINITIONS}/bars.example.com")).await;
    let conditions = found["status"]["conditions"].as_array().unwrap();
    let names = conditions.iter().find(|c| c["type"] == "NamesAccepted").unwrap();
    assert!(matches!(names["reason"].as_str(), Some("KindConflict" | "ListKindConflict")));
    assert!(names["message"].as_str().unwrap().ends_with("is already in use"), "{names}");
    let bars = "/apis/example.com/v1/namespaces/default/bars";
    assert_eq!(code_of(&server, bars).await, StatusCode::NOT_FOUND);
    server.admin(Method::DELETE, DEFINITION, &Value::Null).await;
    wait_for_condition(&server, "bars.example.com", "Established", "True").await;
    assert_eq!(code_of(&server, bars).await, StatusCode::OK);
}

/// `[sig-api-machinery] CustomResourceDefinition resources Simple CustomResourceDefinition
/// getting/updating/patching custom resource definition status sub-resource works`.
#[tokio::test]
async fn others_may_write_conditions_of_their_own() {
    let server = Fixture::start().await;
    define(&server, &definition(&json!([version("v1", true, &json!({}))]))).await;
    let own = json!({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "m"});
    let operation = json!([{"op": "add", "path": "/status/conditions/-", "value": own}]);
    let path = format!("{DEFINITION}/status");
    let json_patch = "application/json-patch+json";
    let admin = crate::fixture::admin();
    let (code, answer) = server.call(&admin, Method::PATCH, &path, json_patch, &operation).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    let conditions = read(&server, &path).await["status"]["conditions"].clone();
    assert!(conditions.as_array().unwrap().iter().any(|c| c["type"] == "StatusUpdate"));
    assert_eq!(code_of(&server, FOOS).await, StatusCode::OK);
}

/// What is served survives the server.
#[tokio::test]
async fn definitions_and_objects_are_there_after_a_restart() {
    let store = store::LogStore::volatile(
        &store::Options::default(),
        std::sync::Arc::new(clock::SystemClock),
    );
    let store: std::sync::Arc<dyn store::Store> = std::sync::Arc::new(store.unwrap());
    let first = Fixture::start_on(store.clone()).await;
    define(&first, &definition(&json!([version("v1", true, &json!({}))]))).await;
    first.create(FOOS, &foo("a", &json!({}))).await;
    drop(first);
    let second = Fixture::start_on(store).await;
    assert_eq!(read(&second, &format!("{FOOS}/a")).await["metadata"]["name"], "a");
}

#[tokio::test]
async fn schemas_that_refer_to_others_or_are_too_deep_are_refused() {
    let server = Fixture::start().await;
    let mut deep = json!({"type": "string"});
    for _ in 0..200 {
        deep = json!({"type": "array", "items": deep});
    }
    for (property, expected) in [
        (json!({"$ref": "#/definitions/a"}), "$ref is not supported"),
        (deep, "exceeded max depth"),
    ] {
        let versions = json!([version("v1", true, &json!({"a": property}))]);
        let (code, answer) = server.admin(Method::POST, DEFINITIONS, &definition(&versions)).await;
        assert!(code.is_client_error(), "{answer}");
        assert!(message(&answer).contains(expected), "{answer}");
    }
}

#[tokio::test]
async fn huge_enumerations_are_checked_in_time() {
    let server = Fixture::start().await;
    let values: Vec<String> = (0..50_000).map(|at| format!("value-{at}")).collect();
    let versions = json!([version("v1", true, &json!({"a": {"type": "string", "enum": values}}))]);
    define(&server, &definition(&versions)).await;
    server.create(FOOS, &foo("a", &json!({"a": "value-49999"}))).await;
    let (code, _) = server.admin(Method::POST, FOOS, &foo("b", &json!({"a": "x"}))).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
}
