//! What is special about writes of custom resources.

use meta::GroupVersionKind;
use serde_json::Value;
use validation::FieldError;

use super::kind::CustomVersion;
use crate::context::RequestContext;
use crate::resources::Resource;
use crate::strategy::remove;

/// Findings about a new object.
pub(crate) fn validate_create(
    ctx: &RequestContext,
    version: &CustomVersion,
    object: &Value,
) -> Vec<FieldError> {
    let compiled = version.compiled();
    let mut out = compiled.validate_kind(object);
    if !out.is_empty() {
        return out;
    }
    let is_namespaced = version.kind.definition.is_namespaced();
    out.extend(validation::custom_metadata(object, is_namespaced));
    out.extend(compiled.validate(object, None, false));
    check_rules(ctx, version, object, None, &mut out);
    out
}

fn check_rules(
    ctx: &RequestContext,
    version: &CustomVersion,
    object: &Value,
    old: Option<&Value>,
    out: &mut Vec<FieldError>,
) {
    let verdict = version.compiled().check_rules(object, old, out);
    verdict.warnings.into_iter().for_each(|text| ctx.warn(text));
    out.extend(verdict.findings);
}

/// Findings about a changed object, or one whose status was changed.
pub(crate) fn validate_update(
    ctx: &RequestContext,
    version: &CustomVersion,
    subresource: &str,
    object: &Value,
    old: &Value,
) -> Vec<FieldError> {
    let compiled = version.compiled();
    let mut out = compiled.validate_kind(object);
    if !out.is_empty() {
        return out;
    }
    out.extend(validation::custom_metadata_update(object, old));
    out.extend(compiled.validate(object, Some(old), subresource == "status"));
    check_rules(ctx, version, object, Some(old), &mut out);
    out
}

/// The kind that findings are told about: what the object says it is.
pub(crate) fn told_kind(resource: &Resource, object: &Value) -> GroupVersionKind {
    let mut gvk = resource.gvk.clone();
    if resource.custom.is_some()
        && let Some(kind) = object["kind"].as_str().filter(|kind| !kind.is_empty())
    {
        kind.clone_into(&mut gvk.kind);
    }
    gvk
}

/// What is told about finalizers that are new and may meet others of the same name.
pub(crate) fn warnings(object: &Value, old: Option<&Value>) -> Vec<String> {
    fn finalizers(object: &Value) -> Vec<&str> {
        let list = object.pointer("/metadata/finalizers").and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).collect()
    }
    const STANDARD: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];
    let before = old.map(finalizers).unwrap_or_default();
    let mut added = finalizers(object);
    added.retain(|name| !before.contains(name));
    added.sort_unstable();
    added.dedup();
    added
        .into_iter()
        .filter(|name| !name.contains('/') && !STANDARD.contains(name))
        .map(|name| {
            format!(
                "metadata.finalizers: {name:?}: prefer a domain-qualified finalizer name to avoid \
                 accidental conflicts with other finalizer writers"
            )
        })
        .collect()
}

/// Of a written status only that is taken, and who owns it.
pub(crate) fn keep_all_but_status(object: &mut Value, old: &Value) {
    let status = remove(object, "status");
    let managed = apply::take_managed_fields(object);
    let version = object["metadata"]["resourceVersion"].take();
    *object = old.clone();
    match status {
        Some(status) => object["status"] = status,
        None => drop(remove(object, "status")),
    }
    apply::put_managed_fields(object, managed.unwrap_or_default());
    match version {
        Value::Null => drop(remove(&mut object["metadata"], "resourceVersion")),
        version => object["metadata"]["resourceVersion"] = version,
    }
}

/// Whether anything but the metadata changed, which makes a generation.
pub(crate) fn makes_generation(object: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (object.as_object(), old.as_object()) else {
        return object != old;
    };
    let names = new.keys().chain(old.keys()).filter(|name| *name != "metadata");
    names.into_iter().any(|name| new.get(name) != old.get(name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn finalizers_without_a_domain_are_warned_of_once() {
        let object = |names: &[&str]| json!({"metadata": {"finalizers": names}});
        let found = warnings(&object(&["bad", "a.b/c", "orphan"]), None);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("metadata.finalizers: \"bad\": prefer"));
        assert!(warnings(&object(&["bad"]), Some(&object(&["bad"]))).is_empty());
    }

    #[test]
    fn a_written_status_changes_nothing_else() {
        let old = json!({"metadata": {"name": "x", "labels": {"a": "b"}}, "spec": 1, "status": 1});
        let mut new = json!({"metadata": {"name": "x", "labels": {}, "resourceVersion": "5"},
            "spec": 2, "status": 2});
        keep_all_but_status(&mut new, &old);
        assert_eq!(
            new,
            json!({"metadata": {"name": "x", "labels": {"a": "b"}, "resourceVersion": "5"},
                "spec": 1, "status": 2})
        );
    }
}
