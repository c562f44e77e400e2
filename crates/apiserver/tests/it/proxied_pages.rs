//! What proxied servers say, and where requests for them may not go.

use futures::StreamExt;
use http::{HeaderMap, Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::fixture::{Fixture, admin};
use crate::over_tls::connect;
use crate::proxying::{kubelet_saying, pod_on_node};

async fn ask(server: &Fixture, method: Method, path: &str) -> (StatusCode, HeaderMap, String) {
    let request = Request::builder().method(method).uri(path).body(bytes::Bytes::new());
    let response = server.handle.call(&admin(), request.expect("a request")).await;
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.expect("a body");
    (parts.status, parts.headers, String::from_utf8_lossy(&bytes).into_owned())
}

/// Part of `[sig-network] Proxy version v1 A set of valid responses are returned for both pod and
/// service Proxy`.
#[tokio::test]
async fn reads_without_a_slash_are_sent_to_the_one_with_it() {
    let server = Fixture::start().await;
    pod_on_node(&server, kubelet_saying(&server, None).await).await;
    for method in [Method::GET, Method::HEAD] {
        let (code, headers, _) = ask(&server, method, "/api/v1/nodes/n/proxy?a=b%20c").await;
        assert_eq!(code, StatusCode::MOVED_PERMANENTLY);
        assert_eq!(headers["location"], "/api/v1/nodes/n/proxy/?a=b%20c");
    }
    let (code, _, line) = ask(&server, Method::POST, "/api/v1/nodes/n/proxy?a=b%20c&d").await;
    assert_eq!((code, line.as_str()), (StatusCode::OK, "POST /?a=b%20c&d HTTP/1.1"));
}

/// Part of `[sig-network] Proxy version v1 should proxy through a service and a pod`.
#[tokio::test]
async fn links_of_pages_lead_back_through_the_proxy() {
    let server = Fixture::start().await;
    let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\
                Access-Control-Allow-Origin: *\r\nContent-Length: 30\r\n\r\n\
                <a href=\"/rewriteme\">test</a>\n";
    pod_on_node(&server, kubelet_saying(&server, Some(page)).await).await;
    let (code, headers, body) = ask(&server, Method::GET, "/api/v1/nodes/n/proxy/x/").await;
    assert_eq!(code, StatusCode::OK);
    assert_eq!(body, "<a href=\"/api/v1/nodes/n/proxy/rewriteme\">test</a>\n");
    assert!(!headers.contains_key("access-control-allow-origin"), "{headers:?}");
    assert!(!headers.contains_key("content-length"), "{headers:?}");
}

#[tokio::test]
async fn redirects_lead_back_through_the_proxy() {
    let server = Fixture::start().await;
    let moved = "HTTP/1.1 302 Found\r\nLocation: /there?x=1\r\nContent-Length: 0\r\n\r\n";
    pod_on_node(&server, kubelet_saying(&server, Some(moved)).await).await;
    let (code, headers, _) = ask(&server, Method::GET, "/api/v1/nodes/n/proxy/here").await;
    assert_eq!(code, StatusCode::FOUND);
    assert_eq!(headers["location"], "/api/v1/nodes/n/proxy/there?x=1");
}

#[tokio::test]
async fn logs_come_as_messages_to_those_who_ask_for_them() {
    let server = Fixture::start().await;
    let log = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";
    pod_on_node(&server, kubelet_saying(&server, Some(log)).await).await;
    let identity = server.authority.issue("root", &["system:masters"]);
    let stream = connect(&server, Some(identity)).await;
    let url = "wss://localhost/api/v1/namespaces/default/pods/p/log?container=c";
    let mut request = url.into_client_request().unwrap();
    let protocols = "x.example, base64.binary.k8s.io".parse().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocols);
    let (mut socket, answer) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], "base64.binary.k8s.io");
    let mut texts = String::new();
    while let Some(Ok(Message::Text(text))) = socket.next().await {
        texts.push_str(&text);
    }
    assert_eq!(texts, "aGVsbG8K");
}

#[tokio::test]
async fn watches_come_as_messages_to_those_who_ask_for_them() {
    let server = Fixture::start().await;
    let identity = server.authority.issue("root", &["system:masters"]);
    let stream = connect(&server, Some(identity)).await;
    let url = "wss://localhost/api/v1/namespaces?watch=true&fieldSelector=metadata.name=default";
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    let Some(Ok(Message::Text(text))) = socket.next().await else { panic!("no event") };
    let event: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(event["type"], "ADDED");
    assert_eq!(event["object"]["metadata"]["name"], "default");
}

async fn refused(server: &Fixture, path: &str) -> (u64, String) {
    let (_, status) = server.admin(Method::GET, path, &Value::Null).await;
    let message = status["message"].as_str().unwrap_or_default().to_owned();
    (status["code"].as_u64().unwrap_or_default(), message)
}

#[tokio::test]
async fn addresses_that_users_write_are_not_followed() {
    let server = Fixture::start().await;
    pod_on_node(&server, 1).await;
    let status = json!({"status": {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}});
    let pod = "/api/v1/namespaces/default/pods/p";
    let merge = "application/merge-patch+json";
    let path = format!("{pod}/status");
    let (code, answer) = server.call(&admin(), Method::PATCH, &path, merge, &status).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    let refusal = (400, "address not allowed".to_owned());
    assert_eq!(refused(&server, &format!("{pod}:80/proxy/")).await, refusal);
    assert_eq!(refused(&server, "/api/v1/nodes/n:22/proxy/").await, refusal);
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    server.create("/api/v1/namespaces/default/services", &service).await;
    let slice = json!({"metadata": {"name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4", "ports": [{"port": 80, "name": ""}],
        "endpoints": [{"addresses": ["10.9.9.9"]},
            {"addresses": ["10.9.9.8"], "targetRef": {"kind": "Pod", "name": "p"}}]});
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    server.create(slices, &slice).await;
    let services = "/api/v1/namespaces/default/services";
    let message = "no endpoints available for service \"s\"".to_owned();
    assert_eq!(refused(&server, &format!("{services}/s/proxy/")).await, (503, message));
    let message = "no service port 81 found for service \"s\"".to_owned();
    assert_eq!(refused(&server, &format!("{services}/s:81/proxy/")).await, (503, message));
    let message = "invalid service request \"ftp:s:80\"".to_owned();
    assert_eq!(refused(&server, &format!("{services}/ftp:s:80/proxy/")).await, (400, message));
}
