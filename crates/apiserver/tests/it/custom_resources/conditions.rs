//! What definitions say of themselves, by upstream's reasons.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clock::{ManualClock, SystemClock};
use futures::StreamExt;
use http::{Method, StatusCode};
use meta::WatchEvent;
use serde_json::{Value, json};
use store::{
    Expect, KeyValue, LogStore, Options, Outcome, Range, RangeResult, Revision, Store, StoreError,
    WatchStream, Write,
};

use super::{DEFINITIONS, FOOS, code_of, define, definition, foo, patch, read, until, version};
use crate::fixture::{Fixture, admin};

const DEFINITION: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/foos.example.com";

fn foos() -> Value {
    definition(&json!([version("v1", true, &json!({}))]))
}

/// Another definition, with these names.
fn others(names: Value) -> Value {
    let mut other = foos();
    other["metadata"]["name"] = json!(format!("{}.example.com", names["plural"].as_str().unwrap()));
    other["spec"]["names"] = names;
    other
}

fn condition(definition: &Value, kind: &str) -> Value {
    let conditions = definition["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().find(|found| found["type"] == kind).cloned().unwrap_or_default()
}

/// Waits for a condition with a reason.
async fn says(server: &Fixture, name: &str, kind: &str, reason: &str) -> Value {
    let path = format!("{DEFINITIONS}/{name}");
    let find = async || condition(&read(server, &path).await, kind);
    until(&format!("{kind} of {name} is {reason}"), async || find().await["reason"] == reason)
        .await;
    find().await
}

/// The reasons of a condition, one after the other, until the last one.
async fn reasons(
    server: &Fixture,
    name: &str,
    kind: &str,
    last: &str,
    act: impl Future<Output = ()>,
) -> Vec<String> {
    let path = format!("{DEFINITIONS}?watch=true&fieldSelector=metadata.name%3D{name}");
    let mut events = server.handle.watch(&admin(), &path).await.unwrap();
    act.await;
    let mut seen: Vec<String> = Vec::new();
    let watched = async {
        while seen.last().is_none_or(|reason| reason != last) {
            let object = match events.next().await.unwrap().unwrap() {
                WatchEvent::Added(object)
                | WatchEvent::Modified(object)
                | WatchEvent::Deleted(object) => object,
                WatchEvent::Bookmark { .. } => continue,
            };
            let found = condition(&object.decode().unwrap(), kind);
            let reason = found["reason"].as_str().unwrap_or_default().to_owned();
            if !reason.is_empty() && seen.last() != Some(&reason) {
                seen.push(reason);
            }
        }
    };
    let outcome = tokio::time::timeout(Duration::from_secs(20), watched).await;
    assert!(outcome.is_ok(), "never {last}: {seen:?}");
    seen
}

#[tokio::test]
async fn definitions_are_installed_established_and_terminated() {
    let server = Fixture::start().await;
    let create = async {
        server.create(DEFINITIONS, &foos()).await;
    };
    let name = "foos.example.com";
    let established = reasons(&server, name, "Established", "InitialNamesAccepted", create).await;
    assert_eq!(established, ["Installing", "InitialNamesAccepted"]);
    let found = says(&server, name, "NamesAccepted", "NoConflicts").await;
    assert_eq!(
        (&found["status"], &found["message"]),
        (&json!("True"), &json!("no conflicts found"))
    );
    server.create(FOOS, &foo("a", &json!({}))).await;
    let delete = async {
        let (_, answer) = server.admin(Method::DELETE, DEFINITION, &Value::Null).await;
        assert_eq!(condition(&answer, "Terminating")["reason"], "InstanceDeletionPending");
    };
    let last = "InstanceDeletionCompleted";
    let terminated = reasons(&server, name, "Terminating", last, delete).await;
    assert_eq!(terminated, ["InstanceDeletionPending", "InstanceDeletionInProgress", last]);
}

#[tokio::test]
async fn names_in_use_are_not_accepted_and_what_has_none_is_never_established() {
    let server = Fixture::start().await;
    define(&server, &foos()).await;
    for (reason, names) in [
        ("PluralConflict", json!({"plural": "fo", "kind": "Bar"})),
        ("SingularConflict", json!({"plural": "bars", "singular": "foos", "kind": "Bar"})),
        ("ShortNamesConflict", json!({"plural": "bars", "kind": "Bar", "shortNames": ["fo"]})),
        (
            "KindConflict",
            json!({"plural": "bars", "singular": "bar", "kind": "Foo",
            "listKind": "BarList"}),
        ),
        ("ListKindConflict", json!({"plural": "bars", "kind": "Bar", "listKind": "FooList"})),
    ] {
        let other = others(names);
        let name = other["metadata"]["name"].as_str().unwrap();
        server.create(DEFINITIONS, &other).await;
        let found = says(&server, name, "NamesAccepted", reason).await;
        assert_eq!(found["status"], "False");
        assert!(found["message"].as_str().unwrap().ends_with("is already in use"), "{found}");
        let found = says(&server, name, "Established", "NotAccepted").await;
        assert_eq!(found["message"], "not all names are accepted");
        let path = format!("{DEFINITIONS}/{name}");
        let delete = async {
            server.admin(Method::DELETE, &path, &Value::Null).await;
        };
        reasons(&server, name, "Terminating", "NeverEstablished", delete).await;
        until("it is gone", async || code_of(&server, &path).await == StatusCode::NOT_FOUND).await;
    }
}

#[tokio::test]
async fn what_no_authority_vouches_for_is_not_established() {
    let server = Fixture::start().await;
    let mut foos = foos();
    foos["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
        "conversionReviewVersions": ["v1"],
        "clientConfig": {"url": "https://localhost:1/convert", "caBundle": "bm8gUEVN"}}});
    server.create(DEFINITIONS, &foos).await;
    let name = "foos.example.com";
    let found = says(&server, name, "Established", "InvalidCABundle").await;
    assert_eq!(found["status"], "False");
    assert_eq!(found["message"], "The conversion webhook CABundle is invalid");
    assert_eq!(code_of(&server, FOOS).await, StatusCode::NOT_FOUND);
    let config = json!({"webhook": {"clientConfig": {"caBundle": null}}});
    patch(&server, DEFINITION, &json!({"spec": {"conversion": config}})).await;
    says(&server, name, "Established", "InitialNamesAccepted").await;
}

