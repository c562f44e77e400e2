//! Levels, stages, and what is in an event.

use std::time::Duration;

use authn::UserInfo;
use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::{Recorded, all, of};
use crate::fixture::admin;
use crate::over_tls::get;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn metadata_says_who_did_what_and_nothing_of_the_objects() {
    let recorded = Recorded::start(&all("Metadata")).await;
    let request = Request::post(MAPS)
        .header("audit-id", "chosen")
        .header("user-agent", "test/1 (a&b)")
        .header("content-type", "application/json")
        .body(Bytes::from(r#"{"metadata":{"name":"m"},"data":{"secret":"hidden"}}"#));
    let response = recorded.server.handle.call(&admin(), request.unwrap()).await;
    assert_eq!(response.headers()["audit-id"], "chosen");
    let events = recorded.wait(2, |event| event["auditID"] == "chosen").await;
    let stages: Vec<&Value> = events.iter().map(|event| &event["stage"]).collect();
    assert_eq!(stages, ["RequestReceived", "ResponseComplete"]);
    let last = &events[1];
    let expected = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata",
        "auditID": "chosen", "stage": "ResponseComplete", "requestURI": MAPS, "verb": "create",
        "user": {"username": "admin", "groups": ["system:masters", "system:authenticated"]},
        "sourceIPs": ["127.0.0.1"], "userAgent": "test/1 (a&b)",
        "objectRef": {"resource": "configmaps", "namespace": "default", "name": "m",
            "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "code": 201},
        "requestReceivedTimestamp": last["requestReceivedTimestamp"],
        "stageTimestamp": last["stageTimestamp"],
        "annotations": {"authorization.k8s.io/decision": "allow",
            "authorization.k8s.io/reason": ""},
    });
    assert_eq!(*last, expected);
    assert_eq!(events[0]["stageTimestamp"], events[0]["requestReceivedTimestamp"]);
    assert!(events[0]["responseStatus"].is_null());
    assert_eq!(events[0]["objectRef"]["name"], Value::Null, "the body was not read yet");
    assert!(!recorded.text().contains("hidden"));
    let made = recorded.events().len();
    let (_, metrics) = crate::metrics::scrape(&recorded.server).await;
    let line = metrics.lines().find(|line| line.starts_with("apiserver_audit_event_total "));
    let counted: usize = line.unwrap().split(' ').next_back().unwrap().parse().unwrap();
    assert!(counted > made && made >= 2, "{counted} {made}");
}

#[tokio::test]
async fn objects_are_recorded_as_they_were_sent_and_answered() {
    let recorded = Recorded::start(&all("RequestResponse")).await;
    let server = &recorded.server;
    let pods = "/api/v1/namespaces/default/pods";
    server
        .create(
            "/api/v1/namespaces/default/serviceaccounts",
            &json!({"metadata": {"name": "default"}}),
        )
        .await;
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    server.create(pods, &pod).await;
    let event = &recorded.wait(2, of(pods)).await[1];
    let sent = &event["requestObject"];
    assert_eq!((&sent["kind"], &sent["spec"]["restartPolicy"]), (&json!("Pod"), &json!("Always")));
    assert!(sent["spec"]["serviceAccountName"].is_null(), "nobody had changed it yet");
    let answered = &event["responseObject"];
    assert_eq!(answered["spec"]["serviceAccountName"], "default");
    assert!(answered["metadata"]["managedFields"].is_array());

    let path = format!("{pods}/p");
    let patch = json!({"metadata": {"labels": {"a": "b"}}});
    server.call(&admin(), Method::PATCH, &path, "application/merge-patch+json", &patch).await;
    let event = &recorded.wait(2, of(&path)).await[1];
    assert_eq!((&event["verb"], &event["requestObject"]), (&json!("patch"), &patch));
    let yaml = Request::patch(format!("{path}?fieldManager=m&force=true"))
        .header("content-type", "application/apply-patch+yaml")
        .body(Bytes::from("apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {c: d}}\n"));
    let response = server.handle.call(&admin(), yaml.unwrap()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let event = &recorded.wait(4, of(&path)).await[3];
    assert_eq!(event["requestObject"]["metadata"]["labels"]["c"], "d");

    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0});
    server.admin(Method::DELETE, &path, &options).await;
    let event = &recorded.wait(6, of(&path)).await[5];
    assert_eq!(event["requestObject"], options);
    server.admin(Method::GET, pods, &Value::Null).await;
    let list = &recorded.wait(4, of(pods)).await[3];
    assert_eq!(
        (&list["verb"], &list["responseObject"]["kind"]),
        (&json!("list"), &json!("PodList"))
    );
    assert!(list["objectRef"]["name"].is_null() && list["requestObject"].is_null());
}

