//! Admission webhooks, played by the test.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clock::SystemClock;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use store::{Expect, LogStore, Options, Store, Write};

use super::{MERGE, delete, patch, read};
use crate::fixture::{Fixture, admin};
use crate::https;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1";

/// A webhook: its port and what it was asked.
struct Hook {
    port: u16,
    connections: Arc<AtomicUsize>,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Hook {
    /// Answers every request with what `answer` makes of it: the response without its uid.
    async fn serve(server: &Fixture, answer: fn(&Value) -> Value) -> Self {
        let names = ["hook.default.svc", "localhost", "127.0.0.1"];
        let asked: Arc<Mutex<Vec<Value>>> = Arc::default();
        let seen = asked.clone();
        let (port, connections) = https::serve_counted(server, &names, move |request| {
            let seen = seen.clone();
            async move { reply(request, answer, &seen).await }
        })
        .await;
        Self { port, connections, asked }
    }

    fn asked(&self) -> Vec<Value> {
        self.asked.lock().expect("nobody panicked").clone()
    }

    fn url(&self, server: &Fixture) -> Value {
        json!({"url": format!("https://localhost:{}/ask", self.port), "caBundle": bundle(server)})
    }
}

async fn reply(
    request: Request<hyper::body::Incoming>,
    answer: fn(&Value) -> Value,
    seen: &Mutex<Vec<Value>>,
) -> Response<Full<Bytes>> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    let mut review: Value = serde_json::from_slice(&body).expect("a review");
    let mut response = answer(&review["request"]);
    if response == "late" {
        tokio::time::sleep(Duration::from_secs(5)).await;
        response = json!({"allowed": true});
    }
    response["uid"] = review["request"]["uid"].clone();
    let body = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "response": response});
    review["query"] = json!(query);
    seen.lock().expect("nobody panicked").push(review);
    Response::new(Full::new(body.to_string().into()))
}

fn bundle(server: &Fixture) -> String {
    STANDARD.encode(&server.authority.pem)
}

fn rule(resources: &[&str], operations: &[&str]) -> Value {
    json!([{"apiGroups": ["*"], "apiVersions": ["*"], "resources": resources,
        "operations": operations}])
}

fn hook(name: &str, client: &Value, rules: &Value) -> Value {
    json!({"name": format!("{name}.example.com"), "clientConfig": client, "rules": rules,
        "sideEffects": "None", "admissionReviewVersions": ["v1"]})
}

async fn register(server: &Fixture, kind: &str, hooks: &[Value]) {
    let body = json!({"metadata": {"name": "hooks"}, "webhooks": hooks});
    server.create(&format!("{CONFIGURATIONS}/{kind}webhookconfigurations"), &body).await;
}

fn config_map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "1"}})
}

fn deny_disallowed(request: &Value) -> Value {
    let is_bad = |object: &Value| object["data"]["webhook-e2e-test"] == "webhook-disallow";
    if is_bad(&request["object"]) || is_bad(&request["oldObject"]) {
        let status = json!({"message": "the configmap contains unwanted key and value",
            "reason": "Invalid data"});
        return json!({"allowed": false, "status": status});
    }
    json!({"allowed": true, "warnings": ["mind the hook"]})
}

