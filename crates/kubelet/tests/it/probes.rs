//! Probes: of every kind, with their times and thresholds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::world::{World, one};

fn exec(command: &str, extra: Value) -> Value {
    let mut probe = json!({ "exec": { "command": [command] }, "periodSeconds": 1,
                            "failureThreshold": 1 });
    for (key, value) in extra.as_object().unwrap() {
        probe[key] = value.clone();
    }
    probe
}

fn container(world: &World) -> Value {
    world.pod("p").unwrap()["status"]["containerStatuses"][0].clone()
}

fn restarts(world: &World) -> i64 {
    container(world)["restartCount"].as_i64().unwrap_or(0)
}

fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

async fn sleep(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// \[sig-node\] Probing container with readiness probe should not be ready before initial delay
/// and never restart
#[tokio::test(start_paused = true)]
async fn a_container_is_not_ready_before_its_delay() {
    let world = World::new().await;
    let probe = exec("0", json!({ "initialDelaySeconds": 15, "periodSeconds": 5 }));
    world.create_pod("p", one(json!({ "readinessProbe": probe })));
    world.until_ready("p").await;
    let pod = world.pod("p").unwrap();
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    let ready = conditions.iter().find(|c| c["type"] == "Ready").unwrap();
    let started = time(&container(&world)["state"]["running"]["startedAt"]);
    let delay = time(&ready["lastTransitionTime"]).duration_since(started);
    assert!(delay.as_secs() >= 15, "{delay}");
    assert_eq!(restarts(&world), 0);
}

/// \[sig-node\] Probing container with readiness probe that fails should never be ready and never
/// restart
#[tokio::test(start_paused = true)]
async fn a_failing_readiness_probe_restarts_nothing() {
    let world = World::new().await;
    world.create_pod("p", one(json!({ "readinessProbe": exec("1", json!({})) })));
    world.until("it runs", || container(&world)["state"]["running"].is_object()).await;
    sleep(240).await;
    assert_eq!(world.condition("p", "Ready"), "False");
    assert_eq!((restarts(&world), container(&world)["started"].clone()), (0, json!(true)));
}

/// \[sig-node\] Probing container should have monotonically increasing restart count: five times,
/// though the back-off grows from 10 s to 80 s
#[tokio::test(start_paused = true)]
async fn restarts_are_counted_and_ever_further_apart() {
    let world = World::new().await;
    world.create_pod("p", one(json!({ "livenessProbe": exec("1", json!({})) })));
    let mut at = Vec::new();
    for count in 1..=5 {
        for _ in 0..400 {
            if restarts(&world) >= count {
                break;
            }
            sleep(1).await;
        }
        assert_eq!(restarts(&world), count);
        at.push(world.clock.now());
    }
    let gaps: Vec<i64> =
        at.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_secs()).collect();
    for (gap, least) in gaps.iter().zip([10, 20, 40, 80]) {
        assert!((least..least + 15).contains(gap), "{gaps:?}");
    }
}

/// \[sig-node\] Probing container should *not* be restarted with a … liveness probe; thresholds of
/// failures are in a row
#[tokio::test(start_paused = true)]
async fn failures_count_in_a_row_only() {
    let world = World::new().await;
    world.runtime.set_outcome("health", 0);
    let probe = exec("health", json!({ "failureThreshold": 3, "periodSeconds": 10 }));
    world.create_pod("p", one(json!({ "livenessProbe": probe })));
    world.until_ready("p").await;
    for round in 0..12 {
        world.runtime.set_outcome("health", i32::from(round % 3 != 0));
        sleep(10).await;
    }
    assert_eq!(restarts(&world), 0, "there were never three failures in a row");
    world.runtime.set_outcome("health", 1);
    sleep(31).await;
    world.until("it is restarted", || restarts(&world) == 1).await;
}

/// \[sig-node\] Probing container: startup probes hold the others back, and end by their own grace
/// period
#[tokio::test(start_paused = true)]
async fn nothing_else_is_probed_before_the_start() {
    let world = World::new().await;
    world.runtime.set_outcome("started", 1);
    let startup =
        exec("started", json!({ "failureThreshold": 5, "terminationGracePeriodSeconds": 7 }));
    world.create_pod(
        "p",
        one(json!({
            "startupProbe": startup, "livenessProbe": exec("1", json!({})),
            "readinessProbe": exec("0", json!({})),
        })),
    );
    world.until("it runs", || container(&world)["state"]["running"].is_object()).await;
    assert_eq!(container(&world)["started"], false);
    sleep(3).await;
    let probed = |command: &str| world.runtime.calls().contains(&format!("exec c {command}"));
    assert!(probed("started") && !probed("0") && !probed("1"));
    world.until("the start has failed", || restarts(&world) == 1).await;
    assert!(world.runtime.calls().contains(&"stop c 7s".to_owned()), "its own grace period");
    let told = |text: &str| world.events().iter().any(|event| event == text);
    world
        .until("it is told", || {
            told("Killing: Container c failed startup probe, will be restarted")
        })
        .await;
    world.runtime.set_outcome("started", 0);
    world.until("the others begin", || probed("0") && probed("1")).await;
}

