//! Admission policies.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{delete, patch, read};
use crate::fixture::{Fixture, admin};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1";

fn constraints(group: &str, resource: &str) -> Value {
    json!({"resourceRules": [{"apiGroups": [group], "apiVersions": ["v1"],
        "operations": ["CREATE", "UPDATE"], "resources": [resource]}]})
}

/// Stores a policy of this kind with a binding.
async fn bind(server: &Fixture, kind: &str, mut spec: Value, mut binding: Value) {
    if kind == "mutating" {
        spec["reinvocationPolicy"] = json!("Never");
    } else if binding["validationActions"].is_null() {
        binding["validationActions"] = json!(["Deny"]);
    }
    binding["policyName"] = json!("p");
    let path = format!("{CONFIGURATIONS}/{kind}admissionpolicies");
    server.create(&path, &json!({"metadata": {"name": "p"}, "spec": spec})).await;
    let path = format!("{CONFIGURATIONS}/{kind}admissionpolicybindings");
    server.create(&path, &json!({"metadata": {"name": "b"}, "spec": binding})).await;
}

fn deployment(name: &str, replicas: u32) -> Value {
    let labels = json!({"app": name});
    json!({"metadata": {"name": name}, "spec": {"replicas": replicas,
        "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

#[tokio::test]
async fn policies_validate_deployments() {
    let server = Fixture::start().await;
    let spec = json!({"matchConstraints": constraints("apps", "deployments"),
        "variables": [{"name": "replicas", "expression": "object.spec.replicas"},
            {"name": "oddReplicas", "expression": "variables.replicas % 2 == 1"}],
        "validations": [{"expression": "variables.replicas > 1"},
            {"expression": "variables.oddReplicas", "messageExpression":
                "'must be odd, is ' + string(variables.replicas)"}]});
    bind(&server, "validating", spec, json!({})).await;
    let create = async |name: &str, replicas| {
        let (code, answer) =
            server.admin(Method::POST, DEPLOYMENTS, &deployment(name, replicas)).await;
        (code, answer["message"].as_str().unwrap_or_default().to_owned(), answer)
    };
    let (code, message, status) = create("one", 1).await;
    assert_eq!((code, &status["reason"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("Invalid")));
    assert_eq!(
        message,
        "deployments.apps \"one\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' \
         denied request: failed expression: variables.replicas > 1"
    );
    assert!(create("two", 2).await.1.ends_with("denied request: must be odd, is 2"));
    assert_eq!(create("three", 3).await.0, StatusCode::CREATED);
    // Updates are seen too, by every way.
    let scale = json!({"spec": {"replicas": 4}});
    let path = format!("{DEPLOYMENTS}/three");
    let (user, merge) = (admin(), "application/merge-patch+json");
    let (code, _) = server.call(&user, Method::PATCH, &path, merge, &scale).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    delete(&server, &format!("{CONFIGURATIONS}/validatingadmissionpolicybindings/b")).await;
    assert_eq!(create("two", 2).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn a_collection_is_deleted_up_to_what_a_policy_keeps() {
    let server = Fixture::start().await;
    let mut constraints = constraints("", "configmaps");
    constraints["resourceRules"][0]["operations"] = json!(["DELETE"]);
    let spec = json!({"matchConstraints": constraints,
        "validations": [{"expression": "oldObject.metadata.name != 'm-50'"}]});
    bind(&server, "validating", spec, json!({})).await;
    for n in 0..100 {
        let map = json!({"metadata": {"name": format!("m-{n:02}"), "labels": {"app": "m"}}});
        server.create(CONFIG_MAPS, &map).await;
    }
    let all = format!("{CONFIG_MAPS}?labelSelector=app%3Dm");
    let (code, status) = server.admin(Method::DELETE, &all, &Value::Null).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "{status}");
    let message = status["message"].as_str().unwrap();
    // The request names none of them, and upstream's error goes by the request.
    assert!(message.starts_with("configmaps \"Unknown\" is forbidden: "), "{message}");
    let left = read(&server, &all).await;
    let left: Vec<_> =
        left["items"].as_array().unwrap().iter().map(|map| &map["metadata"]["name"]).collect();
    // What came before is gone; what comes long after was not begun.
    assert_eq!(left[0], "m-50");
    assert!(left.len() > 10 && *left[left.len() - 1] == json!("m-99"), "{left:?}");
}

#[tokio::test]
async fn policies_mutate_deployments() {
    let server = Fixture::start().await;
    let spec = json!({"matchConstraints": constraints("apps", "deployments"),
    "matchConditions": [{"name": "c", "expression": "object.metadata.name != 'free'"}],
    "mutations": [
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
            "Object{spec: Object.spec{replicas: object.spec.replicas + 100}}"}},
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
            "Object{metadata: Object.metadata{annotations: {'n': string(object.spec.replicas)}}}"}},
    ]});
    bind(&server, "mutating", spec, json!({})).await;
    let made = server.create(DEPLOYMENTS, &deployment("a", 1)).await;
    assert_eq!(made["spec"]["replicas"], 101);
    // A change sees those before it.
    assert_eq!(made["metadata"]["annotations"], json!({"n": "101"}));
    assert_eq!(read(&server, &format!("{DEPLOYMENTS}/a")).await["spec"]["replicas"], 101);
    assert_eq!(server.create(DEPLOYMENTS, &deployment("free", 1)).await["spec"]["replicas"], 1);
}

#[tokio::test]
async fn what_a_mutating_policy_cannot_do_is_refused() {
    let server = Fixture::start().await;
    let spec = json!({"matchConstraints": constraints("", "configmaps"), "mutations": [
        {"patchType": "JSONPatch", "jsonPatch": {"expression":
            "[JSONPatch{op: 'add', path: '/data/b', value: object.data.missing}]"}}]});
    bind(&server, "mutating", spec, json!({})).await;
    let body = json!({"metadata": {"name": "x"}, "data": {"a": "1"}});
    let (code, status) = server.admin(Method::POST, CONFIG_MAPS, &body).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    let message = status["message"].as_str().unwrap();
    assert!(
        message.starts_with("policy 'p' with binding 'b' denied request: expression '[JSONPatch{")
            && message.ends_with("resulted in error: no such key: missing"),
        "{message}"
    );
    let ignore = json!({"spec": {"failurePolicy": "Ignore"}});
    let path = format!("{CONFIGURATIONS}/mutatingadmissionpolicies/p");
    patch(&server, &path, "application/merge-patch+json", &ignore).await;
    let made = server.create(CONFIG_MAPS, &body).await;
    assert_eq!(made["data"], json!({"a": "1"}));
}

#[tokio::test]
async fn parameters_are_found_by_name_and_by_labels() {
    let server = Fixture::start().await;
    let spec = json!({"matchConstraints": constraints("", "configmaps"),
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "validations": [{"expression":
            "has(object.metadata.labels) || object.data.a != params.data.forbidden"}]});
    let reference = json!({"selector": {"matchLabels": {"params": "yes"}},
        "parameterNotFoundAction": "Deny"});
    bind(&server, "validating", spec, json!({"paramRef": reference})).await;
    let create = async |name: &str, value: &str| {
        let body = json!({"metadata": {"name": name}, "data": {"a": value}});
        server.admin(Method::POST, CONFIG_MAPS, &body).await
    };
    let (code, status) = create("x", "1").await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(status["message"].as_str().unwrap().contains("failed to configure binding: no params"));
    let binding = format!("{CONFIGURATIONS}/validatingadmissionpolicybindings/b");
    let allow = json!({"spec": {"paramRef": {"parameterNotFoundAction": "Allow"}}});
    patch(&server, &binding, "application/merge-patch+json", &allow).await;
    for (name, forbidden) in [("p1", "1"), ("p2", "2")] {
        let labels = json!({"params": "yes"});
        let body = json!({"metadata": {"name": name, "labels": labels},
            "data": {"forbidden": forbidden}});
        server.create(CONFIG_MAPS, &body).await;
    }
    for (value, expected) in [("1", false), ("2", false), ("3", true)] {
        let is_created = create("x", value).await.0 == StatusCode::CREATED;
        assert_eq!(is_created, expected, "{value}");
    }
    let named = json!({"spec": {"paramRef": {"selector": null, "name": "p2"}}});
    patch(&server, &binding, "application/merge-patch+json", &named).await;
    assert_eq!(create("y", "1").await.0, StatusCode::CREATED);
    assert_eq!(create("z", "2").await.0, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn expressions_see_the_request_and_the_namespace() {
    let server = Fixture::start().await;
    let holds = [
        "request.operation == 'CREATE' && request.kind.kind == 'ConfigMap'",
        "request.resource.resource == 'configmaps' && request.name == 'x' && !request.dryRun",
        "request.userInfo.groups.exists(g, g == 'system:masters')",
        "namespaceObject.metadata.name == 'default' && namespaceObject.status.phase == 'Active'",
        "oldObject == null && object.kind == 'ConfigMap' && object.apiVersion == 'v1'",
        "authorizer.requestResource.check('create').allowed()",
        "!has(object.immutable) && size(object.data) == 1",
    ];
    let validations: Vec<Value> =
        holds.iter().map(|expression| json!({"expression": expression})).collect();
    let spec = json!({"matchConstraints": constraints("", "configmaps"),
        "validations": validations});
    bind(&server, "validating", spec, json!({})).await;
    server.create(CONFIG_MAPS, &json!({"metadata": {"name": "x"}, "data": {"a": "1"}})).await;
}

#[tokio::test]
async fn a_policy_whose_parameters_are_of_no_kind_refuses_what_it_is_about() {
    let server = Fixture::start().await;
    let spec = json!({"matchConstraints": constraints("", "configmaps"),
        "paramKind": {"apiVersion": "v1", "kind": "Nope"},
        "validations": [{"expression": "true"}]});
    bind(&server, "validating", spec, json!({})).await;
    let body = json!({"metadata": {"name": "x"}});
    let (code, status) = server.admin(Method::POST, CONFIG_MAPS, &body).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        status["message"],
        "configmaps \"x\" is forbidden: ValidatingAdmissionPolicy 'p' denied request: failed to \
         configure policy: failed to find resource referenced by paramKind: '/v1, Kind=Nope'"
    );
}
