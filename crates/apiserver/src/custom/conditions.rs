//! Says in the status of definitions what has become of them.
//!
//! One task follows the definitions, accepts their names, and writes the conditions that follow from
//! their content. Definitions that go are handed to [`super::cleanup`].
//!
//! Upstream: `apiextensions-apiserver/pkg/controller/{status,establish,apiapproval,nonstructuralschema}`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use authn::UserInfo;
use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request};
use meta::{Object, WatchEvent};
use serde::Deserialize;
use serde_json::{Value, json};

use super::cleanup::{self, Cleaning};
use super::naming::{ByOthers, Taken, accept};
use crate::handle::Handle;
use crate::tls;

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
        let mut followed = Followed::of(&handle);
        while let Some(Ok(event)) = watch.next().await {
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    follow(&handle, &user, &object, &mut followed).await;
                    if object.header().deletion_timestamp.is_some() {
                        cleanup::begin(&handle, &user, &cleaning, &object);
                    }
                }
                WatchEvent::Deleted(object) => {
                    followed.forget(&object.header().name);
                    // Its names are free for those that waited for them.
                    for name in followed.waiting.clone() {
                        let Some(other) = definition(&handle, &name) else { continue };
                        follow(&handle, &user, &other, &mut followed).await;
                    }
                }
                WatchEvent::Bookmark { .. } => {}
            }
        }
    }
}

/// What is known of the definitions, of which there may be thousands.
#[derive(Default)]
struct Followed {
    taken: Taken,
    /// Those whose names are not all accepted.
    waiting: BTreeSet<String>,
    /// Of which generation each one's schemas have been looked at.
    looked_at: BTreeMap<String, (String, i64)>,
}

impl Followed {
    fn of(handle: &Handle) -> Self {
        let mut followed = Self::default();
        for object in admission::View::list(&*handle.server, GROUP, RESOURCE, "") {
            if let Ok(named) = object.decode::<Named>() {
                let name = &object.header().name;
                followed.taken.put(name, &named.spec.group, &named.status.accepted_names);
            }
        }
        followed
    }

    fn note(&mut self, definition: &Value) {
        let name = definition["metadata"]["name"].as_str().unwrap_or_default();
        let group = definition["spec"]["group"].as_str().unwrap_or_default();
        self.taken.put(name, group, &definition["status"]["acceptedNames"]);
        if Conditions::of(&definition["status"], "").is_true("NamesAccepted") {
            self.waiting.remove(name);
        } else {
            self.waiting.insert(name.to_owned());
        }
    }

    fn forget(&mut self, name: &str) {
        self.taken.remove(name);
        self.waiting.remove(name);
        self.looked_at.remove(name);
    }

    /// Whether the schemas of this generation have been looked at; from now on they have.
    fn has_looked_at(&mut self, object: &Object) -> bool {
        let header = object.header();
        let seen = (header.uid.clone(), header.generation);
        let before = self.looked_at.insert(header.name.clone(), seen.clone());
        before.is_some_and(|before| before == seen)
    }
}

fn definition(handle: &Handle, name: &str) -> Option<Arc<Object>> {
    admission::View::get(&*handle.server, GROUP, RESOURCE, "", name)
}