#[tokio::test]
async fn the_level_of_requests_has_no_answers_and_managed_fields_can_be_left_out() {
    let rules = "omitManagedFields: true\nrules:\n- level: Request\n  verbs: [create]\n\
                 - level: RequestResponse\n  verbs: [get]\n- level: None";
    let recorded = Recorded::start(rules).await;
    let map = json!({"metadata": {"name": "m"}, "data": {"k": "v"}});
    recorded.server.create(MAPS, &map).await;
    let event = &recorded.wait(2, of(MAPS)).await[1];
    assert_eq!(event["requestObject"]["data"]["k"], "v");
    assert!(event["responseObject"].is_null());
    let path = format!("{MAPS}/m");
    recorded.server.admin(Method::GET, &path, &Value::Null).await;
    let event = &recorded.wait(2, of(&path)).await[1];
    assert_eq!(event["responseObject"]["data"]["k"], "v");
    assert!(event["responseObject"]["metadata"]["managedFields"].is_null());
    recorded.server.admin(Method::DELETE, &path, &Value::Null).await;
    recorded.server.create(MAPS, &map).await;
    recorded.wait(4, of(MAPS)).await;
    assert_eq!(recorded.events().iter().filter(|event| event["verb"] == "delete").count(), 0);
}

#[tokio::test]
async fn failures_and_refusals_are_recorded_with_their_reasons() {
    let recorded =
        Recorded::start(&format!("omitStages: [RequestReceived]\n{}", all("Metadata"))).await;
    let server = &recorded.server;
    server.admin(Method::GET, &format!("{MAPS}/absent"), &Value::Null).await;
    let event = &recorded.wait(1, of(&format!("{MAPS}/absent"))).await[0];
    assert_eq!(
        event["responseStatus"],
        json!({"metadata": {}, "status": "Failure", "reason": "NotFound", "code": 404,
            "message": "configmaps \"absent\" not found",
            "details": {"name": "absent", "kind": "configmaps"}})
    );
    let jane = UserInfo::new("jane", &["system:authenticated"]);
    server.call(&jane, Method::GET, MAPS, "", &Value::Null).await;
    let event = &recorded.wait(1, of(MAPS)).await[0];
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(
        (&event["responseStatus"]["code"], &event["user"]["username"]),
        (&json!(403), &json!("jane"))
    );

    let wrong = [("authorization", "Bearer nonsense"), ("x-forwarded-for", "198.51.100.7")];
    let (code, _) = get(server, None, "/api/v1/nodes", &wrong).await;
    assert_eq!(code, StatusCode::UNAUTHORIZED);
    let event = &recorded.wait(1, of("/api/v1/nodes")).await[0];
    assert_eq!((&event["stage"], &event["user"]), (&json!("ResponseStarted"), &json!({})));
    assert_eq!(event["responseStatus"]["message"], "Unauthorized");
    assert_eq!(event["sourceIPs"], json!(["198.51.100.7", "127.0.0.1"]));
    assert!(!recorded.text().contains("nonsense"));

    let missing = Request::get(MAPS).header("impersonate-user", "joe").body(Bytes::new()).unwrap();
    server.handle.call(&admin(), missing).await;
    let event = &recorded.wait(2, of(MAPS)).await[1];
    assert_eq!(event["user"]["username"], "admin");
    assert_eq!(
        event["impersonatedUser"],
        json!({"username": "joe", "groups": ["system:authenticated"]})
    );
}

#[tokio::test]
async fn a_watch_has_begun_and_is_over() {
    let recorded = Recorded::start(&all("RequestResponse")).await;
    let request = Request::get(format!("{MAPS}?watch=1")).body(Bytes::new()).unwrap();
    let response = recorded.server.handle.call(&admin(), request).await;
    assert_eq!(response.status(), StatusCode::OK);
    let stage = |event: &Value| event["stage"].as_str().unwrap().to_owned();
    let open: Vec<String> = recorded.wait(2, of(MAPS)).await.iter().map(stage).collect();
    assert_eq!(open, ["RequestReceived", "ResponseStarted"]);
    let mut body = response.into_body();
    recorded.server.create(MAPS, &json!({"metadata": {"name": "m"}})).await;
    tokio::time::timeout(Duration::from_secs(10), body.frame()).await.unwrap().unwrap().unwrap();
    let watches = |event: &Value| of(MAPS)(event) && event["verb"] == "watch";
    assert_eq!(recorded.events().into_iter().filter(watches).count(), 2);
    drop(body);
    let last = &recorded.wait(3, watches).await[2];
    assert_eq!(
        (&last["stage"], &last["responseStatus"]["code"]),
        (&json!("ResponseComplete"), &json!(200))
    );
    assert!(last["responseObject"].is_null());

    let path = "/api/v1/pods?watch=1";
    let stream = recorded.server.handle.watch(&admin(), path).await.unwrap();
    let watches = of("/api/v1/pods");
    assert_eq!(recorded.wait(2, &watches).await[1]["stage"], "ResponseStarted");
    drop(stream);
    recorded.wait(3, &watches).await;
}

