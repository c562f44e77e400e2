//! What a namespace says while it is emptied.

use http::Method;
use serde_json::{Value, json};

use crate::memory_api::{MemoryApi, REFUSED};
use crate::told::has_said;
use crate::workloads::{Running, namespace};

const NAMESPACE: &str = "/api/v1/namespaces/n";
const MAP: &str = "/api/v1/namespaces/n/configmaps/c";

const DISCOVERY: &str = "NamespaceDeletionDiscoveryFailure";
const PARSING: &str = "NamespaceDeletionGroupVersionParsingFailure";

/// A namespace with something in it.
fn full(api: &MemoryApi) {
    namespace(api);
    api.create("/api/v1/namespaces/n/configmaps", json!({ "metadata": { "name": "c" } }));
}

/// The only group but the core's, with its version `v1` by this name.
fn group(name: &str, version: &str) -> Value {
    let served = json!({ "groupVersion": version, "version": "v1" });
    json!({ "groups": [{ "name": name, "versions": [served], "preferredVersion": served }] })
}

async fn is_gone(api: &MemoryApi) {
    api.eventually("the namespace is gone", |api| api.get(NAMESPACE).is_none()).await;
    assert_eq!(api.get(MAP), None);
}

#[tokio::test]
async fn a_namespace_that_is_emptied_says_so() {
    let running = Running::start();
    let api = &running.api;
    full(api);
    api.delete(NAMESPACE);
    for (kind, reason, text) in [
        (DISCOVERY, "ResourcesDiscovered", "All resources successfully discovered"),
        (PARSING, "ParsedGroupVersions", "All legacy kube types successfully parsed"),
        (
            "NamespaceDeletionContentFailure",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        ("NamespaceContentRemaining", "ContentRemoved", "All content successfully removed"),
        (
            "NamespaceFinalizersRemaining",
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        ),
    ] {
        has_said(api, NAMESPACE, kind, json!(["False", reason, text])).await;
    }
    is_gone(api).await;
}

#[tokio::test]
async fn a_namespace_waits_for_a_group_that_cannot_be_discovered() {
    let running = Running::start();
    let api = &running.api;
    full(api);
    api.answers("/apis", group("away.example.io", "away.example.io/v1"));
    let nothing = json!({ "groupVersion": "away.example.io/v1", "resources": [] });
    api.answers("/apis/away.example.io/v1", nothing);
    api.refuse(Method::GET, "/apis/away.example.io");
    api.delete(NAMESPACE);
    let text = format!(
        "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of \
         server APIs: away.example.io/v1: {REFUSED}"
    );
    has_said(api, NAMESPACE, DISCOVERY, json!(["True", "DiscoveryFailed", text])).await;
    // What could be discovered is gone, and the namespace is not.
    api.eventually("the map is gone", |api| api.get(MAP).is_none()).await;
    assert!(api.get(NAMESPACE).is_some());
    api.refuse_nothing();
    is_gone(api).await;
}

#[tokio::test]
async fn a_namespace_is_not_touched_where_a_version_is_none() {
    let running = Running::start();
    let api = &running.api;
    full(api);
    let verbs = ["create", "delete", "deletecollection", "get", "list", "watch"];
    let things = json!({ "name": "things", "kind": "Thing", "namespaced": true,
        "singularName": "", "verbs": verbs });
    let list = json!({ "groupVersion": "odd.example.io/v1", "resources": [things] });
    api.answers("/apis", group("odd.example.io", "odd.example.io/v1/beta"));
    api.answers("/apis/odd.example.io/v1", list);
    api.delete(NAMESPACE);
    let text = "unexpected GroupVersion string: odd.example.io/v1/beta";
    has_said(api, NAMESPACE, PARSING, json!(["True", "GroupVersionParsingFailed", text])).await;
    assert!(api.get(MAP).is_some());
    api.answers("/apis", group("odd.example.io", "odd.example.io/v1"));
    api.patch(NAMESPACE, &json!({ "metadata": { "labels": { "look": "again" } } }));
    is_gone(api).await;
}
