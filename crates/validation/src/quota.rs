//! Resource quotas and limit ranges.

use std::collections::BTreeSet;

use meta::{Quantity, names};

use crate::FieldError;
use crate::node::{Findings, Node};
use crate::resources::{is_standard, resource_quantity};

pub(crate) fn resource_quota(object: &Node<'_>, out: &mut Findings) {
    for list in [object.get("spec").get("hard"), object.get("status").get("hard")] {
        for (name, quantity) in list.entries() {
            let wrong = names::qualified_name(name);
            out.extend(wrong.into_iter().map(|t| FieldError::invalid(&quantity.path, name, t)));
            if !name.contains('/') && !is_standard(name) {
                let detail = "must be a standard resource for quota";
                out.push(FieldError::invalid(&quantity.path, name, detail));
            }
            resource_quantity(name, &quantity, out);
        }
    }
}

pub(crate) fn limit_range(object: &Node<'_>, out: &mut Findings) {
    let mut seen = BTreeSet::new();
    for limit in object.get("spec").get("limits").items() {
        let kind = limit.get("type");
        let wrong = names::qualified_name(kind.text());
        out.extend(wrong.into_iter().map(|t| FieldError::invalid(&kind.path, kind.text(), t)));
        let standard = matches!(kind.text(), "Pod" | "Container" | "PersistentVolumeClaim");
        if !kind.text().contains('/') && !standard {
            let detail = "must be a standard limit type or fully qualified";
            out.push(FieldError::invalid(&kind.path, kind.text(), detail));
        }
        if !seen.insert(kind.text()) {
            out.push(FieldError::duplicate(&kind.path, kind.text()));
        }
        if kind.text() == "Pod" {
            for field in ["default", "defaultRequest"] {
                if limit.get(field).len() > 0 {
                    let detail = "may not be specified when `type` is 'Pod'";
                    out.push(limit.get(field).forbidden(detail));
                }
            }
        }
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

/// Every resource's numbers must stand in order.
fn bounds(limit: &Node<'_>, out: &mut Findings) {
    let fields = ["max", "min", "default", "defaultRequest"];
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
    }
}
