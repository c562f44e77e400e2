//! Priority and fairness, as clients see it.

use std::sync::Arc;
use std::time::Duration;

use authn::UserInfo;
use bytes::Bytes;
use clock::SystemClock;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use store::{LogStore, Options};

use crate::fixture::{Fixture, admin};

const PATH: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

async fn get(server: &Fixture, path: &str) -> Value {
    let (code, object) = server.admin(Method::GET, path, &Value::Null).await;
    assert_eq!(code, StatusCode::OK, "{object}");
    object
}

async fn ask(server: &Fixture, user: &UserInfo, path: &str) -> http::Response<apiserver::Body> {
    let request = Request::builder().uri(path).body(Bytes::new()).unwrap();
    server.handle.call(user, request).await
}

fn user(name: &str) -> UserInfo {
    UserInfo::new(name, &[UserInfo::AUTHENTICATED])
}

/// Asks until a condition is as it should be.
async fn dangling(server: &Fixture, name: &str, status: &str) -> Value {
    for _ in 0..500 {
        let schema = get(server, &format!("{PATH}/flowschemas/{name}")).await;
        let condition = &schema["status"]["conditions"][0];
        if condition["status"] == status {
            return condition.clone();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{name} is not {status}");
}

#[tokio::test]
async fn a_fresh_server_has_upstreams_objects() {
    let server = Fixture::start().await;
    let names = async |resource: &str| -> Vec<String> {
        let list = get(&server, &format!("{PATH}/{resource}")).await;
        let items = list["items"].as_array().unwrap().iter();
        items
            .map(|item| {
                let annotations = &item["metadata"]["annotations"];
                assert_eq!(annotations["apf.kubernetes.io/autoupdate-spec"], "true", "{item}");
                item["metadata"]["name"].as_str().unwrap().to_owned()
            })
            .collect()
    };
    let levels = [
        "catch-all",
        "exempt",
        "global-default",
        "leader-election",
        "node-high",
        "system",
        "workload-high",
        "workload-low",
    ];
    assert_eq!(names("prioritylevelconfigurations").await, levels);
    let schemas = [
        "catch-all",
        "endpoint-controller",
        "exempt",
        "global-default",
        "kube-controller-manager",
        "kube-scheduler",
        "kube-system-service-accounts",
        "probes",
        "service-accounts",
        "system-leader-election",
        "system-node-high",
        "system-nodes",
        "workload-leader-election",
    ];
    assert_eq!(names("flowschemas").await, schemas);
    let condition = dangling(&server, "global-default", "False").await;
    assert_eq!(condition["reason"], "Found");
}

#[tokio::test]
async fn an_answer_says_how_its_request_was_taken() {
    let server = Fixture::start().await;
    let uid = async |resource: &str, name: &str| {
        get(&server, &format!("{PATH}/{resource}/{name}")).await["metadata"]["uid"].clone()
    };
    dangling(&server, "catch-all", "False").await;
    let check = async |who: &UserInfo, schema: &str, level: &str| {
        let answer = ask(&server, who, "/version").await;
        let header = |name: &str| json!(answer.headers()[name].to_str().unwrap());
        assert_eq!(
            header("x-kubernetes-pf-flowschema-uid"),
            uid("flowschemas", schema).await,
            "{schema}"
        );
        let level = uid("prioritylevelconfigurations", level).await;
        assert_eq!(header("x-kubernetes-pf-prioritylevel-uid"), level, "{schema}");
    };
    check(&admin(), "exempt", "exempt").await;
    check(&user("u"), "global-default", "global-default").await;
    check(&user("system:kube-scheduler"), "kube-scheduler", "workload-high").await;
}

#[tokio::test]
async fn a_schema_knows_whether_its_level_is_there() {
    let server = Fixture::start().await;
    let schema = json!({"metadata": {"name": "mine"}, "spec": {"matchingPrecedence": 700,
        "priorityLevelConfiguration": {"name": "own"}, "rules": [{"subjects":
            [{"kind": "User", "user": {"name": "u"}}], "nonResourceRules":
            [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}});
    server.create(&format!("{PATH}/flowschemas"), &schema).await;
    let condition = dangling(&server, "mine", "True").await;
    assert_eq!(condition["reason"], "NotFound");
    let level = json!({"metadata": {"name": "own"}, "spec": {"type": "Limited", "limited":
        {"nominalConcurrencyShares": 10, "limitResponse": {"type": "Reject"}}}});
    let made = server.create(&format!("{PATH}/prioritylevelconfigurations"), &level).await;
    dangling(&server, "mine", "False").await;
    let answer = ask(&server, &user("u"), "/version").await;
    assert_eq!(
        answer.headers()["x-kubernetes-pf-prioritylevel-uid"],
        made["metadata"]["uid"].as_str().unwrap()
    );
}

#[tokio::test]
async fn what_somebody_deletes_comes_back() {
    let clock = Arc::new(clock::ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap()));
    let server = Fixture::start_at(clock.clone()).await;
    for path in ["flowschemas/exempt", "prioritylevelconfigurations/system"] {
        let path = format!("{PATH}/{path}");
        server.admin(Method::DELETE, &path, &Value::Null).await;
        let mut is_back = false;
        for _ in 0..500 {
            clock.advance(Duration::from_secs(10));
            tokio::time::sleep(Duration::from_millis(5)).await;
            let (code, _) = server.admin(Method::GET, &path, &Value::Null).await;
            is_back = code == StatusCode::OK;
            if is_back {
                break;
            }
        }
        assert!(is_back, "{path}");
    }
}

#[tokio::test]
async fn a_level_that_refuses_does_so_in_upstreams_words() {
    let store = LogStore::volatile(&Options::default(), Arc::new(SystemClock)).unwrap();
    let server = Fixture::start_configured(Arc::new(store), |config| {
        config.max_requests_inflight = 2;
        config.max_mutating_requests_inflight = 0;
    })
    .await;
    // No seats at all: its shares are rounded up to one, and lent.
    let level = json!({"metadata": {"name": "none"}, "spec": {"type": "Limited", "limited":
        {"nominalConcurrencyShares": 0, "limitResponse": {"type": "Reject"}}}});
    server.create(&format!("{PATH}/prioritylevelconfigurations"), &level).await;
    let schema = json!({"metadata": {"name": "mine"}, "spec": {"matchingPrecedence": 700,
        "priorityLevelConfiguration": {"name": "none"}, "rules": [{"subjects":
            [{"kind": "User", "user": {"name": "u"}}], "nonResourceRules":
            [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}});
    server.create(&format!("{PATH}/flowschemas"), &schema).await;
    dangling(&server, "mine", "False").await;
    let answer = ask(&server, &user("u"), "/version").await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.headers()["retry-after"], "1");
    assert!(answer.headers().contains_key("x-kubernetes-pf-flowschema-uid"));
    let text = answer.into_body().collect().await.unwrap();
    assert_eq!(text, "Too many requests, please try again later.\n");
    assert_eq!(ask(&server, &user("v"), "/version").await.status(), StatusCode::OK);

    let dump = "/debug/api_priority_and_fairness/dump_priority_levels";
    let levels = ask(&server, &admin(), dump).await.into_body().collect().await.unwrap();
    let levels = String::from_utf8(levels.to_vec()).unwrap();
    let line = levels.lines().find(|line| line.starts_with("none,")).unwrap();
    let cells: Vec<&str> = line.split(',').map(str::trim).collect();
    assert_eq!(cells[7], "1", "{levels}");
    let metrics = ask(&server, &admin(), "/metrics").await.into_body().collect().await.unwrap();
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    let wanted = "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"mine\",\
                  priority_level=\"none\",reason=\"concurrency-limit\"} 1";
    assert!(metrics.contains(wanted));
}

#[tokio::test]
async fn without_it_requests_are_only_counted() {
    let store = LogStore::volatile(&Options::default(), Arc::new(SystemClock)).unwrap();
    let server = Fixture::start_configured(Arc::new(store), |config| {
        config.enable_priority_and_fairness = false;
    })
    .await;
    let answer = ask(&server, &user("u"), "/version").await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(!answer.headers().contains_key("x-kubernetes-pf-flowschema-uid"));
}
