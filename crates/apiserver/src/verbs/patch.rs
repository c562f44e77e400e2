//! PATCH of an object or its status: JSON patch, merge patch, strategic merge patch.

use http::Response;
use http::header::CONTENT_TYPE;
use meta::{Reason, Status};
use schema::{DecodeError, Decoded, FieldValidation};
use serde_json::Value;

use super::{answer, object_form};
use crate::body::Body;
use crate::context::WriteRequest;
use crate::decode::{self, stamp};
use crate::errors;
use crate::render;
use crate::resources::Resource;
use crate::strategy::apply_approval;
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
    let validation = decode::field_validation(&ctx.query, &ctx.info.verb)?;
    let update = Update {
        namespace: &ctx.info.namespace,
        name: &ctx.info.name,
        part,
        is_dry_run,
        may_create: false,
    };
    let is_approval = ctx.info.subresource == "approval";
    let now = meta::time::rfc3339(ctx.server.clock.now());
    let change = |old: Option<&Value>| {
        let old =
            old.ok_or_else(|| errors::not_found(&resource.group_resource(), &ctx.info.name))?;
        let decoded = apply(resource, patch_type, old, &request.body, validation)?;
        decoded.warnings.iter().for_each(|warning| ctx.warn(warning));
        let mut new = decoded.value;
        if is_approval {
            apply_approval(&mut new, old, &now);
        }
        Ok(new)
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
        _ => Err(Status::failure(Reason::UnsupportedMediaType, "415: Unsupported Media Type")
            .with_details(meta::StatusDetails::default())),
    }
}

/// The patched working form, decoded anew so that types are checked.
fn apply(
    resource: &Resource,
    patch_type: PatchType,
    old: &Value,
    body: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    // Patches are made against what clients see, with the fields that are always printed.
    let json = render::encode(resource.ty, old);
    let document: Value = serde_json::from_slice(&json).map_err(errors::internal)?;
    let patched = match patch_type {
        PatchType::Json => patch::json(&document, body),
        PatchType::Merge => patch::merge(document, body),
        PatchType::Strategic => patch::strategic_merge(resource.ty, &document, body),
    }
    .map_err(|error| refused(&error))?;
    if let Some(why) = other_kind(resource, &patched) {
        let error = DecodeError::Type(why);
        return Err(undecodable(&patched, patch_type, body, &error));
    }
    let relaxed = match validation {
        FieldValidation::Ignore => FieldValidation::Ignore,
        FieldValidation::Warn | FieldValidation::Strict => FieldValidation::Warn,
    };
    let decoded = schema::decode_value(resource.ty, &patched, relaxed);
    let decoded = decoded.and_then(|mut decoded| {
        let mut findings = findings(resource, patch_type, body, relaxed);
        findings.append(&mut decoded.warnings);
        if validation == FieldValidation::Strict && !findings.is_empty() {
            return Err(DecodeError::Strict(findings));
        }
        Ok(Decoded { warnings: findings, ..decoded })
    });
    let mut decoded = decoded.map_err(|error| undecodable(&patched, patch_type, body, &error))?;
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

/// What is odd about the patch itself.
fn findings(
    resource: &Resource,
    patch_type: PatchType,
    body: &[u8],
    validation: FieldValidation,
) -> Vec<String> {
    if validation == FieldValidation::Ignore {
        return Vec::new();
    }
    if patch_type == PatchType::Json {
        return patch::json_unknown_fields(body);
    }
    // Unknown fields show in the result; fields given twice only here.
    let decoded = schema::decode_json(resource.ty, body, validation).unwrap_or_default();
    let mut findings = decoded.warnings;
    findings.retain(|finding| finding.starts_with("duplicate field"));
    findings
}

/// Why the patched object is not of the kind any more.
fn other_kind(resource: &Resource, patched: &Value) -> Option<String> {
    let text = |field: &str| patched[field].as_str().unwrap_or_default();
    let version = meta::GroupVersion::parse(text("apiVersion"))?;
    if text("kind").is_empty() || text("apiVersion").is_empty() {
        return None;
    }
    let found = meta::GroupVersionKind::new(version.group, version.version, text("kind"));
    decode::mismatch(&found, &resource.gvk)
}

/// What the patch made is not an object of the kind.
fn undecodable(patched: &Value, patch_type: PatchType, body: &[u8], error: &DecodeError) -> Status {
    let shown = match patch_type {
        PatchType::Strategic => {
            let patch = serde_json::from_slice(body).unwrap_or_default();
            patch::go_print(&patch)
        }
        PatchType::Json | PatchType::Merge => patched.to_string(),
    };
    let cause = meta::Cause {
        reason: "FieldValueInvalid".to_owned(),
        message: format!("Invalid value: {shown:?}: {error}"),
        field: "patch".to_owned(),
    };
    errors::invalid("", "", "", vec![cause])
}