#[tokio::test]
async fn groups_of_the_project_need_its_approval() {
    let store = Arc::new(LogStore::volatile(&Options::default(), Arc::new(SystemClock)).unwrap());
    let protected = |plural: &str, approval: Option<&str>| {
        let mut found = foos();
        found["metadata"]["name"] = json!(format!("{plural}.x.k8s.io"));
        found["spec"]["group"] = json!("x.k8s.io");
        found["spec"]["names"] = json!({"plural": plural, "singular": plural, "kind": plural,
            "listKind": format!("{plural}List")});
        if let Some(approval) = approval {
            found["metadata"]["annotations"] = json!({"api-approved.kubernetes.io": approval});
        }
        found
    };
    // Older servers did not ask for it.
    for (plural, approval) in [("missing", None), ("invalid", Some("yes"))] {
        let mut found = protected(plural, approval);
        found["kind"] = json!("CustomResourceDefinition");
        found["apiVersion"] = json!("apiextensions.k8s.io/v1");
        found["metadata"]["uid"] = json!(plural);
        let name = found["metadata"]["name"].as_str().unwrap();
        let key = format!("/registry/apiextensions.k8s.io/customresourcedefinitions/{name}");
        let write = Write::new(key.into(), Some(found.to_string().into()), Expect::Absent);
        store.write(write).await.unwrap();
    }
    let server = Fixture::start_on(store).await;
    for (plural, approval) in [("bypassed", "unapproved, by me"), ("good", "https://a.b/c")] {
        server.create(DEFINITIONS, &protected(plural, Some(approval))).await;
    }
    let annotation =
        "protected groups must have approval annotation \"api-approved.kubernetes.io\"";
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    for (plural, reason, status, message) in [
        ("missing", "MissingAnnotation", "False", format!("{annotation}, {see}")),
        (
            "invalid",
            "InvalidAnnotation",
            "False",
            format!(
                "{annotation} with either a URL or a reason starting with \"unapproved\", {see}"
            ),
        ),
        (
            "bypassed",
            "UnapprovedAnnotation",
            "False",
            "not approved: \"unapproved, by me\"".to_owned(),
        ),
        ("good", "ApprovedAnnotation", "True", "approved in https://a.b/c".to_owned()),
    ] {
        let kind = "KubernetesAPIApprovalPolicyConformant";
        let found = says(&server, &format!("{plural}.x.k8s.io"), kind, reason).await;
        assert_eq!((&found["status"], &found["message"]), (&json!(status), &json!(message)));
    }
}

