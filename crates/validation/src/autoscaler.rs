//! Horizontal pod autoscalers, `autoscaling/v2`.

use meta::{Quantity, names};
use serde_json::Value;

use crate::FieldError;
use crate::node::{Findings, Node};

/// Longest stabilisation window and longest period of a policy, in seconds.
const WINDOW_MAX_SECS: i64 = 3600;
const PERIOD_MAX_SECS: i64 = 1800;

/// A new autoscaler; `least` is the smallest number that its `minReplicas` may be.
pub(crate) fn create(object: &Node<'_>, least: i64, out: &mut Findings) {
    validate(object, least, true, out);
}

/// A changed one: the zero that it had may stay, and so may what it scales.
pub(crate) fn update(new: &Node<'_>, old: &Node<'_>, least: i64, out: &mut Findings) {
    let before = old.get("spec").get("minReplicas");
    let least = if before.is_set() && before.int() == 0 { 0 } else { least };
    let target = |object: &Node<'_>| {
        let target = object.get("spec").get("scaleTargetRef");
        ["apiVersion", "kind"].map(|field| target.get(field).text().to_owned())
    };
    validate(new, least, target(new) != target(old), out);
}

fn validate(object: &Node<'_>, least: i64, is_new_target: bool, out: &mut Findings) {
    let spec = object.get("spec");
    let (min, max) = (spec.get("minReplicas"), spec.get("maxReplicas"));
    if min.is_set() && min.int() < least {
        out.push(min.invalid(format!("must be greater than or equal to {least}")));
    }
    if max.int() == 0 {
        out.push(FieldError::required(&max.path, "must be set and greater than 0"));
    } else if max.int() < 1 {
        out.push(max.invalid("must be greater than or equal to 1"));
    }
    if min.is_set() && max.int() < min.int() {
        let detail = "must be greater than or equal to `minReplicas`";
        out.push(FieldError::invalid(&max.path, max.int(), detail));
    }
    reference(&spec.get("scaleTargetRef"), is_new_target, out);
    let scales_to_zero =
        |metric: Node<'_>| matches!(metric.get("type").text(), "Object" | "External");
    if min.is_set() && min.int() == 0 && !spec.get("metrics").items().any(scales_to_zero) {
        let detail = "must specify at least one Object or External metric to support scaling to \
                      zero replicas";
        out.push(spec.get("metrics").forbidden(detail));
    }
    for metric in spec.get("metrics").items() {
        metric_spec(&metric, out);
    }
    for side in ["scaleUp", "scaleDown"] {
        let rules = spec.get("behavior").get(side);
        if rules.is_set() {
            scaling_rules(&rules, out);
        }
    }
}

fn reference(target: &Node<'_>, needs_group: bool, out: &mut Findings) {
    for field in ["kind", "name"] {
        let part = target.get(field);
        if part.require(out) {
            part.invalid_each(names::path_segment(part.text()), out);
        }
    }
    let version = target.get("apiVersion");
    let core = target.get("kind").text() == "ReplicationController";
    if needs_group && !core && !version.text().contains('/') {
        let detail = "apiVersion must specify API group";
        out.push(FieldError::invalid(&version.path, version.text(), detail));
    }
}

fn metric_spec(metric: &Node<'_>, out: &mut Findings) {
    const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
    let kind = metric.get("type");
    if kind.text().is_empty() {
        out.push(FieldError::required(&kind.path, "must specify a metric source type"));
    }
    if !TYPES.contains(&kind.text()) {
        // Upstream says so twice.
        for _ in 0..2 {
            out.push(FieldError::not_supported(&kind.path, kind.text(), &TYPES));
        }
        return;
    }
    let field = match kind.text() {
        "ContainerResource" => "containerResource",
        "External" => "external",
        "Object" => "object",
        "Pods" => "pods",
        _ => "resource",
    };
    for other in ["object", "pods", "resource", "external", "containerResource"] {
        let source = metric.get(other);
        if other != field && source.is_set() {
            out.push(source.forbidden("must populate the given metric source only"));
        }
    }
    let source = metric.get(field);
    if !source.is_set() {
        let detail = "must populate information for the given metric source";
        out.push(FieldError::required(&source.path, detail));
        return;
    }
    metric_source(field, &source, out);
}

