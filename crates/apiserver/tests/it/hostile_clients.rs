//! Clients that take long, take much, or go away: bounded, and no harm to others.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use authn::UserInfo;
use bytes::Bytes;
use clock::SystemClock;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use store::{Expect, LogStore, Options, Store, Write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fixture::{Fixture, admin};
use crate::over_tls::connect;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MIB: usize = 1 << 20;

fn volatile() -> Arc<LogStore> {
    Arc::new(LogStore::volatile(&Options::default(), Arc::new(SystemClock)).unwrap())
}

fn identity(server: &Fixture) -> Option<(String, String)> {
    Some(server.authority.issue("root", &["system:masters"]))
}

/// Bytes of this process that are in memory, the test's own among them.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// Whether this process runs one test and no other, so that its memory is that of the test. When it
/// does not, another process is made that does, and has to pass.
fn is_alone(test: &str) -> bool {
    const ALONE: &str = "IRONCLAD_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    #[expect(clippy::disallowed_methods, reason = "the test runs itself once more")]
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let name = format!("hostile_clients::{test}");
    let output = command.args(["--exact", &name]).env(ALONE, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    false
}

/// The time of some writes of somebody who does nothing wrong.
async fn others(server: &Fixture, prefix: &str) -> Duration {
    let begun = tokio::time::Instant::now();
    for n in 0..20 {
        let map = json!({"metadata": {"name": format!("{prefix}-{n}")}});
        server.create(MAPS, &map).await;
    }
    begun.elapsed()
}

/// Asks until it is so.
async fn until(what: &str, ask: impl AsyncFn() -> bool) {
    for _ in 0..1000 {
        if ask().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited for: {what}");
}

async fn metric(server: &Fixture, line: &str) -> Option<f64> {
    let request = Request::builder().uri("/metrics").body(Bytes::new()).unwrap();
    let answer = server.handle.call(&admin(), request).await;
    let text = answer.into_body().collect().await.unwrap();
    let text = String::from_utf8(text.to_vec()).unwrap();
    let found = text.lines().find_map(|found| found.strip_prefix(line));
    found.and_then(|value| value.trim().parse().ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_drips_heads_and_bodies_is_let_go_and_holds_up_nobody() {
    let server = Fixture::start_configured(volatile(), |config| {
        config.header_timeout = Duration::from_millis(800);
        config.request_timeout = Duration::from_millis(800);
    })
    .await;
    let mut drips = Vec::new();
    for n in 0..200 {
        let mut stream = connect(&server, identity(&server)).await;
        let head = if n % 2 == 0 {
            "GET /version HTTP/1.1\r\nHost: localhost\r\nX-Slow: ".to_owned()
        } else {
            format!(
                "POST {MAPS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                 Content-Length: 100000\r\n\r\n{{"
            )
        };
        stream.write_all(head.as_bytes()).await.unwrap();
        drips.push(stdx::task::spawn("drip", async move {
            let mut answer = Vec::new();
            let mut chunk = [0; 4096];
            loop {
                tokio::select! {
                    read = stream.read(&mut chunk) => match read {
                        Ok(0) | Err(_) => return answer,
                        Ok(count) => answer.extend_from_slice(&chunk[..count]),
                    },
                    () = tokio::time::sleep(Duration::from_millis(50)) => {
                        // What the server has closed cannot be written to.
                        if stream.write_all(b"x").await.is_err() {
                            return answer;
                        }
                    }
                }
            }
        }));
    }
    let took = others(&server, "other").await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    let ended = futures::future::join_all(drips);
    let answers = tokio::time::timeout(Duration::from_secs(20), ended).await;
    let answers = answers.expect("every connection ends");
    let timed_out = answers.iter().filter(|answer| {
        let answer = answer.as_ref().unwrap().as_ref().unwrap();
        String::from_utf8_lossy(answer).contains("504 Gateway Timeout")
    });
    assert_eq!(timed_out.count(), 100, "who drips a body is told");
    let line = "apiserver_current_inflight_requests{request_kind=\"mutating\"}";
    assert_eq!(metric(&server, line).await, Some(0.0));
}

/// A connection that speaks HTTP/2.
async fn http2(server: &Fixture) -> hyper::client::conn::http2::SendRequest<Empty<Bytes>> {
    let stream = connect(server, identity(server)).await;
    let io = TokioIo::new(stream);
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    drop(stdx::task::spawn("test connection", connection));
    sender
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_watches_cost_little() {
    if !is_alone("ten_thousand_idle_watches_cost_little") {
        return;
    }
    const CONNECTIONS: usize = 50;
    const STREAMS: usize = 200;
    let server = Fixture::start().await;
    let before = resident();
    let mut watches = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut sender = http2(&server).await;
        let watch = || Request::builder().uri(format!("https://localhost{MAPS}?watch=true"));
        let asked = (0..STREAMS).map(|_| sender.send_request(watch().body(Empty::new()).unwrap()));
        let answers = futures::future::join_all(asked.collect::<Vec<_>>()).await;
        for answer in answers {
            let answer = answer.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            watches.push(answer.into_body());
        }
        // The connection lasts as long as its sender.
        watches.shrink_to_fit();
        std::mem::forget(sender);
    }
    assert_eq!(watches.len(), CONNECTIONS * STREAMS);
    let each = resident().saturating_sub(before) / watches.len();
    // Both ends of every watch are in this process.
    assert!(each < 40 << 10, "{each} bytes for a watch");
    let took = others(&server, "other").await;
    assert!(took < Duration::from_secs(30), "{took:?}");
    let first = watches[0].frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(first.starts_with(br#"{"type":"ADDED""#));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reads_its_watch_costs_only_itself() {
    if !is_alone("a_client_that_never_reads_its_watch_costs_only_itself") {
        return;
    }
    let server = Fixture::start().await;
    let mut deaf = Vec::new();
    for _ in 0..20 {
        let mut stream = connect(&server, identity(&server)).await;
        let head = format!("GET {MAPS}?watch=true HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        deaf.push(stream);
    }
    let mut sender = http2(&server).await;
    let request = Request::builder().uri(format!("https://localhost{MAPS}?watch=true"));
    let answer = sender.send_request(request.body(Empty::new()).unwrap()).await.unwrap();
    let mut attentive = answer.into_body();
    let before = resident();
    let data = "x".repeat(100 << 10);
    let mut seen = 0;
    for n in 0..400 {
        let map = json!({"metadata": {"name": format!("m{n}")}, "data": {"x": data}});
        server.create(MAPS, &map).await;
        let path = format!("{MAPS}/m{n}");
        server.admin(Method::DELETE, &path, &Value::Null).await;
        let wanted = format!("\"name\":\"m{n}\"");
        let mut text = String::new();
        while !(text.contains(&wanted) && text.contains("\"DELETED\"")) {
            let frame = tokio::time::timeout(Duration::from_secs(10), attentive.frame()).await;
            let frame = frame.expect("others hear of it").unwrap().unwrap();
            seen += frame.data_ref().map_or(0, Bytes::len);
            text.push_str(&String::from_utf8_lossy(&frame.into_data().unwrap()));
        }
    }
    assert!(seen > 70 * MIB, "{seen}");
    let grown = resident().saturating_sub(before);
    // The ring of events is one for all; each of the deaf has its buffers beside.
    assert!(grown < 160 * MIB, "{} MiB", grown / MIB);
    drop(deaf);
    assert!(others(&server, "other").await < Duration::from_secs(10));
}

#[tokio::test]
async fn objects_have_a_size() {
    let server = Fixture::start().await;
    let map = |name: &str, bytes: usize| json!({"metadata": {"name": name}, "data": {"x": "y".repeat(bytes)}});
    let (code, _) = server.admin(Method::POST, MAPS, &map("fits", MIB - 100)).await;
    assert_eq!(code, StatusCode::CREATED);
    let (code, answer) = server.admin(Method::POST, MAPS, &map("large", 2 * MIB)).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{}", answer["message"]);
    let (code, answer) = server.admin(Method::POST, MAPS, &map("huge", 3 * MIB)).await;
    assert_eq!(code, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer["message"], "Request entity too large: limit is 3145728");
    // An object may grow by parts, until the store refuses it as upstream's etcd does.
    let containers = |name: &str| {
        let value = "z".repeat(100 << 10);
        let env: Vec<Value> =
            (0..20).map(|n| json!({"name": format!("V{n}"), "value": value})).collect();
        json!({"name": name, "image": "i", "env": env})
    };
    let template = json!({"metadata": {"name": "wide"},
        "template": {"spec": {"containers": [containers("a")]}}});
    let path = "/api/v1/namespaces/default/podtemplates";
    let (code, answer) = server.admin(Method::POST, path, &template).await;
    assert_eq!(code, StatusCode::CREATED, "{}", answer["message"]);
    let patch = json!([{"op": "add", "path": "/template/spec/containers/-",
        "value": containers("b")}]);
    let (path, media) = (format!("{path}/wide"), "application/json-patch+json");
    let (code, answer) = server.call(&admin(), Method::PATCH, &path, media, &patch).await;
    assert_eq!(code, StatusCode::OK, "{}", answer["message"]);
    let patch = json!([{"op": "add", "path": "/template/spec/containers/-",
        "value": containers("c")}]);
    let (code, answer) = server.call(&admin(), Method::PATCH, &path, media, &patch).await;
    assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR, "{}", answer["message"]);
    assert_eq!(answer["message"], "etcdserver: request is too large");
}

/// A store with so many small maps.
async fn filled(count: usize) -> Arc<LogStore> {
    let store = volatile();
    for n in 0..count {
        let name = format!("m{n:06}");
        let json = format!(
            "{{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{{\"name\":\"{name}\",\
             \"namespace\":\"default\",\"uid\":\"{n}\",\
             \"creationTimestamp\":\"2026-01-01T00:00:00Z\"}},\"data\":{{\"n\":\"{n}\"}}}}"
        );
        let key = format!("/registry/configmaps/default/{name}");
        let write = Write::new(key.into(), Some(json.into()), Expect::Absent);
        store.write(write).await.unwrap();
    }
    store
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_objects_are_listed_whole_and_in_pages() {
    if !is_alone("a_hundred_thousand_objects_are_listed_whole_and_in_pages") {
        return;
    }
    const COUNT: usize = 100_000;
    let server = Fixture::start_on(filled(COUNT).await).await;
    let ask = async |path: &str| {
        let request = Request::builder().uri(path).body(Bytes::new()).unwrap();
        server.handle.call(&admin(), request).await
    };
    let before = resident();
    let mut bodies = Vec::new();
    for _ in 0..8 {
        let mut body = ask(MAPS).await.into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(first.starts_with(b"{\"kind\":\"ConfigMapList\""));
        bodies.push(body);
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 200 * MIB, "{} MiB for eight lists that nobody reads on", grown / MIB);
    drop(bodies);
    let whole = ask(MAPS).await.into_body().collect().await.unwrap();
    assert_eq!(whole.windows(6).filter(|text| *text == b"\"uid\":").count(), COUNT);

    let (mut next, mut seen, mut version) = (String::new(), 0, Value::Null);
    loop {
        let path = format!("{MAPS}?limit=5000&continue={next}");
        let (code, page) = server.admin(Method::GET, &path, &Value::Null).await;
        assert_eq!(code, StatusCode::OK);
        let metadata = &page["metadata"];
        assert!(version.is_null() || version == metadata["resourceVersion"]);
        version = metadata["resourceVersion"].clone();
        seen += page["items"].as_array().unwrap().len();
        if let Some(left) = metadata["remainingItemCount"].as_u64() {
            assert_eq!(usize::try_from(left).unwrap() + seen, COUNT);
        }
        match metadata["continue"].as_str().filter(|text| !text.is_empty()) {
            Some(token) => next = token.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, COUNT);
    assert!(others(&server, "other").await < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_whose_client_goes_are_done_or_not_done() {
    let server = Fixture::start().await;
    let services = "/api/v1/namespaces/default/services";
    let mut open = VecDeque::new();
    for n in 0..300_u64 {
        let mut stream = connect(&server, identity(&server)).await;
        let (path, body) = if n % 2 == 0 {
            (MAPS, json!({"metadata": {"name": format!("m{n}")}, "data": {"x": "y".repeat(2000)}}))
        } else {
            let spec = json!({"ports": [{"port": 80}], "type": "NodePort"});
            (services, json!({"metadata": {"name": format!("s{n}")}, "spec": spec}))
        };
        let body = body.to_string();
        let cut = if n % 5 == 0 { body.len() / 2 } else { body.len() };
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{}", &body[..cut]).as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        // Some go at once, some a moment later.
        open.push_back(stream);
        if n % 3 == 0 {
            tokio::time::sleep(Duration::from_micros(300 * (n % 7))).await;
            open.clear();
        }
    }
    drop(open);
    let line = "apiserver_current_inflight_requests{request_kind=\"mutating\"}";
    until("nothing is at work", async || metric(&server, line).await == Some(0.0)).await;
    until("addresses and services agree", async || {
        let (_, services) = server.admin(Method::GET, services, &Value::Null).await;
        let addresses = "/apis/networking.k8s.io/v1/ipaddresses";
        let (_, addresses) = server.admin(Method::GET, addresses, &Value::Null).await;
        let mut given: Vec<&str> = items(&services, "/spec/clusterIP");
        let mut told: Vec<&str> = items(&addresses, "/metadata/name");
        given.sort_unstable();
        told.sort_unstable();
        given == told && given.len() > 20
    })
    .await;
    let (_, maps) = server.admin(Method::GET, MAPS, &Value::Null).await;
    for name in items(&maps, "/metadata/name").iter().filter(|name| name.starts_with('m')) {
        let number: u64 = name[1..].parse().unwrap();
        assert!(!number.is_multiple_of(5), "half of {name} was never sent");
    }
    let metrics = "apiserver_flowcontrol_current_executing_requests{flow_schema=\"exempt\",\
                   priority_level=\"exempt\"}";
    // The request that asks is one.
    assert_eq!(metric(&server, metrics).await, Some(1.0));
}

fn items<'a>(list: &'a Value, pointer: &str) -> Vec<&'a str> {
    let items = list["items"].as_array().unwrap().iter();
    items.map(|item| item.pointer(pointer).unwrap().as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_leaves_room_for_others() {
    let server = Fixture::start_configured(volatile(), |config| {
        config.max_requests_inflight = 40;
        config.max_mutating_requests_inflight = 20;
    })
    .await;
    let role = json!({"metadata": {"name": "writers"}, "rules":
        [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]}]});
    server.create("/apis/rbac.authorization.k8s.io/v1/clusterroles", &role).await;
    let binding = json!({"metadata": {"name": "writers"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
            "name": "writers"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group",
            "name": "system:authenticated"}]});
    server.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await;
    let quiet = async |count: usize| {
        let user = UserInfo::new("quiet", &[UserInfo::AUTHENTICATED]);
        let mut times = Vec::new();
        for _ in 0..count {
            let begun = tokio::time::Instant::now();
            assert_eq!(write(&server.handle, &user).await, StatusCode::CREATED);
            times.push(begun.elapsed());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        times.sort();
        times[times.len() * 99 / 100]
    };
    quiet(20).await;
    let alone = quiet(100).await;
    let flood: Vec<_> = (0..500)
        .map(|_| {
            let handle = server.handle.clone();
            stdx::task::spawn("flood", async move {
                let user = UserInfo::new("loud", &[UserInfo::AUTHENTICATED]);
                loop {
                    if write(&handle, &user).await == StatusCode::TOO_MANY_REQUESTS {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let flooded = quiet(200).await;
    flood.iter().for_each(tokio::task::JoinHandle::abort);
    let rejected = "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"global-default\",\
                    priority_level=\"global-default\",reason=\"queue-full\"}";
    assert!(metric(&server, rejected).await.is_some_and(|count| count > 0.0));
    // Twice as long, and the time in which a busy machine gives it a turn at all.
    let limit = alone * 2 + Duration::from_millis(100);
    assert!(flooded < limit, "{flooded:?} in a flood, {alone:?} alone");
}

/// Creates something as somebody.
async fn write(handle: &apiserver::Handle, user: &UserInfo) -> StatusCode {
    let map = json!({"metadata": {"generateName": "m-"}}).to_string();
    let request = Request::builder().method(Method::POST).uri(MAPS);
    let request = request.header("content-type", "application/json").body(Bytes::from(map));
    handle.call(user, request.unwrap()).await.status()
}