#[tokio::test]
async fn schemas_of_old_clusters_are_told_of() {
    let store = Arc::new(LogStore::volatile(&Options::default(), Arc::new(SystemClock)).unwrap());
    for (plural, schema) in [
        ("loose", json!({"type": "object", "properties": {"spec": {}}})),
        ("referring", json!({"type": "object", "properties": {"a": {"$ref": "#/b"}}})),
    ] {
        let mut found = others(json!({"plural": plural, "singular": plural, "kind": plural,
            "listKind": format!("{plural}List")}));
        found["kind"] = json!("CustomResourceDefinition");
        found["apiVersion"] = json!("apiextensions.k8s.io/v1");
        found["metadata"]["uid"] = json!(plural);
        found["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema;
        let name = found["metadata"]["name"].as_str().unwrap();
        let key = format!("/registry/apiextensions.k8s.io/customresourcedefinitions/{name}");
        let write = Write::new(key.into(), Some(found.to_string().into()), Expect::Absent);
        store.write(write).await.unwrap();
    }
    let server = Fixture::start_on(store).await;
    let kind = "NonStructuralSchema";
    let found = says(&server, "loose.example.com", kind, "Violations").await;
    assert_eq!(found["status"], "True");
    assert_eq!(
        found["message"],
        "spec.versions[0].schema.openAPIV3Schema.properties[spec].type: Required value: must not \
         be empty for specified object fields"
    );
    let found = says(&server, "referring.example.com", kind, "StructuralError").await;
    assert_eq!(found["status"], "Unknown");
    assert_eq!(
        found["message"],
        "failed to check validation schema for version v1: OpenAPIV3Schema '$ref' is not supported"
    );
}

#[tokio::test]
async fn objects_that_stay_are_told_of_after_a_minute() {
    let clock = Arc::new(ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap()));
    let server = Fixture::start_at(clock.clone()).await;
    define(&server, &foos()).await;
    let mut object = foo("held", &json!({}));
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.create(FOOS, &object).await;
    server.admin(Method::DELETE, DEFINITION, &Value::Null).await;
    let name = "foos.example.com";
    says(&server, name, "Terminating", "InstanceDeletionInProgress").await;
    let check = async || {
        clock.advance(Duration::from_secs(1));
        condition(&read(&server, DEFINITION).await, "Terminating")
    };
    until("it is told", async || check().await["reason"] == "InstanceDeletionCheck").await;
    let told = condition(&read(&server, DEFINITION).await, "Terminating");
    assert_eq!(told["status"], "True");
    patch(&server, &format!("{FOOS}/held"), &json!({"metadata": {"finalizers": null}})).await;
    until("the definition goes", async || {
        clock.advance(Duration::from_secs(1));
        code_of(&server, DEFINITION).await == StatusCode::NOT_FOUND
    })
    .await;
}