/// `[sig-api-machinery] AdmissionWebhook should be able to deny pod and configmap creation`, over a
/// service as there.
#[tokio::test]
async fn a_webhook_behind_a_service_is_asked_at_a_ready_endpoint() {
    let store = LogStore::volatile(&Options::default(), Arc::new(SystemClock)).unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    let server = Fixture::start_on(store.clone()).await;
    let webhook = Hook::serve(&server, deny_disallowed).await;
    let ports = json!([{"port": 8443, "targetPort": webhook.port}]);
    let service = json!({"metadata": {"name": "hook"}, "spec": {"ports": ports}});
    server.create("/api/v1/namespaces/default/services", &service).await;
    let client = json!({"caBundle": bundle(&server),
        "service": {"namespace": "default", "name": "hook", "port": 8443, "path": "/ask"}});
    let rules = rule(&["configmaps"], &["CREATE"]);
    register(&server, "validating", &[hook("deny", &client, &rules)]).await;
    let bad = json!({"metadata": {"name": "bad"},
        "data": {"webhook-e2e-test": "webhook-disallow"}});
    let (code, status) = server.admin(Method::POST, CONFIG_MAPS, &bad).await;
    assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(
        status["message"],
        "Internal error occurred: failed calling webhook \"deny.example.com\": failed to call \
         webhook: Post \"https://hook.default.svc:8443/ask?timeout=10s\": no endpoints available \
         for service \"hook\""
    );
    // The API takes no loopback addresses as endpoints, so this one comes through the back door.
    let slice = json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
        "metadata": {"name": "hook", "namespace": "default", "uid": "u",
            "labels": {"kubernetes.io/service-name": "hook"}},
        "addressType": "IPv4", "ports": [{"name": "", "port": webhook.port, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": true}}]});
    let key = "/registry/endpointslices/default/hook".into();
    let value = Some(slice.to_string().into());
    store.write(Write::new(key, value, Expect::Absent)).await.unwrap();
    read(&server, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/hook").await;
    let (_, status) = server.admin(Method::POST, CONFIG_MAPS, &bad).await;
    assert_eq!(
        status["message"],
        "admission webhook \"deny.example.com\" denied the request: the configmap contains \
         unwanted key and value"
    );
    server.create(CONFIG_MAPS, &config_map("good")).await;
    assert_eq!(webhook.asked().len(), 2);
}

#[tokio::test]
async fn a_webhook_denies_creation_changes_and_deletion() {
    let server = Fixture::start().await;
    server
        .create(
            CONFIG_MAPS,
            &json!({"metadata": {"name": "kept"},
        "data": {"webhook-e2e-test": "webhook-disallow"}}),
        )
        .await;
    server.create(CONFIG_MAPS, &config_map("good")).await;
    let webhook = Hook::serve(&server, deny_disallowed).await;
    let rules = rule(&["configmaps"], &["CREATE", "UPDATE", "DELETE"]);
    register(&server, "validating", &[hook("deny", &webhook.url(&server), &rules)]).await;
    let expected = "admission webhook \"deny.example.com\" denied the request: the configmap \
                    contains unwanted key and value";
    let bad = json!({"metadata": {"name": "bad"},
        "data": {"webhook-e2e-test": "webhook-disallow"}});
    let (code, status) = server.admin(Method::POST, CONFIG_MAPS, &bad).await;
    assert_eq!((code.as_u16(), &status["message"]), (400, &json!(expected)));
    assert_eq!(status["reason"], "Invalid data");
    let good = format!("{CONFIG_MAPS}/good");
    let (code, _) = server.call(&admin(), Method::PATCH, &good, MERGE, &bad).await;
    assert_eq!(code, StatusCode::BAD_REQUEST, "also because of the name");
    let change = json!({"data": bad["data"]});
    let (_, status) = server.call(&admin(), Method::PATCH, &good, MERGE, &change).await;
    assert_eq!(status["message"], expected);
    let (_, status) =
        server.admin(Method::DELETE, &format!("{CONFIG_MAPS}/kept"), &Value::Null).await;
    assert_eq!(status["message"], expected);
    delete(&server, &good).await;
    let asked = webhook.asked();
    let request = &asked[0]["request"];
    assert_eq!(asked[0]["query"], "timeout=10s");
    assert_eq!(request["operation"], "CREATE");
    assert_eq!(request["oldObject"], Value::Null);
    assert_eq!(request["kind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert_eq!(request["userInfo"]["username"], "admin");
    assert_eq!(request["options"]["kind"], "CreateOptions");
    let last = &asked.last().unwrap()["request"];
    assert_eq!((&last["operation"], &last["object"]), (&json!("DELETE"), &Value::Null));
    assert_eq!(last["oldObject"]["metadata"]["name"], "good");
    // Whoever locked himself out can remove the configuration.
    delete(&server, &format!("{CONFIGURATIONS}/validatingwebhookconfigurations/hooks")).await;
    server.create(CONFIG_MAPS, &bad).await;
}

fn mutate(request: &Value) -> Value {
    let data = &request["object"]["data"];
    let add = |key: &str| {
        let patch = json!([{"op": "add", "path": format!("/data/{key}"), "value": "yes"}]);
        json!({"allowed": true, "patchType": "JSONPatch",
            "patch": STANDARD.encode(patch.to_string())})
    };
    if data.get("stage-1").is_none() {
        add("stage-1")
    } else if data.get("other").is_some() && data.get("stage-2").is_none() {
        add("stage-2")
    } else {
        json!({"allowed": true})
    }
}

fn add_other(_: &Value) -> Value {
    let patch = json!([{"op": "add", "path": "/data/other", "value": "yes"}]);
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(patch.to_string())})
}

/// `[sig-api-machinery] AdmissionWebhook should mutate configmap`.
#[tokio::test]
async fn webhooks_change_objects_in_turn_and_are_asked_again_when_they_wish() {
    let server = Fixture::start().await;
    let (first, second) =
        (Hook::serve(&server, mutate).await, Hook::serve(&server, add_other).await);
    let rules = rule(&["configmaps"], &["CREATE"]);
    let mut hooks =
        [hook("first", &first.url(&server), &rules), hook("second", &second.url(&server), &rules)];
    hooks[0]["reinvocationPolicy"] = json!("IfNeeded");
    register(&server, "mutating", &hooks).await;
    let created = server.create(CONFIG_MAPS, &config_map("x")).await;
    let expected = json!({"a": "1", "stage-1": "yes", "stage-2": "yes", "other": "yes"});
    assert_eq!(created["data"], expected);
    assert_eq!((first.asked().len(), second.asked().len()), (2, 1));
    assert_eq!(read(&server, &format!("{CONFIG_MAPS}/x")).await["data"], expected);
    let dry = format!("{CONFIG_MAPS}?dryRun=All");
    server.create(&dry, &config_map("y")).await;
    assert_eq!(first.asked()[2]["request"]["dryRun"], true);
}

/// `[sig-api-machinery] AdmissionWebhook should honor timeout` and `should unconditionally reject
/// operations on fail closed webhook`.
#[tokio::test]
async fn a_webhook_that_cannot_be_asked_fails_or_is_ignored() {
    let server = Fixture::start().await;
    let late = Hook::serve(&server, |_| json!("late")).await;
    let rules = rule(&["configmaps"], &["CREATE"]);
    let mut slow = hook("slow", &late.url(&server), &rules);
    slow["timeoutSeconds"] = json!(1);
    register(&server, "validating", &[slow]).await;
    let (code, status) = server.admin(Method::POST, CONFIG_MAPS, &config_map("x")).await;
    assert_eq!((code.as_u16(), &status["reason"]), (500, &json!("InternalError")));
    assert_eq!(
        status["message"],
        format!(
            "Internal error occurred: failed calling webhook \"slow.example.com\": failed to call \
             webhook: Post \"https://localhost:{}/ask?timeout=1s\": context deadline exceeded",
            late.port
        )
    );
    let path = format!("{CONFIGURATIONS}/validatingwebhookconfigurations/hooks");
    let untrusted = json!([{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]);
    patch(&server, &path, "application/json-patch+json", &untrusted).await;
    let (_, status) = server.admin(Method::POST, CONFIG_MAPS, &config_map("x")).await;
    let message = status["message"].as_str().unwrap();
    assert!(message.ends_with("x509: certificate signed by unknown authority"), "{message}");
    let ignore = json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]);
    patch(&server, &path, "application/json-patch+json", &ignore).await;
    server.create(CONFIG_MAPS, &config_map("x")).await;
}

#[tokio::test]
async fn selectors_decide_who_is_asked() {
    let server = Fixture::start().await;
    let webhook = Hook::serve(&server, |_| json!({"allowed": false})).await;
    let rules = rule(&["configmaps"], &["CREATE"]);
    let mut by_object = hook("object", &webhook.url(&server), &rules);
    by_object["objectSelector"] = json!({"matchLabels": {"deny": "me"}});
    let mut by_namespace = hook("namespace", &webhook.url(&server), &rules);
    by_namespace["namespaceSelector"] = json!({"matchLabels": {"deny": "all"}});
    register(&server, "validating", &[by_object, by_namespace]).await;
    server.create(CONFIG_MAPS, &config_map("free")).await;
    assert!(webhook.asked().is_empty());
    let mut labelled = config_map("labelled");
    labelled["metadata"]["labels"] = json!({"deny": "me"});
    let (_, status) = server.admin(Method::POST, CONFIG_MAPS, &labelled).await;
    let expected =
        "admission webhook \"object.example.com\" denied the request without explanation";
    assert_eq!(status["message"], expected);
    let label = json!({"metadata": {"labels": {"deny": "all"}}});
    patch(&server, "/api/v1/namespaces/default", MERGE, &label).await;
    let (_, status) = server.admin(Method::POST, CONFIG_MAPS, &config_map("other")).await;
    assert!(status["message"].as_str().unwrap().contains("\"namespace.example.com\" denied"));
}

#[tokio::test]
async fn an_equivalent_version_is_converted_for_the_webhook() {
    let server = Fixture::start().await;
    let webhook = Hook::serve(&server, |_| json!({"allowed": true})).await;
    let rules = json!([{"apiGroups": ["autoscaling"], "apiVersions": ["v1"],
        "resources": ["horizontalpodautoscalers"], "operations": ["CREATE"]}]);
    register(&server, "validating", &[hook("v1", &webhook.url(&server), &rules)]).await;
    let scaler = json!({"metadata": {"name": "a"}, "spec": {"maxReplicas": 3,
        "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}});
    server
        .create("/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers", &scaler)
        .await;
    let asked = webhook.asked();
    let request = &asked[0]["request"];
    assert_eq!(request["kind"]["version"], "v1");
    assert_eq!(request["requestKind"]["version"], "v2");
    assert_eq!(request["object"]["apiVersion"], "autoscaling/v1");
    assert_eq!(request["object"]["spec"]["targetCPUUtilizationPercentage"], 80);
}

/// `[sig-api-machinery] AdmissionWebhook should be able to deny attaching pod`.
#[tokio::test]
async fn connections_to_pods_are_asked_about() {
    let server = Fixture::start().await;
    let webhook = Hook::serve(&server, |request| {
        let name = request["name"].as_str().unwrap_or_default();
        let message = format!("attaching to pod '{name}' is not allowed");
        json!({"allowed": false, "status": {"message": message}})
    })
    .await;
    let rules = rule(&["pods/attach"], &["CONNECT"]);
    register(&server, "validating", &[hook("attach", &webhook.url(&server), &rules)]).await;
    let path = "/api/v1/namespaces/default/pods/to-be-attached-pod/attach?stdin=true&container=c";
    let (code, status) = server.admin(Method::POST, path, &Value::Null).await;
    assert_eq!(code, StatusCode::BAD_REQUEST);
    let message = status["message"].as_str().unwrap();
    assert!(message.contains("attaching to pod 'to-be-attached-pod' is not allowed"), "{message}");
    let asked = webhook.asked();
    let options = json!({"kind": "PodAttachOptions", "apiVersion": "v1", "stdin": true,
        "container": "c"});
    assert_eq!(asked[0]["request"]["object"], options);
    assert_eq!(asked[0]["request"]["subResource"], "attach");
}

#[tokio::test]
async fn match_conditions_say_further_what_a_webhook_is_asked_about() {
    let server = Fixture::start().await;
    let webhook = Hook::serve(&server, |_| json!({"allowed": false})).await;
    let url = webhook.url(&server);
    let mut with = hook("cel", &url, &rule(&["configmaps"], &["CREATE"]));
    with["matchConditions"] = json!([
        {"name": "not-skipped", "expression": "object.metadata.name != 'skip-me'"},
        {"name": "may", "expression":
            "authorizer.group('').resource('configmaps').namespace('default').check('create').allowed()"},
    ]);
    register(&server, "validating", &[with]).await;
    let create = async |name: &str| {
        let body = json!({"metadata": {"name": name}});
        server.admin(Method::POST, CONFIG_MAPS, &body).await.0
    };
    assert_eq!(create("skip-me").await, StatusCode::CREATED);
    assert_eq!(create("other").await, StatusCode::BAD_REQUEST);
    assert_eq!(webhook.asked().len(), 1);
}

#[tokio::test]
async fn match_conditions_that_fail_refuse_unless_that_is_to_be_ignored() {
    let server = Fixture::start().await;
    let client = json!({"url": "https://localhost/"});
    let mut with = hook("cel", &client, &rule(&["configmaps"], &["CREATE"]));
    with["matchConditions"] = json!([{"name": "a", "expression": "object.data.none == 'x'"}]);
    register(&server, "validating", &[with]).await;
    let body = json!({"metadata": {"name": "x"}, "data": {"a": "b"}});
    let (code, status) = server.admin(Method::POST, CONFIG_MAPS, &body).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert_eq!(
        status["message"],
        "configmaps \"x\" is forbidden: expression 'object.data.none == 'x'' resulted in error: no \
         such key: none"
    );
    let ignore = json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]);
    let path = format!("{CONFIGURATIONS}/validatingwebhookconfigurations/hooks");
    patch(&server, &path, "application/json-patch+json", &ignore).await;
    let (code, _) = server.admin(Method::POST, CONFIG_MAPS, &body).await;
    assert_eq!(code, StatusCode::CREATED);
}

#[tokio::test]
async fn match_conditions_that_do_not_compile_are_refused() {
    let server = Fixture::start().await;
    let client = json!({"url": "https://localhost/"});
    let mut with = hook("cel", &client, &rule(&["configmaps"], &["CREATE"]));
    with["matchConditions"] = json!([{"name": "a", "expression": "... [] bad expression"}]);
    let body = json!({"metadata": {"name": "hooks"}, "webhooks": [with]});
    let path = format!("{CONFIGURATIONS}/validatingwebhookconfigurations");
    let (code, status) = server.admin(Method::POST, &path, &body).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(status["message"].as_str().unwrap().contains("compilation failed"), "{status}");
}

#[tokio::test]
async fn managed_fields_that_a_webhook_breaks_stay_as_they_were() {
    let server = Fixture::start().await;
    let webhook = Hook::serve(&server, |_| {
        let patch = json!([
            {"op": "add", "path": "/data/b", "value": "of the hook"},
            {"op": "replace", "path": "/metadata/managedFields", "value": [{"manager": "hook"}]},
        ]);
        let patch = STANDARD.encode(patch.to_string());
        json!({"allowed": true, "patchType": "JSONPatch", "patch": patch})
    })
    .await;
    let rules = rule(&["configmaps"], &["CREATE"]);
    register(&server, "mutating", &[hook("change", &webhook.url(&server), &rules)]).await;
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("{CONFIG_MAPS}?fieldManager=m"))
        .header("content-type", "application/json")
        .body(Bytes::from(config_map("x").to_string()))
        .unwrap();
    let answer = server.handle.call(&admin(), request).await;
    let warning = answer.headers()["warning"].to_str().unwrap().to_owned();
    assert!(
        warning.contains(".metadata.managedFields was in an invalid state after admission")
            && warning.ends_with("operation must be `Apply` or `Update`\""),
        "{warning}"
    );
    let created = read(&server, &format!("{CONFIG_MAPS}/x")).await;
    assert_eq!(created["data"], json!({"a": "1", "b": "of the hook"}));
    let managed = &created["metadata"]["managedFields"];
    assert_eq!(managed[0]["manager"], "m");
    // What the webhook adds is nobody's.
    assert_eq!(managed[0]["fieldsV1"], json!({"f:data": {".": {}, "f:a": {}}}));
}

#[tokio::test]
async fn connections_to_a_webhook_are_used_again() {
    let server = Fixture::start().await;
    let webhook = Hook::serve(&server, |request| {
        // This answer comes too late, and its connection is lost with it.
        if request["name"] == "late" { json!("late") } else { json!({"allowed": true}) }
    })
    .await;
    let rules = rule(&["configmaps"], &["CREATE"]);
    let mut hook = hook("w", &webhook.url(&server), &rules);
    hook["timeoutSeconds"] = json!(1);
    register(&server, "validating", &[hook]).await;
    for n in 0..10 {
        server.create(CONFIG_MAPS, &config_map(&format!("a{n}"))).await;
    }
    assert_eq!(webhook.asked().len(), 10);
    assert_eq!(webhook.connections.load(Ordering::Relaxed), 1);
    let (code, _) = server.admin(Method::POST, CONFIG_MAPS, &config_map("late")).await;
    assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
    server.create(CONFIG_MAPS, &config_map("b")).await;
    assert_eq!(webhook.connections.load(Ordering::Relaxed), 2);
}
