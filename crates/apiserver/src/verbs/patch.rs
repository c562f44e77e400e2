//! PATCH of an object or of a part of it: JSON patch, merge patch, strategic merge patch; what is
//! applied goes on to [`super::apply`].

use std::collections::BTreeMap;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Response};
use meta::{GroupVersionKind, Reason, Status};
use schema::{DecodeError, Decoded, FieldValidation, Type};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{answer, object_form};
use crate::audit;
use crate::context::WriteRequest;
use crate::decode::{self, stamp};
use crate::errors;
use crate::options::WriteOptions;
use crate::render;
use crate::resources::Resource;
use crate::strategy::apply_approval;
use crate::write::{self, Creates, Part, Update};
use connection::Body;

/// The sort of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatchType {
    Json,
    Merge,
    Strategic,
    Apply,
}

pub(crate) async fn patch(
    request: &WriteRequest<'_>,
    resource: &Resource,
    part: Part,
) -> Result<Response<Body>, Status> {
    let ctx = request.ctx;
    let patch_type = PatchType::read(&ctx.headers)?;
    if patch_type == PatchType::Apply {
        return super::apply::apply(request, resource, part).await;
    }
    let form = object_form(ctx)?;
    let options = WriteOptions::of_patch(ctx, false)?;
    audit::requested_patch(ctx, patch_type, &request.body);
    let update = Update {
        namespace: &ctx.info.namespace,
        name: &ctx.info.name,
        part,
        is_dry_run: options.is_dry_run,
        creates: Creates::Never,
        manager: Some(&options.manager),
    };
    let is_approval = ctx.info.subresource == "approval";
    let now = meta::time::rfc3339(ctx.server.clock.now());
    let (name, validation) = (ctx.info.name.as_str(), options.validation);
    let patch = Patch { patch_type, body: &request.body, name, validation };
    let change = |old: Option<&Value>| {
        let old =
            old.ok_or_else(|| errors::not_found(&resource.group_resource(), &ctx.info.name))?;
        let decoded = match &resource.custom {
            Some(version) => crate::custom::patch::apply(&patch, resource, version, old)?,
            None => patch.apply(resource.ty, &resource.gvk, old)?,
        };
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

impl PatchType {
    /// The type that the headers of a request name.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, Status> {
        let header = headers.get(CONTENT_TYPE);
        let text = header.and_then(|value| value.to_str().ok()).unwrap_or_default();
        match text.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            super::apply::MEDIA_TYPE => Ok(Self::Apply),
            _ => Err(Status::failure(Reason::UnsupportedMediaType, "415: Unsupported Media Type")
                .with_details(meta::StatusDetails::default())),
        }
    }
}

/// A patch that is not a configuration.
pub(crate) struct Patch<'a> {
    pub(crate) patch_type: PatchType,
    pub(crate) body: &'a [u8],
    /// The name in the path.
    pub(crate) name: &'a str,
    pub(crate) validation: FieldValidation,
}

