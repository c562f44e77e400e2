//! Who owns what: managed fields of every sort of write, and server-side apply.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::fixture::{Fixture, admin};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";

async fn patch(
    server: &Fixture,
    path: &str,
    content_type: &str,
    body: &Value,
) -> (StatusCode, Value) {
    server.call(&admin(), Method::PATCH, path, content_type, body).await
}

/// Manager, operation, subresource and fields of every entry.
fn owners(object: &Value) -> Vec<(String, String, String, Value)> {
    let list = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    let owner = |entry: &Value| {
        let fields = entry["fieldsV1"].clone();
        let names = ["manager", "operation", "subresource"].map(|name| text(entry, name));
        let [manager, operation, subresource] = names;
        (manager, operation, subresource, fields)
    };
    list.iter().map(owner).collect()
}

fn owner(
    manager: &str,
    operation: &str,
    subresource: &str,
    fields: Value,
) -> (String, String, String, Value) {
    (manager.to_owned(), operation.to_owned(), subresource.to_owned(), fields)
}

fn config_map(data: Value) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "x"}, "data": data})
}

fn deployment() -> Value {
    json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "x"}, "spec": {
        "replicas": 1, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

#[tokio::test]
async fn every_write_is_recorded() {
    let server = Fixture::start().await;
    let path = format!("{CONFIG_MAPS}/x");
    let created = server
        .create(&format!("{CONFIG_MAPS}?fieldManager=c"), &config_map(json!({"a": "1"})))
        .await;
    let of_creator = owner("c", "Update", "", json!({"f:data": {".": {}, "f:a": {}}}));
    assert_eq!(owners(&created), std::slice::from_ref(&of_creator));
    let (_, patched) =
        patch(&server, &format!("{path}?fieldManager=p"), MERGE, &json!({"data": {"b": "2"}}))
            .await;
    let of_patcher = owner("p", "Update", "", json!({"f:data": {"f:b": {}}}));
    assert_eq!(owners(&patched), [of_creator, of_patcher.clone()]);
    let changed = config_map(json!({"a": "3", "b": "2"}));
    let (_, put) = server.admin(Method::PUT, &format!("{path}?fieldManager=u"), &changed).await;
    let of_creator = owner("c", "Update", "", json!({"f:data": {}}));
    let of_updater = owner("u", "Update", "", json!({"f:data": {"f:a": {}}}));
    assert_eq!(owners(&put), [of_creator, of_patcher, of_updater]);
    // The same again changes nothing, not even a time.
    let (_, again) = server.admin(Method::PUT, &format!("{path}?fieldManager=v"), &changed).await;
    assert_eq!(again, put);
}

#[tokio::test]
async fn the_program_is_the_manager_when_none_is_named() {
    let server = Fixture::start().await;
    let request = Request::builder()
        .method(Method::POST)
        .uri(CONFIG_MAPS)
        .header("content-type", "application/json")
        .header("user-agent", "some tool/v1 (x)")
        .body(Bytes::from(config_map(json!({"a": "1"})).to_string()))
        .unwrap();
    let answer = server.handle.call(&admin(), request).await.into_body().collect().await.unwrap();
    let created: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(owners(&created)[0].0, "some tool");
}

#[tokio::test]
async fn a_configuration_creates_changes_and_removes() {
    let server = Fixture::start().await;
    let path = format!("{CONFIG_MAPS}/x?fieldManager=m");
    let apply = async |data: Value| patch(&server, &path, APPLY, &config_map(data)).await;
    let (code, created) = apply(json!({"a": "1", "b": "2"})).await;
    assert_eq!(code, StatusCode::CREATED, "{created}");
    let (code, same) = apply(json!({"a": "1", "b": "2"})).await;
    assert_eq!((code, &same), (StatusCode::OK, &created));
    let (_, changed) = apply(json!({"a": "3"})).await;
    assert_eq!(changed["data"], json!({"a": "3"}));
    assert_eq!(owners(&changed), [owner("m", "Apply", "", json!({"f:data": {"f:a": {}}}))]);
}

#[tokio::test]
async fn conflicts_name_who_owns_what() {
    let server = Fixture::start().await;
    let path = format!("{CONFIG_MAPS}/x");
    server.create(&format!("{CONFIG_MAPS}?fieldManager=c"), &config_map(json!({"a": "1"}))).await;
    let config = config_map(json!({"a": "2"}));
    let (code, refused) = patch(&server, &format!("{path}?fieldManager=m"), APPLY, &config).await;
    assert_eq!(code, StatusCode::CONFLICT);
    assert_eq!(
        refused["message"],
        "Apply failed with 1 conflict: conflict with \"c\" using v1: .data.a"
    );
    assert_eq!(
        refused["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"c\" using v1",
            "field": ".data.a"}])
    );
    let forced = format!("{path}?fieldManager=m&force=true");
    let (code, taken) = patch(&server, &forced, APPLY, &config).await;
    assert_eq!((code, &taken["data"]["a"]), (StatusCode::OK, &json!("2")));
}

