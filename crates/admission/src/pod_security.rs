//! PodSecurity: what pods of a namespace may do, by the level in its labels.
//!
//! Upstream: `pod-security-admission`. A namespace has a level and a version of the rules for each
//! of three modes: what is refused, what is warned of, and what is recorded in the audit log.

mod baseline;
mod checks;
mod policy;
mod restricted;

use std::collections::BTreeMap;

use meta::{Cause, Reason, Status, StatusDetails};
use serde_json::{Map, Value};

use crate::chain::Plugin;
use crate::refusal::forbidden;
use crate::request::{Operation, Request, View};

use checks::{Violation, violations};
use policy::{Level, Policy};

/// Most pods of a namespace that are looked at when its level changes.
const MAX_PODS: usize = 3000;

pub(crate) struct PodSecurity;

impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn validate(
        &self,
        request: &Request<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
        view: &dyn View,
    ) -> Result<(), Status> {
        let Some(object) = object else { return Ok(()) };
        if request.is_for("", "namespaces") {
            return namespace_labels(request, object, old);
        }
        if !writes_pod(request) || is_insignificant(object, old) {
            return Ok(());
        }
        let standard = policy_of(request, view).enforce;
        let found = violations(standard, &object["spec"], annotations(object));
        if found.is_empty() {
            return Ok(());
        }
        let why = format!("violates PodSecurity {:?}: {}", standard.to_string(), details(&found));
        Err(forbidden(request, &why))
    }

    fn warnings(
        &self,
        request: &Request<'_>,
        object: &Value,
        old: Option<&Value>,
        view: &dyn View,
    ) -> Vec<String> {
        if request.is_for("", "namespaces") {
            return match old {
                Some(old) => existing_pods(request, object, old, view),
                None => Vec::new(),
            };
        }
        let (spec, notes) = if writes_pod(request) {
            if is_insignificant(object, old) {
                return Vec::new();
            }
            (&object["spec"], annotations(object))
        } else {
            let template = template(request, object);
            (&template["spec"], annotations(template))
        };
        if !spec.is_object() {
            return Vec::new();
        }
        let standard = policy_of(request, view).warn;
        let found = violations(standard, spec, notes);
        if found.is_empty() {
            return Vec::new();
        }
        let standard = standard.to_string();
        vec![format!("would violate PodSecurity {standard:?}: {}", details(&found))]
    }

    fn audit_annotations(
        &self,
        request: &Request<'_>,
        object: &Value,
        old: Option<&Value>,
        view: &dyn View,
    ) -> Vec<(&'static str, String)> {
        let is_pod = writes_pod(request);
        if request.is_for("", "namespaces") || (is_pod && is_insignificant(object, old)) {
            return Vec::new();
        }
        let pod = if is_pod { object } else { template(request, object) };
        if !pod["spec"].is_object() {
            return Vec::new();
        }
        let (policy, wrong) = labelled_policy(request, view);
        let mut notes = Vec::new();
        if !wrong.is_empty() {
            notes.push((ERROR, format!("Failed to parse policy: {}", told(&wrong))));
        }
        if is_pod {
            notes.push((ENFORCED, policy.enforce.to_string()));
        }
        let found = violations(policy.audit, &pod["spec"], annotations(pod));
        if !found.is_empty() {
            let standard = policy.audit.to_string();
            let text = format!("would violate PodSecurity {standard:?}: {}", details(&found));
            notes.push((VIOLATIONS, text));
        }
        notes
    }
}

/// Upstream's audit annotations.
const ENFORCED: &str = "pod-security.kubernetes.io/enforce-policy";
const VIOLATIONS: &str = "pod-security.kubernetes.io/audit-violations";
const ERROR: &str = "pod-security.kubernetes.io/error";

fn writes_pod(request: &Request<'_>) -> bool {
    let resource = request.resource;
    resource.group.is_empty()
        && resource.resource == "pods"
        && matches!(request.subresource, "" | "ephemeralcontainers")
        && matches!(request.operation, Operation::Create | Operation::Update)
}

/// Where the kinds that make pods keep their template.
fn template<'a>(request: &Request<'_>, object: &'a Value) -> &'a Value {
    static NONE: Value = Value::Null;
    if !request.subresource.is_empty() {
        return &NONE;
    }
    let resource = request.resource;
    match (resource.group.as_str(), resource.resource.as_str()) {
        ("", "podtemplates") => &object["template"],
        ("", "replicationcontrollers")
        | ("apps", "daemonsets" | "deployments" | "replicasets" | "statefulsets")
        | ("batch", "jobs") => &object["spec"]["template"],
        ("batch", "cronjobs") => &object["spec"]["jobTemplate"]["spec"]["template"],
        _ => &NONE,
    }
}

