//! From the bytes of a request to the working form of an object.

use http::HeaderMap;
use meta::{GroupVersion, GroupVersionKind, Status};
use schema::{Decoded, FieldValidation, Type};
use serde_json::{Value, json};

use crate::context::RequestContext;
use crate::errors::bad_request;
use crate::negotiate::{Encoding, body_encoding};
use crate::query::Query;
use crate::resources::Resource;

/// Reads the `fieldValidation` parameter.
pub(crate) fn field_validation(query: &Query, verb: &str) -> Result<FieldValidation, Status> {
    let kind = crate::context::options_kind(verb);
    read_field_validation(query)
        .map_err(|cause| crate::errors::invalid("meta.k8s.io", kind, "", vec![cause]))
}

/// The same, with the finding alone.
pub(crate) fn read_field_validation(query: &Query) -> Result<FieldValidation, meta::Cause> {
    match query.get("fieldValidation").unwrap_or_default() {
        "" | "Warn" => Ok(FieldValidation::Warn),
        "Ignore" => Ok(FieldValidation::Ignore),
        "Strict" => Ok(FieldValidation::Strict),
        other => Err(meta::Cause {
            reason: "FieldValueNotSupported".to_owned(),
            message: format!(
                "Unsupported value: {other:?}: supported values: \"\", \"Ignore\", \"Strict\", \
                 \"Warn\""
            ),
            field: "fieldValidation".to_owned(),
        }),
    }
}

/// Decodes the body as an object of the resource.
pub(crate) fn object(
    ctx: &RequestContext,
    bytes: &[u8],
    resource: &Resource,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    let Some(version) = &resource.custom else {
        return body(ctx, bytes, &resource.gvk, resource.ty, validation);
    };
    let decoded = crate::custom::decode::body(ctx, bytes, resource, version, validation)?;
    crate::audit::requested(ctx, &resource.gvk, resource.ty, &decoded.value);
    Ok(decoded)
}

/// Decodes the body as an object of the wanted kind.
pub(crate) fn body(
    ctx: &RequestContext,
    bytes: &[u8],
    wanted: &GroupVersionKind,
    ty: &Type,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    let decoded = read(&ctx.headers, bytes, wanted, ty, validation)?;
    crate::audit::requested(ctx, wanted, ty, &decoded.value);
    Ok(decoded)
}

fn read(
    headers: &HeaderMap,
    bytes: &[u8],
    wanted: &GroupVersionKind,
    ty: &Type,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    match body_encoding(headers)? {
        Encoding::Protobuf => protobuf(bytes, wanted),
        Encoding::Yaml => {
            let parsed = schema::yaml_to_value(bytes);
            let (value, _) = parsed
                .map_err(|error| bad_request(unrecognized(wanted, &error.to_string(), bytes)))?;
            let text = value.to_string();
            let found = type_of(text.as_bytes(), wanted)
                .map_err(|error| bad_request(unrecognized(wanted, &error, bytes)))?;
            check_kind(&found, wanted)?;
            let decoded = schema::decode_yaml(ty, bytes, validation);
            finish(
                decoded.map_err(|error| cannot_handle(&found, wanted, &error.to_string()))?,
                wanted,
            )
        }
        Encoding::Json | Encoding::PrettyJson => json_body(bytes, wanted, ty, validation),
    }
}

fn json_body(
    bytes: &[u8],
    wanted: &GroupVersionKind,
    ty: &Type,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    let decoded = schema::decode_json(ty, bytes, validation);
    // Nearly all are what they should be, and need not be read twice to be sure of it.
    let decoded = match decoded {
        Ok(decoded) if says(&decoded.value, wanted) => return finish(decoded, wanted),
        decoded => decoded,
    };
    let found =
        type_of(bytes, wanted).map_err(|error| bad_request(unrecognized(wanted, &error, bytes)))?;
    check_kind(&found, wanted)?;
    let decoded = decoded.map_err(|error| cannot_handle(&found, wanted, &error.to_string()))?;
    finish(decoded, wanted)
}

/// Whether an object says that it is of this kind.
fn says(object: &Value, wanted: &GroupVersionKind) -> bool {
    let text = |field: &str| object.get(field).and_then(Value::as_str);
    let version =
        text("apiVersion").map(|version| version.split_once('/').unwrap_or(("", version)));
    text("kind") == Some(&*wanted.kind) && version == Some((&*wanted.group, &*wanted.version))
}

