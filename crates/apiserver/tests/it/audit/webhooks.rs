//! Events for another server, which may be slow, gone or mad.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit::{BatchOptions, Mode, WebhookOptions, WebhookTarget};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{Recorded, all};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A server for events, without TLS, which answers as it is told.
struct Sink {
    url: String,
    lists: Arc<Mutex<Vec<Value>>>,
    asked: Arc<AtomicUsize>,
}

impl Sink {
    async fn start(answer: fn(usize) -> Option<(StatusCode, Vec<u8>)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/events", listener.local_addr().unwrap());
        let sink = Self { url, lists: Arc::default(), asked: Arc::default() };
        let (lists, asked) = (sink.lists.clone(), sink.asked.clone());
        drop(stdx::task::spawn("test sink", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (lists, asked) = (lists.clone(), asked.clone());
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let (lists, asked) = (lists.clone(), asked.clone());
                    async move {
                        let body = request.into_body().collect().await?.to_bytes();
                        let told = answer(asked.fetch_add(1, Ordering::SeqCst));
                        let Some((code, text)) = told else {
                            return std::future::pending().await;
                        };
                        if code.is_success() {
                            lists.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
                        }
                        let mut response = Response::new(Full::new(Bytes::from(text)));
                        *response.status_mut() = code;
                        Ok::<_, hyper::Error>(response)
                    }
                });
                drop(stdx::task::spawn("test sink connection", async move {
                    let connection = hyper::server::conn::http1::Builder::new();
                    connection.serve_connection(TokioIo::new(stream), service).await.ok();
                }));
            }
        }));
        sink
    }

    fn options(&self, max_wait: Duration) -> WebhookOptions {
        let target = WebhookTarget { url: self.url.clone(), ..WebhookTarget::default() };
        let mut options = WebhookOptions::new(target);
        options.initial_backoff = Duration::from_millis(5);
        options.batch = BatchOptions { max_wait, throttle: false, ..BatchOptions::webhook() };
        options
    }

    fn events(&self) -> Vec<Value> {
        let lists = self.lists.lock().unwrap();
        lists.iter().flat_map(|list| list["items"].as_array().unwrap().clone()).collect()
    }

    async fn wait(&self, count: usize) -> Vec<Value> {
        for _ in 0..400 {
            if self.events().len() >= count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.events()
    }
}

/// Lists of `admin` alone are recorded; the server's own requests are not.
const LISTS: &str = "rules: [{level: Metadata, users: [admin], verbs: [list]}]";

async fn recorded(options: WebhookOptions) -> Recorded {
    Recorded::start_with(LISTS, |sinks| {
        sinks.log = None;
        sinks.webhook = Some(options);
    })
    .await
}