/// Changes that no rule is about: the images of containers are the only part of a pod's spec with
/// a say in it that may change, and ephemeral containers may come.
fn is_insignificant(object: &Value, old: Option<&Value>) -> bool {
    let Some(old) = old else { return false };
    let part = |object: &Value, list: &str| -> Vec<(Value, Value)> {
        let containers = object["spec"][list].as_array().into_iter().flatten();
        containers
            .map(|container| (container["name"].clone(), container["image"].clone()))
            .collect()
    };
    let notes = |object: &Value| -> BTreeMap<String, Value> {
        let notes = annotations(object).into_iter().flatten();
        notes
            .filter(|(key, _)| key.starts_with(checks::APP_ARMOR))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    notes(object) == notes(old)
        && ["containers", "initContainers", "ephemeralContainers"]
            .iter()
            .all(|list| part(object, list) == part(old, list))
}

fn annotations(object: &Value) -> Option<&Map<String, Value>> {
    object["metadata"]["annotations"].as_object()
}

fn policy_of(request: &Request<'_>, view: &dyn View) -> Policy {
    labelled_policy(request, view).0
}

/// The policy of the namespace, and what is wrong with its labels.
fn labelled_policy(request: &Request<'_>, view: &dyn View) -> (Policy, Vec<Cause>) {
    let namespace = view.get("", "namespaces", "", request.namespace);
    let has_policy = |namespace: &meta::Object| {
        // Nearly every namespace has none, and this is asked for every pod.
        let header = namespace.header();
        let is_about_pods = |key: &str| key.starts_with("pod-security.kubernetes.io/");
        header.labels.iter().any(|(key, _)| is_about_pods(key))
    };
    match namespace {
        Some(namespace) if has_policy(&namespace) => {
            Policy::of_labels(&|key| namespace.header().label(key))
        }
        _ => (Policy::default(), Vec::new()),
    }
}

/// All reasons with what they are about.
fn details(found: &[Violation]) -> String {
    let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

/// Labels that say nothing are refused, unless they have been there before.
fn namespace_labels(
    request: &Request<'_>,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    let (_, wrong) = Policy::of(object);
    let had = old.is_some_and(|old| !Policy::of(old).1.is_empty());
    if wrong.is_empty() || had {
        return Ok(());
    }
    Err(invalid(request.name, &told(&wrong), wrong))
}

/// Findings in one text.
fn told(findings: &[Cause]) -> String {
    let texts: Vec<String> =
        findings.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
    if texts.len() == 1 { texts.concat() } else { format!("[{}]", texts.join(", ")) }
}

fn invalid(name: &str, findings: &str, causes: Vec<Cause>) -> Status {
    let message = format!("Namespace {name:?} is invalid: {findings}");
    let details = StatusDetails {
        name: name.to_owned(),
        kind: "Namespace".to_owned(),
        causes,
        ..StatusDetails::default()
    };
    Status::failure(Reason::Invalid, message).with_details(details)
}

/// What the pods that are there would be refused for, if they were made now.
fn existing_pods(
    request: &Request<'_>,
    object: &Value,
    old: &Value,
    view: &dyn View,
) -> Vec<String> {
    let ((new, wrong), (before, _)) = (Policy::of(object), Policy::of(old));
    let standard = new.enforce;
    let is_weaker = standard.level <= before.enforce.level
        && (standard.level < before.enforce.level || standard.version == before.enforce.version);
    if !wrong.is_empty() || standard.level == Level::Privileged || is_weaker {
        return Vec::new();
    }
    let mut by_reason: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pod in view.list("", "pods", request.name).iter().take(MAX_PODS) {
        let Ok(value) = pod.decode::<Value>() else { continue };
        let found = violations(standard, &value["spec"], annotations(&value));
        if !found.is_empty() {
            let reasons: Vec<&str> = found.iter().map(|violation| &*violation.reason).collect();
            by_reason.entry(reasons.join(", ")).or_default().push(pod.header().name.clone());
        }
    }
    if by_reason.is_empty() {
        return Vec::new();
    }
    let mut lines: Vec<String> = by_reason
        .into_iter()
        .map(|(reasons, mut pods)| {
            pods.sort();
            match pods.len() {
                1 => format!("{}: {reasons}", pods[0]),
                2 => format!("{} (and 1 other pod): {reasons}", pods[0]),
                count => format!("{} (and {} other pods): {reasons}", pods[0], count - 1),
            }
        })
        .collect();
    lines.sort();
    let head = format!(
        "existing pods in namespace {:?} violate the new PodSecurity enforce level {:?}",
        request.name,
        standard.to_string()
    );
    lines.insert(0, head);
    lines
}

#[cfg(test)]
mod tests;