fn protobuf(bytes: &[u8], wanted: &GroupVersionKind) -> Result<Decoded, Status> {
    let refused = |error: String| bad_request(unrecognized(wanted, &error, bytes));
    let (gvk, value) =
        schema::decode_protobuf(bytes).map_err(|error| refused(error.to_string()))?;
    check_kind(&gvk, wanted)?;
    finish(Decoded { value, warnings: Vec::new() }, wanted)
}

/// The kind the bytes say they are; what they do not say is as wanted.
fn type_of(bytes: &[u8], wanted: &GroupVersionKind) -> Result<GroupVersionKind, String> {
    let found = schema::read_type_meta(bytes).map_err(|error| error.to_string())?;
    let group_version = match found.api_version.as_str() {
        "" => wanted.group_version(),
        text => GroupVersion::parse(text)
            .ok_or_else(|| format!("unexpected GroupVersion string: {text}"))?,
    };
    let kind = if found.kind.is_empty() { wanted.kind.clone() } else { found.kind };
    Ok(GroupVersionKind { group: group_version.group, version: group_version.version, kind })
}

fn check_kind(found: &GroupVersionKind, wanted: &GroupVersionKind) -> Result<(), Status> {
    match mismatch(found, wanted) {
        Some(why) => Err(cannot_handle(found, wanted, &why)),
        None => Ok(()),
    }
}

/// Why an object of one kind is none of another; `None` when it is.
pub(crate) fn mismatch(found: &GroupVersionKind, wanted: &GroupVersionKind) -> Option<String> {
    if found == wanted {
        return None;
    }
    if schema::registry().kind(found).is_none() {
        let version = found.group_version();
        // Upstream's server for these is one of its own.
        let scheme = match wanted.group.as_str() {
            "apiextensions.k8s.io" => {
                "k8s.io/apiextensions-apiserver/pkg/apiserver/apiserver.go:55"
            }
            _ => "pkg/api/legacyscheme/scheme.go:30",
        };
        return Some(format!(
            "no kind {:?} is registered for version {:?} in scheme {:?}",
            found.kind,
            version.to_string(),
            scheme
        ));
    }
    Some(format!(
        "converting ({}.{}) to ({}.{}): unknown conversion",
        found.version,
        found.kind,
        internal_package(&wanted.group),
        wanted.kind
    ))
}

/// Upstream's Go package of a group's unversioned types.
fn internal_package(group: &str) -> &str {
    match group {
        "" => "core",
        "rbac.authorization.k8s.io" => "rbac",
        group => group.split('.').next().unwrap_or(group),
    }
}

/// Upstream's Go type of the objects of a kind, as its messages name it.
pub(crate) fn go_type(gvk: &GroupVersionKind, suffix: &str) -> String {
    format!("*{}.{}{suffix}", internal_package(&gvk.group), gvk.kind)
}

pub(crate) fn cannot_handle(
    found: &GroupVersionKind,
    wanted: &GroupVersionKind,
    why: &str,
) -> Status {
    bad_request(format!(
        "{} in version {:?} cannot be handled as a {}: {why}",
        found.kind, found.version, wanted.kind
    ))
}

pub(crate) fn unrecognized(wanted: &GroupVersionKind, why: &str, bytes: &[u8]) -> String {
    // Upstream shows the beginning of what it could not read: as text when it looks like JSON.
    const SHOWN: usize = 30;
    let begins = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let start = &bytes[..bytes.len().min(SHOWN)];
    let shown = match bytes {
        [] => "<empty>".to_owned(),
        _ if begins => String::from_utf8_lossy(start).into_owned(),
        _ => start.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    let more = if bytes.len() > SHOWN { " ..." } else { "" };
    format!(
        "the object provided is unrecognized (must be of type {}): {why} ({shown}{more})",
        wanted.kind
    )
}

fn finish(mut decoded: Decoded, wanted: &GroupVersionKind) -> Result<Decoded, Status> {
    if !decoded.value.is_object() {
        decoded.value = json!({});
    }
    stamp(&mut decoded.value, wanted);
    Ok(decoded)
}

/// Puts kind and version in.
pub(crate) fn stamp(object: &mut Value, gvk: &GroupVersionKind) {
    object["kind"] = json!(gvk.kind);
    object["apiVersion"] = json!(gvk.group_version().to_string());
}
