//! Accepts the names of custom resource definitions and says so in their status.
//!
//! One task follows the definitions. A name that another definition of the group has accepted is
//! refused with upstream's condition. Serving the custom resources themselves is not built yet.

use std::sync::Arc;

use authn::UserInfo;
use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request};
use meta::{Object, WatchEvent};
use serde_json::{Value, json};

use crate::handle::Handle;

const GROUP: &str = "apiextensions.k8s.io";
const RESOURCE: &str = "customresourcedefinitions";
const PATH: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Runs until the server shuts down.
pub(crate) async fn run(handle: Handle) {
    let user = UserInfo::new("system:apiserver", &[UserInfo::MASTERS, UserInfo::AUTHENTICATED]);
    while !handle.server.shutdown.is_begun() {
        let watch = handle.watch(&user, &format!("{PATH}?watch=true")).await;
        let mut watch = match watch {
            Ok(watch) => watch,
            Err(status) => {
                tracing::warn!(%status, "definitions of custom resources cannot be watched");
                return;
            }
        };
        while let Some(Ok(event)) = watch.next().await {
            if let WatchEvent::Added(object) | WatchEvent::Modified(object) = event {
                name(&handle, &user, &object).await;
            }
        }
    }
}

async fn name(handle: &Handle, user: &UserInfo, object: &Arc<Object>) {
    let Ok(mut definition) = object.decode::<Value>() else { return };
    let Some(status) = status_of(handle, &definition) else { return };
    definition["status"] = status;
    let path = format!("{PATH}/{}/status", object.header().name);
    let request = Request::builder()
        .method(Method::PUT)
        .uri(path)
        .header("content-type", "application/json")
        .body(Bytes::from(definition.to_string()));
    let Ok(request) = request else { return };
    let response = handle.call(user, request).await;
    // A conflict means that a newer version follows in the watch.
    if !response.status().is_success() {
        tracing::debug!(code = %response.status(), "a definition was not named");
    }
}

/// The status the definition should have; `None` when it has it.
fn status_of(handle: &Handle, definition: &Value) -> Option<Value> {
    let wanted = definition.pointer("/spec/names")?;
    let mut status = definition["status"].clone();
    let is_named = status["acceptedNames"] == *wanted && has_condition(&status, "Established");
    if is_named {
        return None;
    }
    let now = meta::time::rfc3339(handle.server.clock.now());
    let condition = |kind: &str, value: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": value, "lastTransitionTime": now, "reason": reason,
            "message": message})
    };
    let conditions = match taken_name(handle, definition) {
        None => {
            status["acceptedNames"] = wanted.clone();
            [
                condition("NamesAccepted", "True", "NoConflicts", "no conflicts found"),
                condition(
                    "Established",
                    "True",
                    "InitialNamesAccepted",
                    "the initial names have been accepted",
                ),
            ]
        }
        Some((reason, message)) => [
            condition("NamesAccepted", "False", reason, &message),
            condition("Established", "False", "NotAccepted", "not all names are accepted"),
        ],
    };
    let same_reasons = |list: &Value| {
        conditions.iter().all(|wanted| {
            list.as_array().is_some_and(|found| {
                found.iter().any(|c| c["type"] == wanted["type"] && c["reason"] == wanted["reason"])
            })
        })
    };
    if same_reasons(&status["conditions"]) && status == definition["status"] {
        return None;
    }
    let mut kept = status["conditions"].as_array().cloned().unwrap_or_default();
    kept.retain(|found| !conditions.iter().any(|wanted| wanted["type"] == found["type"]));
    kept.extend(conditions);
    status["conditions"] = Value::Array(kept);
    Some(status)
}

fn has_condition(status: &Value, kind: &str) -> bool {
    let list = status["conditions"].as_array();
    list.is_some_and(|list| list.iter().any(|c| c["type"] == kind && c["status"] == "True"))
}

/// A name of the definition that another one of its group has: upstream's reason and message.
fn taken_name(handle: &Handle, definition: &Value) -> Option<(&'static str, String)> {
    let own = definition["metadata"]["name"].as_str().unwrap_or_default();
    let others = admission::View::list(&*handle.server, GROUP, RESOURCE, "");
    let accepted: Vec<Value> = others
        .iter()
        .filter(|other| other.header().name != own)
        .filter_map(|other| other.decode::<Value>().ok())
        .filter(|other| other["spec"]["group"] == definition["spec"]["group"])
        .map(|other| other["status"]["acceptedNames"].clone())
        .collect();
    let names = definition.pointer("/spec/names")?;
    for (field, reason) in [
        ("plural", "PluralConflict"),
        ("singular", "SingularConflict"),
        ("kind", "KindConflict"),
        ("listKind", "ListKindConflict"),
    ] {
        let wanted = &names[field];
        if !wanted.is_null() && accepted.iter().any(|names| names[field] == *wanted) {
            return Some((reason, format!("{wanted} is already in use")));
        }
    }
    None
}
