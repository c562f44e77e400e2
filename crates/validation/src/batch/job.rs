//! Jobs: what they are made with, and what may change.

use meta::names;
use serde_json::{Value, json};

use super::{pod_failure_policy, success_policy};
use crate::FieldError;
use crate::metadata::label_selector;
use crate::node::{Findings, Node};
use crate::workload::{matches_template, pod_template};

/// Most pods of an indexed job at once, and most indexes that may fail.
const MAX_PARALLELISM: i64 = 100_000;
/// From this many completions on, limits per index are smaller.
const MANY_COMPLETIONS: i64 = 100_000;
const MAX_WITH_MANY: i64 = 10_000;
const MAX_MANAGER: usize = 63;

pub(crate) fn create(object: &Node<'_>, out: &mut Findings) {
    generated_selector(object, out);
    spec_with_selector(object, out);
    let (name, spec) = (object.get("metadata").get("name"), object.get("spec"));
    let last = spec.get("completions").int() - 1;
    if spec.get("completionMode").text() == "Indexed" && last >= 0 {
        let host = format!("{}-{last}", name.text());
        if !names::dns1123_label(&host).is_empty() {
            let detail = format!("will not able to create pod with invalid DNS label: {host}");
            out.push(name.invalid_text(detail));
        }
    }
}

/// A changed job. Upstream checks the whole of it, and then again before what may not change.
pub(crate) fn update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    create(new, out);
    spec_with_selector(new, out);
    let (spec, before) = (new.get("spec"), old.get("spec"));
    let indexed = spec.get("completionMode").text() == "Indexed";
    let (completions, had) = (spec.get("completions"), before.get("completions"));
    if indexed && completions.is_set() && had.is_set() && completions.value != had.value {
        if completions.value != spec.get("parallelism").value {
            let detail = "can only be modified in tandem with spec.parallelism";
            out.push(completions.invalid(detail));
        }
    } else {
        completions.immutable(&had, out);
    }
    spec.get("selector").immutable(&before.get("selector"), out);
    template_is_kept(new, old, out);
    spec.get("completionMode").immutable(&before.get("completionMode"), out);
    for (field, ty) in [
        ("podFailurePolicy", "batch/v1.PodFailurePolicy"),
        ("backoffLimitPerIndex", ""),
        ("managedBy", ""),
        ("successPolicy", "batch/v1.SuccessPolicy"),
    ] {
        spec.get(field).immutable_as(ty, &before.get(field), out);
    }
}

/// A job that has not started may be placed elsewhere; a suspended one may want other resources.
fn template_is_kept(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    const PLACEMENT: [&str; 4] = ["nodeSelector", "affinity", "tolerations", "schedulingGates"];
    let (template, before) = (new.get("spec").get("template"), old.get("spec").get("template"));
    if template.value == before.value {
        return;
    }
    let is_suspended = old.get("spec").get("suspend").is_true();
    let has_started = old.get("status").get("startTime").is_set();
    let mut allowed = before.value.clone();
    if is_suspended && !has_started {
        take(&mut allowed["metadata"], &template.value["metadata"], "labels");
        take(&mut allowed["metadata"], &template.value["metadata"], "annotations");
        for field in PLACEMENT {
            if field == "affinity" {
                let node = template.value["spec"]["affinity"].get("nodeAffinity");
                set_node_affinity(&mut allowed["spec"], node);
            } else {
                take(&mut allowed["spec"], &template.value["spec"], field);
            }
        }
    }
    if is_suspended {
        for list in ["containers", "initContainers"] {
            if let Some(containers) = allowed["spec"].get_mut(list) {
                take_resources(containers, &template.value["spec"][list]);
            }
        }
    }
    let spec = template.get("spec");
    if spec.value != allowed.get("spec").unwrap_or(&Value::Null) {
        out.push(spec.invalid("field is immutable").shown_as("core/v1.PodSpec"));
    }
    let metadata = template.get("metadata");
    let kept = allowed.get("metadata").filter(|kept| **kept != json!({}));
    if metadata.is_set() && kept != Some(metadata.value) || !metadata.is_set() && kept.is_some() {
        out.push(metadata.invalid("field is immutable").shown_as("meta/v1.ObjectMeta"));
    }
}

fn take(into: &mut Value, from: &Value, field: &str) {
    if into.is_null() {
        *into = json!({});
    }
    let Some(map) = into.as_object_mut() else { return };
    match from.get(field) {
        Some(value) => map.insert(field.to_owned(), value.clone()),
        None => map.remove(field),
    };
}

/// Of the affinity only that to nodes.
fn set_node_affinity(spec: &mut Value, node: Option<&Value>) {
    match node {
        Some(node) => spec["affinity"]["nodeAffinity"] = node.clone(),
        None => {
            let Some(affinity) = spec.get_mut("affinity").and_then(Value::as_object_mut) else {
                return;
            };
            affinity.remove("nodeAffinity");
            if affinity.is_empty()
                && let Some(map) = spec.as_object_mut()
            {
                map.remove("affinity");
            }
        }
    }
}

fn take_resources(containers: &mut Value, from: &Value) {
    let from = from.as_array().map(Vec::as_slice).unwrap_or_default();
    for (container, from) in containers.as_array_mut().into_iter().flatten().zip(from) {
        if container["name"] == from["name"] {
            take(container, from, "resources");
        }
    }
}