/// Answers a health check with a status, over HTTP/2 without TLS.
async fn health_service(listener: TcpListener, status: Arc<AtomicU8>) {
    while let Ok((stream, _)) = listener.accept().await {
        let status = Arc::clone(&status);
        let service = hyper::service::service_fn(move |request: http::Request<_>| {
            let status = Arc::clone(&status);
            async move {
                assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                let body: hyper::body::Incoming = request.into_body();
                let asked = body.collect().await.unwrap().to_bytes();
                assert_eq!(&asked[..], b"\0\0\0\0\x05\x0a\x03own");
                let said = Bytes::from(vec![0, 0, 0, 0, 2, 8, status.load(Ordering::SeqCst)]);
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                let frames =
                    [Ok::<_, hyper::Error>(Frame::data(said)), Ok(Frame::trailers(trailers))];
                let body = StreamBody::new(futures::stream::iter(frames));
                let answer = http::Response::builder().header("content-type", "application/grpc");
                answer.body(body)
            }
        });
        let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        drop(stdx::task::spawn("health", async move {
            serving.serve_connection(TokioIo::new(stream), service).await.ok();
        }));
    }
}

/// \[sig-node\] Probing container should be restarted with a GRPC liveness probe; should *not* be
/// restarted with a GRPC liveness probe
#[tokio::test]
async fn a_grpc_service_says_whether_it_is_healthy() {
    let world = World::new().await;
    world.runtime.set_ip([127, 0, 0, 1].into());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let status = Arc::new(AtomicU8::new(1));
    drop(stdx::task::spawn("health", health_service(listener, Arc::clone(&status))));
    let probe = json!({ "grpc": { "port": port, "service": "own" }, "periodSeconds": 1,
                        "failureThreshold": 1, "timeoutSeconds": 5 });
    world.create_pod("p", one(json!({ "livenessProbe": probe, "readinessProbe": probe })));
    world.until_ready("p").await;
    assert_eq!(restarts(&world), 0);
    status.store(2, Ordering::SeqCst);
    world.until("it is restarted", || restarts(&world) == 1).await;
    let text =
        "Unhealthy: Liveness probe failed: service unhealthy (responded with \"NOT_SERVING\")";
    world.until("it is told", || world.events().iter().any(|event| event == text)).await;
}

async fn web(listener: TcpListener, code: Arc<AtomicU8>) {
    while let Ok((stream, _)) = listener.accept().await {
        let code = Arc::clone(&code);
        let service = hyper::service::service_fn(move |request: http::Request<_>| {
            let _: &hyper::body::Incoming = request.body();
            assert_eq!(request.headers()["host"], "own.example");
            assert!(request.headers()["user-agent"].to_str().unwrap().starts_with("kube-probe/"));
            let code = u16::from(code.load(Ordering::SeqCst)) * 100;
            let answer = http::Response::builder().status(code).body(Full::new(Bytes::new()));
            async move { answer }
        });
        drop(stdx::task::spawn("web", async move {
            let serving = hyper::server::conn::http1::Builder::new();
            serving.serve_connection(TokioIo::new(stream), service).await.ok();
        }));
    }
}

/// \[sig-node\] Probing container should be restarted with a /healthz http liveness probe; should
/// *not* be restarted with a tcp:8080 liveness probe
#[tokio::test]
async fn web_servers_and_ports_are_probed_by_name() {
    let world = World::new().await;
    world.runtime.set_ip([127, 0, 0, 1].into());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let code = Arc::new(AtomicU8::new(2));
    drop(stdx::task::spawn("web", web(listener, Arc::clone(&code))));
    let get = json!({ "path": "/healthz", "port": "web",
                      "httpHeaders": [{ "name": "Host", "value": "own.example" }] });
    let times = json!({ "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 5 });
    let mut liveness = times.clone();
    liveness["httpGet"] = get;
    let mut readiness = times;
    readiness["tcpSocket"] = json!({ "port": "web" });
    world.create_pod(
        "p",
        one(json!({
            "ports": [{ "name": "web", "containerPort": port }],
            "livenessProbe": liveness, "readinessProbe": readiness,
        })),
    );
    world.until_ready("p").await;
    code.store(3, Ordering::SeqCst);
    sleep(2).await;
    assert_eq!(restarts(&world), 0, "a redirection is no failure");
    code.store(5, Ordering::SeqCst);
    world.until("it is restarted", || restarts(&world) == 1).await;
    let text = "Unhealthy: Liveness probe failed: HTTP probe failed with statuscode: 500";
    world.until("it is told", || world.events().iter().any(|event| event == text)).await;
}
