//! Quota, as the server charges it.

use http::{Method, StatusCode};
use serde_json::json;

use super::{delete, put, read};
use crate::fixture::Fixture;

const NAMESPACE: &str = "/api/v1/namespaces/default";

/// `[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a
/// configMap.`: the controller's part, which counts anew, is played by the test.
#[tokio::test]
async fn a_quota_counts_config_maps_and_refuses_too_many() {
    let server = Fixture::start().await;
    let quotas = format!("{NAMESPACE}/resourcequotas");
    let path = format!("{quotas}/test-quota");
    let quota = json!({"metadata": {"name": "test-quota"}, "spec": {"hard": {"configmaps": "2"}}});
    server.create(&quotas, &quota).await;
    let counted = |used: &str| {
        json!({"metadata": {"name": "test-quota"}, "spec": {"hard": {"configmaps": "2"}},
            "status": {"hard": {"configmaps": "2"}, "used": {"configmaps": used}}})
    };
    put(&server, &format!("{path}/status"), &counted("1")).await;
    let maps = format!("{NAMESPACE}/configmaps");
    server.create(&maps, &json!({"metadata": {"name": "test-configmap"}})).await;
    let used = |quota: &serde_json::Value| quota["status"]["used"]["configmaps"].clone();
    assert_eq!(used(&read(&server, &path).await), "2");
    let (code, refused) =
        server.admin(Method::POST, &maps, &json!({"metadata": {"name": "other"}})).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert_eq!(
        refused["message"],
        "configmaps \"other\" is forbidden: exceeded quota: test-quota, requested: configmaps=1, \
         used: configmaps=2, limited: configmaps=2"
    );
    delete(&server, &format!("{maps}/test-configmap")).await;
    put(&server, &format!("{path}/status"), &counted("1")).await;
    assert_eq!(used(&read(&server, &path).await), "1");
    server.create(&maps, &json!({"metadata": {"name": "other"}})).await;
}
