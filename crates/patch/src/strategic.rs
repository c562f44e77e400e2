//! Strategic merge patch.
//!
//! Semantics and error texts: upstream `apimachinery/pkg/util/strategicpatch`. The directives are
//! `$patch` (in maps and list items), `$retainKeys`, `$deleteFromPrimitiveList/field` and
//! `$setElementOrder/field`.

mod order;

use schema::{Field, Kind, Type};
use serde_json::{Map, Value};

use crate::PatchError;
use crate::go_print::{go_print, go_type};
use crate::merge_patch;

pub(crate) const DIRECTIVE: &str = "$patch";
pub(crate) const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

type Object = Map<String, Value>;

/// Applies a strategic merge patch to an object of a type.
///
/// # Errors
/// When the patch is not a JSON object or has a malformed directive.
pub fn strategic_merge(ty: &Type, document: &Value, patch: &[u8]) -> Result<Value, PatchError> {
    let patch = merge_patch::parse(patch)
        .or_else(|text| text.map_or(Ok(Map::new()), Err))
        .map_err(PatchError::Malformed)?;
    let original = document.as_object().cloned().unwrap_or_default();
    merge_struct(ty, original, patch)
}

/// Merges a parsed patch into an object of a type.
pub(crate) fn merge_struct(
    ty: &Type,
    original: Object,
    patch: Object,
) -> Result<Value, PatchError> {
    merge_map(original, patch, Shape::Struct(ty)).map(Value::Object)
}

/// What the table says about the members of an object.
#[derive(Clone, Copy)]
pub(crate) enum Shape<'a> {
    Struct(&'a Type),
    MapOf(&'a Kind),
    Unknown,
}

impl<'a> Shape<'a> {
    fn of(kind: &'a Kind) -> Self {
        match kind {
            Kind::Struct(ty) => Shape::Struct(ty.get()),
            Kind::Map(item) => Shape::MapOf(item),
            Kind::List(item) => Shape::of(item),
            _ => Shape::Unknown,
        }
    }

    fn field(self, key: &str) -> Option<&'a Field> {
        match self {
            Shape::Struct(ty) => ty.field(key),
            Shape::MapOf(_) | Shape::Unknown => None,
        }
    }

    /// The shape of a member, or of the items of a member that is a list.
    fn member(self, key: &str) -> Self {
        match self {
            Shape::Struct(ty) => ty.field(key).map_or(Shape::Unknown, |f| Shape::of(&f.kind)),
            Shape::MapOf(item) => Shape::of(item),
            Shape::Unknown => Shape::Unknown,
        }
    }
}

fn merge_map(
    mut original: Object,
    mut patch: Object,
    shape: Shape<'_>,
) -> Result<Object, PatchError> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Map::new()),
            _ => Err(bad_directive(directive, patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    order::merge_ordered_lists(&mut original, &mut patch, shape)?;
    for (key, value) in patch {
        let (key, deletes) = match key.strip_prefix(DELETE_FROM) {
            Some(field) => (field.to_owned(), true),
            None => (key, false),
        };
        if deletes && !value.is_array() {
            return Err(bad_type(&Value::Array(Vec::new()), &value));
        }
        if value.is_null() {
            original.remove(&key);
            continue;
        }
        match original.remove(&key) {
            None if deletes => {}
            None => take_over(&mut original, key, value),
            Some(Value::Object(before)) if value.is_object() => {
                let replaces = shape.field(&key).is_some_and(|field| {
                    field.patch_strategy.split(',').any(|word| word == "replace")
                });
                let merged = match value {
                    value if replaces => value,
                    Value::Object(value) => {
                        Value::Object(merge_map(before, value, shape.member(&key))?)
                    }
                    other => other,
                };
                original.insert(key, merged);
            }
            Some(Value::Array(before)) if value.is_array() => {
                let Value::Array(items) = value else { continue };
                let merged = merge_member_list(before, items, &key, deletes, shape)?;
                original.insert(key, Value::Array(merged));
            }
            Some(before) if deletes => {
                original.insert(key, before);
            }
            Some(before) if std::mem::discriminant(&before) != std::mem::discriminant(&value) => {
                take_over(&mut original, key, value);
            }
            Some(_) => {
                original.insert(key, value);
            }
        }
    }
    Ok(original)
}

/// A value that has nothing to be merged with: without its nulls and directives.
fn take_over(original: &mut Object, key: String, mut value: Value) {
    discard_nulls(&mut value);
    if let Some(value) = without_directives(value) {
        original.insert(key, value);
    }
}

fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(directive) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(keys) = &directive else {
        return Err(bad_type(&Value::Array(Vec::new()), &directive));
    };
    let kept = |key: &str| keys.iter().any(|kept| kept == key);
    let names = |key: &str| key.rsplit('/').next().unwrap_or(key).to_owned();
    // Whatever the patch sets must be among what it keeps.
    if patch.iter().any(|(key, value)| !value.is_null() && !kept(&names(key))) {
        return Err(PatchError::Unmergeable("invalid patch format of retainKeys".to_owned()));
    }
    original.retain(|key, _| kept(key));
    Ok(())
}