/// Unless the user chooses it, the selector is the one that was generated.
fn generated_selector(object: &Node<'_>, out: &mut Findings) {
    let (metadata, spec) = (object.get("metadata"), object.get("spec"));
    let selector = spec.get("selector");
    if spec.get("manualSelector").is_true() || !selector.is_set() {
        return;
    }
    let (uid, name) = (metadata.get("uid"), metadata.get("name"));
    if uid.text().is_empty() {
        out.push(FieldError::required(&uid.path, ""));
    }
    let labels = spec.get("template").get("metadata").get("labels");
    let expected = json!({"batch.kubernetes.io/controller-uid": uid.text(),
        "batch.kubernetes.io/job-name": name.text(), "controller-uid": uid.text(),
        "job-name": name.text()});
    for key in ["controller-uid", "job-name"] {
        has_label(&labels, key, &expected[key], out);
        let qualified = format!("batch.kubernetes.io/{key}");
        has_label(&labels, &qualified, &expected[key], out);
    }
    let generated = json!({"matchLabels":
        {"batch.kubernetes.io/controller-uid": &expected["controller-uid"]}});
    if *selector.value != generated {
        out.push(
            selector.invalid("`selector` not auto-generated").shown_as("meta/v1.LabelSelector"),
        );
    }
}

fn has_label(labels: &Node<'_>, key: &str, expected: &Value, out: &mut Findings) {
    let path = labels.path.key(key);
    let detail = format!("must be '{}'", expected.as_str().unwrap_or_default());
    match labels.value.get(key) {
        None => out.push(FieldError::required(&path, detail)),
        Some(found) if found != expected => {
            out.push(FieldError::invalid(&path, labels.value.clone(), detail));
        }
        Some(_) => {}
    }
}

fn spec_with_selector(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    validate_spec(&spec, out);
    let selector = spec.get("selector");
    if selector.is_set() {
        label_selector(&selector, out);
        matches_template(&selector, &spec.get("template"), out);
    } else {
        out.push(FieldError::required(&selector.path, ""));
        let labels = spec.get("template").get("metadata").get("labels");
        out.push(labels.invalid("`selector` does not match template `labels`"));
    }
}

/// The spec of a job without its selector, also in templates.
pub(crate) fn validate_spec(spec: &Node<'_>, out: &mut Findings) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        spec.get(field).non_negative(out);
    }
    let per_index = spec.get("backoffLimitPerIndex");
    if spec.get("maxFailedIndexes").is_set() && !per_index.is_set() {
        out.push(FieldError::required(&per_index.path, "when maxFailedIndexes is specified"));
    }
    managed_by(&spec.get("managedBy"), out);
    completion_mode(spec, out);
    let template = spec.get("template");
    let policy = spec.get("podFailurePolicy");
    if policy.is_set() {
        pod_failure_policy::validate(&policy, spec, out);
    }
    if spec.get("successPolicy").is_set() && spec.get("completionMode").text() == "Indexed" {
        success_policy::validate(&spec.get("successPolicy"), spec.get("completions").int(), out);
    }
    let replacement: &[&str] =
        if policy.is_set() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    spec.get("podReplacementPolicy").one_of(replacement, out);
    pod_template(&template, out);
    restart_policy(&template.get("spec").get("restartPolicy"), policy.is_set(), out);
}

fn managed_by(manager: &Node<'_>, out: &mut Findings) {
    if manager.is_set() {
        crate::metadata::domain_prefixed_path(manager, out);
        manager.no_longer_than(MAX_MANAGER, out);
    }
}

fn completion_mode(spec: &Node<'_>, out: &mut Findings) {
    let mode = spec.get("completionMode");
    mode.one_of(&["Indexed", "NonIndexed"], out);
    if mode.text() != "Indexed" {
        for (field, ty) in [
            ("backoffLimitPerIndex", ""),
            ("maxFailedIndexes", ""),
            ("successPolicy", "batch/v1.SuccessPolicy"),
        ] {
            let value = spec.get(field);
            if value.is_set() {
                out.push(value.invalid("requires indexed completion mode").shown_as(ty));
            }
        }
        return;
    }
    let (completions, parallelism) = (spec.get("completions"), spec.get("parallelism"));
    let failed = spec.get("maxFailedIndexes");
    if !completions.is_set() {
        out.push(FieldError::required(&completions.path, "when completion mode is Indexed"));
    }
    if parallelism.int() > MAX_PARALLELISM {
        let detail = format!(
            "must be less than or equal to {MAX_PARALLELISM} when completion mode is Indexed"
        );
        out.push(parallelism.invalid(detail));
    }
    if completions.is_set() && failed.is_set() && failed.int() > completions.int() {
        out.push(failed.invalid("must be less than or equal to completions"));
    }
    if failed.int() > MAX_PARALLELISM {
        out.push(failed.invalid(format!("must be less than or equal to {MAX_PARALLELISM}")));
    }
    if completions.int() <= MANY_COMPLETIONS || !spec.get("backoffLimitPerIndex").is_set() {
        return;
    }
    if !failed.is_set() {
        let detail = format!("must be specified when completions is above {MANY_COMPLETIONS}");
        out.push(FieldError::required(&failed.path, detail));
    }
    for limit in [parallelism, failed] {
        if limit.int() > MAX_WITH_MANY {
            out.push(limit.invalid(format!(
                "must be less than or equal to {MAX_WITH_MANY} when completions are above \
                 {MANY_COMPLETIONS} and used with backoff limit per index"
            )));
        }
    }
}

fn restart_policy(policy: &Node<'_>, has_failure_policy: bool, out: &mut Findings) {
    match policy.text() {
        "Always" | "" => {
            out.push(FieldError::required(&policy.path, "valid values: \"OnFailure\", \"Never\""));
        }
        "OnFailure" if has_failure_policy => {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            out.push(policy.invalid(detail));
        }
        "OnFailure" | "Never" => {}
        other => {
            out.push(FieldError::not_supported(&policy.path, other, &["OnFailure", "Never"]));
        }
    }
}
