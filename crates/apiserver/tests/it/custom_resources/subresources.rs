//! Status and scale.

use http::StatusCode;
use serde_json::{Value, json};

use super::{FOOS, define, definition, foo, patch, read, version};
use crate::fixture::Fixture;

async fn start() -> Fixture {
    let server = Fixture::start().await;
    let mut v1 = version("v1", true, &json!({"replicas": {"type": "integer"}}));
    v1["schema"]["openAPIV3Schema"]["properties"]["status"] = json!({"type": "object",
        "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}}});
    v1["subresources"] = json!({"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}});
    define(&server, &definition(&json!([v1]))).await;
    server
}

#[tokio::test]
async fn the_status_is_written_apart_and_makes_no_generation() {
    let server = start().await;
    let mut object = foo("a", &json!({"replicas": 1}));
    object["status"] = json!({"replicas": 9});
    assert_eq!(server.create(FOOS, &object).await["status"], Value::Null);
    let path = format!("{FOOS}/a");
    let status = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 5},
        "status": {"replicas": 2}});
    let (code, written) = patch(&server, &format!("{path}/status"), &status).await;
    assert_eq!(code, StatusCode::OK, "{written}");
    assert_eq!(written["spec"]["replicas"], 1);
    assert_eq!(written["metadata"]["labels"], Value::Null);
    assert_eq!(written["status"]["replicas"], 2);
    assert_eq!(written["metadata"]["generation"], 1);
    let (_, written) = patch(&server, &path, &json!({"spec": {"replicas": 3}, "status": {}})).await;
    assert_eq!(written["metadata"]["generation"], 2);
    assert_eq!(written["status"]["replicas"], 2);
}

#[tokio::test]
async fn the_scale_is_where_the_definition_says() {
    let server = start().await;
    server.create(FOOS, &foo("a", &json!({"replicas": 1}))).await;
    let path = format!("{FOOS}/a");
    patch(
        &server,
        &format!("{path}/status"),
        &json!({"status": {"replicas": 1,
        "selector": "app=a"}}),
    )
    .await;
    let scale = read(&server, &format!("{path}/scale")).await;
    assert_eq!(scale["kind"], "Scale");
    assert_eq!(scale["spec"]["replicas"], 1);
    assert_eq!(scale["status"], json!({"replicas": 1, "selector": "app=a"}));
    let (code, scale) =
        patch(&server, &format!("{path}/scale"), &json!({"spec": {"replicas": 4}})).await;
    assert_eq!(code, StatusCode::OK, "{scale}");
    assert_eq!(scale["spec"]["replicas"], 4);
    let object = read(&server, &path).await;
    assert_eq!(object["spec"]["replicas"], 4);
    assert_eq!(object["metadata"]["generation"], 2);
    let (code, _) =
        patch(&server, &format!("{path}/scale"), &json!({"spec": {"replicas": -1}})).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
}
