//! Admission of what goes to subresources.

use authn::UserInfo;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::fixture::Fixture;

const PODS: &str = "/api/v1/namespaces/default/pods";
const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const JSON: &str = "application/json";

async fn cluster() -> Fixture {
    let server = Fixture::start().await;
    server.create(ACCOUNTS, &json!({"metadata": {"name": "default"}})).await;
    for (name, zone) in [("n", "a"), ("m", "b")] {
        let labels = json!({"topology.kubernetes.io/zone": zone, "other": "x"});
        let node = json!({"metadata": {"name": name, "labels": labels}});
        server.create("/api/v1/nodes", &node).await;
    }
    server
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

async fn bind(server: &Fixture, pod: &str, node: &str) -> Value {
    let binding = json!({"metadata": {"name": pod}, "target": {"kind": "Node", "name": node}});
    server.create(&format!("{PODS}/{pod}/binding"), &binding).await;
    server.admin(Method::GET, &format!("{PODS}/{pod}"), &Value::Null).await.1
}

fn node(name: &str) -> UserInfo {
    UserInfo::new(format!("system:node:{name}"), &["system:nodes", UserInfo::AUTHENTICATED])
}

#[tokio::test]
async fn a_bound_pod_has_the_zone_of_its_node() {
    let server = cluster().await;
    server.create(PODS, &pod("p")).await;
    let bound = bind(&server, "p", "n").await;
    assert_eq!(bound["metadata"]["labels"], json!({"topology.kubernetes.io/zone": "a"}));
}

#[tokio::test]
async fn a_node_gets_tokens_and_evictions_of_its_own_pods_alone() {
    let server = cluster().await;
    let mut uids = Vec::new();
    for (name, on) in [("mine", "n"), ("theirs", "m")] {
        server.create(PODS, &pod(name)).await;
        uids.push(bind(&server, name, on).await["metadata"]["uid"].clone());
    }
    let tokens = format!("{ACCOUNTS}/default/token");
    let ask = |name: &str, uid: &Value, audience: &str| {
        let mut request = json!({"spec": {"boundObjectRef":
            {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}}});
        if !audience.is_empty() {
            request["spec"]["audiences"] = json!([audience]);
        }
        request
    };
    let call = async |path: &str, body: &Value| {
        server.call(&node("n"), Method::POST, path, JSON, body).await
    };
    let (code, answer) = call(&tokens, &ask("mine", &uids[0], "")).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    let (code, answer) = call(&tokens, &ask("mine", &uids[0], "bank")).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert_eq!(
        answer["message"],
        "serviceaccounts \"default\" is forbidden: audience \"bank\" not found in pod spec volume, \
         system:node:n is not authorized to request tokens for this audience"
    );
    let (code, answer) = call(&tokens, &ask("theirs", &uids[1], "")).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    let message = answer["message"].as_str().unwrap();
    assert!(message.ends_with("bound to a pod scheduled on a different node"), "{message}");

    let eviction = |name: &str| json!({"metadata": {"name": name}});
    let (code, answer) = call(&format!("{PODS}/theirs/eviction"), &eviction("theirs")).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert_eq!(
        answer["message"],
        "pods \"theirs\" is forbidden: node n can only evict pods with spec.nodeName set to itself"
    );
    let (code, answer) = call(&format!("{PODS}/mine/eviction"), &eviction("mine")).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
}

#[tokio::test]
async fn approving_a_request_needs_more_than_writing_it() {
    let server = cluster().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    let encoded = {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(request.pem().unwrap())
    };
    let csr = json!({"metadata": {"name": "r"}, "spec": {"request": encoded,
        "signerName": "x.io/s", "usages": ["client auth"]}});
    let mut made = server.create(REQUESTS, &csr).await;
    let role = |name: &str, resource: &str, verb: &str, names: Value| {
        json!({"metadata": {"name": name}, "rules": [{"apiGroups": ["certificates.k8s.io"],
            "resources": [resource], "verbs": [verb], "resourceNames": names}]})
    };
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let grant = async |role: Value| {
        let name = role["metadata"]["name"].clone();
        server.create(&format!("{rbac}/clusterroles"), &role).await;
        let binding = json!({"metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "u"}]});
        server.create(&format!("{rbac}/clusterrolebindings"), &binding).await;
    };
    let resource = "certificatesigningrequests/approval";
    grant(role("write", resource, "update", Value::Null)).await;
    made["status"] = json!({"conditions": [{"type": "Approved", "status": "True", "reason": "R"}]});
    let user = UserInfo::new("u", &[UserInfo::AUTHENTICATED]);
    let path = format!("{REQUESTS}/r/approval");
    let (code, answer) = server.call(&user, Method::PUT, &path, JSON, &made).await;
    assert_eq!(code, StatusCode::FORBIDDEN, "{answer}");
    assert_eq!(
        answer["message"],
        "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: user not permitted to \
         approve requests with signerName \"x.io/s\""
    );
    grant(role("approve", "signers", "approve", json!(["x.io/*"]))).await;
    let (code, answer) = server.call(&user, Method::PUT, &path, JSON, &made).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
}