/// Lists of a member: merged if the table says so, else replaced.
fn merge_member_list(
    original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
    deletes: bool,
    shape: Shape<'_>,
) -> Result<Vec<Value>, PatchError> {
    let field = shape.field(key);
    if !deletes && !field.is_some_and(Field::merges) {
        return Ok(patch);
    }
    let merge_key = field.map_or("", |field| &*field.patch_merge_key);
    merge_list(original, patch, merge_key, deletes, shape.member(key))
}

fn merge_list(
    original: Vec<Value>,
    patch: Vec<Value>,
    merge_key: &str,
    deletes: bool,
    shape: Shape<'_>,
) -> Result<Vec<Value>, PatchError> {
    let Some(first) = original.first().or(patch.first()) else { return Ok(original) };
    if !first.is_object() {
        if deletes {
            return Ok(original.into_iter().filter(|item| !patch.contains(item)).collect());
        }
        let mut merged: Vec<Value> = Vec::with_capacity(original.len() + patch.len());
        for item in original.iter().chain(&patch) {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        return Ok(order::arrange(merged, &patch, &original, merge_key));
    }
    if merge_key.is_empty() {
        return Err(PatchError::Unmergeable("cannot merge lists without merge key".to_owned()));
    }
    let (original, patch) = special_items(original, patch, merge_key)?;
    let mut merged = original.clone();
    for item in &patch {
        let Value::Object(item) = item else {
            return Err(bad_type(&Value::Object(Map::new()), item));
        };
        let Some(wanted) = item.get(merge_key) else { return Err(no_merge_key(item, merge_key)) };
        match merged.iter_mut().find(|found| found.get(merge_key) == Some(wanted)) {
            Some(found) => {
                let before = found.as_object().cloned().unwrap_or_default();
                *found = Value::Object(merge_map(before, item.clone(), shape)?);
            }
            None => {
                let mut item = Value::Object(item.clone());
                discard_nulls(&mut item);
                merged.extend(without_directives(item));
            }
        }
    }
    Ok(order::arrange(merged, &patch, &original, merge_key))
}

/// Carries out list items that are directives; what remains of the original and of the patch.
fn special_items(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    merge_key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let (mut plain, mut replaces) = (Vec::new(), false);
    for item in patch {
        let Some(directive) = item.get(DIRECTIVE) else {
            plain.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => match item.get(merge_key) {
                Some(wanted) => original.retain(|found| found.get(merge_key) != Some(wanted)),
                None => {
                    let item = item.as_object().cloned().unwrap_or_default();
                    return Err(no_merge_key(&item, merge_key));
                }
            },
            Some("replace") => replaces = true,
            Some("merge") => {
                return Err(PatchError::Unmergeable(
                    "merging lists cannot yet be specified in the patch".to_owned(),
                ));
            }
            _ => {
                let directive = directive.clone();
                let mut item = item.as_object().cloned().unwrap_or_default();
                item.remove(DIRECTIVE);
                return Err(bad_directive(directive, item));
            }
        }
    }
    Ok(if replaces { (plain, Vec::new()) } else { (original, plain) })
}

fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(discard_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}

/// The value without directives; `None` for a map that is one.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => None,
        Value::Object(map) => {
            let is_directive = |key: &str| {
                key == RETAIN_KEYS || key.starts_with(DELETE_FROM) || key.starts_with(SET_ORDER)
            };
            let kept = map.into_iter().filter(|(key, _)| !is_directive(key));
            let kept = kept.filter_map(|(key, value)| Some((key, without_directives(value)?)));
            Some(Value::Object(kept.collect()))
        }
        Value::Array(items) => {
            Some(Value::Array(items.into_iter().filter_map(without_directives).collect()))
        }
        other => Some(other),
    }
}

fn bad_directive(directive: Value, mut patch: Object) -> PatchError {
    let name = go_print(&directive);
    patch.insert(DIRECTIVE.to_owned(), directive);
    let printed = go_print(&Value::Object(patch));
    PatchError::Unmergeable(format!("unknown patch type: {name} in map: {printed}"))
}

fn bad_type(expected: &Value, found: &Value) -> PatchError {
    let (expected, found) = (go_type(expected), go_type(found));
    PatchError::Unmergeable(format!("expected a {expected}, but received a {found}"))
}

fn no_merge_key(item: &Object, merge_key: &str) -> PatchError {
    let printed = go_print(&Value::Object(item.clone()));
    PatchError::Unmergeable(format!(
        "map: {printed} does not contain declared merge key: {merge_key}"
    ))
}

#[cfg(test)]
mod tests;
