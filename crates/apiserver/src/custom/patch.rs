//! JSON patch and merge patch of objects of custom resources.

use meta::Status;
use schema::{Decoded, FieldValidation};
use serde_json::Value;

use super::decode::fitted;
use super::kind::CustomVersion;
use crate::errors;
use crate::render;
use crate::resources::Resource;
use crate::verbs::patch::{Patch, PatchType, refused};

/// The patched object, brought into form as one of a request is.
pub(crate) fn apply(
    patch: &Patch<'_>,
    resource: &Resource,
    version: &CustomVersion,
    old: &Value,
) -> Result<Decoded, Status> {
    let before = render::encode(resource.ty, old);
    let document: Value = serde_json::from_slice(&before).map_err(errors::internal)?;
    let patched = match patch.patch_type {
        PatchType::Json => patch::json(&document, patch.body),
        _ => patch::merge(document, patch.body),
    };
    let patched = patched.map_err(|error| refused(&error))?;
    let duplicates = given_twice(patch);
    let shown = patched.clone();
    let decoded = fitted(patched, duplicates, resource, version, patch.validation);
    let decoded = decoded.map_err(|why| patch.undecodable(&before, &shown, &why))?;
    crate::verbs::apply::check_named(&decoded.value, patch.name)?;
    Ok(decoded)
}

/// Members that a merge patch gives twice; the result does not show them.
fn given_twice(patch: &Patch<'_>) -> Vec<String> {
    if patch.validation == FieldValidation::Ignore {
        return Vec::new();
    }
    match patch.patch_type {
        PatchType::Json => patch::json_unknown_fields(patch.body),
        _ => schema::decode_untyped(patch.body, patch.validation)
            .map(|decoded| decoded.warnings)
            .unwrap_or_default(),
    }
}
