//! What must not be in the log.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Recorded, all};
use crate::over_tls::get;

#[tokio::test]
async fn neither_tokens_nor_secrets_are_in_metadata() {
    let recorded = Recorded::start(&all("Metadata")).await;
    let server = &recorded.server;
    let secrets = "/api/v1/namespaces/default/secrets";
    server
        .create(secrets, &json!({"metadata": {"name": "s"}, "stringData": {"k": "swordfish"}}))
        .await;
    server.admin(Method::GET, &format!("{secrets}/s"), &Value::Null).await;
    server.admin(Method::GET, secrets, &Value::Null).await;
    let patch = json!({"stringData": {"k": "swordfish2"}});
    server
        .call(
            &crate::fixture::admin(),
            Method::PATCH,
            &format!("{secrets}/s"),
            "application/merge-patch+json",
            &patch,
        )
        .await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    server.create(accounts, &json!({"metadata": {"name": "bot"}})).await;
    let token = server.create(&format!("{accounts}/bot/token"), &json!({"spec": {}})).await;
    let token = token["status"]["token"].as_str().unwrap();
    let review = json!({"spec": {"token": token}});
    server.create("/apis/authentication.k8s.io/v1/tokenreviews", &review).await;
    let bearer = format!("Bearer {token}");
    let (code, _) = get(server, None, "/api/v1/nodes", &[("authorization", &bearer)]).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    let events = recorded.wait(2, super::of("/api/v1/nodes")).await;
    assert_eq!(events[1]["user"]["username"], "system:serviceaccount:default:bot");
    let text = recorded.text();
    assert!(text.contains("tokenreviews") && text.contains("/secrets/s"));
    assert!(!text.contains("swordfish") && !text.contains("c3dvcmRmaXNo"), "{text}");
    assert!(!text.contains(token) && !text.contains("Bearer"), "{text}");
    let issued = recorded.wait(2, super::of(&format!("{accounts}/bot/token"))).await;
    let id = issued[1]["annotations"]["authentication.kubernetes.io/issued-credential-identifier"]
        .as_str()
        .unwrap();
    assert!(id.starts_with("JTI="), "{id}");
    // By that the use of the token is found again.
    assert!(
        events[1]["user"]["extra"]["authentication.kubernetes.io/credential-id"]
            .to_string()
            .contains(id)
    );
}