fn metric_source(field: &str, source: &Node<'_>, out: &mut Findings) {
    let target = source.get("target");
    let has = |field: &'static str| target.get(field).is_set();
    match field {
        "object" => {
            reference(&source.get("describedObject"), false, out);
            metric_name(source, out);
            metric_target(&target, out);
            if !has("value") && !has("averageValue") {
                let detail = "must set either a target value or averageValue";
                out.push(FieldError::required(&target.path.child("averageValue"), detail));
            }
        }
        "external" => {
            metric_name(source, out);
            metric_target(&target, out);
            if !has("value") && !has("averageValue") {
                let detail = "must set either a target value for metric or a per-pod target";
                out.push(FieldError::required(&target.path.child("averageValue"), detail));
            } else if has("value") && has("averageValue") {
                let detail = "may not set both a target value for metric and a per-pod target";
                out.push(FieldError::forbidden(&target.path.child("value"), detail));
            }
        }
        "pods" => {
            metric_name(source, out);
            metric_target(&target, out);
            if !has("averageValue") {
                let detail = "must specify a positive target averageValue";
                out.push(FieldError::required(&target.path.child("averageValue"), detail));
            }
        }
        _ => resource_source(field, source, &target, out),
    }
}

fn resource_source(field: &str, source: &Node<'_>, target: &Node<'_>, out: &mut Findings) {
    let name = source.get("name");
    if name.text().is_empty() {
        out.push(FieldError::required(&name.path, "must specify a resource name"));
    } else if field == "containerResource" {
        crate::resources::container_resource_name(name.text(), &name, out);
    }
    if field == "containerResource" {
        let container = source.get("container");
        if container.text().is_empty() {
            out.push(FieldError::required(&container.path, "must specify a container"));
        } else {
            container.invalid_each(names::dns1123_label(container.text()), out);
        }
    }
    metric_target(target, out);
    let (percent, value) = (target.get("averageUtilization"), target.get("averageValue"));
    match (percent.is_set(), value.is_set()) {
        (false, false) => {
            let detail = "must set either a target raw value or a target utilization";
            out.push(FieldError::required(&percent.path, detail));
        }
        (true, true) => {
            let detail = "may not set both a target raw value and a target utilization";
            out.push(value.forbidden(detail));
        }
        _ => {}
    }
}

fn metric_name(source: &Node<'_>, out: &mut Findings) {
    let name = source.get("metric").get("name");
    if name.text().is_empty() {
        out.push(FieldError::required(&name.path, "must specify a metric name"));
    } else {
        name.invalid_each(names::path_segment(name.text()), out);
    }
}

fn metric_target(target: &Node<'_>, out: &mut Findings) {
    let kind = target.get("type");
    if kind.text().is_empty() {
        out.push(FieldError::required(&kind.path, "must specify a metric target type"));
    }
    if !matches!(kind.text(), "Utilization" | "Value" | "AverageValue") {
        let detail = "must be either Utilization, Value, or AverageValue";
        out.push(FieldError::invalid(&kind.path, kind.text(), detail));
    }
    for field in ["value", "averageValue"] {
        let quantity = target.get(field);
        if quantity.text().parse::<Quantity>().is_ok_and(|quantity| quantity.signum() <= 0) {
            out.push(quantity.invalid("must be positive"));
        }
    }
    let percent = target.get("averageUtilization");
    if percent.is_set() && percent.int() < 1 {
        out.push(percent.invalid("must be greater than 0"));
    }
}

fn scaling_rules(rules: &Node<'_>, out: &mut Findings) {
    let window = rules.get("stabilizationWindowSeconds");
    if window.is_set() && window.int() < 0 {
        out.push(window.invalid("must be greater than or equal to zero"));
    }
    if window.int() > WINDOW_MAX_SECS {
        out.push(window.invalid("must be less than or equal to 3600"));
    }
    rules.get("selectPolicy").one_of(&["Disabled", "Max", "Min"], out);
    let tolerance = rules.get("tolerance");
    if tolerance.text().parse::<Quantity>().is_ok_and(|tolerance| tolerance.signum() < 0) {
        out.push(tolerance.invalid("must be greater than or equal to 0"));
    }
    let policies = rules.get("policies");
    if policies.len() == 0 {
        out.push(FieldError::required(&policies.path, "must specify at least one Policy"));
    }
    for policy in policies.items() {
        let kind = policy.get("type");
        if !matches!(kind.text(), "Pods" | "Percent") {
            let known = ["Percent", "Pods"];
            out.push(FieldError::not_supported(&kind.path, kind.text(), &known));
        }
        for field in ["value", "periodSeconds"] {
            let number = policy.get(field);
            if number.int() <= 0 {
                let value = Value::from(number.int());
                out.push(FieldError::invalid(&number.path, value, "must be greater than zero"));
            }
        }
        let period = policy.get("periodSeconds");
        if period.int() > PERIOD_MAX_SECS {
            out.push(period.invalid("must be less than or equal to 1800"));
        }
    }
}

/// What an autoscaler sees and wants.
pub(crate) fn status(object: &Node<'_>, out: &mut Findings) {
    for field in ["currentReplicas", "desiredReplicas"] {
        object.get("status").get(field).non_negative(out);
    }
}
