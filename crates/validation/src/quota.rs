//! Resource quotas and limit ranges.

use std::collections::BTreeSet;

use meta::{Quantity, names};

use crate::FieldError;
use crate::node::{Findings, Node};
use crate::resources::{is_standard, resource_quantity};

/// The scopes there are; each is about pods or about claims.
const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];
/// Scopes of which an object is in one or the other.
const OPPOSITES: [[&str; 2]; 2] =
    [["BestEffort", "NotBestEffort"], ["NotTerminating", "Terminating"]];

pub(crate) fn resource_quota(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    amounts(&spec.get("hard"), out);
    let limited: Vec<&str> = spec.get("hard").entries().map(|(name, _)| name).collect();
    let scopes = spec.get("scopes");
    for scope in scopes.items() {
        if !SCOPES.contains(&scope.text()) {
            out.push(scopes.invalid("unsupported scope"));
        }
        for _ in limited.iter().filter(|name| !fits(scope.text(), name)) {
            out.push(scopes.invalid("unsupported scope applied to resource"));
        }
    }
    let has = |wanted: &str| scopes.items().any(|scope| scope.text() == wanted);
    for _ in OPPOSITES.iter().filter(|pair| pair.iter().all(|scope| has(scope))) {
        out.push(scopes.invalid("conflicting scopes"));
    }
    scope_selector(&spec.get("scopeSelector"), &limited, out);
    status(object, out);
}

pub(crate) fn status(object: &Node<'_>, out: &mut Findings) {
    for list in ["hard", "used"] {
        amounts(&object.get("status").get(list), out);
    }
}

/// The scopes of a quota may not change.
pub(crate) fn scopes_are_kept(new: &Node<'_>, old: &Node<'_>, out: &mut Findings) {
    let sorted = |object: &Node<'_>| -> BTreeSet<String> {
        let scopes = object.get("spec").get("scopes");
        scopes.items().map(|scope| scope.text().to_owned()).collect()
    };
    if sorted(new) != sorted(old) {
        out.push(new.get("spec").get("scopes").invalid("field is immutable"));
    }
}

fn amounts(list: &Node<'_>, out: &mut Findings) {
    for (name, quantity) in list.entries() {
        crate::resources::resource_name(name, &quantity, out);
        if !name.contains('/') && !is_standard(name) {
            let detail = "must be a standard resource for quota";
            out.push(FieldError::invalid(&quantity.path, name, detail));
        }
        resource_quantity(name, &quantity, out);
    }
}

