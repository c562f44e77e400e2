//! G10: what goes with a namespace, and in which order.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::{condition, name};
use crate::harness::{Harness, is_ready, server};

const NAMESPACES: &str = "/api/v1/namespaces";

/// Makes a namespace and gives its path, once pods can be made in it.
fn namespace(harness: &Harness, name: &str) -> String {
    let namespace = json!({ "metadata": { "name": name } });
    harness.request(Method::POST, NAMESPACES, Some(&namespace)).unwrap();
    let path = format!("{NAMESPACES}/{name}");
    for there in ["serviceaccounts/default", "configmaps/kube-root-ca.crt"] {
        harness.becomes(&format!("{path}/{there}"), "is there", |_| true);
    }
    path
}

fn create(harness: &Harness, path: &str, object: &Value) {
    harness.request(Method::POST, path, Some(object)).unwrap();
}

/// \[sig-api-machinery\] Namespaces should ensure that all pods are removed when a namespace is
/// deleted; should ensure that all services are removed when a namespace is deleted
#[test]
fn pods_and_services_go_with_their_namespace() {
    let harness = Harness::start();
    let path = namespace(&harness, "goes");
    create(&harness, &format!("{path}/pods"), &server("p"));
    harness.becomes(&format!("{path}/pods/p"), "is Ready", is_ready);
    let service = json!({ "metadata": { "name": "s" },
        "spec": { "selector": { "app": "p" }, "ports": [{ "port": 80 }] } });
    create(&harness, &format!("{path}/services"), &service);
    let slices = "/apis/discovery.k8s.io/v1/namespaces/goes/endpointslices";
    harness.becomes(slices, "the service has a slice", |list| {
        !list["items"].as_array().unwrap().is_empty()
    });
    harness.delete(&path);
    assert_eq!(harness.get(&path)["status"]["phase"], "Terminating");
    // Nothing new comes in the meantime.
    let late = harness.request(Method::POST, &format!("{path}/pods"), Some(&server("late")));
    let error = late.unwrap_err();
    assert_eq!(error.status().unwrap().code, 403, "{error}");
    assert!(error.to_string().contains("because it is being terminated"), "{error}");
    harness.goes(&path);
    let again = namespace(&harness, "goes");
    for resource in ["pods", "services"] {
        let left = harness.items(&format!("{again}/{resource}"));
        assert!(left.is_empty(), "{left:?}");
    }
    assert!(harness.items(slices).is_empty());
}

/// \[sig-api-machinery\] Namespaces should apply a finalizer to a Namespace, with the controller
/// that must not pass it over
#[test]
fn a_namespace_waits_for_a_finalizer_that_is_not_the_controllers() {
    let harness = Harness::start();
    let path = namespace(&harness, "held");
    let (finalize, own) = (format!("{path}/finalize"), "e2e.example.com/fakeFinalizer");
    let mut object = harness.get(&path);
    object["spec"]["finalizers"] = json!(["kubernetes", own]);
    harness.request(Method::PUT, &finalize, Some(&object)).unwrap();
    harness.delete(&path);
    let object = harness.becomes(&path, "the controller has done its part", |namespace| {
        namespace["spec"]["finalizers"] == json!([own])
    });
    assert_eq!(object["status"]["phase"], "Terminating");
    harness.stays("it waits", Duration::from_secs(1), || harness.exists(&path));
    let mut object = harness.get(&path);
    object["spec"]["finalizers"] = json!([]);
    harness.request(Method::PUT, &finalize, Some(&object)).unwrap();
    harness.goes(&path);
}

/// \[sig-api-machinery\] OrderedNamespaceDeletion namespace deletion should delete pod first
#[test]
fn a_pod_that_does_not_go_keeps_the_rest_of_its_namespace() {
    let harness = Harness::start();
    let path = namespace(&harness, "ordered");
    let mut pod = server("p");
    pod["metadata"]["finalizers"] = json!(["e2e.example.com/finalizer"]);
    create(&harness, &format!("{path}/pods"), &pod);
    harness.becomes(&format!("{path}/pods/p"), "is Ready", is_ready);
    let map = json!({ "metadata": { "name": "m" } });
    create(&harness, &format!("{path}/configmaps"), &map);
    harness.delete(&path);
    let failure = "NamespaceDeletionContentFailure";
    let object = harness.becomes(&path, "it says why", |namespace| {
        condition(namespace, failure)["status"] == "True"
    });
    let failure = condition(&object, failure);
    assert_eq!(failure["reason"], "ContentDeletionFailed");
    let text = "Failed to delete all resource types, 1 remaining: unexpected items still remain \
                in namespace: ordered for gvr: /v1, Resource=pods";
    assert_eq!(failure["message"], text);
    let remaining = condition(&object, "NamespaceContentRemaining");
    assert_eq!(remaining["status"], "True");
    assert_eq!(remaining["reason"], "SomeResourcesRemain");
    let some = "Some resources are remaining: pods. has 1 resource instances";
    assert_eq!(remaining["message"], some);
    let finalizers = condition(&object, "NamespaceFinalizersRemaining");
    assert_eq!(finalizers["reason"], "SomeFinalizersRemain");
    let some = "Some content in the namespace has finalizers remaining: \
                e2e.example.com/finalizer in 1 resource instances";
    assert_eq!(finalizers["message"], some);
    for kind in ["NamespaceDeletionDiscoveryFailure", "NamespaceDeletionGroupVersionParsingFailure"]
    {
        assert_eq!(condition(&object, kind)["status"], "False", "{kind}");
    }
    harness.stays("the map stays as long as the pod", Duration::from_secs(3), || {
        harness.exists(&format!("{path}/configmaps/m"))
    });
    harness.patch(&format!("{path}/pods/p"), &json!({ "metadata": { "finalizers": null } }));
    harness.goes(&path);
    assert!(harness.items("/api/v1/configmaps").iter().all(|map| name(map) != "m"));
}
