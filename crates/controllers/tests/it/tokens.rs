//! What the controllers make of Secrets with tokens.

use serde_json::{Value, json};

use crate::memory_api::MemoryApi;
use crate::workloads::{Running, namespace};

const ACCOUNTS: &str = "/api/v1/namespaces/n/serviceaccounts";
const SECRETS: &str = "/api/v1/namespaces/n/secrets";

fn token_secret(api: &MemoryApi, name: &str, account: &str) {
    let annotations = json!({ "kubernetes.io/service-account.name": account });
    api.create(
        SECRETS,
        json!({ "apiVersion": "v1", "kind": "Secret",
            "type": "kubernetes.io/service-account-token",
            "metadata": { "name": name, "annotations": annotations } }),
    );
}

fn data(secret: &Value, key: &str) -> Value {
    secret["data"][key].clone()
}

#[tokio::test]
async fn a_secret_gets_a_token_and_goes_with_its_account() {
    let running = Running::start();
    let api = &running.api;
    namespace(api);
    api.create(
        SECRETS,
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "other" },
            "type": "Opaque" }),
    );
    let account = api.create(
        ACCOUNTS,
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "builder" },
            "secrets": [{ "name": "first" }, { "name": "other" }] }),
    );
    let uid = account["metadata"]["uid"].as_str().unwrap();
    token_secret(api, "first", "builder");
    token_secret(api, "second", "builder");
    let has_token = |api: &MemoryApi, name: &str| {
        !data(&api.get(&format!("{SECRETS}/{name}")).unwrap(), "token").is_null()
    };
    api.eventually("both have tokens", |api| has_token(api, "first") && has_token(api, "second"))
        .await;
    let secret = api.get(&format!("{SECRETS}/first")).unwrap();
    let encoded = |text: &str| json!(k8s_openapi::ByteString(text.as_bytes().to_vec()));
    assert_eq!(data(&secret, "token"), encoded(&format!("token of {uid}")));
    assert_eq!(data(&secret, "namespace"), encoded("n"));
    assert_eq!(data(&secret, "ca.crt"), encoded("PEM"));
    assert_eq!(secret["metadata"]["annotations"]["kubernetes.io/service-account.uid"], uid);
    api.delete(&format!("{SECRETS}/first"));
    api.eventually("the account does not name it any more", |api| {
        api.get(&format!("{ACCOUNTS}/builder")).unwrap()["secrets"] == json!([{ "name": "other" }])
    })
    .await;
    api.delete(&format!("{ACCOUNTS}/builder"));
    api.eventually("the other one goes with the account", |api| {
        api.get(&format!("{SECRETS}/second")).is_none()
    })
    .await;
    token_secret(api, "orphan", "builder");
    api.eventually("one of nobody goes, too", |api| {
        api.get(&format!("{SECRETS}/orphan")).is_none()
    })
    .await;
    assert!(api.get(&format!("{SECRETS}/other")).is_some());
}

#[tokio::test]
async fn tokens_that_nobody_uses_are_marked_and_later_removed() {
    let api = MemoryApi::default();
    api.create(
        "/api/v1/namespaces/kube-system/configmaps",
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": { "since": "2026-01-01" },
            "metadata": { "name": "kube-apiserver-legacy-service-account-token-tracking" } }),
    );
    let all = ["unused", "marked", "used", "mounted"];
    let references: Vec<_> = all.iter().map(|name| json!({ "name": name })).collect();
    api.create(
        ACCOUNTS,
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "builder" },
            "secrets": references }),
    );
    for name in all.into_iter().chain(["manual"]) {
        token_secret(&api, name, "builder");
        // It has what it needs: nobody else changes it meanwhile.
        let data = json!({ "token": "eA==", "namespace": "bg==", "ca.crt": "UEVN" });
        api.patch(&format!("{SECRETS}/{name}"), &json!({ "data": data }));
    }
    let label = |name: &str, key: &str, day: &str| {
        let labels = json!({ format!("kubernetes.io/legacy-token-{key}"): day });
        api.patch(&format!("{SECRETS}/{name}"), &json!({ "metadata": { "labels": labels } }));
    };
    label("marked", "invalid-since", "2026-01-05");
    label("used", "last-used", "9999-01-01");
    api.create(
        "/api/v1/namespaces/n/pods",
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" },
            "spec": { "containers": [{ "name": "c", "image": "i" }],
                "volumes": [{ "name": "v", "secret": { "secretName": "mounted" } }] } }),
    );
    let running = Running::start_on(api);
    let since = |api: &MemoryApi, name: &str| {
        let secret = api.get(&format!("{SECRETS}/{name}")).unwrap();
        secret["metadata"]["labels"]["kubernetes.io/legacy-token-invalid-since"].clone()
    };
    let is_done = |api: &MemoryApi| {
        since(api, "unused").is_string() && api.get(&format!("{SECRETS}/marked")).is_none()
    };
    running.api.eventually("one is marked and one removed", is_done).await;
    for name in ["used", "mounted", "manual"] {
        assert!(since(&running.api, name).is_null(), "{name}");
    }
}

#[tokio::test]
async fn bootstrap_tokens_sign_and_go_when_their_time_is_over() {
    let running = Running::start();
    let api = &running.api;
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    let info = "/api/v1/namespaces/kube-public/configmaps";
    let text = |text: &str| json!(k8s_openapi::ByteString(text.as_bytes().to_vec()));
    let token = |id: &str, end: &str| {
        let data = json!({ "token-id": text(id), "token-secret": text("0123456789abcdef"),
            "usage-bootstrap-signing": text("true"), "expiration": text(end) });
        api.create(
            secrets,
            json!({ "apiVersion": "v1", "kind": "Secret", "data": data,
                "type": "bootstrap.kubernetes.io/token",
                "metadata": { "name": format!("bootstrap-token-{id}") } }),
        );
    };
    token("abcdef", "9999-01-01T00:00:00Z");
    token("older0", "2026-01-01T00:00:00Z");
    api.create(
        info,
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "cluster-info" },
            "data": { "kubeconfig": "content", "jws-kubeconfig-gone00": "x" } }),
    );
    let signatures = |api: &MemoryApi| {
        let map = api.get(&format!("{info}/cluster-info")).unwrap();
        let data = map["data"].as_object().unwrap().clone();
        data.into_iter().map(|(key, _)| key).filter(|key| key != "kubeconfig").collect::<Vec<_>>()
    };
    api.eventually("it is signed", |api| signatures(api) == ["jws-kubeconfig-abcdef"]).await;
    api.eventually("the old one goes", |api| {
        api.get(&format!("{secrets}/bootstrap-token-older0")).is_none()
    })
    .await;
    api.delete(&format!("{secrets}/bootstrap-token-abcdef"));
    api.eventually("nothing signs any more", |api| signatures(api).is_empty()).await;
}
