//! What policies ask the authorizer, and what they may do to connections.

use authn::UserInfo;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::fixture::{Fixture, admin};
use crate::proxying::{kubelet_saying, pod_on_node};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

async fn bind(server: &Fixture, kind: &str, spec: &Value, binding: &Value) {
    let path = format!("{CONFIGURATIONS}/{kind}admissionpolicies");
    server.create(&path, &json!({"metadata": {"name": "p"}, "spec": spec})).await;
    let path = format!("{CONFIGURATIONS}/{kind}admissionpolicybindings");
    server.create(&path, &json!({"metadata": {"name": "b"}, "spec": binding})).await;
}

/// A kubelet may list the pods of its node and no others, and policies know.
#[tokio::test]
async fn field_selectors_are_part_of_the_question() {
    let server = Fixture::start().await;
    let rule = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]}]);
    let role = json!({"metadata": {"name": "maker"}, "rules": rule});
    server.create(&format!("{RBAC}/clusterroles"), &role).await;
    let to_maker = json!({"metadata": {"name": "maker"}, "roleRef": {"kind": "ClusterRole",
        "name": "maker", "apiGroup": "rbac.authorization.k8s.io"}, "subjects": [{"kind": "User",
        "name": "system:node:n1", "apiGroup": "rbac.authorization.k8s.io"}]});
    server.create(&format!("{RBAC}/clusterrolebindings"), &to_maker).await;
    let pods = "authorizer.group('').resource('pods')";
    let validations = [
        (format!("{pods}.fieldSelector('spec.nodeName=n1').check('list').allowed()"), true),
        (format!("{pods}.fieldSelector('spec.nodeName=n2').check('list').allowed()"), false),
        // One that cannot be read is none, and no error either.
        (format!("{pods}.fieldSelector('?').check('list').allowed()"), false),
        (format!("{pods}.fieldSelector('?').check('list').errored()"), false),
        (format!("{pods}.labelSelector('a in (b)').check('list').allowed()"), false),
        (
            format!(
                "{pods}.check('list').reason()\
            .endsWith('can only list/watch pods with spec.nodeName field selector')"
            ),
            true,
        ),
    ];
    let validations: Vec<Value> = validations
        .iter()
        .map(|(expression, holds)| json!({"expression": format!("{expression} == {holds}")}))
        .collect();
    let spec = json!({"matchConstraints": {"resourceRules": [{"apiGroups": [""],
        "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]},
        "validations": validations});
    bind(&server, "validating", &spec, &json!({"policyName": "p", "validationActions": ["Deny"]}))
        .await;
    let node = UserInfo::new("system:node:n1", &["system:nodes", UserInfo::AUTHENTICATED]);
    let body = json!({"metadata": {"name": "x"}});
    let (code, answer) =
        server.call(&node, Method::POST, CONFIG_MAPS, "application/json", &body).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
}

async fn exec(server: &Fixture) -> (StatusCode, String) {
    let request = http::Request::builder()
        .method(Method::POST)
        .uri("/api/v1/namespaces/default/pods/p/exec?command=sh&stdout=true")
        .body(bytes::Bytes::new())
        .unwrap();
    let response = server.handle.call(&admin(), request).await;
    let code = response.status();
    let text = response.into_body().collect().await.unwrap();
    (code, String::from_utf8(text.to_vec()).unwrap())
}

fn of_exec(mutation: &Value) -> Value {
    json!({"reinvocationPolicy": "Never", "mutations": [mutation], "matchConstraints":
        {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CONNECT"],
        "resources": ["pods/exec"]}]}})
}

#[tokio::test]
async fn a_policy_changes_what_is_executed() {
    let server = Fixture::start().await;
    pod_on_node(&server, kubelet_saying(&server, None).await).await;
    let mutation = json!({"patchType": "JSONPatch", "jsonPatch": {"expression":
        "[JSONPatch{op: 'replace', path: '/command', value: object.command + ['-l']},
          JSONPatch{op: 'add', path: '/stdin', value: true}]"}});
    bind(&server, "mutating", &of_exec(&mutation), &json!({"policyName": "p"})).await;
    let (code, line) = exec(&server).await;
    assert_eq!(code, StatusCode::OK);
    assert_eq!(line, "POST /exec/default/p/c?input=1&output=1&command=sh&command=-l HTTP/1.1");
}

#[tokio::test]
async fn options_of_a_connection_are_of_no_type_that_could_be_applied_to() {
    let server = Fixture::start().await;
    pod_on_node(&server, kubelet_saying(&server, None).await).await;
    let mutation = json!({"patchType": "ApplyConfiguration",
        "applyConfiguration": {"expression": "Object{tty: true}"}});
    bind(&server, "mutating", &of_exec(&mutation), &json!({"policyName": "p"})).await;
    let (code, answer) = exec(&server).await;
    assert_eq!(code, StatusCode::FORBIDDEN, "{answer}");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(
        answer["message"],
        "policy 'p' with binding 'b' denied request: error applying patch: failed to convert \
         original object to typed object: no corresponding type for /v1, Kind=PodExecOptions"
    );
}
