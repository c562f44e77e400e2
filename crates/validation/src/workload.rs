//! Deployments, replica sets, stateful sets, daemon sets and replication controllers.

use serde_json::Value;

use crate::FieldError;
use crate::claim::claim_spec;
use crate::metadata::{annotations, label_selector, labels, selects};
use crate::node::{Findings, Node};
use crate::pod::{self, Place};

pub(crate) fn deployment(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    spec.get("replicas").non_negative(out);
    let selector = spec.get("selector");
    selector_is_useful(&selector, "empty selector is invalid for deployment", out);
    template_of(&spec, "ReplicaSet", out);
    strategy(&spec, out);
    for field in ["minReadySeconds", "revisionHistoryLimit"] {
        spec.get(field).non_negative(out);
    }
    let deadline = spec.get("progressDeadlineSeconds");
    if deadline.is_set() {
        deadline.non_negative(out);
        if deadline.int() <= spec.get("minReadySeconds").int() {
            out.push(deadline.invalid("must be greater than minReadySeconds"));
        }
    }
}

pub(crate) fn deployment_status(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    let status = new.get("status");
    counts(
        &status,
        &[
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
        ],
        &["updatedReplicas", "readyReplicas", "availableReplicas"],
        "readyReplicas",
        out,
    );
    collisions(&status, &old.get("status"), out);
}

pub(crate) fn replica_set_status(new: &Node<'_>, out: &mut Findings) {
    counts(
        &new.get("status"),
        &[
            "replicas",
            "fullyLabeledReplicas",
            "readyReplicas",
            "availableReplicas",
            "observedGeneration",
        ],
        &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
        "readyReplicas",
        out,
    );
}

pub(crate) fn stateful_set_status(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    let status = new.get("status");
    counts(
        &status,
        &[
            "replicas",
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
            "observedGeneration",
        ],
        &["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"],
        "status.readyReplicas",
        out,
    );
    collisions(&status, &old.get("status"), out);
}

pub(crate) fn daemon_set_status(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    let status = new.get("status");
    for field in [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
    ] {
        status.get(field).non_negative(out);
    }
    collisions(&status, &old.get("status"), out);
}

