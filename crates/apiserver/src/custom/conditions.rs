//! Says in the status of definitions what has become of them.
//!
//! One task follows the definitions, accepts their names, and writes the conditions that follow from
//! their content. Definitions that go are handed to [`super::cleanup`].
//!
//! Upstream: `apiextensions-apiserver/pkg/controller/{status,establish,apiapproval,nonstructuralschema}`.

use std::sync::Arc;

use authn::UserInfo;
use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request};
use meta::{Object, WatchEvent};
use serde::Deserialize;
use serde_json::{Value, json};

use super::cleanup::{self, Cleaning};
use super::naming::{Taken, accept};
use crate::handle::Handle;

const GROUP: &str = "apiextensions.k8s.io";
const RESOURCE: &str = "customresourcedefinitions";
pub(super) const PATH: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/// Groups of the project need its approval.
const APPROVAL: &str = "api-approved.kubernetes.io";
const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";

/// Runs until the server shuts down.
pub(crate) async fn run(handle: Handle) {
    let user = UserInfo::new("system:apiserver", &[UserInfo::MASTERS, UserInfo::AUTHENTICATED]);
    let cleaning = Cleaning::default();
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
            let (object, is_gone) = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
                WatchEvent::Deleted(object) => (object, true),
                WatchEvent::Bookmark { .. } => continue,
            };
            if is_gone {
                // Its names are free for those that waited for them.
                for other in definitions(&handle).iter().filter(|other| waits(other)) {
                    follow(&handle, &user, other).await;
                }
                continue;
            }
            follow(&handle, &user, &object).await;
            if object.header().deletion_timestamp.is_some() {
                cleanup::begin(&handle, &user, &cleaning, &object);
            }
        }
    }
}

fn definitions(handle: &Handle) -> Vec<Arc<Object>> {
    admission::View::list(&*handle.server, GROUP, RESOURCE, "")
}

/// Whether not all names of a definition are accepted.
fn waits(object: &Object) -> bool {
    custom::Definition::parse(object.json()).is_ok_and(|definition| !definition.is("NamesAccepted"))
}

async fn follow(handle: &Handle, user: &UserInfo, object: &Arc<Object>) {
    let Ok(mut definition) = object.decode::<Value>() else { return };
    let Some(status) = status_of(handle, &definition) else { return };
    definition["status"] = status;
    // A conflict means that a newer version follows in the watch.
    if let Err(code) = put_status(handle, user, &definition).await {
        tracing::debug!(%code, "the status of a definition was not written");
    }
}

/// Writes the status of a definition.
///
/// # Errors
/// The code of the answer.
pub(super) async fn put_status(
    handle: &Handle,
    user: &UserInfo,
    definition: &Value,
) -> Result<(), http::StatusCode> {
    let name = definition["metadata"]["name"].as_str().unwrap_or_default();
    call(handle, user, Method::PUT, &format!("{PATH}/{name}/status"), definition.to_string()).await
}

pub(super) async fn call(
    handle: &Handle,
    user: &UserInfo,
    method: Method,
    path: &str,
    body: String,
) -> Result<(), http::StatusCode> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(Bytes::from(body))
        .map_err(|_| http::StatusCode::BAD_REQUEST)?;
    let code = handle.call(user, request).await.status();
    if code.is_success() { Ok(()) } else { Err(code) }
}

/// The status the definition should have; `None` when it has it.
fn status_of(handle: &Handle, definition: &Value) -> Option<Value> {
    let now = meta::time::rfc3339(handle.server.clock.now());
    let mut taken = Taken::default();
    // Names that are accepted are not looked at again: there may be thousands.
    if definition["spec"]["names"] != definition["status"]["acceptedNames"] {
        let own = definition["metadata"]["name"].as_str().unwrap_or_default();
        for other in definitions(handle).iter().filter(|other| other.header().name != own) {
            if let Ok(other) = other.decode::<Named>()
                && definition["spec"]["group"] == *other.spec.group
            {
                taken.add(&other.status.accepted_names);
            }
        }
    }
    let status = next_status(definition, &taken, &now);
    (status != definition["status"]).then_some(status)
}

/// What a definition says of its names; the rest is not read.
#[derive(Deserialize)]
struct Named {
    spec: NamedSpec,
    #[serde(default)]
    status: NamedStatus,
}

#[derive(Deserialize)]
struct NamedSpec {
    group: String,
}

#[derive(Default, Deserialize)]
struct NamedStatus {
    #[serde(rename = "acceptedNames", default)]
    accepted_names: Value,
}

fn next_status(definition: &Value, taken: &Taken, now: &str) -> Value {
    let mut status = definition["status"].clone();
    let spec = &definition["spec"];
    let (names, conflict) = accept(&spec["names"], &status["acceptedNames"], taken);
    status["acceptedNames"] = names;
    let mut conditions = Conditions::of(&status, now);
    let is_established = conditions.is_true("Established");
    match conflict {
        None => {
            conditions.set("NamesAccepted", "True", "NoConflicts", "no conflicts found");
            if !is_established {
                conditions.set(
                    "Established",
                    "True",
                    "InitialNamesAccepted",
                    "the initial names have been accepted",
                );
            }
        }
        Some((reason, message)) => {
            conditions.set("NamesAccepted", "False", reason, &message);
            if !is_established {
                let message = "not all names are accepted";
                conditions.set("Established", "False", "NotAccepted", message);
            }
        }
    }
    approval(definition, &mut conditions);
    if spec["preserveUnknownFields"] == true {
        let message = "spec.preserveUnknownFields: Invalid value: true: must be false";
        conditions.set("NonStructuralSchema", "True", "Violations", message);
    } else {
        conditions.remove("NonStructuralSchema");
    }
    status["conditions"] = Value::Array(conditions.list);
    status
}

