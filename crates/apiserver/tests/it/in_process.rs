//! Semantics, without sockets.

use std::sync::Arc;
use std::time::Duration;

use authn::UserInfo;
use clock::SystemClock;
use futures::StreamExt;
use http::{Method, StatusCode};
use meta::{Reason, WatchEvent};
use serde_json::{Value, json};
use store::{LogStore, Options};

use crate::fixture::{Fixture, admin};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn config_map(name: &str, value: &str) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name},
        "data": {"a": value}})
}

#[tokio::test]
async fn an_object_is_created_read_changed_and_deleted() {
    let server = Fixture::start().await;
    let created = server.create(CONFIG_MAPS, &config_map("x", "1")).await;
    assert_eq!(created["metadata"]["namespace"], "default");
    let path = format!("{CONFIG_MAPS}/x");
    let (_, read) = server.admin(Method::GET, &path, &Value::Null).await;
    assert_eq!(read, created);
    let mut changed = created.clone();
    changed["data"]["a"] = json!("2");
    let (code, answer) = server.admin(Method::PUT, &path, &changed).await;
    assert_eq!((code, &answer["data"]["a"]), (StatusCode::OK, &json!("2")));
    assert_ne!(answer["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);
    let (code, stale) = server.admin(Method::PUT, &path, &created).await;
    assert_eq!(code, StatusCode::CONFLICT);
    assert_eq!(
        stale["message"],
        "Operation cannot be fulfilled on configmaps \"x\": the object has been modified; please \
         apply your changes to the latest version and try again"
    );
    let (code, deleted) = server.admin(Method::DELETE, &path, &Value::Null).await;
    assert_eq!((code, &deleted["status"]), (StatusCode::OK, &json!("Success")));
    let (code, gone) = server.admin(Method::GET, &path, &Value::Null).await;
    assert_eq!(code, StatusCode::NOT_FOUND);
    assert_eq!(gone["message"], "configmaps \"x\" not found");
}

#[tokio::test]
async fn an_update_that_changes_nothing_is_not_written() {
    let server = Fixture::start().await;
    let created = server.create(CONFIG_MAPS, &config_map("x", "1")).await;
    let path = format!("{CONFIG_MAPS}/x");
    let (_, same) = server.admin(Method::PUT, &path, &config_map("x", "1")).await;
    assert_eq!(same, created);
}

#[tokio::test]
async fn owners_that_are_named_twice_are_named_once() {
    let server = Fixture::start().await;
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"});
    let mut twice = config_map("x", "1");
    twice["metadata"]["ownerReferences"] = json!([owner, owner]);
    let request = http::Request::builder()
        .method(Method::POST)
        .uri(CONFIG_MAPS)
        .header("content-type", "application/json")
        .body(bytes::Bytes::from(twice.to_string()))
        .unwrap();
    let answer = server.handle.call(&admin(), request).await;
    let warning = answer.headers()["warning"].to_str().unwrap().to_owned();
    assert!(
        warning.contains("metadata.ownerReferences contains duplicate entries; API server dedups")
            && warning.ends_with("duplicate UID(s) observed: u\""),
        "{warning}"
    );
    let (_, read) = server.admin(Method::GET, &format!("{CONFIG_MAPS}/x"), &Value::Null).await;
    assert_eq!(read["metadata"]["ownerReferences"], json!([owner]));
}

#[tokio::test]
async fn patches_of_three_sorts_are_applied() {
    let server = Fixture::start().await;
    server.create(CONFIG_MAPS, &config_map("x", "1")).await;
    let path = format!("{CONFIG_MAPS}/x");
    for (content_type, patch, expected) in [
        ("application/merge-patch+json", json!({"data": {"b": "2"}}), json!({"a": "1", "b": "2"})),
        (
            "application/json-patch+json",
            json!([{"op": "remove", "path": "/data/a"}]),
            json!({"b": "2"}),
        ),
        (
            "application/strategic-merge-patch+json",
            json!({"data": {"c": "3", "b": null}}),
            json!({"c": "3"}),
        ),
    ] {
        let (code, answer) =
            server.call(&admin(), Method::PATCH, &path, content_type, &patch).await;
        assert_eq!((code, &answer["data"]), (StatusCode::OK, &expected));
    }
    let apply = "application/apply-patch+cbor";
    let (code, _) = server.call(&admin(), Method::PATCH, &path, apply, &json!({})).await;
    assert_eq!(code, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn pages_are_of_one_revision() {
    let server = Fixture::start().await;
    for index in 0..5 {
        server.create(CONFIG_MAPS, &config_map(&format!("c{index}"), "1")).await;
    }
    let first_page = format!("{CONFIG_MAPS}?limit=2");
    let (_, first) = server.admin(Method::GET, &first_page, &Value::Null).await;
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    let last = format!("{CONFIG_MAPS}/c4");
    server.admin(Method::DELETE, &last, &Value::Null).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let rest = format!("{CONFIG_MAPS}?continue={token}");
    let (_, rest) = server.admin(Method::GET, &rest, &Value::Null).await;
    let names: Vec<_> =
        rest["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["c2", "c3", "c4"]);
    assert_eq!(rest["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn a_watch_begins_with_what_is_there_and_follows() {
    let server = Fixture::start().await;
    server.create(CONFIG_MAPS, &config_map("x", "1")).await;
    let path = format!(
        "{CONFIG_MAPS}?watch=true&sendInitialEvents=true&allowWatchBookmarks=true\
         &resourceVersionMatch=NotOlderThan"
    );
    let mut watch = server.handle.watch(&admin(), &path).await.unwrap();
    let mut next = async || {
        let next = tokio::time::timeout(Duration::from_secs(10), watch.next()).await;
        next.unwrap().unwrap().unwrap()
    };
    assert!(matches!(next().await, WatchEvent::Added(o) if o.header().name == "x"));
    assert!(matches!(next().await, WatchEvent::Bookmark { initial_events_end: true, .. }));
    server.create(CONFIG_MAPS, &config_map("y", "1")).await;
    let WatchEvent::Added(added) = next().await else { panic!("not added") };
    assert_eq!(added.header().name, "y");
    server.admin(Method::DELETE, &format!("{CONFIG_MAPS}/y"), &Value::Null).await;
    let WatchEvent::Deleted(deleted) = next().await else { panic!("not deleted") };
    assert!(deleted.header().resource_version > added.header().resource_version);
}

#[tokio::test]
async fn lists_share_their_objects_with_the_cache() {
    let server = Fixture::start().await;
    server.create(CONFIG_MAPS, &config_map("x", "1")).await;
    let (_, first) = server.handle.list(&admin(), CONFIG_MAPS).await.unwrap();
    let (version, second) = server.handle.list(&admin(), CONFIG_MAPS).await.unwrap();
    assert!(Arc::ptr_eq(&first[0], &second[0]));
    assert!(version >= second[0].header().resource_version);
}

#[tokio::test]
async fn a_namespace_is_dropped_where_there_are_none_and_a_version_refused() {
    let server = Fixture::start().await;
    let class = json!({"metadata": {"name": "c", "namespace": "default"}, "value": 1});
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let created = server.create(classes, &class).await;
    assert_eq!(created["metadata"].get("namespace"), None);
    let mut map = config_map("x", "1");
    map["metadata"]["resourceVersion"] = json!("5");
    let (code, status) = server.admin(Method::POST, CONFIG_MAPS, &map).await;
    assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(status["message"], "resourceVersion should not be set on objects to be created");
    map["data"] = json!({"": "1"});
    let (code, _) = server.admin(Method::POST, CONFIG_MAPS, &map).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY, "validation has its say first");
}

#[tokio::test]
async fn the_store_and_the_cache_hold_the_same_bytes() {
    let store = LogStore::volatile(&Options::default(), Arc::new(SystemClock)).unwrap();
    let store: Arc<dyn store::Store> = Arc::new(store);
    let server = Fixture::start_on(store.clone()).await;
    server.create(CONFIG_MAPS, &config_map("x", "1")).await;
    let path = format!("{CONFIG_MAPS}/x");
    server.admin(Method::PUT, &path, &config_map("x", "2")).await;
    let kept = store.get(b"/registry/configmaps/default/x").await.unwrap().unwrap();
    let (_, objects) = server.handle.list(&admin(), CONFIG_MAPS).await.unwrap();
    assert_eq!(objects[0].json().as_ptr(), kept.value.as_ptr());
    assert_eq!(objects[0].header().resource_version.0, kept.mod_revision.0);
}

#[tokio::test]
async fn who_may_not_is_told_so() {
    let server = Fixture::start().await;
    let user = UserInfo::component("x");
    let refused = server.handle.list(&user, "/api/v1/namespaces/default/pods").await.unwrap_err();
    assert!(refused.is(Reason::Forbidden));
    assert_eq!(
        refused.message,
        "pods is forbidden: User \"x\" cannot list resource \"pods\" in API group \"\" in the \
         namespace \"default\""
    );
    let role = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    server
        .create(
            &format!("{role}/rolebindings"),
            &json!({"metadata": {"name": "x"}, "subjects": [{"kind": "User", "name": "x",
                "apiGroup": "rbac.authorization.k8s.io"}],
                "roleRef": {"kind": "ClusterRole", "name": "view",
                    "apiGroup": "rbac.authorization.k8s.io"}}),
        )
        .await;
    // `view` is made of others by a controller; give it a rule as that would.
    let rules = json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]});
    let view = "/apis/rbac.authorization.k8s.io/v1/clusterroles/view";
    let merge = "application/merge-patch+json";
    server.call(&admin(), Method::PATCH, view, merge, &rules).await;
    assert!(server.handle.list(&user, "/api/v1/namespaces/default/pods").await.is_ok());
}

#[tokio::test]
async fn a_pod_gets_its_account_token_tolerations_and_priority() {
    let server = Fixture::start().await;
    server
        .create(
            "/api/v1/namespaces/default/serviceaccounts",
            &json!({"metadata": {"name": "default"}}),
        )
        .await;
    let pod = json!({"metadata": {"generateName": "p-"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let pod = server.create("/api/v1/namespaces/default/pods", &pod).await;
    assert_eq!(pod["spec"]["serviceAccountName"], "default");
    assert_eq!(pod["spec"]["priority"], 0);
    assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
    assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), 2);
    let mount = &pod["spec"]["containers"][0]["volumeMounts"][0];
    assert_eq!(mount["name"], pod["spec"]["volumes"][0]["name"]);
    let name = pod["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("p-") && name.len() == 7);
    let path = format!("/api/v1/namespaces/default/pods/{name}");
    let binding = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": "n"}});
    server.create(&format!("{path}/binding"), &binding).await;
    let (_, bound) = server.admin(Method::GET, &path, &Value::Null).await;
    assert_eq!(bound["spec"]["nodeName"], "n");
    let (code, dying) = server.admin(Method::DELETE, &path, &Value::Null).await;
    assert_eq!(
        (code, &dying["metadata"]["deletionGracePeriodSeconds"]),
        (StatusCode::OK, &json!(30))
    );
    let now = format!("{path}?gracePeriodSeconds=0");
    server.admin(Method::DELETE, &now, &Value::Null).await;
    let (code, _) = server.admin(Method::GET, &path, &Value::Null).await;
    assert_eq!(code, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_namespace_waits_for_its_finalizer() {
    let server = Fixture::start().await;
    server.create("/api/v1/namespaces", &json!({"metadata": {"name": "n"}})).await;
    let path = "/api/v1/namespaces/n";
    let merge = "application/merge-patch+json";
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    let (code, _) = server.call(&admin(), Method::PATCH, path, merge, &labels).await;
    assert_eq!(code, StatusCode::OK);
    let (_, dying) = server.admin(Method::DELETE, path, &Value::Null).await;
    assert_eq!(dying["status"]["phase"], "Terminating");
    let config_maps = "/api/v1/namespaces/n/configmaps";
    let (code, _) = server.admin(Method::POST, config_maps, &config_map("x", "1")).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    dying["spec"]["finalizers"].as_array().unwrap();
    let mut done = dying.clone();
    done["spec"] = json!({});
    let (code, _) = server.admin(Method::PUT, &format!("{path}/finalize"), &done).await;
    assert_eq!(code, StatusCode::OK);
    let (code, _) = server.admin(Method::GET, path, &Value::Null).await;
    assert_eq!(code, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn quota_is_charged_and_enforced() {
    let server = Fixture::start().await;
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"configmaps": "1"}}});
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    server.create(quotas, &quota).await;
    // The controller's part is played by the test. Until it has counted, nothing is limited.
    server.create(CONFIG_MAPS, &config_map("w", "1")).await;
    let status = |status: Value| json!({"metadata": {"name": "q"}, "status": status});
    let path = format!("{quotas}/q/status");
    let unknown = status(json!({"hard": {"configmaps": "1"}}));
    server.admin(Method::PUT, &path, &unknown).await;
    let (code, refused) = server.admin(Method::POST, CONFIG_MAPS, &config_map("x", "1")).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert_eq!(
        refused["message"],
        "configmaps \"x\" is forbidden: status unknown for quota: q, resources: configmaps"
    );
    let known = status(json!({"hard": {"configmaps": "1"}, "used": {"configmaps": "0"}}));
    server.admin(Method::PUT, &path, &known).await;
    server.create(CONFIG_MAPS, &config_map("x", "1")).await;
    let (code, refused) = server.admin(Method::POST, CONFIG_MAPS, &config_map("y", "1")).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert_eq!(
        refused["message"],
        "configmaps \"y\" is forbidden: exceeded quota: q, requested: configmaps=1, used: \
         configmaps=1, limited: configmaps=1"
    );
}

#[tokio::test]
async fn services_get_addresses_and_give_them_back() {
    let server = Fixture::start().await;
    let services = "/api/v1/namespaces/default/services";
    let service = |name: &str, ip: &Value| {
        json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "clusterIP": ip,
            "selector": {"a": "b"}, "ports": [{"port": 80}]}})
    };
    let made = server.create(services, &service("a", &Value::Null)).await;
    let ip = made["spec"]["clusterIP"].clone();
    assert!(ip.as_str().unwrap().starts_with("10.96."));
    assert!(made["spec"]["ports"][0]["nodePort"].as_u64().unwrap() >= 30_000);
    let (code, _) = server.admin(Method::POST, services, &service("b", &ip)).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    server.admin(Method::DELETE, &format!("{services}/a"), &Value::Null).await;
    server.create(services, &service("b", &ip)).await;
}

#[tokio::test]
async fn events_are_one_resource_in_two_groups() {
    let server = Fixture::start().await;
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"namespace": "default",
        "name": "p"}, "message": "hello", "reason": "Testing", "type": "Normal"});
    server.create("/api/v1/namespaces/default/events", &event).await;
    let path = "/apis/events.k8s.io/v1/namespaces/default/events";
    let selected = format!("{path}?fieldSelector=regarding.name%3Dp");
    let (_, list) = server.admin(Method::GET, &selected, &Value::Null).await;
    assert_eq!(list["items"][0]["note"], "hello");
    assert_eq!(list["items"][0]["regarding"]["name"], "p");
}

#[tokio::test]
async fn a_restarted_server_has_everything_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let registry = telemetry::Registry::new();
        let clock = Arc::new(SystemClock);
        Arc::new(LogStore::open(dir.path(), &Options::default(), clock, &registry).unwrap())
    };
    let store = open();
    let server = Fixture::start_on(store.clone()).await;
    let created = server.create(CONFIG_MAPS, &config_map("x", "1")).await;
    drop(server);
    // The tasks of the first server let go of the store when they see the shutdown.
    for _ in 0..500 {
        if Arc::strong_count(&store) == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(Arc::strong_count(&store), 1);
    drop(store);
    let server = Fixture::start_on(open()).await;
    let (_, read) = server.admin(Method::GET, &format!("{CONFIG_MAPS}/x"), &Value::Null).await;
    assert_eq!(read, created);
}
