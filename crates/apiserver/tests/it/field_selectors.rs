//! What every resource can be selected by.

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::fixture::Fixture;

/// Group, version and resource; keys beside the name and, where a namespace can be selected, the
/// namespace; what is said about another key (`{}` stands for it, as it is or in quotes).
const SELECTABLE: [(&str, bool, &str, &str); 10] = [
    (
        "api/v1/pods",
        true,
        "spec.nodeName spec.host spec.restartPolicy spec.schedulerName spec.serviceAccountName \
         spec.hostNetwork status.phase status.podIP status.podIPs status.nominatedNodeName",
        PLAIN,
    ),
    ("api/v1/nodes", false, "spec.unschedulable", PLAIN),
    ("api/v1/replicationcontrollers", true, "status.replicas", PLAIN),
    (
        "api/v1/events",
        true,
        "involvedObject.kind involvedObject.namespace involvedObject.name involvedObject.uid \
         involvedObject.apiVersion involvedObject.resourceVersion involvedObject.fieldPath reason \
         reportingComponent source type",
        PLAIN,
    ),
    ("api/v1/namespaces", false, "status.phase", PLAIN),
    ("api/v1/secrets", true, "type", PLAIN),
    ("api/v1/services", true, "spec.clusterIP spec.type", PLAIN),
    (
        "apis/events.k8s.io/v1/events",
        true,
        "regarding.kind regarding.namespace regarding.name regarding.uid regarding.apiVersion \
         regarding.resourceVersion regarding.fieldPath reason reportingController type",
        PLAIN,
    ),
    ("apis/batch/v1/jobs", true, "status.successful", "field label \"{}\" not supported for Job"),
    ("apis/certificates.k8s.io/v1/certificatesigningrequests", false, "spec.signerName", PLAIN),
];
const PLAIN: &str = "field label not supported: {}";
const SLICES: (&str, bool, &str, &str) = (
    "apis/resource.k8s.io/v1/resourceslices",
    false,
    "spec.nodeName spec.driver",
    "field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: {}",
);
const OTHERS: &str = "\"{}\" is not a known field selector: only \"metadata.name\", \
                      \"metadata.namespace\"";

/// Every collection that can be listed.
async fn collections(server: &Fixture) -> Vec<String> {
    let (_, groups) = server.admin(Method::GET, "/apis", &Value::Null).await;
    let mut roots = vec!["api/v1".to_owned()];
    for version in groups["groups"].as_array().unwrap().iter().flat_map(|g| {
        g["versions"].as_array().unwrap().iter().map(|v| v["groupVersion"].as_str().unwrap())
    }) {
        roots.push(format!("apis/{version}"));
    }
    let mut found = Vec::new();
    for root in roots {
        let (_, list) = server.admin(Method::GET, &format!("/{root}"), &Value::Null).await;
        let resources = list["resources"].as_array().unwrap();
        let listed = resources
            .iter()
            .filter(|resource| resource["verbs"].as_array().unwrap().contains(&json!("watch")));
        found.extend(listed.map(|r| format!("{root}/{}", r["name"].as_str().unwrap())));
    }
    found
}

async fn list(server: &Fixture, path: &str, selector: &str) -> (StatusCode, Value) {
    let selector = selector.replace('=', "%3D");
    let path = format!("/{path}?fieldSelector={selector}");
    server.admin(Method::GET, &path, &Value::Null).await
}

#[tokio::test]
async fn every_resource_is_selected_by_its_fields_and_by_no_other() {
    let server = Fixture::start().await;
    let known: BTreeMap<&str, (bool, &str, &str)> = SELECTABLE
        .iter()
        .chain([&SLICES])
        .map(|(path, by_namespace, keys, error)| (*path, (*by_namespace, *keys, *error)))
        .collect();
    let all = collections(&server).await;
    assert!(all.len() > 55, "{all:?}");
    for path in &all {
        let (by_namespace, keys, error) =
            known.get(path.as_str()).copied().unwrap_or((true, "", OTHERS));
        let namespace = by_namespace.then_some("metadata.namespace");
        for key in keys.split_whitespace().chain(["metadata.name"]).chain(namespace) {
            let (code, answer) = list(&server, path, &format!("{key}=-")).await;
            assert_eq!(code, StatusCode::OK, "{path} {key}: {answer}");
            assert_eq!(answer["items"], json!([]), "{path} {key}");
        }
        let unknown: &[&str] =
            if by_namespace { &["spec.nope"] } else { &["spec.nope", "metadata.namespace"] };
        for key in unknown {
            let (code, answer) = list(&server, path, &format!("{key}=x")).await;
            assert_eq!(code, StatusCode::BAD_REQUEST, "{path}: {answer}");
            let message = answer["message"].as_str().unwrap();
            assert!(message.ends_with(&error.replace("{}", key)), "{path}: {message}");
        }
    }
    assert!(known.keys().all(|path| all.iter().any(|found| found == path)));
}