fn approval(definition: &Value, conditions: &mut Conditions<'_>) {
    const CONDITION: &str = "KubernetesAPIApprovalPolicyConformant";
    let group = definition["spec"]["group"].as_str().unwrap_or_default();
    let is_protected = ["k8s.io", "kubernetes.io"].iter().any(|domain| {
        group.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    });
    if !is_protected {
        return conditions.remove(CONDITION);
    }
    let text = definition["metadata"]["annotations"][APPROVAL].as_str().unwrap_or_default();
    let is_url = text.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty() && !rest.is_empty() && !rest.starts_with('/')
    });
    let (value, reason, message) = match text {
        "" => (
            "False",
            "MissingAnnotation",
            format!("protected groups must have approval annotation {APPROVAL:?}, {SEE}"),
        ),
        text if text.starts_with("unapproved") => {
            ("False", "UnapprovedAnnotation", format!("not approved: {text:?}"))
        }
        url if is_url => ("True", "ApprovedAnnotation", format!("approved in {url}")),
        _ => (
            "False",
            "InvalidAnnotation",
            format!(
                "protected groups must have approval annotation {APPROVAL:?} with either a URL or a \
                 reason starting with \"unapproved\", {SEE}"
            ),
        ),
    };
    conditions.set(CONDITION, value, reason, &message);
}

/// The conditions of a definition, being changed.
pub(super) struct Conditions<'a> {
    pub(super) list: Vec<Value>,
    now: &'a str,
}

impl<'a> Conditions<'a> {
    pub(super) fn of(status: &Value, now: &'a str) -> Self {
        Self { list: status["conditions"].as_array().cloned().unwrap_or_default(), now }
    }

    pub(super) fn is_true(&self, kind: &str) -> bool {
        self.list.iter().any(|found| found["type"] == kind && found["status"] == "True")
    }

    /// A time changes only with the status of its condition.
    pub(super) fn set(&mut self, kind: &str, value: &str, reason: &str, message: &str) {
        let found = self.list.iter().position(|found| found["type"] == kind);
        let since = match found.map(|at| &self.list[at]) {
            Some(old) if old["status"] == value => old["lastTransitionTime"].clone(),
            _ => json!(self.now),
        };
        let mut condition = json!({"type": kind, "status": value, "lastTransitionTime": since,
            "reason": reason, "message": message});
        match found {
            Some(at) => {
                // What others say of it stays.
                if let Some(observed) = self.list[at].get("observedGeneration") {
                    condition["observedGeneration"] = observed.clone();
                }
                self.list[at] = condition;
            }
            None => self.list.push(condition),
        }
    }

    fn remove(&mut self, kind: &str) {
        self.list.retain(|found| found["type"] != kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
        status["conditions"].as_array()?.iter().find(|found| found["type"] == kind)
    }

    #[test]
    fn names_that_are_free_are_accepted() {
        let definition = json!({"spec": {"group": "a.b", "names": {"plural": "foos",
            "kind": "Foo"}}, "status": {}});
        let status = next_status(&definition, &Taken::default(), "t");
        assert_eq!(status["acceptedNames"], definition["spec"]["names"]);
        assert_eq!(condition(&status, "Established").unwrap()["reason"], "InitialNamesAccepted");
        let again = json!({"spec": definition["spec"], "status": status});
        assert_eq!(next_status(&again, &Taken::default(), "later"), status);
    }

    #[test]
    fn what_is_established_stays_so() {
        let mut taken = Taken::default();
        taken.add(&json!({"plural": "bars"}));
        let definition = json!({"spec": {"group": "a.b", "names": {"plural": "foos",
            "singular": "bars", "kind": "Foo"}}, "status": {"acceptedNames": {"plural": "foos"},
            "conditions": [{"type": "Established", "status": "True"}]}});
        let status = next_status(&definition, &taken, "t");
        assert_eq!(condition(&status, "NamesAccepted").unwrap()["reason"], "SingularConflict");
        assert_eq!(condition(&status, "Established").unwrap()["status"], "True");
    }

    #[test]
    fn groups_of_the_project_need_its_approval() {
        let check = |annotation: &str, reason: &str, message: &str| {
            let definition = json!({"metadata": {"annotations": {APPROVAL: annotation}},
                "spec": {"group": "x.k8s.io", "names": {"plural": "foos"}}, "status": {}});
            let status = next_status(&definition, &Taken::default(), "t");
            let found = condition(&status, "KubernetesAPIApprovalPolicyConformant").unwrap();
            assert_eq!(found["reason"], reason);
            assert!(found["message"].as_str().unwrap().starts_with(message), "{found}");
        };
        check("", "MissingAnnotation", "protected groups must have approval annotation");
        check("unapproved, x", "UnapprovedAnnotation", "not approved: \"unapproved, x\"");
        check("https://a.b/c", "ApprovedAnnotation", "approved in https://a.b/c");
        check("x", "InvalidAnnotation", "protected groups must have approval annotation");
    }
}