#[tokio::test]
async fn options_are_checked_together() {
    let server = Fixture::start().await;
    let config = config_map(json!({"a": "1"}));
    let check = async |content_type: &str, query: &str, expected: &str| {
        let path = format!("{CONFIG_MAPS}/x?{query}");
        let (code, refused) = patch(&server, &path, content_type, &config).await;
        assert_eq!(
            (code, &refused["message"]),
            (StatusCode::UNPROCESSABLE_ENTITY, &json!(expected))
        );
    };
    let start = "PatchOptions.meta.k8s.io \"\" is invalid: ";
    check(APPLY, "", &format!("{start}fieldManager: Required value: is required for apply patch"))
        .await;
    check(
        MERGE,
        "force=true&dryRun=x",
        &format!(
            "{start}[force: Forbidden: may not be specified for non-apply patch, dryRun: \
             Unsupported value: [\"x\"]: supported values: \"All\"]"
        ),
    )
    .await;
    let long = "m".repeat(129);
    check(
        APPLY,
        &format!("fieldManager={long}"),
        &format!("{start}fieldManager: Too long: may not be more than 128 bytes"),
    )
    .await;
    let (code, _) =
        patch(&server, &format!("{CONFIG_MAPS}/x"), "application/apply-patch+cbor", &config).await;
    assert_eq!(code, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn fields_given_twice_are_told_or_refused() {
    let server = Fixture::start().await;
    let body = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\ndata:\n  a: '1'\n  a: '2'\n";
    let send = async |query: &str| {
        let request = Request::builder()
            .method(Method::PATCH)
            .uri(format!("{CONFIG_MAPS}/x?fieldManager=m&{query}"))
            .header("content-type", APPLY)
            .body(Bytes::from(body))
            .unwrap();
        let answer = server.handle.call(&admin(), request).await;
        let warning = answer.headers().get("warning").map(|text| text.to_str().unwrap().to_owned());
        (answer.status(), warning)
    };
    assert_eq!(send("fieldValidation=Strict").await.0, StatusCode::BAD_REQUEST);
    let (code, warning) = send("").await;
    assert_eq!(code, StatusCode::CREATED);
    assert!(warning.is_some_and(|text| text.contains("already set in map")));
    assert_eq!(send("fieldValidation=Ignore").await, (StatusCode::OK, None));
}

#[tokio::test]
async fn a_dry_run_tells_and_does_not_write() {
    let server = Fixture::start().await;
    let path = format!("{CONFIG_MAPS}/x?fieldManager=m&dryRun=All");
    let (code, answer) = patch(&server, &path, APPLY, &config_map(json!({"a": "1"}))).await;
    assert_eq!((code, owners(&answer).len()), (StatusCode::CREATED, 1));
    let (code, _) = server.admin(Method::GET, &format!("{CONFIG_MAPS}/x"), &Value::Null).await;
    assert_eq!(code, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn status_and_scale_have_managers_of_their_own() {
    let server = Fixture::start().await;
    server.create(&format!("{DEPLOYMENTS}?fieldManager=c"), &deployment()).await;
    let path = format!("{DEPLOYMENTS}/x");
    let status = json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "x"},
        "spec": {"replicas": 9}, "status": {"replicas": 1}});
    let (code, answer) =
        patch(&server, &format!("{path}/status?fieldManager=s"), APPLY, &status).await;
    assert_eq!((code, &answer["spec"]["replicas"]), (StatusCode::OK, &json!(1)), "{answer}");
    assert_eq!(
        owners(&answer)[0],
        owner("s", "Apply", "status", json!({"f:status": {"f:replicas": {}}}))
    );
    let scale = json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {"name": "x"},
        "spec": {"replicas": 3}});
    let scaled = format!("{path}/scale?fieldManager=h");
    let (code, refused) = patch(&server, &scaled, APPLY, &scale).await;
    assert_eq!(code, StatusCode::CONFLICT, "{refused}");
    let (code, answer) = patch(&server, &format!("{scaled}&force=true"), APPLY, &scale).await;
    assert_eq!((code, &answer["spec"]["replicas"]), (StatusCode::OK, &json!(3)));
    let (_, read) = server.admin(Method::GET, &path, &Value::Null).await;
    let of_scale = owner("h", "Apply", "scale", json!({"f:spec": {"f:replicas": {}}}));
    assert!(owners(&read).contains(&of_scale), "{read}");
    let creator = owners(&read).into_iter().find(|owner| owner.0 == "c").unwrap();
    assert_eq!(creator.3["f:spec"].get("f:replicas"), None);
    // Whoever owns the replicas keeps them when the scale stays as it is.
    let (_, _) = patch(&server, &scaled, MERGE, &json!({"spec": {"replicas": 3}})).await;
    let (_, again) = server.admin(Method::GET, &path, &Value::Null).await;
    assert_eq!(again, read);
}

