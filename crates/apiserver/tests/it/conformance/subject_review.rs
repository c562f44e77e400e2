//! What somebody may do, asked about and tried.

use authn::UserInfo;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::fixture::Fixture;

/// `[sig-auth] SubjectReview should support SubjectReview API operations`.
#[tokio::test]
async fn reviews_say_what_the_impersonated_account_finds() {
    let server = Fixture::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    server.create(accounts, &json!({"metadata": {"name": "e2e"}})).await;
    let user = "system:serviceaccount:default:e2e";
    for (may, with_role) in [(false, false), (true, true)] {
        if with_role {
            allow(&server).await;
        }
        let attributes = json!({"verb": "list", "version": "v1", "resource": "configmaps",
            "namespace": "default"});
        let spec = json!({"user": user, "groups": ["system:authenticated"],
            "resourceAttributes": attributes});
        let reviews = "/apis/authorization.k8s.io/v1";
        let everywhere = format!("{reviews}/subjectaccessreviews");
        let review = server.create(&everywhere, &json!({"spec": spec})).await;
        assert_eq!(review["status"]["allowed"], may, "{review}");
        let local = format!("{reviews}/namespaces/default/localsubjectaccessreviews");
        let body = json!({"metadata": {"namespace": "default"}, "spec": spec});
        let review = server.create(&local, &body).await;
        assert_eq!(review["status"]["allowed"], may, "{review}");
        assert_eq!(impersonated_list(&server, user).await.is_success(), may);
    }
}

async fn allow(server: &Fixture) {
    let role = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]);
    let body = json!({"metadata": {"name": "lister"}, "rules": rules});
    server.create(&format!("{role}/roles"), &body).await;
    let subjects = json!([{"kind": "ServiceAccount", "name": "e2e", "namespace": "default"}]);
    let role_ref = json!({"kind": "Role", "name": "lister",
        "apiGroup": "rbac.authorization.k8s.io"});
    let body = json!({"metadata": {"name": "e2e"}, "subjects": subjects, "roleRef": role_ref});
    server.create(&format!("{role}/rolebindings"), &body).await;
}

async fn impersonated_list(server: &Fixture, user: &str) -> StatusCode {
    let request = http::Request::builder()
        .method(Method::GET)
        .uri("/api/v1/namespaces/default/configmaps")
        .header("impersonate-user", user)
        .body(bytes::Bytes::new())
        .expect("the request is well formed");
    let admin = UserInfo::new("root", &[UserInfo::MASTERS]);
    let response = server.handle.call(&admin, request).await;
    let code = response.status();
    let bytes = response.into_body().collect().await.expect("the body is whole");
    let answer: Value = serde_json::from_slice(&bytes).expect("the answer is JSON");
    if code == StatusCode::FORBIDDEN {
        assert!(answer["message"].as_str().is_some_and(|text| text.contains(user)), "{answer}");
    }
    code
}