fn pod() -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "hostNetwork": true,
        "restartPolicy": "Never", "schedulerName": "s", "serviceAccountName": "default",
        "automountServiceAccountToken": false, "containers": [{"name": "c", "image": "i"}]}})
}

fn event() -> Value {
    json!({"metadata": {"name": "e"}, "reason": "R", "type": "Warning",
        "reportingComponent": "rc", "reportingInstance": "ri", "source": {"component": "sc"},
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p", "uid": "u",
            "apiVersion": "v1", "resourceVersion": "7", "fieldPath": "spec"}})
}

/// The path of a collection in the namespace `default`, an object, the subresource with its status,
/// and what it is selected by.
fn cases() -> Vec<(&'static str, Value, Value, &'static str)> {
    vec![
        (
            "api/v1/namespaces/default/pods",
            pod(),
            json!({"phase": "Running", "podIP": "10.0.0.9", "podIPs": [{"ip": "10.0.0.9"}]}),
            "spec.nodeName=n spec.host=n spec.hostNetwork=true spec.restartPolicy=Never \
             spec.schedulerName=s spec.serviceAccountName=default status.phase=Running \
             status.podIP=10.0.0.9 metadata.name=p metadata.namespace=default",
        ),
        (
            "api/v1/namespaces/default/pods",
            json!({"metadata": {"name": "q"}, "spec": {"containers": [{"name": "c",
                "image": "i"}]}}),
            json!({"nominatedNodeName": "m"}),
            "status.nominatedNodeName=m",
        ),
        (
            "api/v1/nodes",
            json!({"metadata": {"name": "n"}, "spec": {"unschedulable": true}}),
            Value::Null,
            "spec.unschedulable=true metadata.name=n",
        ),
        (
            "api/v1/namespaces/default/replicationcontrollers",
            json!({"metadata": {"name": "r"}, "spec": {"replicas": 0, "selector": {"a": "b"},
                "template": {"metadata": {"labels": {"a": "b"}},
                    "spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
            json!({"replicas": 3}),
            "status.replicas=3",
        ),
        (
            "api/v1/namespaces/default/events",
            event(),
            Value::Null,
            "involvedObject.kind=Pod involvedObject.namespace=default involvedObject.name=p \
             involvedObject.uid=u involvedObject.apiVersion=v1 involvedObject.resourceVersion=7 \
             involvedObject.fieldPath=spec reason=R reportingComponent=rc source=sc type=Warning",
        ),
        (
            "api/v1/namespaces",
            json!({"metadata": {"name": "other"}}),
            Value::Null,
            "status.phase=Active",
        ),
        (
            "api/v1/namespaces/default/secrets",
            json!({"metadata": {"name": "s"}, "type": "x.io/y"}),
            Value::Null,
            "type=x.io/y",
        ),
        (
            "api/v1/namespaces/default/services",
            json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort",
                "clusterIP": "10.96.7.7", "ports": [{"port": 80}]}}),
            Value::Null,
            "spec.clusterIP=10.96.7.7 spec.type=NodePort",
        ),
        (
            "apis/batch/v1/namespaces/default/jobs",
            json!({"metadata": {"name": "j"}, "spec": {"template": {"spec": {
                "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}),
            json!({"succeeded": 2, "startTime": "2026-01-01T00:00:00Z",
                "uncountedTerminatedPods": {}}),
            "status.successful=2",
        ),
        (
            "apis/resource.k8s.io/v1/resourceslices",
            json!({"metadata": {"name": "r"}, "spec": {"driver": "d.io", "nodeName": "n",
                "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}}}),
            Value::Null,
            "spec.nodeName=n spec.driver=d.io",
        ),
    ]
}

#[tokio::test]
async fn selected_fields_have_the_values_of_the_object() {
    let server = Fixture::start().await;
    let account = json!({"metadata": {"name": "default"}});
    server.create("/api/v1/namespaces/default/serviceaccounts", &account).await;
    for (path, object, status, selectors) in cases() {
        let made = server.create(&format!("/{path}"), &object).await;
        let name = made["metadata"]["name"].as_str().unwrap();
        if !status.is_null() {
            let body = json!({ "status": status });
            let to = format!("/{path}/{name}/status");
            let merge = "application/merge-patch+json";
            let admin = crate::fixture::admin();
            let (code, answer) = server.call(&admin, Method::PATCH, &to, merge, &body).await;
            assert_eq!(code, StatusCode::OK, "{answer}");
        }
        for selector in selectors.split_whitespace() {
            let names = |list: &Value| -> Vec<String> {
                let items = list["items"].as_array().unwrap().iter();
                items.map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect()
            };
            let (_, found) = list(&server, path, selector).await;
            assert!(names(&found).contains(&name.to_owned()), "{path} {selector}: {found}");
            let other = selector.replacen('=', "!=", 1);
            let (_, found) = list(&server, path, &other).await;
            assert!(!names(&found).contains(&name.to_owned()), "{path} {other}");
        }
    }
    let (_, found) = list(&server, "apis/events.k8s.io/v1/events", "regarding.name=p").await;
    assert_eq!(found["items"][0]["metadata"]["name"], "e");
}