/// Counts that are not negative, those of them that are part of all replicas, and what the
/// available ones are part of.
fn counts(
    status: &Node<'_>,
    all: &[&'static str],
    parts: &[&'static str],
    ready: &str,
    out: &mut Findings,
) {
    for field in all {
        status.get(field).non_negative(out);
    }
    let number = |field: &'static str| status.get(field).int();
    for field in parts.iter().filter(|field| number(field) > number("replicas")) {
        out.push(status.get(field).invalid_int("cannot be greater than status.replicas"));
    }
    if number("availableReplicas") > number("readyReplicas") {
        let detail = format!("cannot be greater than {ready}");
        out.push(status.get("availableReplicas").invalid_int(detail));
    }
}

fn collisions(status: &Node<'_>, before: &Node<'_>, out: &mut Findings) {
    let (count, had) = (status.get("collisionCount"), before.get("collisionCount"));
    if !had.is_set() {
        return;
    }
    if count.int() < had.int() {
        out.push(count.invalid_int("cannot be decremented"));
    }
}

pub(crate) fn replica_set(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    spec.get("replicas").non_negative(out);
    spec.get("minReadySeconds").non_negative(out);
    let selector = spec.get("selector");
    selector_is_useful(&selector, "empty selector is invalid for deployment", out);
    template_of(&spec, "ReplicaSet", out);
}

pub(crate) fn replication_controller(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    spec.get("minReadySeconds").non_negative(out);
    let selector = spec.get("selector");
    if selector.len() == 0 {
        out.push(FieldError::required(&selector.path, ""));
    }
    spec.get("replicas").non_negative(out);
    let template = spec.get("template");
    if !template.is_set() {
        out.push(FieldError::required(&template.path, ""));
        return;
    }
    let template_labels = template.get("metadata").get("labels");
    let chosen =
        selector.entries().all(|(key, value)| template_labels.value.get(key) == Some(value.value));
    if selector.len() > 0 && !chosen {
        let detail = "`selector` does not match template `labels`";
        out.push(template_labels.invalid(detail));
    }
    pod_template(&template, out);
    always_restarts(&template, "ReplicationController", out);
}

pub(crate) fn new_stateful_set(object: &Node<'_>, out: &mut Findings) {
    stateful_set(object, out);
    let spec = object.get("spec");
    let service = spec.get("serviceName");
    if !service.text().is_empty() {
        service.label(out);
    }
    for claim in spec.get("volumeClaimTemplates").items() {
        claim_spec(&claim.get("spec"), out);
    }
}

pub(crate) fn stateful_set(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    let policy = spec.get("podManagementPolicy");
    match policy.text() {
        "" => out.push(FieldError::required(&policy.path, "")),
        "OrderedReady" | "Parallel" => {}
        _ => out.push(policy.invalid("must be 'OrderedReady' or 'Parallel'")),
    }
    let update = spec.get("updateStrategy");
    let rolling = update.get("rollingUpdate");
    match update.get("type").text() {
        "" => out.push(FieldError::required(&update.path, "")),
        "OnDelete" if rolling.is_set() => {
            out.push(rolling.invalid("only allowed for updateStrategy 'RollingUpdate'"));
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            rolling.get("partition").non_negative(out);
            let unavailable = rolling.get("maxUnavailable");
            if unavailable.is_set() {
                int_or_percent(&unavailable, out);
                if is_zero(&unavailable) {
                    out.push(unavailable.invalid("cannot be 0"));
                }
                at_most_all(&unavailable, out);
            }
        }
        _ => {
            let finding = update.invalid("must be 'RollingUpdate' or 'OnDelete'");
            out.push(finding.shown_as("apps/v1.StatefulSetUpdateStrategy"));
        }
    }
    let retention = spec.get("persistentVolumeClaimRetentionPolicy");
    for field in ["whenDeleted", "whenScaled"] {
        retention.get(field).one_of(&["Retain", "Delete"], out);
    }
    spec.get("replicas").non_negative(out);
    spec.get("minReadySeconds").non_negative(out);
    spec.get("ordinals").get("start").non_negative(out);
    let selector = spec.get("selector");
    selector_is_useful(&selector, "empty selector is invalid for statefulset", out);
    let template = spec.get("template");
    let claims = spec.get("volumeClaimTemplates");
    if selects(&selector, &Value::Null).is_none() {
        out.push(selector.invalid(""));
        return;
    }
    matches_template(&selector, &template, out);
    // Upstream looks at these here and again with the rest of the template.
    template_metadata(&template, out);
    pod_template(&with_claims(&template, &claims, &mut None), out);
    always_restarts(&template, "StatefulSet", out);
}

pub(crate) fn stateful_set_update(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    const MUTABLE: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let fixed = |spec: &Node<'_>| {
        let mut spec = spec.value.clone();
        if let Some(map) = spec.as_object_mut() {
            map.retain(|key, _| !MUTABLE.contains(&key.as_str()));
        }
        spec
    };
    if fixed(&new.get("spec")) != fixed(&old.get("spec")) {
        out.push(new.get("spec").forbidden(
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', \
             'template', 'updateStrategy', 'revisionHistoryLimit', \
             'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        ));
    }
}

pub(crate) fn daemon_set(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    let selector = spec.get("selector");
    label_selector(&selector, out);
    let template = spec.get("template");
    matches_template(&selector, &template, out);
    if selector.is_set() && is_empty_selector(&selector) {
        out.push(selector.invalid("empty selector is invalid for daemonset"));
    }
    pod_template(&template, out);
    always_restarts(&template, "DaemonSet", out);
    spec.get("minReadySeconds").non_negative(out);
    let update = spec.get("updateStrategy");
    let rolling = update.get("rollingUpdate");
    match update.get("type").text() {
        "OnDelete" => {}
        "RollingUpdate" if rolling.is_set() => {
            for field in ["maxUnavailable", "maxSurge"] {
                int_or_percent(&rolling.get(field), out);
                at_most_all(&rolling.get(field), out);
            }
            let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
            if !is_zero(&unavailable) && !is_zero(&surge) {
                out.push(surge.invalid("may not be set when maxUnavailable is non-zero"));
            } else if is_zero(&unavailable) && is_zero(&surge) {
                let detail = "cannot be 0 when maxSurge is 0";
                out.push(FieldError::required(&unavailable.path, detail));
            }
        }
        "RollingUpdate" => out.push(FieldError::required(&rolling.path, "")),
        _ => {
            let known = ["RollingUpdate", "OnDelete"];
            let finding = FieldError::not_supported(&update.path, update.value.clone(), &known);
            out.push(finding.shown_as("apps/v1.DaemonSetUpdateStrategy"));
        }
    }
    spec.get("revisionHistoryLimit").non_negative(out);
}

/// A selector may not change.
pub(crate) fn selector_is_kept(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    new.get("spec").get("selector").immutable(&old.get("spec").get("selector"), out);
}

/// Labels, annotations and spec of a template.
pub(crate) fn pod_template(template: &Node<'_>, out: &mut Findings) {
    template_metadata(template, out);
    let spec = template.get("spec");
    pod::spec(&spec, Place::Template, out);
    if spec.get("ephemeralContainers").len() > 0 {
        let detail = "ephemeral containers not allowed in pod template";
        out.push(spec.get("ephemeralContainers").forbidden(detail));
    }
}

fn template_metadata(template: &Node<'_>, out: &mut Findings) {
    labels(&template.get("metadata").get("labels").under(template.path.child("labels")), out);
    let notes = template.get("metadata").get("annotations");
    annotations(&notes.under(template.path.child("annotations")), out);
}

/// Whether a template's labels are what the selector chooses.
pub(crate) fn matches_template(selector: &Node<'_>, template: &Node<'_>, out: &mut Findings) {
    let labels = template.get("metadata").get("labels");
    if selects(selector, labels.value) == Some(false) {
        out.push(labels.invalid("`selector` does not match template `labels`"));
    }
}

fn is_empty_selector(selector: &Node<'_>) -> bool {
    selector.get("matchLabels").len() + selector.get("matchExpressions").len() == 0
}

fn selector_is_useful(selector: &Node<'_>, empty: &str, out: &mut Findings) {
    if !selector.is_set() {
        out.push(FieldError::required(&selector.path, ""));
        return;
    }
    label_selector(selector, out);
    if is_empty_selector(selector) {
        out.push(selector.invalid(empty));
    }
}

fn template_of(spec: &Node<'_>, kind: &str, out: &mut Findings) {
    let template = spec.get("template");
    let selector = spec.get("selector");
    if selects(&selector, &Value::Null).is_none() {
        out.push(selector.invalid("invalid label selector"));
        return;
    }
    matches_template(&selector, &template, out);
    pod_template(&template, out);
    always_restarts(&template, kind, out);
}

fn always_restarts(template: &Node<'_>, kind: &str, out: &mut Findings) {
    let spec = template.get("spec");
    let policy = spec.get("restartPolicy");
    if policy.text() != "Always" {
        out.push(FieldError::not_supported(&policy.path, policy.text(), &["Always"]));
    }
    let deadline = spec.get("activeDeadlineSeconds");
    if deadline.is_set() {
        out.push(deadline.forbidden(format!("activeDeadlineSeconds in {kind} is not Supported")));
    }
}

/// A template in which claims count as volumes of their name.
fn with_claims<'a>(
    template: &Node<'a>,
    claims: &Node<'_>,
    storage: &'a mut Option<Value>,
) -> Node<'a> {
    if claims.len() == 0 {
        return template.clone();
    }
    let mut value = template.value.clone();
    if let Some(spec) = value.get_mut("spec").and_then(Value::as_object_mut) {
        let volumes = spec.entry("volumes").or_insert_with(|| Value::Array(Vec::new()));
        for name in claims.items().map(|claim| claim.get("metadata").get("name").text().to_owned())
        {
            let Some(volumes) = volumes.as_array_mut() else { continue };
            volumes.retain(|volume| volume["name"] != *name);
            let source = serde_json::json!({"claimName": name, "readOnly": false});
            volumes.push(serde_json::json!({"name": name, "persistentVolumeClaim": source}));
        }
    }
    Node { value: storage.insert(value), path: template.path.clone() }
}

