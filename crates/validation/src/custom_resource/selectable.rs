//! Fields that lists can be narrowed by.

use std::collections::BTreeSet;

use crate::FieldError;
use crate::node::{Findings, Node};

const MAX_FIELDS: usize = 8;

pub(super) fn fields(fields: &Node<'_>, schema: &Node<'_>, out: &mut Findings) {
    let mut seen = BTreeSet::new();
    for field in fields.items() {
        let path = field.get("jsonPath");
        if !path.require(out) {
            continue;
        }
        let (names, found) = match find(path.text(), schema) {
            Ok(found) => found,
            Err(why) => {
                out.push(path.invalid(format!("is an invalid path: {why}")));
                continue;
            }
        };
        if names.first() == Some(&"metadata") {
            out.push(path.invalid("must not point to fields in metadata"));
        }
        if !matches!(found.get("type").text(), "string" | "boolean" | "integer") {
            out.push(path.invalid(
                "must point to a field of type string, boolean or integer. Enum string fields and \
                 strings with formats are allowed.",
            ));
        }
        if !seen.insert(names) {
            out.push(FieldError::duplicate(&path.path, path.text()));
        }
    }
    if seen.len() > MAX_FIELDS {
        out.push(FieldError::too_many(&fields.path, seen.len(), MAX_FIELDS));
    }
}

/// The names of a path in dots, and the schema that they lead to.
pub(super) fn find<'a, 'b>(
    path: &'b str,
    schema: &Node<'a>,
) -> Result<(Vec<&'b str>, Node<'a>), String> {
    let (mut names, mut at) = (Vec::new(), schema.clone());
    let mut rest = path;
    while !rest.is_empty() {
        if rest.starts_with('[') {
            return Err("array notation is not allowed".to_owned());
        }
        let Some(after) = rest.strip_prefix('.') else {
            let end = rest.find(['.', '[', ']']).unwrap_or(rest.len()).max(1);
            return Err(format!("expected [ or . but got: {}", rest.get(..end).unwrap_or(rest)));
        };
        if after.is_empty() {
            return Err("unexpected end of JSON path".to_owned());
        }
        let end = after.find(['.', '[', ']']).unwrap_or(after.len());
        let (name, tail) = after.split_at(end);
        let properties = at.get("properties");
        let found = properties.entries().find(|(key, _)| *key == name).map(|(_, found)| found);
        let further = at.get("additionalProperties");
        at = match found {
            Some(found) => found,
            None if properties.len() == 0 && further.value.is_object() => further,
            None => return Err("does not refer to a valid field".to_owned()),
        };
        names.push(name);
        rest = tail;
    }
    Ok((names, at))
}