async fn lost(recorded: &Recorded, plugin: &str) -> usize {
    let (_, metrics) = crate::metrics::scrape(&recorded.server).await;
    let line = format!("apiserver_audit_error_total{{plugin={plugin:?}}} ");
    let found = metrics.lines().find_map(|text| text.strip_prefix(&line));
    found.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn events_are_posted_in_lists() {
    let sink = Sink::start(|_| Some((StatusCode::OK, b"{}".to_vec()))).await;
    let recorded = recorded(sink.options(Duration::from_millis(50))).await;
    for _ in 0..5 {
        recorded.server.admin(Method::GET, MAPS, &Value::Null).await;
    }
    let events = sink.wait(10).await;
    assert_eq!(events.len(), 10);
    assert!(events[0]["kind"].is_null(), "items of a list do not repeat their kind");
    let lists = sink.lists.lock().unwrap();
    assert_eq!(
        (&lists[0]["kind"], &lists[0]["apiVersion"]),
        (&json!("EventList"), &json!("audit.k8s.io/v1"))
    );
    assert!(lists.len() < 10, "they were gathered");
}

#[tokio::test]
async fn what_fails_is_tried_again_and_then_lost() {
    let sink = Sink::start(|at| {
        let code = if at < 3 { StatusCode::BAD_REQUEST } else { StatusCode::OK };
        Some((code, b"\xff\x00 nonsense".to_vec()))
    })
    .await;
    let some = recorded(sink.options(Duration::from_millis(20))).await;
    some.server.admin(Method::GET, MAPS, &Value::Null).await;
    assert_eq!(sink.wait(2).await.len(), 2);
    assert_eq!(lost(&some, "webhook").await, 0);

    let sink = Sink::start(|_| Some((StatusCode::INTERNAL_SERVER_ERROR, Vec::new()))).await;
    let some = recorded(sink.options(Duration::from_millis(20))).await;
    some.server.admin(Method::GET, MAPS, &Value::Null).await;
    for _ in 0..400 {
        if lost(&some, "webhook").await == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(lost(&some, "webhook").await, 2);
    let asked = sink.asked.load(Ordering::SeqCst);
    assert!(asked == 5 || asked == 10, "five times a delivery: {asked}");
}

#[tokio::test]
async fn a_server_that_never_answers_costs_a_queue_and_no_request() {
    let sink = Sink::start(|_| None).await;
    let mut options = sink.options(Duration::from_millis(1));
    (options.batch.buffer_size, options.batch.max_size) = (20, 1);
    let recorded = recorded(options).await;
    let all = async {
        for _ in 0..100 {
            let (code, _) = recorded.server.admin(Method::GET, MAPS, &Value::Null).await;
            assert_eq!(code, StatusCode::OK);
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.unwrap();
    let lost = lost(&recorded, "buffered").await;
    // 200 events: 20 wait, 16 deliveries are under way, one waits for its turn.
    assert!((150..=180).contains(&lost), "{lost}");
    assert!(sink.asked.load(Ordering::SeqCst) <= 16);
}

#[tokio::test]
async fn requests_wait_for_a_webhook_when_they_are_told_to() {
    let sink = Sink::start(|_| Some((StatusCode::OK, Vec::new()))).await;
    let mut options = sink.options(Duration::from_secs(30));
    options.mode = Mode::Blocking;
    let recorded = recorded(options).await;
    recorded.server.admin(Method::GET, MAPS, &Value::Null).await;
    assert_eq!(sink.events().len(), 2, "nothing was to be waited for any more");
}

#[tokio::test]
async fn webhooks_of_admission_are_annotated() {
    let recorded = Recorded::start(&all("Request")).await;
    let server = &recorded.server;
    let answer = |request: Request<Incoming>| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let review: Value = serde_json::from_slice(&body).unwrap();
        let patch = "W3sib3AiOiJhZGQiLCJwYXRoIjoiL2RhdGEiLCJ2YWx1ZSI6eyJhIjoiYiJ9fV0=";
        let answer = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "response": {"uid": review["request"]["uid"], "allowed": true, "patch": patch,
                "patchType": "JSONPatch", "auditAnnotations": {"seen": "yes", "not ok": "x"}}});
        Response::new(Full::new(Bytes::from(answer.to_string())))
    };
    let port = crate::https::serve(server, &["localhost"], answer).await;
    let bundle =
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &server.authority.pem);
    let hook = |name: &str, port: u16| {
        json!({"name": name, "clientConfig": {
            "url": format!("https://localhost:{port}/x"), "caBundle": bundle},
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
            "resources": ["configmaps"]}],
        "failurePolicy": "Ignore", "sideEffects": "None", "admissionReviewVersions": ["v1"]})
    };
    server
        .create(
            "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
            &json!({"metadata": {"name": "conf"},
            "webhooks": [hook("good.example.com", port), hook("gone.example.com", 1)]}),
        )
        .await;
    server.create(MAPS, &json!({"metadata": {"name": "m"}})).await;
    let notes = recorded.wait(2, super::of(MAPS)).await[1]["annotations"].clone();
    assert_eq!(
        notes["mutation.webhook.admission.k8s.io/round_0_index_0"],
        "{\"configuration\":\"conf\",\"webhook\":\"good.example.com\",\"mutated\":true}"
    );
    assert_eq!(
        notes["patch.webhook.admission.k8s.io/round_0_index_0"],
        "{\"configuration\":\"conf\",\"webhook\":\"good.example.com\",\"patch\":[{\"op\":\"add\",\
         \"path\":\"/data\",\"value\":{\"a\":\"b\"}}],\"patchType\":\"JSONPatch\"}"
    );
    assert_eq!(
        notes["mutation.webhook.admission.k8s.io/round_0_index_1"],
        "{\"configuration\":\"conf\",\"webhook\":\"gone.example.com\",\"mutated\":false}"
    );
    assert_eq!(
        notes["failed-open.mutation.webhook.admission.k8s.io/round_0_index_1"],
        "gone.example.com"
    );
    assert_eq!(notes["good.example.com/seen"], "yes");
    assert!(notes.get("good.example.com/not ok").is_none());
}
