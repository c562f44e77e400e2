//! Selectable fields of custom resources.
//!
//! They are those of the version of the request. Where a webhook converts, they are looked at in the
//! converted objects; otherwise headers have them.

use std::collections::HashSet;
use std::sync::Arc;

use meta::{FieldOperator, FieldSelector, Object};
use serde_json::Value;

use super::kind::{CustomVersion, field_text};
use crate::resources::Resource;
use cache::{Selected, Selection};

/// What a field selector calls a field, in headers.
///
/// # Errors
/// Upstream's text when the version has no such field.
pub(crate) fn resolve(version: &CustomVersion, key: &str) -> Result<String, String> {
    if matches!(key, "metadata.name" | "metadata.namespace") {
        return Ok(key.to_owned());
    }
    let definition = version.definition();
    let is_known = definition
        .is_some_and(|version| version.selectable_fields.iter().any(|field| field.key() == key));
    match version.kind.field(key).filter(|_| is_known) {
        Some(_) if version.kind.hook.is_some() => Ok(key.to_owned()),
        Some(name) => Ok(name.to_owned()),
        None => Err(format!("field label not supported: {key}")),
    }
}

/// The selector that converted objects are held against; `None` when headers do.
pub(crate) fn afterwards(resource: &Resource, fields: &FieldSelector) -> Option<FieldSelector> {
    resource.custom.as_ref().filter(|version| version.kind.hook.is_some())?;
    let is_custom = fields
        .requirements()
        .iter()
        .any(|one| !matches!(one.key.as_str(), "metadata.name" | "metadata.namespace"));
    is_custom.then(|| fields.clone())
}

/// The selection by which objects are found before they are converted.
pub(crate) fn before(selection: Selection) -> Selection {
    let name = selection.fields.exact("metadata.name").map(|name| format!("metadata.name={name}"));
    let fields = FieldSelector::parse(&name.unwrap_or_default());
    Selection { fields: fields.unwrap_or_else(|_| FieldSelector::everything()), ..selection }
}

/// Whether a converted object is meant.
pub(crate) fn matches(fields: &FieldSelector, object: &Object) -> bool {
    let Ok(value) = object.decode::<Value>() else { return false };
    fields.requirements().iter().all(|one| {
        let is_equal = field_text(&value, &one.key) == one.value;
        is_equal == (one.operator == FieldOperator::Equals)
    })
}

/// A watch by fields of converted objects: who has been in sight.
pub(crate) struct Sight {
    fields: FieldSelector,
    seen: HashSet<String>,
}

impl Sight {
    pub(crate) fn new(fields: FieldSelector) -> Self {
        Self { fields, seen: HashSet::new() }
    }

    /// What a change is to this watch; `None` when it is nothing.
    pub(crate) fn follow(&mut self, change: &Selected, object: Arc<Object>) -> Option<Selected> {
        let key = object.header().key().to_string();
        let is_gone = matches!(change, Selected::Deleted(_));
        if is_gone || !matches(&self.fields, &object) {
            return self.seen.remove(&key).then_some(Selected::Deleted(object));
        }
        Some(match self.seen.insert(key) {
            true => Selected::Added(object),
            false => Selected::Modified(object),
        })
    }
}