#[tokio::test]
async fn components_of_the_same_process_are_recorded_as_well() {
    let recorded = Recorded::start(&all("RequestResponse")).await;
    recorded.server.create(MAPS, &json!({"metadata": {"name": "m"}})).await;
    let path = "/api/v1/configmaps?limit=1";
    recorded
        .server
        .handle
        .list(&UserInfo::component("system:kube-scheduler"), path)
        .await
        .unwrap_err();
    let events = recorded.wait(2, of("/api/v1/configmaps")).await;
    assert_eq!(events[1]["responseStatus"]["code"], 403);
    recorded.server.handle.list(&admin(), path).await.unwrap();
    let events = recorded.wait(4, of("/api/v1/configmaps")).await;
    assert_eq!(events[3]["responseObject"]["items"].as_array().unwrap().len(), 1);
    assert_eq!(events[3]["requestURI"], path);
}

#[tokio::test]
async fn a_dry_run_and_a_protobuf_request_are_recorded_like_others() {
    let recorded = Recorded::start(&all("RequestResponse")).await;
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "m"}, "data": {"k": "v"}});
    let gvk = meta::GroupVersionKind::new("", "v1", "ConfigMap");
    let protobuf = "application/vnd.kubernetes.protobuf";
    let request = Request::post(format!("{MAPS}?dryRun=All"))
        .header("content-type", protobuf)
        .header("accept", protobuf)
        .body(Bytes::from(schema::encode_protobuf(&gvk, &map)));
    let response = recorded.server.handle.call(&admin(), request.unwrap()).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let event = &recorded.wait(2, of(MAPS)).await[1];
    assert_eq!(event["requestURI"], format!("{MAPS}?dryRun=All"));
    for object in [&event["requestObject"], &event["responseObject"]] {
        assert_eq!((&object["kind"], &object["data"]["k"]), (&json!("ConfigMap"), &json!("v")));
    }
}

#[tokio::test]
async fn what_admission_found_is_in_the_annotations() {
    let recorded = Recorded::start(&all("Metadata")).await;
    let server = &recorded.server;
    server
        .create(
            "/api/v1/namespaces",
            &json!({"metadata": {"name": "n", "labels": {
        "pod-security.kubernetes.io/enforce": "privileged",
        "pod-security.kubernetes.io/audit": "baseline"}}}),
        )
        .await;
    let pods = "/api/v1/namespaces/n/pods";
    server
        .create("/api/v1/namespaces/n/serviceaccounts", &json!({"metadata": {"name": "default"}}))
        .await;
    server
        .create(
            pods,
            &json!({"metadata": {"name": "p"}, "spec": {"hostNetwork": true,
        "containers": [{"name": "c", "image": "i"}]}}),
        )
        .await;
    let notes = &recorded.wait(2, of(pods)).await[1]["annotations"];
    assert_eq!(notes["pod-security.kubernetes.io/enforce-policy"], "privileged:latest");
    assert_eq!(
        notes["pod-security.kubernetes.io/audit-violations"],
        "would violate PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"
    );
    server.admin(Method::GET, "/api/v1/namespaces/n/endpoints", &Value::Null).await;
    let event = &recorded.wait(2, of("/api/v1/namespaces/n/endpoints")).await[1];
    assert_eq!(event["annotations"]["k8s.io/deprecated"], "true");
}

#[tokio::test]
async fn policies_write_into_the_event() {
    let recorded = Recorded::start(&all("Metadata")).await;
    let server = &recorded.server;
    let group = "/apis/admissionregistration.k8s.io/v1";
    server.create(&format!("{group}/validatingadmissionpolicies"), &json!({
        "metadata": {"name": "few.example.com"}, "spec": {
            "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
                "operations": ["CREATE"], "resources": ["configmaps"]}]},
            "validations": [{"expression": "object.metadata.name != 'm'", "message": "a < b"}],
            "auditAnnotations": [{"key": "name", "valueExpression": "'is ' + object.metadata.name"}]}})).await;
    server
        .create(
            &format!("{group}/validatingadmissionpolicybindings"),
            &json!({
        "metadata": {"name": "few"}, "spec": {"policyName": "few.example.com",
            "validationActions": ["Audit"]}}),
        )
        .await;
    let mut notes = Value::Null;
    for at in 0..200 {
        server.admin(Method::DELETE, &format!("{MAPS}/m"), &Value::Null).await;
        server.create(MAPS, &json!({"metadata": {"name": "m"}})).await;
        notes = recorded.wait(2 * (at + 1), of(MAPS)).await.pop().unwrap()["annotations"].clone();
        if notes.get("few.example.com/name").is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(notes["few.example.com/name"], "is m");
    let failure = notes["validation.policy.admission.k8s.io/validation_failure"].as_str().unwrap();
    assert_eq!(
        failure,
        "[{\"message\":\"a \\u003c b\",\"policy\":\"few.example.com\",\"binding\":\"few\",\
         \"expressionIndex\":0,\"validationActions\":[\"Audit\"]}]"
    );
}

#[tokio::test]
async fn a_stream_within_the_process_still_delivers() {
    let recorded = Recorded::start(&all("Metadata")).await;
    let mut stream =
        recorded.server.handle.watch(&admin(), "/api/v1/configmaps?watch=1").await.unwrap();
    recorded.server.create(MAPS, &json!({"metadata": {"name": "m"}})).await;
    let next = tokio::time::timeout(Duration::from_secs(10), stream.next()).await;
    assert!(next.unwrap().unwrap().is_ok());
}