/// Whether objects of a scope use a resource; resources of others fit everywhere.
fn fits(scope: &str, resource: &str) -> bool {
    const COMPUTE: [&str; 6] =
        ["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
    if resource.contains('/') || !is_standard(resource) {
        return true;
    }
    match scope {
        "Terminating"
        | "NotTerminating"
        | "NotBestEffort"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => resource == "pods" || COMPUTE.contains(&resource),
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => {
            matches!(resource, "persistentvolumeclaims" | "requests.storage")
        }
        _ => true,
    }
}

fn scope_selector(selector: &Node<'_>, limited: &[&str], out: &mut Findings) {
    const ONLY_EXISTS: &str = "must be 'Exists' when scope is any of \
        ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
        ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
        ResourceQuotaScopeCrossNamespacePodAffinity";
    let expressions = selector.get("matchExpressions");
    let whole = |detail: &str| {
        let finding = FieldError::invalid(&expressions.path, selector.value.clone(), detail);
        finding.shown_as("core/v1.ScopeSelector")
    };
    let mut seen = BTreeSet::new();
    for expression in expressions.items() {
        // Upstream reports at the list.
        let at = |field: &'static str| expression.get(field).under(expressions.path.child(field));
        let (scope, operator, values) = (at("scopeName"), at("operator"), at("values"));
        if !SCOPES.contains(&scope.text()) {
            out.push(scope.invalid_text("unsupported scope"));
        }
        for _ in limited.iter().filter(|name| !fits(scope.text(), name)) {
            out.push(whole("unsupported scope applied to resource"));
        }
        let has_values = matches!(scope.text(), "PriorityClass" | "VolumeAttributesClass");
        if SCOPES.contains(&scope.text()) && !has_values && operator.text() != "Exists" {
            out.push(operator.invalid_text(ONLY_EXISTS));
        }
        match operator.text() {
            "In" | "NotIn" if values.len() == 0 => {
                let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for \
                              scope selector";
                out.push(FieldError::required(&values.path, detail));
            }
            "Exists" | "DoesNotExist" if values.len() > 0 => {
                out.push(values.invalid(
                    "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope \
                     selector",
                ));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => out.push(operator.invalid_text("not a valid selector operator")),
        }
        seen.insert(scope.text());
    }
    for _ in OPPOSITES.iter().filter(|pair| pair.iter().all(|scope| seen.contains(scope))) {
        out.push(whole("conflicting scopes"));
    }
}

pub(crate) fn limit_range(object: &Node<'_>, out: &mut Findings) {
    let mut seen = BTreeSet::new();
    for limit in object.get("spec").get("limits").items() {
        let kind = limit.get("type");
        let wrong = names::qualified_name(kind.text());
        let standard = matches!(kind.text(), "Pod" | "Container" | "PersistentVolumeClaim");
        if !wrong.is_empty() {
            kind.invalid_each(wrong, out);
        } else if !kind.text().contains('/') && !standard {
            let detail = "must be a standard limit type or fully qualified";
            out.push(FieldError::invalid(&kind.path, kind.text(), detail));
        }
        if !seen.insert(kind.text()) {
            out.push(FieldError::duplicate(&kind.path, kind.text()));
        }
        limited_names(&limit, kind.text(), out);
        if kind.text() == "PersistentVolumeClaim" {
            let has = |field: &'static str| limit.get(field).value.get("storage").is_some();
            if !has("min") && !has("max") {
                let detail = "either minimum or maximum storage value is required, but neither was \
                              provided";
                out.push(FieldError::required(&limit.path.child("limits"), detail));
            }
        }
        bounds(&limit, out);
    }
}

fn limited_names(limit: &Node<'_>, kind: &str, out: &mut Findings) {
    for field in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        let list = limit.get(field);
        if kind == "Pod" && field.starts_with("default") {
            if list.len() > 0 {
                out.push(list.forbidden("may not be specified when `type` is 'Pod'"));
            }
            continue;
        }
        for (name, quantity) in list.entries() {
            if matches!(kind, "Pod" | "Container") {
                crate::resources::container_resource_name(name, &quantity, out);
            } else {
                crate::resources::resource_name(name, &quantity, out);
            }
        }
    }
}

/// Every resource's numbers must stand in order.
fn bounds(limit: &Node<'_>, out: &mut Findings) {
    let fields = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];
    let resources: BTreeSet<&str> =
        fields.iter().flat_map(|field| limit.get(field).entries().map(|(name, _)| name)).collect();
    for name in resources {
        let at = |field: &'static str| {
            limit.get(field).value.get(name)?.as_str()?.parse::<Quantity>().ok()
        };
        // What is quoted is upstream's choice.
        let mut check = |small: &'static str,
                         large: &'static str,
                         report: &'static str,
                         quoted: &'static str,
                         text: &dyn Fn(Quantity, Quantity) -> String| {
            if let (Some(a), Some(b)) = (at(small), at(large))
                && a > b
            {
                let path = limit.path.child(report).key(name);
                let value = at(quoted).unwrap_or_default().to_string();
                out.push(FieldError::invalid(&path, value, text(a, b)));
            }
        };
        check("min", "max", "min", "min", &|a, b| {
            format!("min value {a} is greater than max value {b}")
        });
        check("min", "defaultRequest", "defaultRequest", "defaultRequest", &|a, b| {
            format!("min value {a} is greater than default request value {b}")
        });
        check("defaultRequest", "max", "defaultRequest", "defaultRequest", &|a, b| {
            format!("default request value {a} is greater than max value {b}")
        });
        check("defaultRequest", "default", "defaultRequest", "defaultRequest", &|a, b| {
            format!("default request value {a} is greater than default limit value {b}")
        });
        check("min", "default", "default", "min", &|a, b| {
            format!("min value {a} is greater than default value {b}")
        });
        check("default", "max", "default", "max", &|a, b| {
            format!("default value {a} is greater than max value {b}")
        });
        ratio(limit, name, &at, out);
        if !crate::resources::overcommits(name)
            && let (Some(default), Some(request)) = (at("default"), at("defaultRequest"))
            && default != request
        {
            let path = limit.path.child("defaultRequest").key(name);
            let detail = format!(
                "default value {default} must equal to defaultRequest value {request} in {name}"
            );
            out.push(FieldError::invalid(&path, request.to_string(), detail));
        }
    }
}

/// A limit may not be so many times the request, which the bounds must make possible.
fn ratio(
    limit: &Node<'_>,
    name: &str,
    at: &dyn Fn(&'static str) -> Option<Quantity>,
    out: &mut Findings,
) {
    let Some(ratio) = at("maxLimitRequestRatio") else { return };
    let path = limit.path.child("maxLimitRequestRatio").key(name);
    if ratio < Quantity::new(1, meta::QuantityFormat::DecimalSi) {
        let detail = format!("ratio {ratio} is less than 1");
        out.push(FieldError::invalid(&path, ratio.to_string(), detail));
    }
    if let (Some(min), Some(max)) = (at("min"), at("max")) {
        let most = max.as_f64() / min.as_f64();
        if ratio.as_f64() > most {
            let detail = format!("ratio {ratio} is greater than max/min = {most:.6}");
            out.push(FieldError::invalid(&path, ratio.to_string(), detail));
        }
    }
}
