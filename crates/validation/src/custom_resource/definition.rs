//! What a version, or all of them together, say of the resource.

use crate::FieldError;
use crate::custom_resource::{defaults, open_api, rules, selectable, structural};
use crate::node::{Findings, Node};

const SCHEMA: &str = "apiextensions/v1.JSONSchemaProps";
const MAX_WARNING: usize = 256;
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
/// What a schema may say at its root when there is a status subresource: Go's name and JSON's.
const AT_ROOT: [(&str, &str); 23] = [
    ("Description", "description"),
    ("Type", "type"),
    ("Format", "format"),
    ("Title", "title"),
    ("Maximum", "maximum"),
    ("ExclusiveMaximum", "exclusiveMaximum"),
    ("Minimum", "minimum"),
    ("ExclusiveMinimum", "exclusiveMinimum"),
    ("MaxLength", "maxLength"),
    ("MinLength", "minLength"),
    ("Pattern", "pattern"),
    ("MaxItems", "maxItems"),
    ("MinItems", "minItems"),
    ("UniqueItems", "uniqueItems"),
    ("MultipleOf", "multipleOf"),
    ("Required", "required"),
    ("Enum", "enum"),
    ("Items", "items"),
    ("Properties", "properties"),
    ("ExternalDocs", "externalDocs"),
    ("Example", "example"),
    ("XPreserveUnknownFields", "x-kubernetes-preserve-unknown-fields"),
    ("XValidations", "x-kubernetes-validations"),
];

pub(super) fn version(version: &Node<'_>, all_have_status: bool, out: &mut Findings) {
    deprecation(version, out);
    let subresources = version.get("subresources");
    let has_status = all_have_status || subresources.get("status").is_set();
    let given = version.get("schema");
    schema(&given, has_status, out);
    self::subresources(&subresources, out);
    columns(&version.get("additionalPrinterColumns"), out);
    let fields = version.get("selectableFields");
    if fields.len() == 0 {
        return;
    }
    let given = given.get("openAPIV3Schema");
    if given.is_set() {
        selectable::fields(&fields, &given, out);
    } else {
        let detail = "may only be set when `version.schema.openAPIV3Schema` is not included";
        out.push(FieldError::invalid(&fields.path, "", detail));
    }
}

fn deprecation(version: &Node<'_>, out: &mut Findings) {
    let warning = version.get("deprecationWarning");
    if !warning.is_set() {
        return;
    }
    let text = warning.text();
    if !version.get("deprecated").is_true() {
        out.push(warning.invalid("can only be set for deprecated versions"));
    }
    if text.len() > MAX_WARNING {
        out.push(warning.invalid(format!("must be <= {MAX_WARNING} characters long")));
    }
    if text.is_empty() {
        out.push(warning.invalid("must not be an empty string"));
    }
    let unprintable = text.char_indices().find(|(_, char)| char.is_control());
    if let Some((at, _)) = unprintable {
        out.push(warning.invalid(format!(
            "must only contain printable UTF-8 characters; non-printable character found at index \
             {at}"
        )));
    }
}

/// The schema of one version or of all.
pub(super) fn schema(given: &Node<'_>, has_status: bool, out: &mut Findings) {
    let root = given.get("openAPIV3Schema");
    if !root.is_set() {
        return;
    }
    if has_status {
        at_root(&root, out);
    }
    if root.get("nullable").is_true() {
        let nullable = root.get("nullable");
        out.push(nullable.forbidden("nullable cannot be true at the root"));
    }
    let before = out.len();
    // A schema elsewhere says what this one lacks; that it is elsewhere is told below.
    if !structural::has_references(&root) {
        structural::validate(&root, out);
    }
    if out.len() == before {
        defaults::validate(&root, out);
    }
    let is_structural = out.len() == before;
    open_api::validate(&root, &open_api::Place::root(), out);
    if is_structural {
        rules::validate(&root, out);
    }
}

/// The schema of the status is taken out of it, which only works for plain objects.
fn at_root(root: &Node<'_>, out: &mut Findings) {
    let ty = root.get("type");
    if !ty.text().is_empty() && ty.text() != "object" {
        out.push(ty.invalid(
            "only \"object\" is allowed as the type at the root of the schema if the status \
             subresource is enabled",
        ));
        return;
    }
    let members = root.value.as_object().into_iter().flatten();
    let is_empty = |value: &serde_json::Value| {
        value.is_null()
            || *value == false
            || *value == ""
            || value.as_array().is_some_and(Vec::is_empty)
    };
    let mut given = members.filter(|(_, value)| !is_empty(value)).map(|(name, _)| name);
    if given.any(|name| !AT_ROOT.iter().any(|(_, json)| json == name)) {
        let allowed: Vec<&str> = AT_ROOT.iter().map(|(go, _)| *go).collect();
        let detail = format!(
            "only [{}] fields are allowed at the root of the schema if the status subresource is \
             enabled",
            allowed.join(" ")
        );
        out.push(root.invalid(detail).shown_as(SCHEMA));
    }
}

pub(super) fn subresources(subresources: &Node<'_>, out: &mut Findings) {
    let scale = subresources.get("scale");
    if !scale.is_set() {
        return;
    }
    for (field, prefix) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
        let path = scale.get(field);
        if path.require(out) && simple_path(&path, out) && !path.text().starts_with(prefix) {
            let under = prefix.trim_end_matches('.');
            out.push(path.invalid(format!("should be a json path under {under}")));
        }
    }
    let selector = scale.get("labelSelectorPath");
    let text = selector.text();
    if !text.is_empty()
        && simple_path(&selector, out)
        && !text.starts_with(".spec.")
        && !text.starts_with(".status.")
    {
        out.push(selector.invalid("should be a json path under either .spec or .status"));
    }
}

fn simple_path(path: &Node<'_>, out: &mut Findings) -> bool {
    let is_simple = path.text().starts_with('.');
    if !is_simple {
        out.push(path.invalid("must be a simple json path starting with ."));
    }
    is_simple
}

pub(super) fn columns(columns: &Node<'_>, out: &mut Findings) {
    for column in columns.items() {
        column.get("name").require(out);
        let (ty, format) = (column.get("type"), column.get("format"));
        let detail = format!("must be one of {}", COLUMN_TYPES.join(","));
        if ty.text().is_empty() {
            out.push(FieldError::required(&ty.path, detail));
        } else if !COLUMN_TYPES.contains(&ty.text()) {
            out.push(ty.invalid(detail));
        }
        if !format.text().is_empty() && !COLUMN_FORMATS.contains(&format.text()) {
            out.push(format.invalid(format!("must be one of {}", COLUMN_FORMATS.join(","))));
        }
        let path = column.get("jsonPath").under(column.path.child("JSONPath"));
        if path.require(out) {
            simple_path(&path, out);
        }
    }
}
