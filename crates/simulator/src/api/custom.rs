//! A kind that no table knows, as a definition would have it: what is in it is nobody's business.

use meta::{GroupVersionKind, Reason, Status};
use serde_json::{Value, json};

use super::{Target, failure};

const GROUP: &str = "example.com";
const RESOURCE: &str = "widgets";

/// Its kind, if the target is one.
pub(super) fn gvk(target: &Target) -> Option<GroupVersionKind> {
    let is_it = target.group == GROUP && target.version == "v1" && target.resource == RESOURCE;
    is_it.then(|| GroupVersionKind::new(GROUP, "v1", "Widget"))
}

/// It as it is stored.
pub(super) fn canonical(value: &Value) -> Value {
    let mut value = value.clone();
    value["apiVersion"] = format!("{GROUP}/v1").into();
    value["kind"] = "Widget".into();
    value
}

/// Custom resources cannot be patched by the shape of their kind.
pub(super) fn no_strategic_patch() -> Box<Status> {
    let text = "the body of the request was in an unknown format";
    failure(Reason::UnsupportedMediaType, text)
}

/// The group, in the list of groups.
pub(super) fn group() -> Value {
    let version = json!({ "groupVersion": format!("{GROUP}/v1"), "version": "v1" });
    json!({ "name": GROUP, "versions": [version], "preferredVersion": version })
}

/// What is in the group.
pub(super) fn resources(target: &Target) -> Option<Value> {
    let verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    (target.group == GROUP && target.version == "v1").then(|| {
        json!({ "groupVersion": format!("{GROUP}/v1"), "resources": [
            { "name": RESOURCE, "kind": "Widget", "singularName": "widget", "namespaced": true,
                "verbs": verbs }] })
    })
}
