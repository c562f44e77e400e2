//! PATCH of an object or its status: JSON patch, merge patch, strategic merge patch.

use http::Response;
use http::header::CONTENT_TYPE;
use meta::{Reason, Status};
use schema::DecodeError;
use serde_json::Value;

use super::{answer, object_form};
use crate::body::Body;
use crate::context::WriteRequest;
use crate::decode::{self, stamp};
use crate::errors;
use crate::render;
use crate::resources::Resource;
use crate::write::{self, Part, Update};

/// The sort of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PatchType {
    Json,
    Merge,
    Strategic,
}

pub(crate) async fn patch(
    request: &WriteRequest<'_>,
    resource: &Resource,
    part: Part,
) -> Result<Response<Body>, Status> {
    let ctx = request.ctx;
    let form = object_form(ctx)?;
    let is_dry_run = ctx.is_dry_run()?;
    let patch_type = patch_type(request)?;
    let validation = decode::field_validation(&ctx.query)?;
    let update = Update {
        namespace: &ctx.info.namespace,
        name: &ctx.info.name,
        part,
        is_dry_run,
        may_create: false,
    };
    let change = |old: Option<&Value>| {
        let old =
            old.ok_or_else(|| errors::not_found(&resource.group_resource(), &ctx.info.name))?;
        let decoded = apply(resource, patch_type, old, &request.body, validation)?;
        decoded.warnings.iter().for_each(|warning| ctx.warn(warning));
        Ok(decoded.value)
    };
    let written = write::update(ctx, resource, &update, &change).await?;
    Ok(answer(ctx, resource, &written, form))
}

fn patch_type(request: &WriteRequest<'_>) -> Result<PatchType, Status> {
    let header = request.ctx.headers.get(CONTENT_TYPE);
    let text = header.and_then(|value| value.to_str().ok()).unwrap_or_default();
    match text.split(';').next().unwrap_or_default().trim() {
        "application/json-patch+json" => Ok(PatchType::Json),
        "application/merge-patch+json" => Ok(PatchType::Merge),
        "application/strategic-merge-patch+json" => Ok(PatchType::Strategic),
        "application/apply-patch+yaml" => Err(Status::failure(
            Reason::UnsupportedMediaType,
            "server-side apply is not supported by this server yet",
        )),
        _ => Err(Status::failure(
            Reason::UnsupportedMediaType,
            "the body of the request was in an unknown format - accepted media types include: \
             application/json-patch+json, application/merge-patch+json, \
             application/strategic-merge-patch+json",
        )),
    }
}

/// The patched working form, decoded anew so that types are checked.
fn apply(
    resource: &Resource,
    patch_type: PatchType,
    old: &Value,
    body: &[u8],
    validation: schema::FieldValidation,
) -> Result<schema::Decoded, Status> {
    // Patches are made against what clients see, with the fields that are always printed.
    let json = render::encode(resource.ty, old);
    let document: Value = serde_json::from_slice(&json).map_err(errors::internal)?;
    let patched = match patch_type {
        PatchType::Json => patch::json(&document, body),
        PatchType::Merge => patch::merge(&document, body),
        PatchType::Strategic => patch::strategic_merge(resource.ty, &document, body),
    }
    .map_err(|error| refused(&error))?;
    let mut decoded = schema::decode_value(resource.ty, &patched, validation)
        .map_err(|error| undecodable(resource, &error))?;
    stamp(&mut decoded.value, &resource.gvk);
    Ok(decoded)
}

fn refused(error: &patch::PatchError) -> Status {
    let text = error.to_string();
    match error {
        patch::PatchError::Malformed(_) => errors::bad_request(text),
        patch::PatchError::Rejected => {
            Status::failure(Reason::Invalid, text).with_details(meta::StatusDetails::default())
        }
        patch::PatchError::TooManyOperations { .. } => {
            Status::failure(Reason::RequestEntityTooLarge, text)
        }
        patch::PatchError::Unmergeable(_) => errors::unexpected(text),
    }
}

fn undecodable(resource: &Resource, error: &DecodeError) -> Status {
    let gvk = &resource.gvk;
    errors::bad_request(format!(
        "{} in version {:?} cannot be handled as a {}: {error}",
        gvk.kind, gvk.version, gvk.kind
    ))
}
