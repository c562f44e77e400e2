//! APIs of other servers, played by the test, under the paths of this one.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use http::{Method, StatusCode};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::fixture::{Fixture, admin};

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const GROUP: &str = "/apis/fruit.example.com/v1";

/// A server that takes only those whom the test's authority knows. It answers with the head of the
/// request in JSON, except below `/…/moved`, `/…/silent` and when it is told to be ill.
async fn backend(server: &Fixture, code: &'static str) -> u16 {
    let (certificate, key) = server.authority.issue_for("fruit", &[], &["fruit.default.svc"]);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let authority = CertificateDer::from_pem_slice(server.authority.pem.as_bytes()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    drop(stdx::task::spawn("test backend", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            drop(stdx::task::spawn("test connection", async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { return };
                    head.push(byte);
                }
                let head = String::from_utf8(head).unwrap();
                if head.contains("/silent") {
                    std::future::pending::<()>().await;
                }
                let moved = head.contains("/moved");
                let apples = json!({"name": "apples", "singularName": "apple", "namespaced": true,
                    "kind": "Apple", "verbs": ["get", "list"], "shortNames": ["ap"]});
                let status_of = json!({"name": "apples/status", "kind": "Apple", "verbs": ["get"]});
                let body = json!({ "head": head, "resources": [apples, status_of],
                    "paths": {"apis/fruit.example.com/v1": {
                        "serverRelativeURL": "/openapi/v3/apis/fruit.example.com/v1?hash=ABC"}} })
                .to_string();
                let status =
                    if moved { "302 Found\r\nLocation: https://evil.example" } else { code };
                let answer = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
                     Connection: close\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).await.ok();
                stream.shutdown().await.ok();
            }));
        }
    }));
    port
}

/// Registers a backend on a port.
async fn register(server: &Fixture, port: u16) {
    let service = json!({"metadata": {"name": "fruit"},
        "spec": {"type": "ExternalName", "externalName": "localhost"}});
    server.create("/api/v1/namespaces/default/services", &service).await;
    let bundle = base64::engine::general_purpose::STANDARD.encode(&server.authority.pem);
    let registration = json!({"metadata": {"name": "v1.fruit.example.com"}, "spec": {
        "group": "fruit.example.com", "version": "v1", "groupPriorityMinimum": 2000,
        "versionPriority": 10, "caBundle": bundle,
        "service": {"namespace": "default", "name": "fruit", "port": port}}});
    server.create(SERVICES, &registration).await;
}