#[tokio::test]
async fn parts_of_a_pod_are_owned_through_their_subresources() {
    let server = Fixture::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    let account = json!({"kind": "ServiceAccount", "metadata": {"name": "default"}});
    server.create("/api/v1/namespaces/default/serviceaccounts", &account).await;
    let resources = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}});
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "x"}, "spec": {
        "containers": [{"name": "c", "image": "i", "resources": resources}]}});
    server.create(pods, &pod).await;
    let config = |spec: Value| json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "x"}, "spec": spec});
    let debugger = json!({"ephemeralContainers": [{"name": "d", "image": "i"}]});
    let path = format!("{pods}/x/ephemeralcontainers?fieldManager=e");
    let (code, answer) = patch(&server, &path, APPLY, &config(debugger)).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    let key = "k:{\"name\":\"d\"}";
    let fields = json!({"f:spec": {"f:ephemeralContainers": {
        key: {".": {}, "f:image": {}, "f:name": {}}}}});
    assert!(owners(&answer).contains(&owner("e", "Apply", "ephemeralcontainers", fields)));
    let resized =
        json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1500m"}}}]});
    let path = format!("{pods}/x/resize?fieldManager=r&force=true");
    let (code, answer) = patch(&server, &path, APPLY, &config(resized)).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    let key = "k:{\"name\":\"c\"}";
    let fields = json!({"f:spec": {"f:containers": {
        key: {".": {}, "f:resources": {"f:requests": {"f:cpu": {}}}}}}});
    assert!(owners(&answer).contains(&owner("r", "Apply", "resize", fields)), "{answer}");
}

