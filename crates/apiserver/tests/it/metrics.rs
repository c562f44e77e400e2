//! What `/metrics`, the checks of health and profiles say.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::fixture::{Fixture, admin};

async fn text(server: &Fixture, path: &str) -> (StatusCode, String) {
    let request = Request::builder().uri(path).body(Bytes::new()).expect("a request");
    let response = server.handle.call(&admin(), request).await;
    let code = response.status();
    let bytes = response.into_body().collect().await.expect("a body");
    (code, String::from_utf8(bytes.to_vec()).expect("text"))
}

/// All metrics.
pub(crate) async fn scrape(server: &Fixture) -> (StatusCode, String) {
    text(server, "/metrics").await
}

/// The value of a metric with exactly these labels.
async fn value(server: &Fixture, name: &str) -> Option<f64> {
    let (_, text) = text(server, "/metrics").await;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok())
}

#[tokio::test]
async fn requests_are_counted_under_upstreams_labels() {
    let server = Fixture::start().await;
    let secrets = "/api/v1/namespaces/default/secrets";
    server.create(secrets, &json!({"metadata": {"name": "a"}})).await;
    server.admin(Method::GET, secrets, &Value::Null).await;
    server.admin(Method::GET, secrets, &Value::Null).await;
    server.admin(Method::GET, "/api/v1/namespaces/default/nonsense", &Value::Null).await;
    let about = |scope: &str| {
        format!(
            "component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"secrets\",\
             scope=\"{scope}\",subresource=\"\""
        )
    };
    let lists = format!(
        "apiserver_request_total{{code=\"200\",{},system_client=\"\",verb=\"LIST\",\
         version=\"v1\"}}",
        about("namespace")
    );
    assert_eq!(value(&server, &lists).await, Some(2.0));
    let took = format!(
        "apiserver_request_duration_seconds_count{{{},verb=\"POST\",version=\"v1\"}}",
        about("resource")
    );
    assert_eq!(value(&server, &took).await, Some(1.0));
    let objects = "apiserver_storage_objects{resource=\"secrets\"}";
    assert_eq!(value(&server, objects).await, Some(1.0));
    let (_, text) = text(&server, "/metrics").await;
    assert!(!text.contains("nonsense"), "what clients make up is no label");
    for of_every_part in [
        "kubernetes_build_info{build_date=",
        "kubernetes_feature_enabled{name=\"WatchList\",stage=",
        "version_info{binary=\"1.36\"",
        "process_resident_memory_bytes ",
        "process_start_time_seconds ",
    ] {
        assert!(text.contains(&format!("\n{of_every_part}")), "{of_every_part}");
    }
}

#[tokio::test]
async fn watches_are_counted_while_they_are_open() {
    let server = Fixture::start().await;
    let gauge = "apiserver_longrunning_requests{component=\"apiserver\",group=\"\",\
                 resource=\"secrets\",scope=\"cluster\",subresource=\"\",verb=\"WATCH\",\
                 version=\"v1\"}";
    let request = Request::builder().uri("/api/v1/secrets?watch=true").body(Bytes::new());
    let response = server.handle.call(&admin(), request.unwrap()).await;
    assert_eq!(value(&server, gauge).await, Some(1.0));
    drop(response);
    assert_eq!(value(&server, gauge).await, Some(0.0));
}

#[tokio::test]
async fn checks_can_be_asked_one_by_one_and_left_out() {
    let server = Fixture::start().await;
    for path in ["/livez", "/readyz", "/healthz", "/livez/etcd", "/readyz/informer-sync"] {
        assert_eq!(text(&server, path).await, (StatusCode::OK, "ok".to_owned()), "{path}");
    }
    assert_eq!(text(&server, "/livez/nope").await.0, StatusCode::NOT_FOUND);
    let (_, said) = text(&server, "/readyz?verbose&exclude=log&exclude=nope").await;
    assert!(said.starts_with("[+]ping ok\n[+]log excluded: ok\n[+]etcd-readiness ok\n"), "{said}");
    let warning = "warn: some health checks cannot be excluded: no matches for \"nope\"\nreadyz check passed\n";
    assert!(said.ends_with(warning), "{said}");
    let found = value(&server, "kubernetes_healthcheck{name=\"etcd\",type=\"livez\"}").await;
    assert_eq!(found, Some(1.0));
}

#[tokio::test]
async fn profiles_are_served_to_those_who_may() {
    let server = Fixture::start().await;
    let (code, paths) = text(&server, "/debug/pprof/").await;
    assert_eq!(code, StatusCode::OK);
    assert!(paths.contains("/debug/pprof/profile"), "{paths}");
    let anybody = authn::UserInfo::new("anybody", &[authn::UserInfo::AUTHENTICATED]);
    let (code, status) =
        server.call(&anybody, Method::GET, "/debug/pprof/", "", &Value::Null).await;
    assert_eq!(code, StatusCode::FORBIDDEN, "{status}");
}