#[tokio::test]
async fn a_definition_goes_whoever_would_keep_its_objects() {
    let server = Fixture::start().await;
    define(&server, &foos()).await;
    server.create(FOOS, &foo("a", &json!({}))).await;
    let rules = json!([{"apiGroups": ["example.com"], "apiVersions": ["*"],
        "operations": ["DELETE"], "resources": ["foos"]}]);
    let configurations = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic";
    let policy = json!({"metadata": {"name": "p"}, "spec": {
        "matchConstraints": {"resourceRules": rules}, "validations": [{"expression": "false"}]}});
    server.create(&format!("{configurations}ies"), &policy).await;
    let binding = json!({"metadata": {"name": "b"},
        "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    server.create(&format!("{configurations}ybindings"), &binding).await;
    let one = format!("{FOOS}/a");
    let (code, _) = server.admin(Method::DELETE, &one, &Value::Null).await;
    assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
    server.admin(Method::DELETE, DEFINITION, &Value::Null).await;
    until("the definition goes", async || {
        code_of(&server, DEFINITION).await == StatusCode::NOT_FOUND
    })
    .await;
}

#[tokio::test]
async fn definitions_in_the_place_of_built_in_resources_take_nothing_with_them() {
    let server = Fixture::start().await;
    define(&server, &foos()).await;
    let name = "customresourcedefinitions.apiextensions.k8s.io";
    let mut overlapping = foos();
    overlapping["metadata"] = json!({"name": name,
        "annotations": {"api-approved.kubernetes.io": "unapproved, by me"}});
    overlapping["spec"]["group"] = json!("apiextensions.k8s.io");
    overlapping["spec"]["scope"] = json!("Cluster");
    overlapping["spec"]["names"] =
        json!({"plural": "customresourcedefinitions", "kind": "CustomResourceDefinition"});
    server.create(DEFINITIONS, &overlapping).await;
    says(&server, name, "Established", "InitialNamesAccepted").await;
    let path = format!("{DEFINITIONS}/{name}");
    let delete = async {
        let (code, answer) = server.admin(Method::DELETE, &path, &Value::Null).await;
        assert_eq!(code, StatusCode::OK, "{answer}");
    };
    reasons(&server, name, "Terminating", "OverlappingBuiltInResource", delete).await;
    until("it is gone", async || code_of(&server, &path).await == StatusCode::NOT_FOUND).await;
    says(&server, "foos.example.com", "Established", "InitialNamesAccepted").await;
    assert_eq!(code_of(&server, FOOS).await, StatusCode::OK);
}

/// A store that takes no deletion of some objects.
struct Keeping {
    store: LogStore,
    prefix: &'static str,
}

#[async_trait::async_trait]
impl Store for Keeping {
    async fn revision(&self) -> Result<Revision, StoreError> {
        self.store.revision().await
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Arc<KeyValue>>, StoreError> {
        self.store.get(key).await
    }

    async fn range(&self, range: Range) -> Result<RangeResult, StoreError> {
        self.store.range(range).await
    }

    async fn write(&self, write: Write) -> Result<Outcome, StoreError> {
        if write.value.is_none() && write.key.starts_with(self.prefix.as_bytes()) {
            return Err(StoreError::NoSpace);
        }
        self.store.write(write).await
    }

    async fn watch(&self, prefix: Bytes, after: Revision) -> Result<WatchStream, StoreError> {
        self.store.watch(prefix, after).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.store.compact(revision).await
    }
}

#[tokio::test]
async fn objects_that_cannot_be_deleted_are_told_of() {
    let store = LogStore::volatile(&Options::default(), Arc::new(SystemClock)).unwrap();
    let store = Arc::new(Keeping { store, prefix: "/registry/example.com/foos/" });
    let server = Fixture::start_on(store).await;
    define(&server, &foos()).await;
    server.create(FOOS, &foo("a", &json!({}))).await;
    server.admin(Method::DELETE, DEFINITION, &Value::Null).await;
    let found = says(&server, "foos.example.com", "Terminating", "InstanceDeletionFailed").await;
    let message = found["message"].as_str().unwrap();
    assert!(message.starts_with("could not issue all deletes: "), "{message}");
    assert_eq!(found["status"], "True");
    assert_eq!(code_of(&server, &format!("{FOOS}/a")).await, StatusCode::OK);
}