fn strategy(spec: &Node<'_>, out: &mut Findings) {
    let strategy = spec.get("strategy");
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").text() {
        "Recreate" if rolling.is_set() => {
            out.push(rolling.forbidden("may not be specified when strategy `type` is 'Recreate'"))
        }
        "Recreate" => {}
        "RollingUpdate" if rolling.is_set() => {
            let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
            int_or_percent(&unavailable, out);
            int_or_percent(&surge, out);
            if is_zero(&unavailable) && is_zero(&surge) {
                out.push(unavailable.invalid("may not be 0 when `maxSurge` is 0"));
            }
            at_most_all(&unavailable, out);
        }
        "RollingUpdate" => out
            .push(FieldError::required(&rolling.path, "this should be defaulted and never be nil")),
        _ => {
            let known = ["Recreate", "RollingUpdate"];
            let finding = FieldError::not_supported(&strategy.path, strategy.value.clone(), &known);
            out.push(finding.shown_as("apps/v1.DeploymentStrategy"));
        }
    }
}

/// A number that is not negative, or a percentage.
pub(crate) fn int_or_percent(value: &Node<'_>, out: &mut Findings) {
    match value.value {
        Value::String(text) => {
            let digits = text.strip_suffix('%').unwrap_or("");
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                out.push(value.invalid(meta::names::regex_error(
                    "a valid percent string must be a numeric string followed by an ending '%'",
                    "[0-9]+%",
                    &["1%", "93%"],
                )));
            }
        }
        _ => value.non_negative(out),
    }
}

/// No percentage above 100.
pub(crate) fn at_most_all(value: &Node<'_>, out: &mut Findings) {
    let percent = value.text().strip_suffix('%').and_then(|digits| digits.parse::<u64>().ok());
    if percent.is_some_and(|percent| percent > 100) {
        out.push(value.invalid("must not be greater than 100%"));
    }
}

fn is_zero(value: &Node<'_>) -> bool {
    match value.value {
        Value::String(text) => text.trim_end_matches('%').parse() == Ok(0),
        _ => value.int() == 0,
    }
}
