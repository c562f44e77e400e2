//! Questions about what somebody may do.
//!
//! Upstream: `pkg/apis/authorization/validation`.

use meta::names;
use serde_json::Value;

use crate::FieldError;
use crate::node::{Findings, Node};

/// A review of any kind; managed fields are the server's own and do not count as metadata.
pub(crate) fn validate(kind: &str, object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    let (resource, other) = (spec.get("resourceAttributes"), spec.get("nonResourceAttributes"));
    match (resource.is_set(), other.is_set()) {
        (true, true) => {
            let detail = "cannot be specified in combination with resourceAttributes";
            out.push(non_resource(&other, detail));
        }
        (false, false) => {
            let detail =
                "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            out.push(FieldError::invalid(&resource.path, Value::Null, detail));
        }
        _ => {}
    }
    let asks_about_itself = kind == "SelfSubjectAccessReview";
    let user = spec.get("user");
    if !asks_about_itself && user.text().is_empty() && spec.get("groups").len() == 0 {
        out.push(user.invalid_text("at least one of user or group must be specified"));
    }
    selector(&resource.get("fieldSelector"), false, out);
    selector(&resource.get("labelSelector"), true, out);
    let is_local = kind == "LocalSubjectAccessReview";
    metadata(&object.get("metadata"), is_local, out);
    if is_local {
        local(object, out);
    }
}

fn non_resource(attributes: &Node<'_>, detail: &str) -> FieldError {
    attributes.invalid(detail).shown_as("authorization/v1.NonResourceAttributes")
}

/// A local review asks about the namespace it is made in.
fn local(object: &Node<'_>, out: &mut Findings) {
    let spec = object.get("spec");
    let resource = spec.get("resourceAttributes");
    let asked = resource.get("namespace");
    if resource.is_set() && asked.text() != object.get("metadata").get("namespace").text() {
        out.push(asked.invalid_text("must match metadata.namespace"));
    }
    let other = spec.get("nonResourceAttributes");
    if other.is_set() {
        out.push(non_resource(&other, "disallowed on this kind of request"));
    }
}

fn metadata(metadata: &Node<'_>, is_local: bool, out: &mut Findings) {
    let Some(fields) = metadata.value.as_object() else { return };
    let is_fine = |name: &str| name == "managedFields" || (is_local && name == "namespace");
    if fields.keys().any(|name| !is_fine(name)) {
        let detail = if is_local { "must be empty except for namespace" } else { "must be empty" };
        out.push(metadata.invalid(detail).shown_as("meta/v1.ObjectMeta"));
    }
}

/// What restricts the objects asked about, as a text or as requirements.
fn selector(selector: &Node<'_>, of_labels: bool, out: &mut Findings) {
    if !selector.is_set() {
        return;
    }
    let (raw, requirements) = (selector.get("rawSelector"), selector.get("requirements"));
    match (raw.text().is_empty(), requirements.len()) {
        (false, 1..) => {
            out.push(raw.invalid("may not specified at the same time as requirements"));
        }
        (true, 0) => {
            let path = &selector.path;
            let detail =
                format!("when {path} is specified, requirements or rawSelector is required");
            out.push(FieldError::required(&requirements.path, detail));
        }
        (true, _) => requirements.items().for_each(|item| requirement(&item, of_labels, out)),
        (false, 0) => {}
    }
}

/// Operators that are not known may be those of a newer client.
fn requirement(requirement: &Node<'_>, of_labels: bool, out: &mut Findings) {
    let (key, values) = (requirement.get("key"), requirement.get("values"));
    if !of_labels && key.text().is_empty() {
        out.push(FieldError::required(&key.path, "must be specified"));
    }
    match requirement.get("operator").text() {
        "In" | "NotIn" if values.len() == 0 => {
            let detail = "must be specified when `operator` is 'In' or 'NotIn'";
            out.push(FieldError::required(&values.path, detail));
        }
        "Exists" | "DoesNotExist" if values.len() > 0 => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            out.push(values.forbidden(detail));
        }
        _ => {}
    }
    if of_labels {
        let wrong = names::qualified_name(key.text());
        out.extend(wrong.into_iter().map(|t| FieldError::invalid(&key.path, key.text(), t)));
        for value in values.items() {
            value.invalid_each(names::label_value(value.text()), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::tests::check;

    const GROUP: &str = "authorization.k8s.io";

    #[test]
    fn everything_that_is_wrong_with_a_question_is_told_at_once() {
        let selector = json!({"rawSelector": "a", "requirements": [{"key": "b"}]});
        check(
            GROUP,
            "SelfSubjectAccessReview",
            json!({"metadata": {"name": "n", "managedFields": [{"manager": "m",
                "fieldsV1": "{\"f:spec\":{}}"}]}, "spec": {
                "resourceAttributes": {"fieldSelector": selector, "labelSelector": {}},
                "nonResourceAttributes": {"path": "/x"}}}),
            &[
                "spec.nonResourceAttributes: Invalid value: {\"Path\":\"/x\",\"Verb\":\"\"}: \
                 cannot be specified in combination with resourceAttributes",
                "spec.resourceAttributes.fieldSelector.rawSelector: Invalid value: \"a\": may not \
                 specified at the same time as requirements",
                "spec.resourceAttributes.labelSelector.requirements: Required value: when \
                 spec.resourceAttributes.labelSelector is specified, requirements or rawSelector \
                 is required",
                "metadata: Invalid value: {\"name\":\"n\",\"managedFields\":[{\"manager\":\"m\",\
                 \"fieldsV1\":{\"f:spec\":{}}}]}: must be empty",
            ],
        );
    }

    #[test]
    fn requirements_have_the_values_that_their_operators_want() {
        let fields = json!({"requirements": [{"operator": "In"}, {"key": "a", "operator": "New"}]});
        let labels = json!({"requirements": [
            {"key": "a", "operator": "Exists", "values": ["b"]}]});
        check(
            GROUP,
            "SelfSubjectAccessReview",
            json!({"spec": {
                "resourceAttributes": {"fieldSelector": fields, "labelSelector": labels}}}),
            &[
                "spec.resourceAttributes.fieldSelector.requirements[0].key: Required value: must \
                 be specified",
                "spec.resourceAttributes.fieldSelector.requirements[0].values: Required value: \
                 must be specified when `operator` is 'In' or 'NotIn'",
                "spec.resourceAttributes.labelSelector.requirements[0].values: Forbidden: may not \
                 be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ],
        );
    }

    #[test]
    fn a_local_question_is_about_resources_of_its_namespace() {
        check(
            GROUP,
            "LocalSubjectAccessReview",
            json!({"metadata": {"namespace": "a"}, "spec": {
                "resourceAttributes": {"namespace": "b"}}}),
            &[
                "spec.user: Invalid value: \"\": at least one of user or group must be specified",
                "spec.resourceAttributes.namespace: Invalid value: \"b\": must match \
                 metadata.namespace",
            ],
        );
        check(
            GROUP,
            "LocalSubjectAccessReview",
            json!({"metadata": {"name": "n"}, "spec": {"user": "u",
                "nonResourceAttributes": {"path": "/"}}}),
            &[
                "metadata: Invalid value: {\"name\":\"n\"}: must be empty except for namespace",
                "spec.nonResourceAttributes: Invalid value: {\"Path\":\"/\",\"Verb\":\"\"}: \
                 disallowed on this kind of request",
            ],
        );
    }
}