impl Patch<'_> {
    /// The patched working form, decoded anew so that types are checked.
    pub(crate) fn apply(
        &self,
        ty: &Type,
        gvk: &GroupVersionKind,
        old: &Value,
    ) -> Result<Decoded, Status> {
        if let Some(value) = self.merge_touched(ty, old) {
            let mut decoded = Decoded { value, warnings: Vec::new() };
            super::apply::check_named(&decoded.value, self.name)?;
            stamp(&mut decoded.value, gvk);
            return Ok(decoded);
        }
        let managed = apply::managed_fields(old);
        if !managed.is_empty() && self.leaves_managed_fields() {
            // They are half of many an object, and would be printed and read for nothing.
            let mut bare = old.clone();
            apply::take_managed_fields(&mut bare);
            if let Ok(mut decoded) = self.apply_to(ty, gvk, &bare) {
                apply::put_managed_fields(&mut decoded.value, managed.to_vec());
                return Ok(decoded);
            }
            // What is wrong is told with all of the object.
        }
        self.apply_to(ty, gvk, old)
    }

    /// The patched working form, when the patch merges and nothing about it is odd.
    fn merge_touched(&self, ty: &Type, old: &Value) -> Option<Value> {
        let merge = match self.patch_type {
            PatchType::Merge => patch::Merge::Plain,
            PatchType::Strategic => patch::Merge::Strategic,
            PatchType::Json | PatchType::Apply => return None,
        };
        if !self.findings(ty, self.validation).is_empty() {
            return None;
        }
        patch::merge_touched(ty, old, self.body, merge)
    }

    /// Whether the patch does not touch managed fields. It merges, and does not name them.
    fn leaves_managed_fields(&self) -> bool {
        let text = String::from_utf8_lossy(self.body);
        matches!(self.patch_type, PatchType::Merge | PatchType::Strategic)
            && ["managedFields", "\\u", "$patch", "$retainKeys"]
                .iter()
                .all(|word| !text.contains(word))
    }

    fn apply_to(&self, ty: &Type, gvk: &GroupVersionKind, old: &Value) -> Result<Decoded, Status> {
        // Patches are made against what clients see, with the fields that are always printed.
        let json = render::encode(ty, old);
        let document: Value = serde_json::from_slice(&json).map_err(errors::internal)?;
        let patched = match self.patch_type {
            PatchType::Json => patch::json(&document, self.body),
            PatchType::Merge => patch::merge(document, self.body),
            PatchType::Strategic | PatchType::Apply => {
                patch::strategic_merge(ty, &document, self.body)
            }
        }
        .map_err(|error| refused(&error))?;
        if let Some(error) = other_kind(gvk, &patched) {
            return Err(self.undecodable(&json, &patched, &error));
        }
        let relaxed = match self.validation {
            FieldValidation::Ignore => FieldValidation::Ignore,
            FieldValidation::Warn | FieldValidation::Strict => FieldValidation::Warn,
        };
        let decoded = schema::decode_value(ty, &patched, relaxed).and_then(|mut decoded| {
            let mut findings = self.findings(ty, relaxed);
            findings.append(&mut decoded.warnings);
            if self.validation == FieldValidation::Strict && !findings.is_empty() {
                return Err(DecodeError::Strict(findings));
            }
            Ok(Decoded { warnings: findings, ..decoded })
        });
        let mut decoded = decoded.map_err(|error| {
            let error = self.reworded(ty, &patched).unwrap_or(error);
            self.undecodable(&json, &patched, &error)
        })?;
        super::apply::check_named(&decoded.value, self.name)?;
        stamp(&mut decoded.value, gvk);
        Ok(decoded)
    }

    /// After a strategic merge patch upstream converts where otherwise it decodes.
    fn reworded(&self, ty: &Type, patched: &Value) -> Option<DecodeError> {
        if self.patch_type != PatchType::Strategic {
            return None;
        }
        patch::conversion_error(ty, patched).map(DecodeError::Type)
    }

    /// What is odd about the patch itself.
    fn findings(&self, ty: &Type, validation: FieldValidation) -> Vec<String> {
        if validation == FieldValidation::Ignore {
            return Vec::new();
        }
        if self.patch_type == PatchType::Json {
            return patch::json_unknown_fields(self.body);
        }
        // Unknown fields show in the result; fields given twice only here.
        let decoded = schema::decode_json(ty, self.body, validation).unwrap_or_default();
        let mut findings = decoded.warnings;
        findings.retain(|finding| finding.starts_with("duplicate field"));
        findings
    }

    /// What the patch made is not an object of the kind.
    pub(crate) fn undecodable(
        &self,
        before: &[u8],
        patched: &Value,
        error: &dyn std::fmt::Display,
    ) -> Status {
        let shown = match self.patch_type {
            PatchType::Json | PatchType::Merge => {
                print(serde_json::from_slice(before).ok(), patched)
            }
            PatchType::Strategic | PatchType::Apply => {
                let patch = serde_json::from_slice(self.body).unwrap_or_default();
                patch::go_print(&patch)
            }
        };
        let cause = meta::Cause {
            reason: "FieldValueInvalid".to_owned(),
            message: format!("Invalid value: {shown:?}: {error}"),
            field: "patch".to_owned(),
        };
        errors::invalid("", "", "", vec![cause])
    }
}

/// A patched document as upstream prints it: what the patch touches has its members sorted, the rest
/// is as it was.
fn print(before: Option<&RawValue>, after: &Value) -> String {
    let text = before.map(RawValue::get);
    let is_same = |text: &str| serde_json::from_str::<Value>(text).is_ok_and(|v| v == *after);
    if let Some(text) = text.filter(|text| is_same(text)) {
        // Only an object that a patch goes through is taken apart.
        return text.to_owned();
    }
    match after {
        Value::Object(map) => print_object(text, map),
        other => other.to_string(),
    }
}

fn print_object(before: Option<&str>, map: &serde_json::Map<String, Value>) -> String {
    let before: BTreeMap<String, &RawValue> =
        before.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let members: Vec<String> = map
        .iter()
        .map(|(key, value)| {
            let key = Value::from(key.as_str());
            format!("{key}:{}", print(before.get(key.as_str().unwrap_or_default()).copied(), value))
        })
        .collect();
    format!("{{{}}}", members.join(","))
}

pub(crate) fn refused(error: &patch::PatchError) -> Status {
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

/// Why the patched object is not of the kind any more. Upstream decodes whatever it says it is
/// before it looks at the kind.
fn other_kind(wanted: &GroupVersionKind, patched: &Value) -> Option<DecodeError> {
    let text = |field: &str| patched[field].as_str().unwrap_or_default();
    let version = meta::GroupVersion::parse(text("apiVersion"))?;
    if text("kind").is_empty() || text("apiVersion").is_empty() {
        return None;
    }
    let found = GroupVersionKind::new(version.group, version.version, text("kind"));
    let why = DecodeError::Type(decode::mismatch(&found, wanted)?);
    let other = schema::registry().kind(&found);
    let unfit =
        other.and_then(|ty| schema::decode_value(ty, patched, FieldValidation::Ignore).err());
    Some(unfit.unwrap_or(why))
}
