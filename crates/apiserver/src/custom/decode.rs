//! From the bytes of a request to an object of a custom resource.

use meta::{Reason, Status};
use schema::{Decoded, FieldValidation};
use serde_json::Value;

use super::kind::CustomVersion;
use crate::context::RequestContext;
use crate::decode::{cannot_handle as refused, unrecognized};
use crate::errors::bad_request;
use crate::negotiate::{Encoding, body_encoding};
use crate::resources::Resource;

const MEDIA: &str = "application/json, application/yaml";

/// Decodes the body as an object of the resource: pruned, defaulted, its metadata in form.
pub(crate) fn body(
    ctx: &RequestContext,
    bytes: &[u8],
    resource: &Resource,
    version: &CustomVersion,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    let refuse = |why: String| bad_request(unrecognized(&resource.gvk, &why, bytes));
    let (value, duplicates) = match body_encoding(&ctx.headers) {
        Ok(Encoding::Json | Encoding::PrettyJson) => {
            let decoded = schema::decode_untyped(bytes, validation).map_err(|error| {
                refuse(format!("couldn't get version/kind; json parse error: {error}"))
            })?;
            (decoded.value, decoded.warnings)
        }
        Ok(Encoding::Yaml) => {
            let (value, duplicates) =
                schema::yaml_to_value(bytes).map_err(|error| refuse(error.to_string()))?;
            (value, of_yaml(duplicates, validation))
        }
        Ok(Encoding::Protobuf) | Err(_) => return Err(unsupported_media()),
    };
    if value["kind"].as_str().unwrap_or_default().is_empty() {
        let text = String::from_utf8_lossy(bytes);
        return Err(refuse(format!("Object 'Kind' is missing in '{text}'")));
    }
    let found = value["apiVersion"].as_str().unwrap_or_default().to_owned();
    let decoded = fitted(value, duplicates, resource, version, validation)
        .map_err(|why| cannot_handle(resource, &why))?;
    let wanted = version.api_version();
    if found != wanted {
        let why = format!(
            "the API version in the data ({found}) does not match the expected API version \
             ({wanted})"
        );
        decoded.warnings.iter().for_each(|warning| ctx.warn(warning));
        return Err(bad_request(why));
    }
    Ok(decoded)
}

/// Brings a parsed object into the form of the version. Objects of another kind are left as they
/// are, for validation to refuse.
///
/// # Errors
/// What does not fit, or is odd although strictness was asked for.
pub(crate) fn fitted(
    mut value: Value,
    duplicates: Vec<String>,
    resource: &Resource,
    version: &CustomVersion,
    validation: FieldValidation,
) -> Result<Decoded, String> {
    let group = value["apiVersion"].as_str().and_then(|text| text.split_once('/'));
    let is_of_kind = value["kind"] == *resource.gvk.kind
        && group.is_some_and(|(group, _)| group == resource.gvk.group);
    let unknown = match version.kind.version_of(&value) {
        Some(found) if is_of_kind => found.admit(&mut value)?,
        None if is_of_kind => {
            let mut unknown = custom::coerce(&mut value, None, custom::Malformed::Refused)?;
            unknown.extend(custom::prune(&mut value, None));
            unknown
        }
        _ => custom::coerce(&mut value, None, custom::Malformed::Refused).map(|_| Vec::new())?,
    };
    if validation == FieldValidation::Ignore {
        return Ok(Decoded { value, warnings: Vec::new() });
    }
    let mut findings = duplicates;
    findings.extend(unknown.iter().map(|path| format!("unknown field \"{path}\"")));
    if validation == FieldValidation::Strict && !findings.is_empty() {
        return Err(format!("strict decoding error: {}", findings.join(", ")));
    }
    Ok(Decoded { value, warnings: findings })
}

fn of_yaml(duplicates: Vec<String>, validation: FieldValidation) -> Vec<String> {
    if validation != FieldValidation::Strict || duplicates.is_empty() {
        return duplicates;
    }
    let lines: Vec<String> = duplicates.iter().map(|text| format!("\n  {text}")).collect();
    vec![format!("yaml: unmarshal errors:{}", lines.concat())]
}

fn cannot_handle(resource: &Resource, why: &str) -> Status {
    refused(&resource.gvk, &resource.gvk, why)
}

/// 415: custom resources have no protobuf.
fn unsupported_media() -> Status {
    Status::failure(
        Reason::UnsupportedMediaType,
        format!(
            "the body of the request was in an unknown format - accepted media types include: \
             {MEDIA}"
        ),
    )
}