/// The condition of the registration once it has this reason.
async fn condition(server: &Fixture, name: &str, reason: &str) -> Value {
    let mut last = Value::Null;
    for _ in 0..400 {
        let (_, found) =
            server.admin(Method::GET, &format!("{SERVICES}/{name}"), &Value::Null).await;
        last = found["status"]["conditions"][0].clone();
        if last["reason"] == reason {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{name} does not become {reason}: {last}");
}

#[tokio::test]
async fn a_service_without_the_port_is_told_of() {
    let server = Fixture::start().await;
    let service = json!({"metadata": {"name": "fruit"}, "spec": {"ports": [{"port": 443}]}});
    server.create("/api/v1/namespaces/default/services", &service).await;
    let registration = json!({"metadata": {"name": "v1.fruit.example.com"}, "spec": {
        "group": "fruit.example.com", "version": "v1", "groupPriorityMinimum": 2000,
        "versionPriority": 10, "insecureSkipTLSVerify": true,
        "service": {"namespace": "default", "name": "fruit", "port": 8443}}});
    server.create(SERVICES, &registration).await;
    let found = condition(&server, "v1.fruit.example.com", "ServicePortError").await;
    let message = "service/fruit in \"default\" is not listening on port 8443";
    assert_eq!((&found["status"], &found["message"]), (&json!("False"), &json!(message)));
}

/// `[sig-api-machinery] Aggregator`: registered, available, forwarded to.
#[tokio::test]
async fn requests_of_a_group_go_to_who_serves_it() {
    let server = Fixture::start().await;
    let port = backend(&server, "200 OK").await;
    register(&server, port).await;
    let found = condition(&server, "v1.fruit.example.com", "Passed").await;
    assert_eq!(
        (&found["status"], &found["message"]),
        (&json!("True"), &json!("all checks passed"))
    );

    let path = format!("{GROUP}/namespaces/default/apples/red?labelSelector=a%3Db");
    let (code, answer) = server.admin(Method::GET, &path, &Value::Null).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    assert!(answer["head"].as_str().unwrap().contains("audit-id: "), "{answer}");
    let head = answer["head"].as_str().unwrap().to_ascii_lowercase();
    assert!(head.starts_with(&format!("get {path} http/1.1").to_ascii_lowercase()), "{head}");
    for line in
        ["x-remote-user: admin", "x-remote-group: system:masters", "host: fruit.default.svc"]
    {
        assert!(head.contains(line), "{line} is missing in {head}");
    }
    let (code, _) = server.admin(Method::GET, &format!("{GROUP}/moved"), &Value::Null).await;
    assert_eq!(code, StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn groups_of_others_are_discovered_here() {
    let server = Fixture::start().await;
    let port = backend(&server, "200 OK").await;
    register(&server, port).await;
    condition(&server, "v1.fruit.example.com", "Passed").await;
    let (_, groups) = server.admin(Method::GET, "/apis", &Value::Null).await;
    let named = |list: &Value, pointer: &str| -> Vec<Value> {
        let list = list.as_array().unwrap().iter();
        list.filter(|item| item.pointer(pointer) == Some(&json!("fruit.example.com")))
            .cloned()
            .collect()
    };
    let found = named(&groups["groups"], "/name");
    assert_eq!(found[0]["preferredVersion"]["groupVersion"], "fruit.example.com/v1");
    let (_, group) = server.admin(Method::GET, "/apis/fruit.example.com", &Value::Null).await;
    assert_eq!(
        (&group["kind"], &group["versions"][0]["version"]),
        (&json!("APIGroup"), &json!("v1"))
    );
    let (_, list) = server.admin(Method::GET, GROUP, &Value::Null).await;
    assert_eq!(list["resources"][0]["name"], "apples");

    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let request = http::Request::get("/apis").header("accept", accept).body(bytes::Bytes::new());
    let response = server.handle.call(&admin(), request.unwrap()).await;
    let body = response.into_body().collect().await.unwrap();
    let list: Value = serde_json::from_slice(&body).unwrap();
    let version = &named(&list["items"], "/metadata/name")[0]["versions"][0];
    assert_eq!(version["freshness"], "Current");
    let apples = &version["resources"][0];
    assert_eq!(apples["responseKind"]["group"], "fruit.example.com");
    assert_eq!(apples["subresources"][0]["subresource"], "status");
    let mut url = Value::Null;
    for _ in 0..400 {
        let (_, index) = server.admin(Method::GET, "/openapi/v3", &Value::Null).await;
        url = index["paths"]["apis/fruit.example.com/v1"]["serverRelativeURL"].clone();
        if url.is_string() {
            break;
        }
        // Documents are fetched after a server is found to be there.
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    assert_eq!(url, "/openapi/v3/apis/fruit.example.com/v1?hash=ABC");
    let (_, document) = server.admin(Method::GET, url.as_str().unwrap(), &Value::Null).await;
    assert!(
        document["head"].as_str().unwrap().starts_with("GET /openapi/v3/apis/fruit"),
        "{document}"
    );
}

#[tokio::test]
async fn nobody_can_say_to_be_somebody_else() {
    let server = Fixture::start().await;
    let port = backend(&server, "200 OK").await;
    register(&server, port).await;
    condition(&server, "v1.fruit.example.com", "Passed").await;
    let request = http::Request::get(format!("{GROUP}/apples"))
        .header("x-remote-user", "root")
        .header("x-remote-group", "others")
        .header("authorization", "Bearer secret")
        .header("x-forwarded-for", "192.0.2.7")
        .header("connection", "x-private")
        .header("x-private", "for the next one only")
        .body(bytes::Bytes::new())
        .unwrap();
    let response = server.handle.call(&admin(), request).await;
    let body = response.into_body().collect().await.unwrap();
    let answer: Value = serde_json::from_slice(&body).unwrap();
    let head = answer["head"].as_str().unwrap();
    assert!(
        !head.contains("root") && !head.contains("others") && !head.contains("secret"),
        "{head}"
    );
    assert!(head.contains("x-forwarded-for: 192.0.2.7, 127.0.0.1\r\n"), "{head}");
    assert!(!head.contains("x-private"), "{head}");
    let stranger = authn::UserInfo::new("jane", &["system:authenticated"]);
    let (code, _) = server
        .call(&stranger, Method::GET, &format!("{GROUP}/apples"), "application/json", &Value::Null)
        .await;
    assert_eq!(code, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn what_is_wrong_with_a_server_is_said() {
    let server = Fixture::start().await;
    let port = backend(&server, "403 Forbidden").await;
    let missing = json!({"metadata": {"name": "v2.fruit.example.com"}, "spec": {
        "group": "fruit.example.com", "version": "v2", "groupPriorityMinimum": 2000,
        "versionPriority": 10, "insecureSkipTLSVerify": true,
        "service": {"namespace": "default", "name": "none"}}});
    server.create(SERVICES, &missing).await;
    let found = condition(&server, "v2.fruit.example.com", "ServiceNotFound").await;
    assert_eq!(found["message"], "service/none in \"default\" is not present");
    let (code, _) =
        server.admin(Method::GET, "/apis/fruit.example.com/v2/apples", &Value::Null).await;
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);

    register(&server, port).await;
    let found = condition(&server, "v1.fruit.example.com", "FailedDiscoveryCheck").await;
    let message = found["message"].as_str().unwrap();
    let url = format!("https://localhost:{port}{GROUP}");
    let told = format!("failing or missing response from {url}: bad status from {url}: 403");
    assert_eq!(message, told);
}

#[tokio::test]
async fn what_is_served_here_is_registered_too() {
    let server = Fixture::start().await;
    let found = condition(&server, "v1.apps", "Local").await;
    assert_eq!(found["message"], "Local APIServices are always available");
    let (_, apps) = server.admin(Method::GET, &format!("{SERVICES}/v1.apps"), &Value::Null).await;
    assert_eq!(apps["spec"]["groupPriorityMinimum"], 17_800);
    assert_eq!(apps["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "onstart");
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let (_, map) = server.admin(Method::GET, path, &Value::Null).await;
    assert_eq!(map["data"]["client-ca-file"], *server.authority.pem);
    assert_eq!(map["data"]["requestheader-allowed-names"], r#"["front-proxy-client"]"#);
}

#[tokio::test]
async fn a_server_that_is_silent_holds_nobody_else() {
    let server = Fixture::start().await;
    let port = backend(&server, "200 OK").await;
    register(&server, port).await;
    condition(&server, "v1.fruit.example.com", "Passed").await;
    let silent = format!("{GROUP}/silent");
    let waiting = server.admin(Method::GET, &silent, &Value::Null);
    assert!(tokio::time::timeout(Duration::from_millis(300), waiting).await.is_err());
    let (code, _) = server.admin(Method::GET, &format!("{GROUP}/apples"), &Value::Null).await;
    assert_eq!(code, StatusCode::OK);
    let (code, _) = server.admin(Method::GET, "/api/v1/namespaces", &Value::Null).await;
    assert_eq!(code, StatusCode::OK);
}