async fn follow(handle: &Handle, user: &UserInfo, object: &Arc<Object>, followed: &mut Followed) {
    let Ok(mut definition) = object.decode::<Value>() else { return };
    followed.note(&definition);
    let is_known = followed.has_looked_at(object);
    let Some(status) = status_of(handle, &definition, &followed.taken, is_known) else { return };
    definition["status"] = status;
    match put_status(handle, user, &definition).await {
        Ok(()) => followed.note(&definition),
        // A conflict means that a newer version follows in the watch.
        Err(code) => {
            tracing::debug!(%code, "the status of a definition was not written");
            followed.looked_at.remove(&object.header().name);
        }
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
fn status_of(handle: &Handle, definition: &Value, taken: &Taken, is_known: bool) -> Option<Value> {
    let now = meta::time::rfc3339(handle.server.clock.now());
    let own = definition["metadata"]["name"].as_str().unwrap_or_default();
    let group = definition["spec"]["group"].as_str().unwrap_or_default();
    let mut status = next_status(definition, taken.by_others(own, group), &now);
    if !is_known {
        let mut conditions = Conditions::of(&status, &now);
        structure(definition, &mut conditions);
        status["conditions"] = Value::Array(conditions.list);
    }
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

fn next_status(definition: &Value, taken: ByOthers<'_>, now: &str) -> Value {
    let mut status = definition["status"].clone();
    let spec = &definition["spec"];
    let (names, conflict) = accept(&spec["names"], &status["acceptedNames"], taken);
    status["acceptedNames"] = names;
    let mut conditions = Conditions::of(&status, now);
    let is_established = conditions.is_true("Established");
    let had_names = conditions.is_true("NamesAccepted");
    match conflict {
        None => {
            conditions.set("NamesAccepted", "True", "NoConflicts", "no conflicts found");
            if !is_established {
                let (value, reason, message) = establishment(spec, had_names);
                conditions.set("Established", value, reason, message);
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
    status["conditions"] = Value::Array(conditions.list);
    status
}

/// What is said of a definition that was not established, once its names are accepted.
fn establishment(spec: &Value, had_names: bool) -> (&'static str, &'static str, &'static str) {
    let accepted = "the initial names have been accepted";
    // Watchers see the names before what is served under them, as upstream's do.
    if !had_names {
        ("False", "Installing", accepted)
    } else if is_converted_by_nobody(spec) {
        ("False", "InvalidCABundle", "The conversion webhook CABundle is invalid")
    } else {
        ("True", "InitialNamesAccepted", accepted)
    }
}

/// Whether no authority can vouch for the webhook that converts.
fn is_converted_by_nobody(spec: &Value) -> bool {
    let bundle = &spec["conversion"]["webhook"]["clientConfig"]["caBundle"];
    bundle.as_str().is_some_and(|bundle| !tls::is_bundle(bundle))
}

fn structure(definition: &Value, conditions: &mut Conditions<'_>) {
    const CONDITION: &str = "NonStructuralSchema";
    match validation::custom_structure(definition) {
        Ok(found) if found.is_empty() => conditions.remove(CONDITION),
        Ok(found) => {
            let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
            let message = match texts.as_slice() {
                [one] => one.clone(),
                many => format!("[{}]", many.join(", ")),
            };
            conditions.set(CONDITION, "True", "Violations", &message);
        }
        Err(why) => conditions.set(CONDITION, "Unknown", "StructuralError", &why),
    }
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
        let next = |status: Value, now: &str| {
            let definition = json!({"spec": definition["spec"], "status": status});
            next_status(&definition, Taken::default().by_others("", "a.b"), now)
        };
        let status = next(json!({}), "t");
        assert_eq!(status["acceptedNames"], definition["spec"]["names"]);
        let installing = condition(&status, "Established").unwrap();
        assert_eq!(installing["reason"], "Installing");
        assert_eq!(installing["message"], "the initial names have been accepted");
        let status = next(status, "t");
        assert_eq!(condition(&status, "Established").unwrap()["reason"], "InitialNamesAccepted");
        assert_eq!(next(status.clone(), "later"), status);
    }

    #[test]
    fn nothing_is_established_that_no_authority_vouches_for() {
        let check = |bundle: &str, established: &str, reason: &str| {
            let webhook = json!({"clientConfig": {"caBundle": bundle}});
            let definition = json!({"spec": {"group": "a.b", "names": {"plural": "foos"},
                "conversion": {"strategy": "Webhook", "webhook": webhook}}, "status":
                {"conditions": [{"type": "NamesAccepted", "status": "True"}]}});
            let status = next_status(&definition, Taken::default().by_others("", "a.b"), "t");
            let found = condition(&status, "Established").unwrap();
            assert_eq!((&found["status"], &found["reason"]), (&json!(established), &json!(reason)));
        };
        check("", "True", "InitialNamesAccepted");
        check("bm8gUEVN", "False", "InvalidCABundle");
    }

    #[test]
    fn schemas_of_old_clusters_are_told_of() {
        let check = |schema: Value, value: &str, reason: &str| {
            let versions = json!([{"name": "v1", "schema": {"openAPIV3Schema": schema}}]);
            let definition = json!({"spec": {"group": "a.b", "versions": versions}});
            let mut conditions = Conditions::of(&Value::Null, "t");
            structure(&definition, &mut conditions);
            let found = &conditions.list[0];
            assert_eq!((&found["status"], &found["reason"]), (&json!(value), &json!(reason)));
        };
        check(json!({"properties": {"a": {}}}), "True", "Violations");
        check(json!({"$ref": "#/definitions/a"}), "Unknown", "StructuralError");
        let mut conditions = Conditions::of(&Value::Null, "t");
        structure(&json!({"spec": {"preserveUnknownFields": true}}), &mut conditions);
        let message = "spec.preserveUnknownFields: Invalid value: true: must be false";
        assert_eq!(conditions.list[0]["message"], message);
        structure(&json!({"spec": {}}), &mut conditions);
        assert!(conditions.list.is_empty());
    }

    #[test]
    fn what_is_established_stays_so() {
        let mut taken = Taken::default();
        taken.put("bars.a.b", "a.b", &json!({"plural": "bars"}));
        let definition = json!({"spec": {"group": "a.b", "names": {"plural": "foos",
            "singular": "bars", "kind": "Foo"}}, "status": {"acceptedNames": {"plural": "foos"},
            "conditions": [{"type": "Established", "status": "True"}]}});
        let status = next_status(&definition, taken.by_others("foos.a.b", "a.b"), "t");
        assert_eq!(condition(&status, "NamesAccepted").unwrap()["reason"], "SingularConflict");
        assert_eq!(condition(&status, "Established").unwrap()["status"], "True");
    }

    #[test]
    fn groups_of_the_project_need_its_approval() {
        let check = |annotation: &str, reason: &str, message: &str| {
            let definition = json!({"metadata": {"annotations": {APPROVAL: annotation}},
                "spec": {"group": "x.k8s.io", "names": {"plural": "foos"}}, "status": {}});
            let status = next_status(&definition, Taken::default().by_others("", "a.b"), "t");
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