#[tokio::test]
async fn applying_what_is_not_there_creates_only_the_object_itself() {
    let server = Fixture::start().await;
    let status = json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "x"},
        "status": {"replicas": 1}});
    let path = format!("{DEPLOYMENTS}/x/status?fieldManager=s");
    assert_eq!(patch(&server, &path, APPLY, &status).await.0, StatusCode::NOT_FOUND);
    let with_uid = json!({"kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"name": "x", "uid": "u"}});
    let (code, refused) =
        patch(&server, &format!("{CONFIG_MAPS}/x?fieldManager=m"), APPLY, &with_uid).await;
    assert_eq!(code, StatusCode::CONFLICT);
    assert_eq!(
        refused["message"],
        "Operation cannot be fulfilled on configmaps \"x\": uid mismatch: the provided object \
         specified uid u, and no existing object was found"
    );
}

#[tokio::test]
async fn who_may_not_create_cannot_create_by_applying() {
    let server = Fixture::start().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    server
        .create(
            &format!("{rbac}/roles"),
            &json!({"kind": "Role", "metadata": {"name": "p"}, "rules": [
                {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch"]}]}),
        )
        .await;
    server
        .create(
            &format!("{rbac}/rolebindings"),
            &json!({"kind": "RoleBinding", "metadata": {"name": "p"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "p"},
                "subjects": [{"kind": "User", "name": "joe"}]}),
        )
        .await;
    let joe = authn::UserInfo::new("joe", &[authn::UserInfo::AUTHENTICATED]);
    let path = format!("{CONFIG_MAPS}/x?fieldManager=m");
    let config = config_map(json!({"a": "1"}));
    let (code, refused) = server.call(&joe, Method::PATCH, &path, APPLY, &config).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert!(refused["message"].as_str().unwrap().contains("cannot create resource \"configmaps\""));
}

#[tokio::test]
async fn managed_fields_can_be_forgotten_and_set() {
    let server = Fixture::start().await;
    let path = format!("{CONFIG_MAPS}/x");
    server.create(CONFIG_MAPS, &config_map(json!({"a": "1"}))).await;
    for reset in [json!([]), json!([{}])] {
        let set = json!({"metadata": {"managedFields": [{"manager": "o", "operation": "Apply",
            "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:a": {}}}}]}});
        let (_, answer) = patch(&server, &path, MERGE, &set).await;
        assert_eq!(owners(&answer), [owner("o", "Apply", "", json!({"f:data": {"f:a": {}}}))]);
        let forget = json!({"metadata": {"managedFields": reset}});
        let (_, answer) = patch(&server, &path, MERGE, &forget).await;
        assert_eq!(answer["metadata"].get("managedFields"), None);
    }
    // What says too little is not listened to.
    let bad = json!({"metadata": {"managedFields": [{"manager": "o"}]}});
    let (code, answer) = patch(&server, &path, MERGE, &bad).await;
    assert_eq!((code, answer["metadata"].get("managedFields")), (StatusCode::OK, None));
}

#[tokio::test]
async fn what_is_too_large_with_its_managed_fields_is_written_without() {
    let server = Fixture::start().await;
    let data: Value =
        (0..60_000).map(|at| (format!("a-key-that-is-rather-long-{at:05}"), json!("x"))).collect();
    let created = server.create(CONFIG_MAPS, &config_map(data)).await;
    assert_eq!(created["metadata"].get("managedFields"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_patches_all_happen() {
    const EACH: usize = 25;
    let server = Arc::new(Fixture::start().await);
    let path = format!("{CONFIG_MAPS}/x");
    let created = server.create(CONFIG_MAPS, &config_map(json!({"a": "1"}))).await;
    let writers = ["m", "s", "a"].map(|writer| {
        let (server, path) = (server.clone(), path.clone());
        async move {
            for at in 0..EACH {
                let data = json!({"data": {format!("{writer}{at}"): "x"}});
                let strategic = "application/strategic-merge-patch+json";
                let (code, answer) = match writer {
                    "m" => patch(&server, &path, MERGE, &data).await,
                    "s" => patch(&server, &path, strategic, &data).await,
                    _ => {
                        let data: Value =
                            (0..=at).map(|at| (format!("a{at}"), json!("x"))).collect();
                        let path = format!("{path}?fieldManager=applier");
                        patch(&server, &path, APPLY, &config_map(data)).await
                    }
                };
                assert_eq!(code, StatusCode::OK, "{writer}{at}: {answer}");
            }
        }
    });
    let tasks = writers.map(|writer| stdx::task::spawn("writer", writer));
    for task in tasks {
        assert!(task.await.unwrap().is_some());
    }
    let (_, read) = server.admin(Method::GET, &path, &Value::Null).await;
    assert_eq!(read["data"].as_object().unwrap().len(), 1 + 3 * EACH);
    let applied = owners(&read).into_iter().find(|owner| owner.1 == "Apply").unwrap();
    assert_eq!(applied.3["f:data"].as_object().unwrap().len(), EACH);
    // A patch that names a version is held to it.
    let version = created["metadata"]["resourceVersion"].clone();
    let stale = json!({"metadata": {"resourceVersion": version}, "data": {"z": "1"}});
    assert_eq!(patch(&server, &path, MERGE, &stale).await.0, StatusCode::CONFLICT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_updates_without_a_version_all_happen_and_those_with_one_do_once() {
    let server = Arc::new(Fixture::start().await);
    let path = format!("{CONFIG_MAPS}/x");
    let created = server.create(CONFIG_MAPS, &config_map(json!({"a": "0"}))).await;
    let mut tasks = Vec::new();
    for writer in 0..4 {
        let (server, path, mut with_version) = (server.clone(), path.clone(), created.clone());
        with_version["data"]["a"] = json!(format!("v{writer}"));
        let free = config_map(json!({"a": format!("w{writer}")}));
        tasks.push(stdx::task::spawn("writer", async move {
            let (code, _) = server.admin(Method::PUT, &path, &with_version).await;
            let (free, answer) = server.admin(Method::PUT, &path, &free).await;
            assert_eq!(free, StatusCode::OK, "{answer}");
            code
        }));
    }
    let mut won = 0;
    for task in tasks {
        match task.await.unwrap() {
            Some(StatusCode::OK) => won += 1,
            code => assert_eq!(code, Some(StatusCode::CONFLICT)),
        }
    }
    assert!(won <= 1, "{won} updates of one version");
}

#[tokio::test]
async fn what_the_server_writes_by_itself_is_its_own() {
    let server = Fixture::start().await;
    let hard = json!({"configmaps": "5"});
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": hard}});
    server.create(quotas, &quota).await;
    let counted = json!({"metadata": {"name": "q"}, "spec": {"hard": hard},
        "status": {"hard": hard, "used": {"configmaps": "0"}}});
    let path = format!("{quotas}/q");
    let (code, answer) = server.admin(Method::PUT, &format!("{path}/status"), &counted).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    server.create(CONFIG_MAPS, &config_map(json!({}))).await;
    let (_, charged) = server.admin(Method::GET, &path, &Value::Null).await;
    assert_eq!(charged["status"]["used"]["configmaps"], "1");
    let used = json!({"f:status": {"f:used": {"f:configmaps": {}}}});
    let own = owner("kube-apiserver", "Update", "status", used);
    assert!(owners(&charged).contains(&own), "{:?}", owners(&charged));

    let pods = "/api/v1/namespaces/default/pods";
    let account = json!({"metadata": {"name": "default"}});
    server.create("/api/v1/namespaces/default/serviceaccounts", &account).await;
    let pod = json!({"metadata": {"name": "p", "labels": {"a": "b"}}, "spec": {"nodeName": "n",
        "containers": [{"name": "c", "image": "i"}]}});
    server.create(pods, &pod).await;
    let running = json!({"status": {"phase": "Running"}});
    let (code, answer) = patch(&server, &format!("{pods}/p/status"), MERGE, &running).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 0,
        "selector": {"matchLabels": {"a": "b"}}}});
    server.create(budgets, &budget).await;
    let allowed = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 1,
        "currentHealthy": 1, "desiredHealthy": 0, "expectedPods": 1}});
    let (code, answer) = patch(&server, &format!("{budgets}/b/status"), MERGE, &allowed).await;
    assert_eq!(code, StatusCode::OK, "{answer}");
    let eviction = json!({"metadata": {"name": "p"}});
    server.create(&format!("{pods}/p/eviction"), &eviction).await;

    let (_, taken) = server.admin(Method::GET, &format!("{budgets}/b"), &Value::Null).await;
    assert_eq!(taken["status"]["disruptionsAllowed"], 0);
    let fields = json!({"f:status": {"f:disruptedPods": {".": {}, "f:p": {}},
        "f:disruptionsAllowed": {}}});
    let own = owner("kube-apiserver", "Update", "status", fields);
    assert!(owners(&taken).contains(&own), "{:?}", owners(&taken));
    let (_, evicted) = server.admin(Method::GET, &format!("{pods}/p"), &Value::Null).await;
    assert!(evicted["metadata"]["deletionTimestamp"].is_string(), "{evicted}");
    let conditions = evicted["status"]["conditions"].as_array().unwrap();
    let why = conditions.iter().find(|condition| condition["type"] == "DisruptionTarget").unwrap();
    assert_eq!(why["reason"], "EvictionByEvictionAPI");
    assert_eq!(why["message"], "Eviction API: evicting");

    let second = json!({"metadata": {"name": "q", "labels": {"a": "b"}}, "spec": pod["spec"]});
    server.create(pods, &second).await;
    patch(&server, &format!("{pods}/q/status"), MERGE, &running).await;
    let eviction = json!({"metadata": {"name": "q"}});
    let (code, refused) =
        server.admin(Method::POST, &format!("{pods}/q/eviction"), &eviction).await;
    assert_eq!(code, StatusCode::TOO_MANY_REQUESTS, "{refused}");
    assert_eq!(refused["details"]["causes"][0]["reason"], "DisruptionBudget");
}
